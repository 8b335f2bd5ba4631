//! Frames on the stream of a branch, read and written.
//!
//! What this version does not know is passed over. Reading has a task of its own, so that nothing is lost
//! where somebody waits for several things at once.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;

use crate::core::relay::wire::{Frame, LENGTH_BYTES};

/// Frames that were read and wait. Full: the other side is slowed down, by the stream's own window.
const WAITING_MAX: usize = 64;
/// Whoever does not take a frame for so long is lost.
const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// The stream is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream to the other node ended")]
pub struct Ended;

/// # Errors
/// [`Ended`], also where it takes too long.
pub async fn write(stream: &mut SendStream, frame: &Frame) -> Result<(), Ended> {
    let bytes = frame.encode();
    let written = tokio::time::timeout(WRITE_WITHIN, stream.write_all(&bytes)).await;
    written.map_err(|_| Ended)?.map_err(|_| Ended)
}

/// Reads until the stream ends, which closes the queue.
pub fn reading(mut stream: RecvStream) -> mpsc::Receiver<Frame> {
    let (frames, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        while let Ok(frame) = next(&mut stream).await {
            if let Some(frame) = frame
                && frames.send(frame).await.is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// The next frame; none for one that this version does not know.
async fn next(stream: &mut RecvStream) -> Result<Option<Frame>, Ended> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(|_| Ended)?;
    let mut json = vec![0; Frame::length(length).map_err(|_| Ended)?];
    stream.read_exact(&mut json).await.map_err(|_| Ended)?;
    let frame = Frame::decode(&json);
    if frame.is_err() {
        tracing::debug!(bytes = json.len(), "another node said what this version does not know");
    }
    Ok(frame.ok())
}
