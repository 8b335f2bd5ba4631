//! The way to another node, as a shard has it: all that crosses goes through the bytes of the wire.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use antiphon::core::relay::wire::{Datagram, Frame, LENGTH_BYTES, encode_media};
use antiphon::core::relay::{Cargo, Packet};
use antiphon::mailbox::Inlet;

/// One direction of a link.
#[derive(Clone, Default)]
pub struct Way {
    queue: Arc<Mutex<VecDeque<Cargo>>>,
    full: Arc<AtomicBool>,
}

impl Way {
    pub fn inlet(&self) -> Inlet<Cargo> {
        let way = self.clone();
        Inlet::new(move |cargo| {
            if matches!(cargo, Cargo::Packets(_)) && way.full.load(Ordering::Relaxed) {
                return Err(cargo);
            }
            way.queue.lock().expect("nobody panics with it").push_back(cargo);
            Ok(())
        })
    }

    /// Takes no packets from now on, or again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// What comes out at the other side.
    pub fn poll(&self) -> Option<Cargo> {
        let cargo = self.queue.lock().expect("nobody panics with it").pop_front();
        cargo.map(|cargo| match cargo {
            Cargo::Packets(packets) => Cargo::Packets(packets.iter().map(crossed).collect()),
            Cargo::Data(data) => match Datagram::decode(&Datagram::Data { branch: 1, data }.encode()) {
                Ok(Datagram::Data { data, .. }) => Cargo::Data(data),
                other => panic!("it is not read as it was written: {other:?}"),
            },
            Cargo::Down(news) => match Frame::decode(&Frame::Down(news).encode()[LENGTH_BYTES..]) {
                Ok(Frame::Down(news)) => Cargo::Down(news),
                other => panic!("it is not read as it was written: {other:?}"),
            },
            Cargo::Up(news) => match Frame::decode(&Frame::Up(news).encode()[LENGTH_BYTES..]) {
                Ok(Frame::Up(news)) => Cargo::Up(news),
                other => panic!("it is not read as it was written: {other:?}"),
            },
        })
    }
}

fn crossed(packet: &Packet) -> Packet {
    match Datagram::decode(&encode_media(7, 1, packet)) {
        Ok(Datagram::Media { packet, .. }) => packet,
        other => panic!("it is not read as it was written: {other:?}"),
    }
}
