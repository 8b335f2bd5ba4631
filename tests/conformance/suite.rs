//! What every log does, run against memory and SQLite, and against both at once.

use antiphon::core::chat::{HistoryRange, RoomHistory, WINDOW};
use antiphon::core::event::{Event, EventBody, EventId};
use antiphon::events::memory::MemoryLog;
use antiphon::events::sqlite::{FILE_NAME, SqliteLog};
use antiphon::events::{EventLog, FileUsage, LogError, PAGE_MAX};
use proptest::prelude::*;

use super::kafka::Kafka;
use super::{edited, event, identity, message, room, sent, sent_as, sent_file};

/// One test for each name and each log.
macro_rules! for_every_log {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[test]
                fn $name() {
                    super::$name(&mut super::MemoryLog::default());
                }
            )*
        }
        mod sqlite {
            $(
                #[test]
                fn $name() {
                    let directory = tempfile::tempdir().expect("a temporary directory");
                    let log = super::SqliteLog::open(&directory.path().join(super::FILE_NAME));
                    super::$name(&mut log.expect("a new log"));
                }
            )*
        }
        /// One broker for all: each has a topic of its own.
        #[test]
        fn kafka() {
            let kafka = Kafka::start();
            $(
                let directory = tempfile::tempdir().expect("a temporary directory");
                $name(&mut kafka.log(stringify!($name), directory.path(), "a").opening_rooms());
            )*
        }
    };
}

for_every_log!(
    appending_again_answers_as_the_first_time,
    a_batch_keeps_its_order,
    a_batch_is_appended_whole_or_not_at_all,
    messages_stand_as_the_events_left_them,
    pages_go_both_ways_and_know_their_end,
    rooms_are_apart,
    history_is_what_an_opening_room_needs,
    events_of_newer_versions_are_kept,
    pages_have_a_limit,
    files_are_listed_until_they_are_deleted_or_expire,
    what_is_used_is_counted_for_room_identity_and_node,
    contents_are_unreferenced_when_their_last_file_goes,
    old_files_are_found,
);

fn append(log: &mut dyn EventLog, count: u64) {
    let batch: Vec<_> = (1..=count).map(|seq| sent("room", seq)).collect();
    log.append(&batch).expect("appended");
}

fn seqs(log: &mut dyn EventLog, range: HistoryRange, limit: u32) -> (Vec<u64>, bool) {
    let page = log.messages(&room("room"), range, limit).expect("readable");
    (page.messages.iter().map(|message| message.seq).collect(), page.more)
}

fn appending_again_answers_as_the_first_time(log: &mut dyn EventLog) {
    let first = log.append(&[sent("room", 1)]).expect("appended").remove(0);
    assert!(first.is_new);
    log.append(&[sent("room", 2)]).expect("appended");
    let mut other_words = sent("room", 1);
    if let EventBody::ChatSent { text, seq, .. } = &mut other_words.body {
        *text = "something else".into();
        *seq = 9;
    }
    for again in [sent("room", 1), other_words] {
        let again = log.append(&[again]).expect("appended").remove(0);
        assert!(!again.is_new);
        assert_eq!((&again.id, again.offset, &again.message), (&first.id, first.offset, &first.message));
    }
    // Twice in one batch is once.
    let twice = log.append(&[sent("room", 3), sent("room", 3)]).expect("appended");
    assert_eq!((twice[0].is_new, twice[1].is_new, twice[0].offset), (true, false, twice[1].offset));
    assert_eq!(log.events(&room("room"), 0, 10).expect("readable").len(), 3);
    assert_eq!(seqs(log, HistoryRange::Newest, 10), (vec![1, 2, 3], false));
}

