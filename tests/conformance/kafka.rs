//! The shared log on a real Kafka: what only it can suffer, and whose word counts in it.

use std::path::Path;
use std::time::{Duration, Instant};

use antiphon::config::Kafka as Security;
use antiphon::core::chat::HistoryRange;
use antiphon::core::event::{Event, EventBody, EventIds};
use antiphon::core::ids::{Identity, NodeId, RoomName};
use antiphon::core::ledger::{Fact, InvoiceId, Msat};
use antiphon::core::protocol::{Access, Mode};
use antiphon::events::kafka::record::Record;
use antiphon::events::kafka::snapshot::Checkpoint;
use antiphon::events::kafka::{KafkaLog, KafkaSettings, Ticket, Voice, read_all};
use antiphon::events::{EventLog, LogError};
use rdkafka::error::KafkaError;
use serde_json::json;

use super::broker::Kafka as Broker;
use super::{edited, room, sent};

/// For whatever must happen, a broker's start included.
const LONG: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(20);

/// A broker, and the logs of nodes that share it.
pub struct Kafka(Broker);

impl Kafka {
    pub fn start() -> Self {
        Self(Broker::start(super::network::Place::HERE))
    }

    fn act(&self, what: &str) {
        self.0.act(what);
    }

    fn settings(&self, topic: &str, node: &str) -> KafkaSettings {
        KafkaSettings {
            brokers: self.0.brokers(),
            topic: topic.into(),
            partitions: 1,
            replication: 1,
            client: format!("antiphon-{node}"),
            security: Security::default(),
            password: None,
            begins_with_snapshots: true,
            voice: Voice::default(),
        }
    }

    /// A node's log.
    pub fn log(&self, topic: &str, directory: &Path, node: &str) -> KafkaLog {
        self.log_of(topic, directory, node, 1)
    }

    fn log_of(&self, topic: &str, directory: &Path, node: &str, incarnation: u64) -> KafkaLog {
        let id = NodeId::parse(node).expect("a plain name");
        KafkaLog::open(directory, self.settings(topic, node), id, incarnation).expect("a copy")
    }

    /// All records as they stand.
    fn records(&self, topic: &str) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        read_all::<KafkaError>(&self.settings(topic, "reader"), false, |read| {
            records.push(read.payload);
            Ok(())
        })
        .expect("readable");
        records
    }
}

/// The opening of a room, under an epoch.
fn opened(epoch: u64) -> Event {
    let body = EventBody::RoomOpened { mode: Mode::Sfu, access: Access::Open, by: None };
    Event { id: EventIds::new("room", epoch).next_id(), room: room("room"), at_ms: 1, body }
}

fn submit(log: &mut KafkaLog, event: Event) -> Ticket {
    log.submit(&[vec![event]]).remove(0).expect("taken")
}

/// Polls until so many appends are done, and says of each whether it counted.
fn finish(log: &mut KafkaLog, count: usize) -> Vec<(Ticket, Result<(), LogError>)> {
    let deadline = Instant::now() + LONG;
    let mut done = Vec::new();
    while done.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} after {LONG:?}", done.len());
        done.extend(log.poll(TURN).into_iter().map(|(ticket, result)| (ticket, result.map(drop))));
    }
    done
}

fn seqs(log: &mut KafkaLog) -> Vec<u64> {
    let page = log.messages(&room("room"), HistoryRange::After(0), 500).expect("readable");
    page.messages.iter().map(|message| message.seq).collect()
}

