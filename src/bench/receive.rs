//! Receives datagrams with the time at which the kernel had them.
//!
//! How long they then waited for the load tool is the tool's own affair, and must not be taken for latency
//! of the server. Nor is how they are read: what left as one run (GSO) comes as one (GRO) where nothing on
//! the way has split it.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
    sockopt::UdpGroSegment,
};
use nix::sys::time::TimeSpec;

/// A longer wait than this is a clock that was set meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What came, in the buffer that it was given.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub len: usize,
    /// Of each of the datagrams that it holds, but for the last, which may be shorter.
    pub datagram_len: usize,
    pub source: SocketAddr,
    /// When the kernel had it; when it was read where the kernel does not say.
    pub arrived: Instant,
    /// When it was read.
    pub now: Instant,
}

/// Has the kernel note when each datagram comes.
///
/// # Errors
/// It does not.
pub fn note_times(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, ReceiveTimestampns, &true)?)
}

/// Has the kernel hand over as one what came as one run.
///
/// # Errors
/// It does not know how.
pub fn join_runs(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, UdpGroSegment, &true)?)
}

/// Reads one datagram, or one run of them.
///
/// # Errors
/// There is none, or the socket is broken.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = cmsg_space!(TimeSpec, i32);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let now = Instant::now();
    let (mut came, mut datagram_len) = (None, message.bytes);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmTimestampns(at) => came = Some(Duration::from(at)),
            ControlMessageOwned::UdpGroSegments(len) => datagram_len = usize::try_from(len).unwrap_or(0),
            _ => {}
        }
    }
    // An empty datagram has no length to step by.
    let datagram_len = datagram_len.max(1);
    let waited = came.and_then(|came| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + came).ok());
    let waited = waited.filter(|waited| *waited < WAIT_MAX).unwrap_or_default();
    let source = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    let arrived = now.checked_sub(waited).unwrap_or(now);
    Ok(Received { len: message.bytes, datagram_len, source, arrived, now })
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::sockopt::UdpGsoSegment;
    use std::net::UdpSocket;

    #[test]
    fn what_left_as_a_run_comes_as_one() {
        let here = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        join_runs(&here).expect("it knows how");
        let there = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        setsockopt(&there, UdpGsoSegment, &100).expect("it knows how");
        let to = here.local_addr().expect("an address");
        for run in [&[1; 340][..], &[2; 60]] {
            there.send_to(run, to).expect("loopback takes it");
            let mut buffer = [0; 1_000];
            let received = receive(&here, &mut buffer).expect("it is there");
            assert_eq!(&buffer[..received.len], run);
            assert_eq!(received.datagram_len, run.len().min(100));
        }
    }

    #[test]
    fn what_waited_is_known_to_have_waited() {
        let here = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        note_times(&here).expect("timestamps");
        let there = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        // The kernel begins to note times a moment after the first socket asks it to.
        let waited = (0..100).any(|_| {
            there.send_to(b"hello", here.local_addr().expect("an address")).expect("loopback takes it");
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            let mut buffer = [0; 100];
            let received = receive(&here, &mut buffer).expect("it is there");
            assert_eq!(
                (&buffer[..received.len], received.source),
                (&b"hello"[..], there.local_addr().expect("one"))
            );
            received.now - received.arrived >= Duration::from_millis(15)
        });
        assert!(waited, "no datagram tells when it came");
    }
}
