//! Datagrams that leave together, with one system call (sendmmsg(2)).
//!
//! A sender's burst reaches a machine within the time for which a network card holds its interrupt back.
//! Over a pair of virtual interfaces each call is an interrupt of its own on the server's core, so a burst
//! has to be one call.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use smallvec::SmallVec;

/// Datagrams that leave with one call at most; a picture has fewer.
const MANY: usize = 16;

type Many<T> = SmallVec<[T; MANY]>;

/// What became of a burst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    pub datagrams: u64,
    pub bytes: u64,
    pub refused: u64,
}

/// Sends all, in order, each to its receiver. What the kernel refuses, as the socket is full or the
/// receiver cannot be reached, is left out.
pub fn send<'a>(socket: &impl AsFd, burst: impl Iterator<Item = (SocketAddr, &'a [u8])>) -> Sent {
    let burst: Many<(SocketAddrAny, &[u8])> = burst.map(|(to, bytes)| (to.as_any(), bytes)).collect();
    let mut sent = Sent::default();
    let mut rest = burst.as_slice();
    while !rest.is_empty() {
        let taken = send_some(socket, &rest[..rest.len().min(MANY)]);
        let (gone, waiting) = rest.split_at(taken);
        sent.datagrams += taken as u64;
        sent.bytes += gone.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        // It says no more than that it did not take the next one.
        let refused = usize::from(taken == 0);
        sent.refused += refused as u64;
        rest = waiting.get(refused..).unwrap_or_default();
    }
    sent
}

fn send_some(socket: &impl AsFd, part: &[(SocketAddrAny, &[u8])]) -> usize {
    let contents: Many<[IoSlice<'_>; 1]> = part.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
    let mut controls: Many<SendAncillaryBuffer<'_, '_, '_>> =
        part.iter().map(|_| SendAncillaryBuffer::new(&mut [])).collect();
    let messages = part.iter().zip(&contents).zip(&mut controls);
    let mut messages: Many<MMsgHdr<'_>> = messages
        .map(|(((to, _), contents), control)| MMsgHdr::new_with_addr(to, contents, control))
        .collect();
    sendmmsg(socket, &mut messages, SendFlags::empty()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn one_that_cannot_go_holds_nobody_up() {
        let here = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let there = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let to = here.local_addr().expect("an address");
        let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
        let burst = [(to, &b"one"[..]), (nowhere, b"two"), (to, b"three")];
        assert_eq!(send(&there, burst.into_iter()), Sent { datagrams: 2, bytes: 8, refused: 1 });
    }

    #[test]
    fn all_of_a_burst_arrives_in_order() {
        let here = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let there = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let to = here.local_addr().expect("an address");
        let datagrams: Vec<Vec<u8>> = (1..=MANY + 3).map(|len| vec![7; len]).collect();
        let sent = send(&there, datagrams.iter().map(|bytes| (to, bytes.as_slice())));
        assert_eq!((sent.datagrams, sent.refused), (MANY as u64 + 3, 0));
        let mut buffer = [0; 100];
        for bytes in &datagrams {
            let (len, from) = here.recv_from(&mut buffer).expect("it is there");
            assert_eq!((len, from), (bytes.len(), there.local_addr().expect("one")));
        }
    }
}
