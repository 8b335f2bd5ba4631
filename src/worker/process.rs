//! A worker's process, from both sides: how a node starts one, and what it allows itself.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use socket2::{Domain, Socket, Type};

/// Asked of the kernel for each direction. It may grant less.
const BUFFER_BYTES: usize = 4 << 20;
/// What a worker that reads what people send may know of our environment.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "LD_LIBRARY_PATH"];

/// A worker that runs.
#[derive(Debug)]
pub struct Spawned {
    pub child: Child,
    /// Nonblocking; the worker ends when it is closed.
    pub socket: Socket,
}

/// Starts `program` with a subcommand, as a worker. It has the socket as its standard input, and its log goes
/// where ours goes.
///
/// # Errors
/// The kernel gives no sockets or no process.
pub fn spawn(program: &Path, subcommand: &str) -> io::Result<Spawned> {
    let mut command = Command::new(program);
    command.stdout(Stdio::null());
    start(command, subcommand)
}

/// As [`spawn`], of a worker that reads what people send: `input` is its standard output, which it reads, and
/// of our environment it knows where programs are, and no secret.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_reading(program: &Path, subcommand: &str, input: OwnedFd) -> io::Result<Spawned> {
    let environment =
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| ENVIRONMENT.contains(&name)));
    let mut command = Command::new(program);
    command.env_clear().envs(environment).stdout(Stdio::from(input));
    start(command, subcommand)
}

fn start(mut command: Command, subcommand: &str) -> io::Result<Spawned> {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    for socket in [&ours, &theirs] {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    ours.set_nonblocking(true)?;
    let child = command
        .arg(subcommand)
        // A terminal interrupts its whole group; the node says itself when a worker ends.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    Ok(Spawned { child, socket: ours })
}

/// The worker's end of the socket that [`spawn`] made.
///
/// # Errors
/// Standard input cannot be duplicated, or is no socket.
pub fn inherited_socket() -> io::Result<Socket> {
    let socket = Socket::from(rustix::io::dup(io::stdin())?);
    socket.r#type()?;
    Ok(socket)
}

/// What [`spawn_reading`] gave the worker to read.
///
/// # Errors
/// Standard output cannot be duplicated.
pub fn inherited_input() -> io::Result<OwnedFd> {
    Ok(rustix::io::dup(io::stdout())?)
}

/// Lowers what this process may use: so much writable memory, of which stacks and arenas that are only
/// reserved are a part, and no core files. It goes on without where the system refuses.
pub fn limit(memory_bytes_max: u64) {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    for (what, result) in [
        ("memory", rustix::process::setrlimit(Resource::Data, limit(memory_bytes_max))),
        ("core files", rustix::process::setrlimit(Resource::Core, limit(0))),
    ] {
        if let Err(error) = result {
            tracing::warn!(%error, what, "a worker cannot limit itself");
        }
    }
}

/// Keeps the calling thread, and those that it starts, to so many of the cores that it may run on; other
/// workers to others.
pub fn keep_to_cores(cores_max: u32) {
    let kept = rustix::thread::sched_getaffinity(None).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let first = std::process::id() as usize % cores.len().max(1);
        let mut kept = CpuSet::new();
        let some = cores.iter().cycle().skip(first).take(cores.len().min(cores_max.max(1) as usize));
        some.for_each(|core| kept.set(*core));
        rustix::thread::sched_setaffinity(None, &kept)
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "a worker cannot be kept to its cores");
    }
}

/// Puts the calling thread, and those that it starts, behind others by so much.
pub fn step_back(niceness: i32) {
    if let Err(error) = rustix::process::nice(niceness) {
        tracing::warn!(%error, "a worker cannot step back behind others");
    }
}

/// Of this process, all threads together.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Memory in use; 0 where the system does not tell (proc(5), statm).
pub fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as u64
}
