//! Files by parts, and what is said from outside the room.

use std::time::Instant;

use super::*;
use crate::core::chat::{ChatCommand, RoomHistory};
use crate::core::files::FileState;
use crate::core::ids::{Identity, SessionId};
use crate::core::participant::{Entrant, Part};
use crate::core::protocol::{ClientMessage, Grant, Request, ServerMessage};
use crate::core::room::Now;
use crate::core::room::fixtures::{MEMBER, settings};

fn now() -> Now {
    Now { instant: Instant::now(), unix_ms: 7 }
}

fn room() -> Room {
    Room::new(now(), settings("files"))
}

/// Somebody in the room, with or without the `files` grant.
fn join(room: &mut Room, name: &str, files: bool) -> ParticipantKey {
    let entrant = Entrant {
        identity: Identity::parse(name).unwrap(),
        name: name.to_owned(),
        grant: Grant { files, ..MEMBER },
        part: Part::Member,
        session: SessionId(1),
        has_token: false,
        returns: false,
        lines: Vec::new(),
        slots: Vec::new(),
        seed: 7,
    };
    let key = room.handle_join(now(), entrant).unwrap();
    room.handle_control_open(now(), key);
    while room.poll_output().is_some() {}
    key
}

/// What a part is answered with, and the file that it completes.
fn send(
    room: &mut Room,
    key: ParticipantKey,
    id: &str,
    size_bytes: u32,
    bytes: &[u8],
) -> (String, Option<SmallFile>) {
    send_at(room, key, id, size_bytes, (None, bytes))
}

fn send_at(
    room: &mut Room,
    key: ParticipantKey,
    id: &str,
    size_bytes: u32,
    (offset, bytes): (Option<u32>, &[u8]),
) -> (String, Option<SmallFile>) {
    let message = ClientMessage::FileSend {
        id: MessageId::parse(id).unwrap(),
        name: "../a.txt".into(),
        size_bytes,
        offset,
        data: STANDARD.encode(bytes),
    };
    room.handle_request(now(), key, Request { request: Some(1), message });
    let (mut answer, mut file) = (String::new(), None);
    while let Some(output) = room.poll_output() {
        match output {
            Output::KeepFile(kept) => file = Some(*kept),
            Output::Tell(_, message) => {
                answer = match *message {
                    ServerMessage::Ok { .. } => "ok".to_owned(),
                    ServerMessage::Error { code, .. } => code.as_str().to_owned(),
                    _ => answer,
                }
            }
            _ => {}
        }
    }
    (answer, file)
}

#[test]
fn parts_become_a_file_that_is_answered_when_it_is_kept() {
    let mut room = room();
    room.handle_restored(now(), RoomHistory::default());
    let ann = join(&mut room, "ann", true);
    assert_eq!(send(&mut room, ann, "f1", 8, b"hello"), ("ok".into(), None));
    let (answer, file) = send(&mut room, ann, "f1", 8, b", you");
    assert_eq!((answer.as_str(), file), ("too_large", None), "more than it said");
    assert_eq!(send(&mut room, ann, "f1", 8, b"hello"), ("ok".into(), None));
    let (answer, file) = send(&mut room, ann, "f1", 8, b" al");
    let file = file.expect("it is whole");
    assert_eq!((answer.as_str(), file.name.as_str(), &file.bytes[..]), ("", "a.txt", &b"hello al"[..]));
    room.handle_kept(&file.asker, Ok(()));
    let Some(Output::Tell(_, message)) = room.poll_output() else { panic!("it is answered") };
    assert_eq!(*message, ServerMessage::Ok { request: Some(1) });
}

#[test]
fn a_part_that_is_sent_again_is_there_once_and_one_without_its_beginning_is_refused() {
    let mut room = room();
    room.handle_restored(now(), RoomHistory::default());
    let ann = join(&mut room, "ann", true);
    let mut part = |id, offset, bytes| send_at(&mut room, ann, id, 8, (Some(offset), bytes));
    assert_eq!(part("f1", 0, b"hello"), ("ok".into(), None));
    assert_eq!(part("f1", 0, b"hello"), ("ok".into(), None), "its answer got lost");
    let (_, file) = part("f1", 5, b" al");
    assert_eq!(file.expect("it is whole").bytes, b"hello al");
    // Two at once: the second drops the first, whose end is not taken for a file.
    assert_eq!(part("f2", 0, b"hello"), ("ok".into(), None));
    assert_eq!(part("f3", 0, b"hello"), ("ok".into(), None));
    assert_eq!(part("f2", 5, b" al"), ("wrong_offset".into(), None));
    assert_eq!(part("f2", u32::MAX, b"").0, "wrong_offset");
}

#[test]
fn what_is_too_large_or_not_allowed_is_refused() {
    let mut room = room();
    room.handle_restored(now(), RoomHistory::default());
    let (ann, ben) = (join(&mut room, "ann", true), join(&mut room, "ben", false));
    let most = SMALL_FILE_BYTES_MAX as u32;
    assert_eq!(send(&mut room, ann, "f1", most + 1, b"x").0, "too_large");
    assert_eq!(send(&mut room, ben, "f1", 1, b"x").0, "forbidden");
    assert_eq!(send(&mut room, ann, "f1", 2, b"x").0, "ok");
    let (_, file) = send(&mut room, ann, "f2", 1, b"y");
    assert_eq!(file.expect("another file, and whole").bytes, b"y");
    let (_, empty) = send(&mut room, ann, "f3", 0, b"");
    assert!(empty.expect("an empty file is one").bytes.is_empty());
}

#[test]
fn what_is_said_from_outside_waits_for_history_and_is_answered_by_its_number() {
    let mut room = room();
    let file = FileState {
        name: "a.txt".into(),
        size_bytes: 1,
        media_type: "text/plain".into(),
        sha256: "aa".into(),
        width: None,
        height: None,
        duration_ms: None,
        thumbnail: false,
        expired: false,
    };
    let author = Author { identity: Identity::parse("ann").unwrap(), name: "Ann".into(), is_admin: false };
    let command = ChatCommand::SendFile { id: MessageId::parse("f1").unwrap(), file: Box::new(file.clone()) };
    room.handle_said(now(), 4, author, command);
    assert!(room.poll_output().is_none(), "there is no history yet");
    room.handle_restored(now(), RoomHistory::default());
    let Some(Output::Append(event)) = room.poll_output() else { panic!("it goes to the log") };
    let message = crate::core::chat::apply(None, &event);
    assert_eq!(message.as_ref().and_then(|message| message.file.as_deref()), Some(&file));
    let appended = crate::core::event::Appended { id: event.id, offset: 1, is_new: true, message };
    room.handle_appended(appended);
    let outputs: Vec<_> = std::iter::from_fn(|| room.poll_output()).collect();
    let Output::Tell(_, message) = &outputs[0] else { panic!("all are told") };
    assert!(matches!(**message, ServerMessage::ChatMessage { .. }));
    assert!(matches!(outputs[1], Output::Said { number: 4, result: Ok(()) }));
}
