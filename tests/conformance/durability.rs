//! Killed at any moment, the log has every message that it acknowledged, exactly once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use antiphon::core::chat::HistoryRange;
use antiphon::core::event::EventBody;
use antiphon::events::sqlite::{FILE_NAME, SqliteLog};
use antiphon::events::writer::EventWriter;
use antiphon::events::{EventLog, PAGE_MAX};
use rand::RngExt;

use super::{message, room, sent};

const TEST_NAME: &str = "durability::every_acknowledged_message_survives_kill_9";
/// Set for the child: the directory of the log, and the first message to send.
const CHILD_DIRECTORY: &str = "ANTIPHON_TEST_CHILD_DIRECTORY";
const CHILD_FIRST_SEQ: &str = "ANTIPHON_TEST_CHILD_FIRST_SEQ";
/// Appends that the child has under way.
const IN_FLIGHT: u64 = 64;
const ROUNDS: usize = 8;

/// The test runs itself again as the process that is killed.
#[test]
fn every_acknowledged_message_survives_kill_9() {
    if let Some(directory) = std::env::var_os(CHILD_DIRECTORY) {
        let first = std::env::var(CHILD_FIRST_SEQ).expect("set with the directory");
        append_until_killed(Path::new(&directory), first.parse().expect("a number"));
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut acknowledged: u64 = 0;
    for round in 0..ROUNDS {
        // Starts behind what was acknowledged: a client that lost its answers sends again.
        let first = acknowledged.saturating_sub(IN_FLIGHT) + 1;
        let kill_after = rand::rng().random_range(1..=2_000u64);
        let child = spawn_child(directory.path(), first);
        let last = kill_and_read(child, kill_after);
        assert!(last >= first + kill_after - 1, "round {round} acknowledged what it was killed after");
        acknowledged = acknowledged.max(last);
        verify(directory.path(), acknowledged);
    }
}

/// Prints the number of each message once it is durable. They are acknowledged in order.
fn append_until_killed(directory: &Path, first: u64) -> ! {
    let log = SqliteLog::open(&directory.join(FILE_NAME)).expect("a log");
    let writer = EventWriter::spawn(Box::new(log)).expect("a thread");
    let (answer, answers) = mpsc::channel();
    let mut output = std::io::stdout().lock();
    for seq in first.. {
        let answer = answer.clone();
        let reply = move |result: Result<Vec<_>, _>| {
            result.expect("durable");
            answer.send(seq).expect("the loop listens");
        };
        writer.append(vec![sent("room", seq)], reply).expect("taken");
        if seq >= first + IN_FLIGHT {
            let durable = answers.recv().expect("the writer answers");
            // Fails when the parent is gone, and so ends a forgotten child.
            writeln!(output, "ack {durable}").and_then(|()| output.flush()).expect("the parent reads");
        }
    }
    unreachable!("there are enough numbers")
}

fn spawn_child(directory: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", TEST_NAME, "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_FIRST_SEQ, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// Kills the child (SIGKILL) after so many acknowledgements; the last that it gave, even after the decision.
fn kill_and_read(mut child: Child, kill_after: u64) -> u64 {
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut count, mut last, mut line) = (0, 0, String::new());
    while lines.read_line(&mut line).expect("text") > 0 {
        // A line without its end was cut short by the kill.
        let number = line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix('\n'));
        if let Some(number) = number {
            last = number.parse().expect("a number");
            count += 1;
            if count == kill_after {
                child.kill().expect("killed");
            }
        }
        line.clear();
    }
    assert!(count >= kill_after, "the child ended by itself");
    child.wait().expect("ended");
    last
}

fn verify(directory: &Path, acknowledged: u64) {
    let mut log = SqliteLog::open(&directory.join(FILE_NAME)).expect("opens after a kill");
    let name = room("room");
    let mut times_sent = BTreeMap::new();
    let mut after = 0;
    loop {
        let events = log.events(&name, after, PAGE_MAX).expect("readable");
        let Some(last) = events.last() else { break };
        after = last.offset;
        for recorded in events {
            let EventBody::ChatSent { seq, .. } = recorded.event.body else {
                panic!("only messages were sent")
            };
            *times_sent.entry(seq).or_insert(0) += 1;
        }
    }
    assert!(times_sent.values().all(|times| *times == 1), "never twice");
    let kept: Vec<u64> = times_sent.into_keys().collect();
    assert_eq!(kept, (1..=kept.len() as u64).collect::<Vec<_>>(), "no gap");
    assert!(kept.len() as u64 >= acknowledged, "{} kept of {acknowledged}", kept.len());
    let page = log.messages(&name, HistoryRange::After(acknowledged - 1), 1).expect("readable");
    assert_eq!(page.messages[0].id, message(&format!("m{acknowledged}")), "as a message too");
}
