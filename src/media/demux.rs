//! Finds the peer that a datagram belongs to, without a search.
//!
//! A known address answers from a map. An unknown one must open with STUN: the local part of its USERNAME is
//! an ICE ufrag that we chose, and it spells the shard and the peer's serial number (RFC 8445 §5.3 leaves its
//! form to us). Once the request's integrity was verified the address is remembered. Whatever else comes
//! from an unknown address is dropped and counted.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use str0m::IceCreds;
use str0m::ice::StunMessage;

use crate::core::ids::ShardId;

/// Addresses remembered for one peer at most; a peer that keeps moving forgets its oldest.
const ADDRESSES_PER_PEER_MAX: usize = 8;

/// A peer's number on its shard, never used twice while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSerial(pub u32);

/// Fresh ICE credentials whose ufrag names the shard and the peer; `random` gives its unguessable part and
/// the 128 bits of the password.
pub fn credentials(shard: ShardId, serial: PeerSerial, random: [u128; 2]) -> IceCreds {
    IceCreds {
        ufrag: format!("{:02x}{:08x}{:06x}", shard.0, serial.0, random[0] & 0xff_ffff),
        pass: format!("{:032x}", random[1]),
    }
}

/// Shard and serial that a ufrag of ours names.
pub fn parse_ufrag(ufrag: &str) -> Option<(ShardId, PeerSerial)> {
    let shard = u8::from_str_radix(ufrag.get(..2)?, 16).ok()?;
    let serial = u32::from_str_radix(ufrag.get(2..10)?, 16).ok()?;
    (ufrag.len() == 16).then_some((ShardId(shard), PeerSerial(serial)))
}

/// Our ufrag in a STUN binding request's USERNAME (RFC 8445 §7.2.2), when the datagram is one.
pub fn stun_ufrag(datagram: &[u8]) -> Option<(ShardId, PeerSerial)> {
    // STUN starts with two zero bits and carries its magic cookie (RFC 8489 §5).
    if datagram.len() < 20 || datagram[0] > 3 || datagram[4..8] != [0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    let message = StunMessage::parse(datagram).ok()?;
    let (ours, _theirs) = message.split_username()?;
    parse_ufrag(ours)
}

/// Addresses and serials of one shard's peers. `P` is the shard's own key of a peer.
#[derive(Debug)]
pub struct Demux<P> {
    by_address: HashMap<SocketAddr, P>,
    by_serial: BTreeMap<PeerSerial, (P, Vec<SocketAddr>)>,
}

impl<P: Copy + PartialEq> Demux<P> {
    pub fn new() -> Self {
        Self { by_address: HashMap::new(), by_serial: BTreeMap::new() }
    }

    pub fn add(&mut self, serial: PeerSerial, peer: P) {
        self.by_serial.insert(serial, (peer, Vec::new()));
    }

    pub fn remove(&mut self, serial: PeerSerial) {
        let Some((peer, addresses)) = self.by_serial.remove(&serial) else { return };
        for address in addresses {
            if self.by_address.get(&address) == Some(&peer) {
                self.by_address.remove(&address);
            }
        }
    }

    #[inline]
    pub fn peer_at(&self, source: SocketAddr) -> Option<P> {
        self.by_address.get(&source).copied()
    }

    pub fn peer_of(&self, serial: PeerSerial) -> Option<P> {
        self.by_serial.get(&serial).map(|(peer, _)| *peer)
    }

    /// Remembers an address whose STUN request passed its integrity check.
    pub fn learn(&mut self, serial: PeerSerial, source: SocketAddr) {
        let Some((peer, addresses)) = self.by_serial.get_mut(&serial) else { return };
        self.by_address.insert(source, *peer);
        if addresses.contains(&source) {
            return;
        }
        addresses.push(source);
        if addresses.len() > ADDRESSES_PER_PEER_MAX {
            let oldest = addresses.remove(0);
            if self.by_address.get(&oldest) == Some(&*peer) {
                self.by_address.remove(&oldest);
            }
        }
    }
}

impl<P: Copy + PartialEq> Default for Demux<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ufrag_spells_shard_and_serial() {
        let creds = credentials(ShardId(7), PeerSerial(0xabcdef), [1, 2]);
        assert_eq!(parse_ufrag(&creds.ufrag), Some((ShardId(7), PeerSerial(0xabcdef))));
        assert_eq!(creds.pass.len(), 32);
        for foreign in ["", "x", "zz00000000000000", "0700abcdef", "éééééééé"] {
            assert_eq!(parse_ufrag(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn noise_is_no_stun() {
        for noise in [&b""[..], &[0; 20], &[0x80; 40], b"\0\x01\0\0\x21\x12\xa4\x42 short"] {
            assert_eq!(stun_ufrag(noise), None);
        }
    }

    #[test]
    fn addresses_are_bounded_and_go_with_their_peer() {
        let mut demux = Demux::new();
        demux.add(PeerSerial(1), 10u32);
        for port in 1..=20 {
            demux.learn(PeerSerial(1), ([127, 0, 0, 1], port).into());
        }
        assert_eq!(demux.peer_at(([127, 0, 0, 1], 1).into()), None);
        assert_eq!(demux.peer_at(([127, 0, 0, 1], 20).into()), Some(10));
        assert_eq!(demux.by_address.len(), ADDRESSES_PER_PEER_MAX);
        demux.remove(PeerSerial(1));
        assert!(demux.by_address.is_empty());
        demux.learn(PeerSerial(1), ([127, 0, 0, 1], 1).into());
        assert!(demux.by_address.is_empty());
    }
}
