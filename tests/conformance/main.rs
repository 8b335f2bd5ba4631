//! One suite for every event log, and what only the durable one promises; one for every store of files, one
//! for every registry of rooms, and one for every wallet.

#[path = "../cluster/kafka.rs"]
mod broker;
mod brokers;
mod durability;
mod esplora;
mod kafka;
mod leases;
mod ledger;
#[path = "../cluster/network.rs"]
#[allow(dead_code, reason = "it uses one place alone")]
mod network;
#[path = "../cluster/redis.rs"]
mod redis;
mod sqlite;
mod store;
mod suite;
mod wallet;
mod writer;

use antiphon::core::event::{Event, EventBody, EventId};
use antiphon::core::files::FileState;
use antiphon::core::ids::{Identity, MessageId, RoomName};

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a plain name")
}

fn identity(name: &str) -> Identity {
    Identity::parse(name).expect("a plain name")
}

fn message(name: &str) -> MessageId {
    MessageId::parse(name).expect("a plain id")
}

/// The sending of message `m{seq}`.
fn sent(room_name: &str, seq: u64) -> Event {
    sent_as(room_name, &format!("m{seq}"), seq)
}

fn sent_as(room_name: &str, id: &str, seq: u64) -> Event {
    let body = EventBody::ChatSent {
        message: message(id),
        seq,
        identity: identity("ann"),
        name: "Ann".into(),
        text: format!("message {seq} <b>'\";--\u{1f642}"),
        reply_to: None,
        file: None,
    };
    Event { id: EventId::of_message(&message(id)), room: room(room_name), at_ms: 1000 + seq, body }
}

/// The sending of a file as message `m{seq}`, by `ann`.
fn sent_file(room_name: &str, seq: u64, sha256: &str, size_bytes: u64) -> Event {
    let mut event = sent(room_name, seq);
    if let EventBody::ChatSent { file, .. } = &mut event.body {
        *file = Some(Box::new(FileState {
            name: "a.txt".into(),
            size_bytes,
            media_type: "text/plain".into(),
            sha256: sha256.into(),
            width: None,
            height: None,
            duration_ms: None,
            thumbnail: false,
            expired: false,
        }));
    }
    event
}

fn event(room_name: &str, id: &str, body: EventBody) -> Event {
    Event { id: EventId::from_stored(id.into()), room: room(room_name), at_ms: 5000, body }
}

fn edited(room_name: &str, id: &str, seq: u64, text: &str) -> Event {
    let body = EventBody::ChatEdited {
        message: message(&format!("m{seq}")),
        by: identity("ann"),
        text: text.into(),
    };
    event(room_name, id, body)
}
