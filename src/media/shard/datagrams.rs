//! The way of a datagram: from the wire to its peer, and what the peer then has to say.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::ice::StunMessage;
use str0m::net::{Protocol, Receive};
use str0m::{Input, Output};

use super::{PeerIndex, SLACK, Shard, TURNS_MAX};
use crate::media::demux::stun_ufrag;
use crate::media::socket::Datagram;

impl Shard {
    /// Takes one UDP datagram.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.receive(now, Protocol::Udp, datagram);
    }

    /// Takes one frame of an ICE-TCP connection (RFC 4571).
    pub fn handle_frame(&mut self, now: Instant, frame: Datagram<'_>) {
        self.receive(now, Protocol::Tcp, frame);
    }

    fn receive(&mut self, now: Instant, proto: Protocol, datagram: Datagram<'_>) {
        let Datagram { source, destination, bytes } = datagram;
        // A STUN request names its peer, whoever used the address before.
        let named = stun_ufrag(bytes).filter(|(shard, _)| *shard == self.around.id);
        let index = match named {
            Some((_, serial)) => self.demux.peer_of(serial),
            None => self.demux.peer_at(source),
        };
        let Some(index) = index else {
            self.counters.dropped.unknown_peer += 1;
            return;
        };
        self.note_heard(now, index, bytes.len());
        match bytes {
            // RFC 5761 §4: packet types that RTP leaves to RTCP.
            [128..=191, 192..=223, ..] => return self.handle_rtcp(now, index, bytes),
            [128..=191, ..] => return self.handle_rtp(now, index, bytes),
            _ => {}
        }
        let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        let Some(candidate) = self.around.reach.candidate(proto, destination) else { return };
        let Ok(receive) = Receive::new(proto, source, candidate, bytes) else {
            self.counters.dropped.malformed += 1;
            return;
        };
        let input = Input::Receive(now, receive);
        if named.is_some() && self.demux.peer_at(source) != Some(index) {
            if !peer.rtc.accepts(&input) {
                self.counters.dropped.unknown_peer += 1;
                return;
            }
            self.demux.learn(peer.serial, source);
        }
        if named.is_some() && peer.egress.path.is_none_or(|path| path.destination != source) {
            let nominates = StunMessage::parse(bytes).is_ok_and(|request| request.use_candidate());
            peer.nominating = nominates.then_some(source);
        }
        let alive = peer.rtc.handle_input(input).is_ok();
        self.drain(now, index, alive);
    }

    /// Takes everything out of a peer's engine; `alive` is what the engine said to the input before.
    pub(super) fn drain(&mut self, now: Instant, index: PeerIndex, mut alive: bool) {
        for _ in 0..TURNS_MAX {
            let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
            if !alive || !peer.rtc.is_alive() {
                self.lose_peer(now, index);
                return;
            }
            loop {
                let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else {
                    return;
                };
                match peer.rtc.poll_output() {
                    Ok(Output::Transmit(transmit)) => self.transmit(index, &transmit),
                    Ok(Output::Event(event)) => self.handle_event(now, index, event),
                    Ok(Output::Timeout(at)) if at <= now + SLACK => {
                        alive = peer.handle_timeout(at.max(now));
                        break;
                    }
                    Ok(Output::Timeout(at)) => {
                        let at = peer.closing_at.map_or(at, |closing| closing.min(at));
                        // Of one who has joined and sends nothing none is urgent.
                        let is_calm = peer.asked_at.is_none() && !peer.publishes();
                        self.timers.set_engine(index, at, is_calm);
                        self.close_if_due(now, index);
                        return;
                    }
                    Err(_) => {
                        alive = false;
                        break;
                    }
                }
            }
        }
        // Still busy after its share: on with it in the next tick.
        self.timers.set_engine(index, now, false);
    }

    /// An ICE-TCP connection named a peer of this shard; `connection` takes its outgoing frames.
    pub fn handle_tcp_open(&mut self, remote: SocketAddr, connection: crate::mailbox::LossySender<Vec<u8>>) {
        self.tcp.retain(|_, connection| !connection.is_closed());
        self.tcp.insert(remote, connection);
    }

    pub fn handle_tcp_closed(&mut self, remote: SocketAddr) {
        self.tcp.remove(&remote);
    }
}
