//! A mixer's process, as the node starts it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

/// A mixer that was just started.
#[derive(Debug)]
pub struct Spawned {
    pub child: Child,
    /// Non-blocking; one message a datagram.
    pub socket: Socket,
}

/// # Errors
/// The system gives no socket or no process.
pub fn spawn(program: &Path) -> io::Result<Spawned> {
    let (socket, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    let theirs: std::os::fd::OwnedFd = theirs.into();
    let child = Command::new(program).arg("mix").stdin(Stdio::from(theirs)).spawn()?;
    Ok(Spawned { child, socket })
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
    Err(words.lines().last().unwrap_or("the mixer says nothing").trim().to_owned())
}