/// Polls until the copy has so many messages.
fn catch_up(log: &mut KafkaLog, count: usize) {
    let deadline = Instant::now() + LONG;
    while seqs(log).len() < count {
        assert!(Instant::now() < deadline, "the copy has {:?}", seqs(log));
        log.poll(TURN);
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn what_only_a_shared_log_can_suffer() {
    let kafka = Kafka::start();
    a_writer_that_was_replaced_is_passed_over(&kafka);
    of_two_openings_under_one_epoch_the_first_counts(&kafka);
    the_ledger_of_all_rooms_has_one_writer(&kafka);
    a_record_that_nobody_can_read_is_put_aside(&kafka);
    what_waited_is_written_by_the_next_start(&kafka);
    a_broker_that_is_away_delays_and_loses_nothing(&kafka);
    a_node_that_has_nothing_begins_with_snapshots(&kafka);
}

fn a_writer_that_was_replaced_is_passed_over(kafka: &Kafka) {
    let (one, other) = (directory(), directory());
    let (mut a, mut b) = (kafka.log("replaced", one.path(), "a"), kafka.log("replaced", other.path(), "b"));
    submit(&mut a, opened(1));
    submit(&mut a, sent("room", 1));
    assert!(finish(&mut a, 2).iter().all(|(_, result)| result.is_ok()));
    submit(&mut b, opened(2));
    assert!(finish(&mut b, 1)[0].1.is_ok());
    // The new writer has all that counted before it opened the room.
    assert_eq!(seqs(&mut b), [1]);
    submit(&mut b, sent("room", 2));
    assert!(finish(&mut b, 1)[0].1.is_ok());
    // The old one does not know yet, writes, and learns from the log that it does not count.
    submit(&mut a, sent("room", 7));
    assert_eq!(finish(&mut a, 1)[0].1, Err(LogError::Fenced));
    assert_eq!(a.submit(&[vec![sent("room", 8)]]).remove(0), Err(LogError::Fenced), "and writes no more");
    assert_eq!((seqs(&mut a), seqs(&mut b)), (vec![1, 2], vec![1, 2]));
    assert_eq!(a.last_epoch(&room("room")), Ok(2));
    assert_eq!(a.history(&room("room")), b.history(&room("room")), "both go on from the same");
}

fn of_two_openings_under_one_epoch_the_first_counts(kafka: &Kafka) {
    let (one, other) = (directory(), directory());
    let (mut a, mut b) = (kafka.log("tie", one.path(), "a"), kafka.log("tie", other.path(), "b"));
    submit(&mut a, opened(5));
    assert!(finish(&mut a, 1)[0].1.is_ok());
    submit(&mut b, opened(5));
    assert_eq!(finish(&mut b, 1)[0].1, Err(LogError::Fenced));
    submit(&mut a, sent("room", 1));
    assert!(finish(&mut a, 1)[0].1.is_ok());
}

fn the_ledger_of_all_rooms_has_one_writer(kafka: &Kafka) {
    let keeper = |node: &str, epoch| {
        let node = NodeId::parse(node).expect("a plain name");
        Fact::LedgerOpened { epoch, node, key: "k".into() }.into_event(RoomName::ledger(), 1)
    };
    let marked = |of: &str, invoice: u128| {
        let by = Identity::parse("ann").expect("a name");
        let (invoice, sum) = (InvoiceId::new(invoice), Msat::from_sats(1));
        Fact::InvoiceMarked { invoice, sum, reason: "cash".into(), by }.into_event(room(of), 1)
    };
    let (one, other) = (directory(), directory());
    let (mut a, mut b) = (kafka.log("ledger", one.path(), "a"), kafka.log("ledger", other.path(), "b"));
    assert_eq!(a.submit(&[vec![marked("room", 1)]]).remove(0), Err(LogError::Fenced), "nobody opened it");
    submit(&mut a, keeper("a", 1));
    a.submit(&[vec![marked("room", 1), marked("shop", 2)]]).remove(0).expect("taken");
    assert!(
        finish(&mut a, 2).iter().all(|(_, result)| result.is_ok()),
        "facts of rooms that are not open here"
    );
    assert_eq!(kafka.records("ledger").len(), 2, "what belongs together is one record");
    // Whoever has a room has not its money.
    submit(&mut b, opened(7));
    assert!(finish(&mut b, 1)[0].1.is_ok());
    assert_eq!(b.submit(&[vec![marked("room", 3)]]).remove(0), Err(LogError::Fenced));
    submit(&mut b, keeper("b", 2));
    assert!(finish(&mut b, 1)[0].1.is_ok());
    // The one before was frozen, and goes on as if nothing had been.
    let moves = b.ledger_moves();
    submit(&mut a, marked("room", 4));
    assert_eq!(finish(&mut a, 1)[0].1, Err(LogError::Fenced));
    submit(&mut b, marked("room", 5));
    assert!(finish(&mut b, 1)[0].1.is_ok());
    assert!(moves.has_changed().expect("its log is there"), "followers are woken");
    let facts = |log: &mut KafkaLog| -> Vec<Event> {
        log.ledger(0, 100).expect("readable").into_iter().map(|recorded| recorded.event).collect()
    };
    let kept = [keeper("a", 1), marked("room", 1), marked("shop", 2), keeper("b", 2), marked("room", 5)];
    assert_eq!(facts(&mut b), kept);
    let deadline = Instant::now() + LONG;
    while facts(&mut a).len() < kept.len() {
        assert!(Instant::now() < deadline, "the other node has {:?}", facts(&mut a));
        a.poll(TURN);
    }
    assert_eq!(facts(&mut a), kept, "one order on all nodes");
    assert_eq!(a.last_epoch(&RoomName::ledger()), Ok(2));
    let place = b.place(&room("room"), &kept[1].id).expect("readable");
    assert!(place.is_some_and(|place| !b.events(&room("room"), place, 10).expect("readable").is_empty()));
}

fn a_record_that_nobody_can_read_is_put_aside(kafka: &Kafka) {
    use rdkafka::config::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    let place = directory();
    let mut log = kafka.log("poison", place.path(), "a");
    submit(&mut log, opened(1));
    assert!(finish(&mut log, 1)[0].1.is_ok());
    let broker = kafka.settings("poison", "x").brokers;
    let stranger: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker).create().expect("a producer");
    stranger.send(BaseRecord::to("poison").key("room").payload("{no json")).expect("taken");
    stranger.flush(LONG).expect("sent");
    submit(&mut log, sent("room", 1));
    assert!(finish(&mut log, 1)[0].1.is_ok(), "what is behind it is read");
    let deadline = Instant::now() + LONG;
    let buried = loop {
        log.poll(TURN);
        let buried = kafka.records("poison.dlq");
        if !buried.is_empty() || Instant::now() > deadline {
            break buried;
        }
    };
    assert_eq!(buried, [b"{no json".to_vec()]);
}

fn what_waited_is_written_by_the_next_start(kafka: &Kafka) {
    let place = directory();
    let mut log = kafka.log("leftover", place.path(), "a");
    submit(&mut log, opened(1));
    finish(&mut log, 1);
    kafka.act("freeze");
    for seq in 1..=20 {
        submit(&mut log, sent("room", seq));
    }
    log.poll(TURN);
    // The node is killed with all of it unanswered.
    drop(log);
    kafka.act("thaw");
    let mut log = kafka.log_of("leftover", place.path(), "a", 2);
    catch_up(&mut log, 20);
    assert_eq!(seqs(&mut log), (1..=20).collect::<Vec<_>>());
    // What the killed one may have sent already is there once.
    submit(&mut log, opened(2));
    submit(&mut log, sent("room", 21));
    assert!(finish(&mut log, 2).iter().all(|(_, result)| result.is_ok()));
    assert_eq!(seqs(&mut log), (1..=21).collect::<Vec<_>>());
    assert_eq!(log.backlog(), 0);
}

fn a_broker_that_is_away_delays_and_loses_nothing(kafka: &Kafka) {
    let (one, other) = (directory(), directory());
    let (mut a, mut b) = (kafka.log("away", one.path(), "a"), kafka.log("away", other.path(), "b"));
    submit(&mut a, opened(1));
    finish(&mut a, 1);
    let mut seq = 0;
    for (how, back) in [("freeze", "thaw"), ("kill9", "up")] {
        kafka.act(how);
        let mut tickets = Vec::new();
        for _ in 0..200 {
            seq += 1;
            tickets.push(submit(&mut a, sent("room", seq)));
        }
        let asked = Instant::now();
        let early = a.poll(TURN);
        assert!(asked.elapsed() < Duration::from_secs(2), "{how}: nobody waits for a broker");
        assert!(early.is_empty(), "{how}: nothing is acknowledged that the log has not");
        kafka.act(back);
        let back_at = Instant::now();
        let done = finish(&mut a, tickets.len());
        println!(
            "{{\"what\": \"Kafka {back} after {how}\", \"drained_ms\": {}}}",
            back_at.elapsed().as_millis()
        );
        assert!(done.iter().all(|(_, result)| result.is_ok()), "{how}");
        assert!(done.iter().map(|(ticket, _)| *ticket).eq(tickets), "{how}: in their order");
    }
    catch_up(&mut b, 400);
    assert_eq!(seqs(&mut b), (1..=400).collect::<Vec<_>>());
    let records = kafka.records("away");
    let events: Vec<_> = records.iter().flat_map(|one| Record::parse(one).expect("ours").events).collect();
    assert!(events.len() >= 401, "{} events in the log", events.len());
}

/// Messages of a long history; its last snapshot has been written when all of them have.
const LONG_HISTORY: u64 = 20_000;

/// A new node opens a room without reading how it came to be as it is, and has all of it a little later.
fn a_node_that_has_nothing_begins_with_snapshots(kafka: &Kafka) {
    let (one, other, third) = (directory(), directory(), directory());
    let mut a = kafka.log("long", one.path(), "a");
    submit(&mut a, opened(1));
    finish(&mut a, 1);
    for from in (1..=LONG_HISTORY).step_by(500) {
        let batches: Vec<Vec<Event>> = (from..from + 500).map(|seq| vec![sent("room", seq)]).collect();
        a.submit(&batches).into_iter().for_each(|ticket| assert!(ticket.is_ok()));
        assert!(finish(&mut a, 500).iter().all(|(_, result)| result.is_ok()));
    }
    // What is said last is after the last checkpoint.
    submit(&mut a, edited("room", "edit:1.1", LONG_HISTORY, "the last word"));
    submit(&mut a, edited("room", "edit:1.2", 1, "the first word"));
    finish(&mut a, 2);
    let began = Instant::now();
    until_checkpoint(kafka, &mut a, i64::try_from(LONG_HISTORY).expect("small"));
    println!("{}", json!({"what": "snapshots written", "ms": began.elapsed().as_millis()}));

    let began = Instant::now();
    let mut b = kafka.log("long", other.path(), "b");
    let history = |log: &mut KafkaLog| log.history(&room("room")).expect("it can be read");
    until(&mut b, |log| history(log).page.messages.last().is_some_and(|last| last.text == "the last word"));
    let (opened_after, read) = (began.elapsed(), b.taken());
    let (known, fresh) = (history(&mut a), history(&mut b));
    assert_eq!((&fresh.page.messages, fresh.page.more), (&known.page.messages, true));
    assert_eq!((fresh.last_seq, fresh.last_offset), (known.last_seq, known.last_offset));
    assert!(read < LONG_HISTORY / 4, "{read} records were read");
    if !b.is_whole() {
        let older = b.messages(&room("room"), HistoryRange::After(0), 10);
        assert!(older.is_err() || b.is_whole(), "what it has not is not said to be missing");
    }
    // It goes on with the room meanwhile.
    submit(&mut b, opened(2));
    submit(&mut b, sent("room", LONG_HISTORY + 1));
    assert!(finish(&mut b, 2).iter().all(|(_, result)| result.is_ok()));
    until(&mut b, |log| log.is_whole());
    let whole_after = began.elapsed();
    let page = b.messages(&room("room"), HistoryRange::After(0), 3).expect("it is there");
    assert_eq!(page.messages[0].text, "the first word");
    let all = |log: &mut KafkaLog| (log.events(&room("room"), 0, 500).map(|all| all.len()), history(log));
    until(&mut a, |log| history(log).last_seq == LONG_HISTORY + 1);
    assert_eq!(all(&mut b), all(&mut a));
    submit(&mut b, sent("room", LONG_HISTORY + 2));
    assert!(finish(&mut b, 1)[0].1.is_ok(), "it goes on with the whole copy");

    // Without snapshots.
    let began = Instant::now();
    let settings = KafkaSettings { begins_with_snapshots: false, ..kafka.settings("long", "c") };
    let mut c =
        KafkaLog::open(third.path(), settings, NodeId::parse("c").expect("a name"), 1).expect("a copy");
    until(&mut c, |log| history(log).last_seq == LONG_HISTORY + 2);
    println!(
        "{}",
        json!({"what": "a room of a long history on a new node", "messages": LONG_HISTORY,
            "opened_ms": opened_after.as_millis(), "records_read": read, "whole_ms": whole_after.as_millis(),
            "without_snapshots_ms": began.elapsed().as_millis()})
    );
    drop(b);
    assert!(!other.path().join("room-log.partial.sqlite3").exists());
    let mut again = kafka.log_of("long", other.path(), "b", 2);
    assert!(again.is_whole() && history(&mut again).last_seq == LONG_HISTORY + 2);
}

fn until(log: &mut KafkaLog, mut is_so: impl FnMut(&mut KafkaLog) -> bool) {
    let began = Instant::now();
    while !is_so(log) {
        assert!(began.elapsed() < LONG, "not in time");
        log.poll(TURN);
    }
}

/// Lets `log` go on until a checkpoint of this place or a later one stands.
fn until_checkpoint(kafka: &Kafka, log: &mut KafkaLog, place: i64) {
    let stands = || {
        let records = kafka.records("long.snapshot");
        let checkpoints =
            records.iter().filter_map(|record| serde_json::from_slice::<Checkpoint>(record).ok());
        checkpoints.map(|checkpoint| checkpoint.next).max() >= Some(place)
    };
    until(log, |log| {
        log.poll(TURN);
        stands()
    });
}
