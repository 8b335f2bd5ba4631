//! Files by parts, and what is said from outside the room.

use std::time::{Duration, Instant};

use super::*;
use crate::core::chat::{ChatCommand, RoomHistory};
use crate::core::files::FileState;
use crate::core::ids::{Identity, RoomName, SessionId};
use crate::core::mix::colour::Colour;
use crate::core::mix::layout::Layout;
use crate::core::participant::{Entrant, Part};
use crate::core::protocol::{Access, ClientMessage, Grant, Mode, Request, RoomState, ServerMessage};
use crate::core::room::{Now, Settings};

fn now() -> Now {
    Now { instant: Instant::now(), unix_ms: 7 }
}

fn room() -> Room {
    let state = RoomState {
        name: RoomName::parse("files").unwrap(),
        mode: Mode::Sfu,
        layout: Layout::Grid,
        background: Colour::default(),
        has_backdrop: false,
        hls: false,
        restreams: 0,
        e2ee: false,
        access: Access::Open,
        locked: false,
        lobby: false,
        participants_max: 10,
        opened_at_ms: 0,
        recording: None,
        recording_consent: Default::default(),
    };
    let settings = Settings {
        state,
        publishers_max: 10,
        viewers_max: 10,
        video_bps_max: 5_000_000,
        messages_per_second: 1_000.0,
        chat_chars_max: 100,
        empty_after: Duration::from_secs(60),
        resume_within: Duration::from_secs(15),
        initial_estimate_bps: 5_000_000,
        first_is_admin: false,
        mix: None,
        may_record: true,
        epoch: 1,
    };
    Room::new(now(), settings)
}

/// Somebody in the room, with or without the `files` grant.
fn join(room: &mut Room, name: &str, files: bool) -> ParticipantKey {
    let entrant = Entrant {
        identity: Identity::parse(name).unwrap(),
        name: name.to_owned(),
        grant: Grant { publish: true, subscribe: true, chat: true, files, admin: false, lowest_layer: false },
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
    let message = ClientMessage::FileSend {
        id: MessageId::parse(id).unwrap(),
        name: "../a.txt".into(),
        size_bytes,
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
