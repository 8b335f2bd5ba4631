//! The process of a feed: reads a file or a live stream by FFmpeg, and makes packets of it at their times.
//!
//! What it reads is whatever people send: FFmpeg gets a descriptor and no name, opens nothing else, and tries
//! a few containers only. One thread does it all: it works a quarter of a second ahead, so that a picture
//! that takes its time to be coded delays no sound. It ends when the node closes the socket.

mod input;
mod node;
mod pace;
mod picture;
mod play;
mod sound;
mod turn;

use ffmpeg_next as ffmpeg;

use crate::core::feed::{FeedFault, FromFeed, ToFeed};
use crate::worker::process;
use crate::worker::wire::WireError;
use input::Input;
use node::Node;
use play::Play;

/// Of writable memory, of which what the allocator only reserves is a part.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// Behind the node, which forwards packets.
const NICENESS: i32 = 5;

/// Why a feed's process ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("a feed is started by a node, with a socket as its standard input: {0}")]
    NoSocket(std::io::Error),
    #[error("the node cannot be read or written: {0}")]
    Node(#[from] std::io::Error),
    #[error("FFmpeg: {0}")]
    Ffmpeg(#[from] ffmpeg::Error),
    #[error("{0}")]
    Fault(#[from] FeedFault),
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The node has enough.
    #[error("the node closed the socket")]
    Closed,
}

impl FeedError {
    /// As the node is told.
    fn fault(&self) -> FeedFault {
        match self {
            Self::Fault(fault) => *fault,
            _ => FeedFault::Unreadable,
        }
    }
}

/// Feeds until all was played, or the node closes the socket.
///
/// # Errors
/// [`FeedError`]: it was started by hand, or what it reads is broken.
pub fn run() -> Result<(), FeedError> {
    let socket = process::inherited_socket().map_err(FeedError::NoSocket)?;
    let bytes = process::inherited_input().map_err(FeedError::NoSocket)?;
    process::limit(MEMORY_BYTES_MAX);
    process::step_back(NICENESS);
    ffmpeg::init()?;
    ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    let mut node = Node::new(socket)?;
    let played = play(&mut node, bytes.into());
    match played {
        Err(FeedError::Closed) => Ok(()),
        Err(error) => {
            // A node that is gone has heard enough.
            let _ = node.say(&FromFeed::Failed(error.fault()));
            Err(error)
        }
        Ok(()) => {
            node.say(&FromFeed::Ended)?;
            node.wait_for_end();
            Ok(())
        }
    }
}

fn play(node: &mut Node, bytes: std::fs::File) -> Result<(), FeedError> {
    let settings = loop {
        if let ToFeed::Begin(settings) = node.wait()? {
            break settings;
        }
    };
    process::keep_to_cores(settings.cores_max);
    let mut play = Play::open(Input::open(bytes, settings.live)?, settings)?;
    node.say(&FromFeed::Ready(play.media()))?;
    loop {
        match node.wait()? {
            ToFeed::Start => break,
            ToFeed::Change { number, paused, .. } => play.begin_as(number, paused),
            ToFeed::Begin(_) | ToFeed::Keyframe => {}
        }
    }
    play.run(node)
}
