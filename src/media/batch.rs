//! Runs to many receivers in one system call (sendmmsg(2)), which costs less than a call for each.
//!
//! How long the datagrams of a run are is told to the socket (`UDP_SEGMENT`, udp(7)), not with each run: a
//! message that is no longer leaves as it is, a longer one in datagrams of that length. So runs of one
//! receiver after the other have to be told of only where their lengths differ.

use std::os::fd::AsFd;

use smallvec::SmallVec;

use super::outbox::Run;

/// Runs that leave with one call at most.
pub const RUNS_MAX: usize = 64;

type PerRun<T> = SmallVec<[T; RUNS_MAX]>;

/// Runs that leave together, each with its bytes.
pub type Batch<'a> = PerRun<(&'a Run, &'a [u8])>;

/// Sends as many as the kernel takes at once. Gives their number: it refused the one that follows.
#[cfg(target_os = "linux")]
pub fn send(socket: &impl AsFd, batch: &Batch<'_>) -> usize {
    use std::io::IoSlice;

    use rustix::net::addr::SocketAddrArg;
    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

    let receivers: PerRun<SocketAddrAny> = batch.iter().map(|(run, _)| run.destination.as_any()).collect();
    let contents: PerRun<[IoSlice<'_>; 1]> = batch.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
    let mut controls: PerRun<SendAncillaryBuffer<'_, '_, '_>> =
        batch.iter().map(|_| SendAncillaryBuffer::new(&mut [])).collect();
    let messages = receivers.iter().zip(&contents).zip(&mut controls);
    let mut messages: PerRun<MMsgHdr<'_>> = messages
        .map(|((receiver, contents), control)| MMsgHdr::new_with_addr(receiver, contents, control))
        .collect();
    sendmmsg(socket, &mut messages, SendFlags::empty()).unwrap_or(0)
}

/// Lets the kernel make datagrams of so many bytes out of longer messages; 0 leaves them whole. False where
/// it does not know how.
#[cfg(target_os = "linux")]
pub fn tell_segment(socket: &impl AsFd, bytes: usize) -> bool {
    use nix::sys::socket::{setsockopt, sockopt};

    i32::try_from(bytes).is_ok_and(|bytes| setsockopt(socket, sockopt::UdpGsoSegment, &bytes).is_ok())
}

/// Nobody reads when a datagram came and how it was marked: each would be one more thing to copy with it.
#[cfg(target_os = "linux")]
pub fn leave_out_unread(socket: &impl AsFd) {
    use nix::sys::socket::{setsockopt, sockopt};

    // Where it is refused, it is copied.
    let _ = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
    let _ = setsockopt(socket, sockopt::IpRecvTos, &false);
}

#[cfg(not(target_os = "linux"))]
pub fn send(_socket: &impl AsFd, _batch: &Batch<'_>) -> usize {
    0
}

#[cfg(not(target_os = "linux"))]
pub fn tell_segment(_socket: &impl AsFd, bytes: usize) -> bool {
    bytes == 0
}

#[cfg(not(target_os = "linux"))]
pub fn leave_out_unread(_socket: &impl AsFd) {}
