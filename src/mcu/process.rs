//! A mixer's process, from both sides: how a node starts one, and what it allows itself. Others that take
//! packets of rooms are started as it is.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use socket2::{Domain, Socket, Type};

/// Asked of the kernel for each direction. It may grant less.
const BUFFER_BYTES: usize = 4 << 20;
/// Of writable memory. A stream that makes a decoder ask for more costs its own room a mixer, not the node
/// its memory. Stacks and arenas that are only reserved count, so that it is far above what is used.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// Of pictures: behind the node, which forwards packets, and behind sound, which a late tick breaks.
const NICENESS: i32 = 5;

/// A mixer that runs.
#[derive(Debug)]
pub struct Spawned {
    pub child: Child,
    /// Nonblocking; the mixer ends when it is closed.
    pub socket: Socket,
}

/// Starts `program` as what `subcommand` says. It has the socket as its standard input, and its log goes
/// where ours goes.
///
/// # Errors
/// The kernel gives no sockets or no process.
pub fn spawn(program: &Path, subcommand: &str) -> io::Result<Spawned> {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    for socket in [&ours, &theirs] {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    ours.set_nonblocking(true)?;
    let child = Command::new(program)
        .arg(subcommand)
        // A terminal interrupts its whole group; the node says itself when a mixer ends.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Spawned { child, socket: ours })
}

/// Asks a mixer that mixes nothing whether it could; in a process of its own, as the node itself has no use
/// for GStreamer. Gives the program back.
///
/// # Errors
/// What is missing, in words.
pub fn check(program: &Path) -> Result<PathBuf, String> {
    let output = Command::new(program).args(["mix", "--check"]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(program.to_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let reason = words.lines().find(|line| line.starts_with("mixing is not possible"));
    Err(reason.unwrap_or("a mixer cannot be run").to_owned())
}

/// The mixer's end of the socket that [`spawn`] made.
///
/// # Errors
/// Standard input cannot be duplicated, or is no socket.
pub fn inherited_socket() -> io::Result<Socket> {
    let socket = Socket::from(rustix::io::dup(io::stdin())?);
    socket.r#type()?;
    Ok(socket)
}

/// Lowers what this process may use. It goes on without where the system refuses.
pub fn limit() {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    for (what, result) in [
        ("memory", rustix::process::setrlimit(Resource::Data, limit(MEMORY_BYTES_MAX))),
        ("core files", rustix::process::setrlimit(Resource::Core, limit(0))),
    ] {
        if let Err(error) = result {
            tracing::warn!(%error, what, "a mixer cannot limit itself");
        }
    }
}

/// Keeps the calling thread, and those that it starts, to so many of the cores that it may run on; other
/// mixers to others.
pub(super) fn keep_to_cores(cores_max: u32) {
    let kept = rustix::thread::sched_getaffinity(None).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let first = std::process::id() as usize % cores.len().max(1);
        let mut kept = CpuSet::new();
        let some = cores.iter().cycle().skip(first).take(cores.len().min(cores_max.max(1) as usize));
        some.for_each(|core| kept.set(*core));
        rustix::thread::sched_setaffinity(None, &kept)
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "a mixer cannot be kept to its cores");
    }
}

/// Puts the calling thread, and those that it starts, behind all others.
pub(super) fn step_back() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "pictures cannot step back behind sound");
    }
}
