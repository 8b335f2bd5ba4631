//! The writer's thread over a real log: grouped commits, order, trouble and its end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use antiphon::core::chat::{HistoryRange, MessagePage, RoomHistory};
use antiphon::core::event::{Appended, Event, EventId};
use antiphon::core::ids::{Identity, MessageId, RoomName};
use antiphon::core::protocol::ChatMessage;
use antiphon::events::sqlite::{FILE_NAME, SqliteLog};
use antiphon::events::writer::EventWriter;
use antiphon::events::{EventLog, FileUsage, LogError, Recorded};

use super::{room, sent, sent_as};

const SECONDS: Duration = Duration::from_secs(20);

/// The real log, with its commits counted.
struct Counted {
    log: SqliteLog,
    commits: Arc<AtomicUsize>,
}

impl EventLog for Counted {
    fn append(&mut self, batch: &[Event]) -> Result<Vec<Appended>, LogError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.log.append(batch)
    }
    fn messages(
        &mut self,
        room: &RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, LogError> {
        self.log.messages(room, range, limit)
    }
    fn message(&mut self, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, LogError> {
        self.log.message(room, id)
    }
    fn history(&mut self, room: &RoomName) -> Result<RoomHistory, LogError> {
        self.log.history(room)
    }
    fn last_epoch(&mut self, room: &RoomName) -> Result<u64, LogError> {
        self.log.last_epoch(room)
    }
    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.log.events(room, after, limit)
    }
    fn ledger(&mut self, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.log.ledger(after, limit)
    }
    fn place(&mut self, room: &RoomName, id: &EventId) -> Result<Option<u64>, LogError> {
        self.log.place(room, id)
    }
    fn files(&mut self, room: &RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError> {
        self.log.files(room, before, limit)
    }
    fn file_usage(&mut self, room: &RoomName, identity: &Identity) -> Result<FileUsage, LogError> {
        self.log.file_usage(room, identity)
    }
    fn files_before(&mut self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError> {
        self.log.files_before(at_ms, limit)
    }
    fn unreferenced(&mut self, limit: u32) -> Result<Vec<String>, LogError> {
        self.log.unreferenced(limit)
    }
    fn forget_unreferenced(&mut self, sha256: &str) -> Result<(), LogError> {
        self.log.forget_unreferenced(sha256)
    }
    fn probe(&mut self) -> Result<(), LogError> {
        self.log.probe()
    }
}

struct Rig {
    writer: EventWriter,
    commits: Arc<AtomicUsize>,
    path: PathBuf,
    _directory: tempfile::TempDir,
    answers: mpsc::Receiver<(u64, Result<Vec<Appended>, LogError>)>,
    answer: mpsc::Sender<(u64, Result<Vec<Appended>, LogError>)>,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(FILE_NAME);
        let commits = Arc::new(AtomicUsize::new(0));
        let log = Counted { log: SqliteLog::open(&path).expect("a new log"), commits: Arc::clone(&commits) };
        let writer = EventWriter::spawn(Box::new(log)).expect("a thread");
        let (answer, answers) = mpsc::channel();
        Self { writer, commits, path, _directory: directory, answers, answer }
    }

    /// Sends an append whose answer comes with this number.
    fn append(&self, number: u64, events: Vec<Event>) -> Result<(), LogError> {
        let answer = self.answer.clone();
        self.writer.append(events, move |result| answer.send((number, result)).expect("the test listens"))
    }

    fn answer(&self) -> (u64, Result<Vec<Appended>, LogError>) {
        self.answers.recv_timeout(SECONDS).expect("every append is answered")
    }

    /// Holds the thread until the returned end is dropped, so that commands pile up.
    fn hold(&self) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel();
        let (reached, is_held) = mpsc::channel();
        let wait = move |_: &mut dyn EventLog| {
            reached.send(()).expect("the test waits");
            // An error is the release.
            let _ = held.recv();
            Ok(())
        };
        self.writer.read(wait, |_| ()).expect("taken");
        is_held.recv_timeout(SECONDS).expect("the thread runs");
        release
    }
}

#[test]
fn appends_that_wait_together_are_one_commit() {
    let rig = Rig::new();
    let held = rig.hold();
    for seq in 1..=100 {
        rig.append(seq, vec![sent("room", seq)]).expect("taken");
    }
    drop(held);
    for seq in 1..=100 {
        let (number, result) = rig.answer();
        let appended = result.expect("durable");
        assert_eq!((number, appended.len()), (seq, 1), "answered in order");
        assert_eq!(appended[0].message.as_ref().map(|message| message.seq), Some(seq));
    }
    assert_eq!(rig.commits.load(Ordering::SeqCst), 1);
}