fn a_batch_keeps_its_order(log: &mut dyn EventLog) {
    let batch = [sent("room", 1), sent("other", 1), edited("room", "e1", 1, "x"), sent("room", 2)];
    let answers = log.append(&batch).expect("appended");
    let ids: Vec<_> = answers.iter().map(|appended| &appended.id).collect();
    assert_eq!(ids, batch.iter().map(|event| &event.id).collect::<Vec<_>>());
    assert!(answers.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    let read = log.events(&room("room"), 0, 10).expect("readable");
    let expected = [&batch[0], &batch[2], &batch[3]];
    assert_eq!(read.iter().map(|recorded| &recorded.event).collect::<Vec<_>>(), expected);
    let rest = log.events(&room("room"), read[0].offset, 1).expect("readable");
    assert_eq!(rest, read[1..2]);
    assert_eq!(log.events(&room("room"), read[2].offset, 10).expect("readable"), vec![]);
}

fn a_batch_is_appended_whole_or_not_at_all(log: &mut dyn EventLog) {
    append(log, 2);
    let before = log.events(&room("room"), 0, 10).expect("readable");
    let clash = [edited("room", "e1", 1, "x"), sent("room", 3), sent_as("room", "other", 2)];
    assert!(matches!(log.append(&clash), Err(LogError::Rejected(_))));
    let clash_within = [sent("room", 3), sent_as("room", "other", 3)];
    assert!(matches!(log.append(&clash_within), Err(LogError::Rejected(_))));
    assert_eq!(log.events(&room("room"), 0, 10).expect("readable"), before);
    let first = log.message(&room("room"), &message("m1")).expect("readable").expect("kept");
    assert_eq!(first.edited_at_ms, None);
    assert!(log.append(&[sent("room", 3)]).expect("appended")[0].is_new);
    assert_eq!(log.append(&[]).expect("nothing to do"), vec![]);
}

fn messages_stand_as_the_events_left_them(log: &mut dyn EventLog) {
    let react = |id, who, on| {
        let body =
            EventBody::ChatReacted { message: message("m1"), by: identity(who), emoji: "👍".into(), on };
        event("room", id, body)
    };
    append(log, 2);
    let answers = log
        .append(&[
            edited("room", "e1", 1, "better"),
            react("r1", "ann", true),
            react("r2", "bob", true),
            react("r3", "ann", false),
            event("room", "d1", EventBody::ChatDeleted { message: message("m2"), by: identity("ann") }),
            edited("room", "e2", 2, "back"),
            edited("room", "e3", 7, "no such message"),
        ])
        .expect("appended");
    let first = log.message(&room("room"), &message("m1")).expect("readable").expect("kept");
    assert_eq!((first.text.as_str(), first.edited_at_ms), ("better", Some(5000)));
    assert_eq!(first.reactions["👍"], vec![identity("bob")]);
    assert_eq!(answers[3].message.as_ref(), Some(&first));
    assert_eq!(answers[1].message.as_ref().expect("its message").reactions["👍"], vec![identity("ann")]);
    let second = log.message(&room("room"), &message("m2")).expect("readable").expect("kept");
    assert_eq!((second.text.as_str(), second.deleted, second.edited_at_ms), ("", true, None));
    assert_eq!(answers[6].message, None);
    let page = log.messages(&room("room"), HistoryRange::Newest, 10).expect("readable");
    assert_eq!(page.messages, vec![first, second]);
}

fn pages_go_both_ways_and_know_their_end(log: &mut dyn EventLog) {
    assert_eq!(seqs(log, HistoryRange::Newest, 5), (vec![], false));
    append(log, 10);
    for (range, limit, expected, more) in [
        (HistoryRange::Newest, 3, vec![8, 9, 10], true),
        (HistoryRange::Newest, 10, (1..=10).collect(), false),
        (HistoryRange::Before(8), 3, vec![5, 6, 7], true),
        (HistoryRange::Before(4), 3, vec![1, 2, 3], false),
        (HistoryRange::Before(1), 3, vec![], false),
        (HistoryRange::Before(0), 3, vec![], false),
        (HistoryRange::Before(u64::MAX), 2, vec![9, 10], true),
        (HistoryRange::After(0), 3, vec![1, 2, 3], true),
        (HistoryRange::After(7), 3, vec![8, 9, 10], false),
        (HistoryRange::After(10), 3, vec![], false),
        (HistoryRange::After(u64::MAX), 3, vec![], false),
        (HistoryRange::After(3), 0, vec![], true),
    ] {
        assert_eq!(seqs(log, range, limit), (expected, more), "{range:?}, {limit}");
    }
}

fn rooms_are_apart(log: &mut dyn EventLog) {
    append(log, 2);
    let appended = log.append(&[sent("other", 1)]).expect("appended").remove(0);
    assert!(appended.is_new, "the same id in another room is another event");
    log.append(&[edited("other", "e1", 1, "changed")]).expect("appended");
    let here = log.message(&room("room"), &message("m1")).expect("readable").expect("kept");
    assert_eq!(here.edited_at_ms, None);
    assert_eq!(log.events(&room("other"), 0, 10).expect("readable").len(), 2);
    assert_eq!(log.message(&room("Room"), &message("m1")).expect("readable"), None, "names are exact");
    assert_eq!(log.history(&room("nowhere")).expect("readable"), RoomHistory::default());
}

fn history_is_what_an_opening_room_needs(log: &mut dyn EventLog) {
    append(log, WINDOW as u64 + 1);
    let last = log.append(&[edited("room", "e1", 1, "x")]).expect("appended")[0].offset;
    log.append(&[sent("other", 1)]).expect("appended");
    let history = log.history(&room("room")).expect("readable");
    assert_eq!((history.last_seq, history.last_offset), (WINDOW as u64 + 1, last));
    assert_eq!((history.page.messages.len(), history.page.more), (WINDOW, true));
    assert_eq!(history.page.messages[0].seq, 2);
}

fn events_of_newer_versions_are_kept(log: &mut dyn EventLog) {
    let body =
        EventBody::Unknown(serde_json::json!({"kind": "chat.pinned", "message": "m1", "n": [1, null]}));
    let newer = event("room", "p1", body);
    let appended = log.append(std::slice::from_ref(&newer)).expect("appended").remove(0);
    assert_eq!((appended.id, appended.message), (EventId::from_stored("p1".into()), None));
    assert_eq!(log.events(&room("room"), 0, 10).expect("readable")[0].event, newer);
}

fn pages_have_a_limit(log: &mut dyn EventLog) {
    append(log, u64::from(PAGE_MAX) + 1);
    assert_eq!(log.events(&room("room"), 0, u32::MAX).expect("readable").len(), PAGE_MAX as usize);
    let (found, more) = seqs(log, HistoryRange::Newest, u32::MAX);
    assert_eq!((found.len(), found[0], more), (PAGE_MAX as usize, 2, true));
}

/// An event about one of a few messages, so that ids and places clash often.
fn any_event() -> impl Strategy<Value = antiphon::core::event::Event> {
    let place = prop_oneof![Just("room"), Just("other")];
    (place, 0..4u8, 0..6u64, 1..6u64, 0..30u32, any::<bool>()).prop_map(
        |(place, kind, of, seq, number, on)| {
            let id = message(&format!("m{of}"));
            let by = identity(["ann", "bob"][usize::from(on)]);
            let body = match kind {
                0 => return sent_as(place, id.as_str(), seq),
                1 => EventBody::ChatEdited { message: id, by, text: format!("text {number}") },
                2 => EventBody::ChatDeleted { message: id, by },
                _ => EventBody::ChatReacted { message: id, by, emoji: "🎉".into(), on },
            };
            event(place, &format!("n{number}"), body)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is appended, the two logs answer alike and hold the same.
    #[test]
    fn memory_and_sqlite_are_the_same(
        batches in proptest::collection::vec(proptest::collection::vec(any_event(), 0..6), 1..15)
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut sqlite = SqliteLog::open(&directory.path().join(FILE_NAME)).expect("a new log");
        let mut memory = MemoryLog::default();
        for batch in batches {
            match (memory.append(&batch), sqlite.append(&batch)) {
                (Err(LogError::Rejected(_)), Err(LogError::Rejected(_))) => {}
                (one, other) => prop_assert_eq!(one, other),
            }
        }
        for name in ["room", "other"] {
            let name = room(name);
            prop_assert_eq!(memory.history(&name), sqlite.history(&name));
            prop_assert_eq!(memory.events(&name, 0, 1000), sqlite.events(&name, 0, 1000));
            for range in [HistoryRange::After(2), HistoryRange::Before(4), HistoryRange::Newest] {
                prop_assert_eq!(memory.messages(&name, range, 2), sqlite.messages(&name, range, 2));
            }
        }
    }
}

fn listed(log: &mut dyn EventLog, name: &str) -> Vec<u64> {
    let page = log.files(&room(name), u64::MAX, 10).expect("readable");
    page.messages.iter().map(|message| message.seq).collect()
}

fn deleted(name: &str, seq: u64) -> Event {
    let body = EventBody::ChatDeleted { message: message(&format!("m{seq}")), by: identity("ann") };
    event(name, &format!("deleted:{seq}"), body)
}

fn files_are_listed_until_they_are_deleted_or_expire(log: &mut dyn EventLog) {
    let batch = [sent_file("room", 1, "aa", 5), sent("room", 2), sent_file("room", 3, "bb", 7)];
    let rest = [sent_file("room", 4, "cc", 1), sent_file("other", 1, "aa", 5)];
    log.append(&batch).expect("appended");
    log.append(&rest).expect("appended");
    assert_eq!(listed(log, "room"), [4, 3, 1]);
    let page = log.files(&room("room"), 4, 1).expect("readable");
    assert_eq!((page.messages[0].seq, page.more), (3, true));
    let expired = EventBody::FileExpired { message: message("m3") };
    let gone = [deleted("room", 1), event("room", EventId::of_expiry(&message("m3")).as_str(), expired)];
    log.append(&gone).expect("appended");
    assert_eq!(listed(log, "room"), [4]);
    assert_eq!(listed(log, "other"), [1]);
    let stands = log.message(&room("room"), &message("m3")).expect("readable").expect("it stands");
    assert!(stands.file.expect("its file is told of").expired);
}

fn what_is_used_is_counted_for_room_identity_and_node(log: &mut dyn EventLog) {
    let files =
        [sent_file("room", 1, "aa", 5), sent_file("room", 2, "bb", 7), sent_file("other", 1, "aa", 5)];
    log.append(&files).expect("appended");
    let usage = |log: &mut dyn EventLog, name: &str, who: &str| {
        let FileUsage { room_bytes, identity_bytes, node_bytes } =
            log.file_usage(&room(name), &identity(who)).expect("readable");
        (room_bytes, identity_bytes, node_bytes)
    };
    assert_eq!(usage(log, "room", "ann"), (12, 17, 12), "the same contents are kept once");
    assert_eq!(usage(log, "other", "ben"), (5, 0, 12));
    log.append(&[deleted("room", 1)]).expect("appended");
    assert_eq!(usage(log, "room", "ann"), (7, 12, 12));
    log.append(&[deleted("other", 1)]).expect("appended");
    assert_eq!(usage(log, "room", "ann"), (7, 7, 7));
}

fn contents_are_unreferenced_when_their_last_file_goes(log: &mut dyn EventLog) {
    log.append(&[sent_file("room", 1, "aa", 5), sent_file("other", 1, "aa", 5)]).expect("appended");
    log.append(&[deleted("room", 1)]).expect("appended");
    assert!(log.unreferenced(10).expect("readable").is_empty());
    log.append(&[deleted("other", 1)]).expect("appended");
    // A shared log names none before it has read all that there was when it began.
    let mut looks = (0..50).map(|_| log.unreferenced(10).expect("readable"));
    let found = looks.find(|found| !found.is_empty());
    assert_eq!(found, Some(vec!["aa".to_owned()]));
    log.append(&[sent_file("room", 2, "aa", 5)]).expect("appended");
    assert!(log.unreferenced(10).expect("readable").is_empty(), "they are referred to again");
    log.append(&[deleted("room", 2)]).expect("appended");
    log.forget_unreferenced("aa").expect("writable");
    assert!(log.unreferenced(10).expect("readable").is_empty());
}

fn old_files_are_found(log: &mut dyn EventLog) {
    log.append(&[sent_file("room", 1, "aa", 5), sent_file("other", 9, "bb", 5)]).expect("appended");
    let before = |log: &mut dyn EventLog, at_ms| log.files_before(at_ms, 10).expect("readable");
    assert!(before(log, 1001).is_empty());
    assert_eq!(before(log, 1002), [(room("room"), message("m1"))]);
    assert_eq!(before(log, u64::MAX >> 1).len(), 2);
}
