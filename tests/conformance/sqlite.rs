//! What the SQLite log promises beyond the suite: it outlives its process, and says what ails its file.

use std::fs;
use std::path::Path;

use antiphon::core::chat::{Asker, Author, Chat, ChatCommand, ChatOutput, HistoryRange};
use antiphon::events::sqlite::{FILE_NAME, SqliteLog};
use antiphon::events::{EventLog, LogError};

use super::{edited, identity, message, room, sent};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(path: &Path) -> SqliteLog {
    SqliteLog::open(path).expect("a log")
}

/// A closed log with messages 1 to 100.
fn filled(path: &Path) {
    let batch: Vec<_> = (1..=100).map(|seq| sent("room", seq)).collect();
    open(path).append(&batch).expect("appended");
}

#[test]
fn a_reopened_log_goes_on_where_it_was() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    let mut log = open(&path);
    let first = log.append(&[sent("room", 1), edited("room", "e1", 1, "x")]).expect("appended");
    let history = log.history(&room("room"));
    drop(log);
    let mut log = open(&path);
    assert_eq!(log.history(&room("room")), history);
    let again = log.append(&[sent("room", 1), sent("room", 2)]).expect("appended");
    assert_eq!((again[0].is_new, again[0].offset), (false, first[0].offset));
    assert!(again[1].is_new && again[1].offset > first[1].offset);
}

/// Gives a chat its command and carries its events to the log and back; how often it was acknowledged.
fn ask(chat: &mut Chat, log: &mut SqliteLog, command: ChatCommand) -> usize {
    let author = Author { identity: identity("ann"), name: "Ann".into(), is_admin: false };
    let asker = Asker::Participant { identity: author.identity.clone(), request: None };
    chat.handle_command(7, asker, author, command);
    let mut acknowledged = 0;
    while let Some(output) = chat.poll_output() {
        match output {
            ChatOutput::Append(event) => {
                let appended = log.append(&[event]).expect("appended").remove(0);
                chat.handle_appended(appended);
            }
            ChatOutput::Read(id) => {
                let stored = log.message(&room("room"), &id).expect("readable");
                chat.handle_read(7, &id, stored);
            }
            ChatOutput::Publish(_) => {}
            ChatOutput::Ack(_) => acknowledged += 1,
            ChatOutput::Refuse(_, refusal) => panic!("{refusal}"),
        }
    }
    acknowledged
}

#[test]
fn a_chat_goes_on_after_its_process_died() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    let (mut id, mut before) = (0, None);
    for _ in 0..3 {
        let mut log = open(&path);
        let mut chat = Chat::restore(room("room"), 100, log.history(&room("room")).expect("readable"));
        assert_eq!(before.unwrap_or_default(), chat.recent());
        for _ in 0..150 {
            id += 1;
            let text = format!("text {id}");
            let send = ChatCommand::Send { id: message(&format!("c{id}")), text, reply_to: None };
            // As if its answer had been lost.
            assert_eq!(ask(&mut chat, &mut log, send.clone()) + ask(&mut chat, &mut log, send), 2);
        }
        // Of this opening and, the third time, of a message older than what is in memory.
        for edited in [id, 1] {
            let edit = ChatCommand::Edit { id: message(&format!("c{edited}")), text: format!("edit {id}") };
            assert_eq!(ask(&mut chat, &mut log, edit), 1);
        }
        before = Some(chat.recent());
    }
    let mut log = open(&path);
    let all = log.messages(&room("room"), HistoryRange::After(0), 500).expect("readable").messages;
    assert_eq!(all.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=450).collect::<Vec<_>>());
    let edits = [1, 150, 300, 450].map(|seq: usize| all[seq - 1].text.as_str());
    assert_eq!(edits, ["edit 450", "edit 150", "edit 300", "edit 450"]);
}

#[test]
fn a_missing_directory_is_made_but_not_its_parent() {
    let directory = directory();
    open(&directory.path().join("data").join(FILE_NAME)).probe().expect("writable");
    let error = SqliteLog::open(&directory.path().join("no/data").join(FILE_NAME)).expect_err("no parent");
    assert!(matches!(error, LogError::Directory { .. }));
    assert!(error.to_string().contains("node.data_dir"), "{error}");
}

#[test]
fn a_second_process_is_told_but_a_reader_may_read() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    let mut log = open(&path);
    log.append(&[sent("room", 1)]).expect("appended");
    assert_eq!(SqliteLog::open(&path).expect_err("in use"), LogError::InUse { path: path.clone() });
    let reader = rusqlite::Connection::open(&path).expect("readable");
    let count: i64 =
        reader.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("a count");
    assert_eq!(count, 1);
    drop(log);
    open(&path).probe().expect("free again");
}

#[test]
fn a_newer_log_is_left_alone() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    filled(&path);
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection.pragma_update(None, "user_version", 99).expect("a pragma");
    drop(connection);
    let error = SqliteLog::open(&path).expect_err("newer");
    assert_eq!(error, LogError::Newer { path, found: 99, known: 4 });
}

#[test]
fn another_programs_database_is_left_alone() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection.execute_batch("CREATE TABLE theirs (x)").expect("a table");
    drop(connection);
    assert_eq!(SqliteLog::open(&path).expect_err("not ours"), LogError::Foreign { path });
}

#[test]
fn what_is_no_database_is_named() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    fs::write(&path, "my holiday pictures, and then some more of them".repeat(100)).expect("written");
    let error = SqliteLog::open(&path).expect_err("no database");
    assert!(matches!(error, LogError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("backup"), "{error}");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    assert!(matches!(SqliteLog::open(&path), Err(LogError::Denied { .. })));
}

#[test]
fn a_damaged_database_is_an_error_and_no_panic() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    filled(&path);
    let mut bytes = fs::read(&path).expect("readable");
    // All but the first page, which holds the schema.
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0xa5);
    fs::write(&path, bytes).expect("written");
    let mut log = open(&path);
    let read = log.messages(&room("room"), HistoryRange::Newest, 10);
    assert!(matches!(read, Err(LogError::Corrupt { .. })), "{read:?}");
    let written = log.append(&[sent("room", 101)]);
    assert!(matches!(written, Err(LogError::Corrupt { .. })), "{written:?}");
}

#[test]
fn a_row_that_is_not_ours_is_an_error_without_its_words() {
    let directory = directory();
    let path = directory.path().join(FILE_NAME);
    filled(&path);
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection.execute("UPDATE messages SET state = '{\"secret\": 1}'", []).expect("updated");
    drop(connection);
    let error = open(&path).messages(&room("room"), HistoryRange::Newest, 10).expect_err("not a message");
    assert!(matches!(error, LogError::Corrupt { .. }));
    assert!(!error.to_string().contains("secret"), "{error}");
}