#[test]
fn one_bad_append_does_not_refuse_its_neighbours() {
    let rig = Rig::new();
    let held = rig.hold();
    rig.append(1, vec![sent("room", 1)]).expect("taken");
    rig.append(2, vec![sent("room", 2), sent_as("room", "clash", 1)]).expect("taken");
    rig.append(3, vec![sent("room", 3), sent("room", 1)]).expect("taken");
    drop(held);
    assert!(matches!(rig.answer(), (1, Ok(_))));
    assert!(matches!(rig.answer(), (2, Err(LogError::Rejected(_)))));
    let (number, result) = rig.answer();
    let is_new: Vec<bool> = result.expect("durable").iter().map(|appended| appended.is_new).collect();
    assert_eq!((number, is_new), (3, vec![true, false]));
    assert!(rig.writer.is_healthy());
}

#[tokio::test]
async fn a_read_sees_what_was_sent_before_it() {
    let rig = Rig::new();
    let held = rig.hold();
    rig.append(1, vec![sent("room", 1)]).expect("taken");
    let page = rig.writer.messages(room("room"), HistoryRange::Newest, 10);
    let history = rig.writer.history(room("room"));
    drop(held);
    let (page, history) = tokio::join!(page, history);
    assert_eq!(page.expect("readable").messages.len(), 1);
    assert_eq!(history.expect("readable").last_seq, 1);
    let message = rig.writer.message(room("room"), super::message("m1")).await.expect("readable");
    assert_eq!(message.map(|message| message.seq), Some(1));
    assert_eq!(rig.writer.events(room("room"), 0, 10).await.expect("readable").len(), 1);
}

#[test]
fn a_full_queue_refuses_and_forgets_nothing_it_took() {
    let rig = Rig::new();
    let held = rig.hold();
    let mut taken = 0;
    while rig.append(taken, vec![sent("room", taken + 1)]).is_ok() {
        taken += 1;
        assert!(taken < 100_000, "the queue is bounded");
    }
    drop(held);
    for number in 0..taken {
        let (answered, result) = rig.answer();
        assert_eq!((answered, result.is_ok()), (number, true));
    }
}

#[test]
fn a_log_that_cannot_be_written_is_told_and_comes_back_by_itself() {
    let rig = Rig::new();
    rig.append(0, vec![sent("room", 1)]).expect("taken");
    assert!(matches!(rig.answer(), (0, Ok(_))));
    let other = rusqlite::Connection::open(&rig.path).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    rig.append(1, vec![sent("room", 2)]).expect("taken");
    assert_eq!(rig.answer(), (1, Err(LogError::InUse { path: rig.path.clone() })));
    assert!(!rig.writer.is_healthy());
    other.execute_batch("ROLLBACK").expect("unlocked");
    let deadline = Instant::now() + SECONDS;
    while !rig.writer.is_healthy() {
        assert!(Instant::now() < deadline, "healthy again without anyone appending");
        std::thread::yield_now();
    }
    rig.append(2, vec![sent("room", 2)]).expect("taken");
    assert!(matches!(rig.answer(), (2, Ok(appended)) if appended[0].is_new));
}

#[tokio::test]
async fn closing_answers_all_and_frees_the_log() {
    let rig = Rig::new();
    let held = rig.hold();
    for seq in 1..=50 {
        rig.append(seq, vec![sent("room", seq)]).expect("taken");
    }
    drop(held);
    rig.writer.close().await;
    assert_eq!(rig.answers.try_iter().filter(|(_, result)| result.is_ok()).count(), 50);
    assert!(!rig.writer.is_healthy());
    assert_eq!(rig.append(51, vec![sent("room", 51)]), Err(LogError::Refused));
    let late = rig.writer.messages(room("room"), HistoryRange::Newest, 1).await;
    assert_eq!(late, Err(LogError::Refused));
    rig.writer.close().await;
    let kept = SqliteLog::open(&rig.path).expect("free").history(&room("room")).expect("readable");
    assert_eq!(kept.last_seq, 50);
}

#[test]
fn the_last_handle_gone_the_log_is_closed() {
    let Rig { writer, path, _directory, .. } = Rig::new();
    writer.append(vec![sent("room", 1)], |_| ()).expect("taken");
    drop(writer);
    let deadline = Instant::now() + SECONDS;
    let mut log = loop {
        match SqliteLog::open(&path) {
            Ok(log) => break log,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(log.history(&room("room")).expect("readable").last_seq, 1);
}
