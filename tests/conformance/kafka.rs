//! The shared log on a real Kafka: what only it can suffer, and whose word counts in it.

use std::path::Path;
use std::time::{Duration, Instant};

use antiphon::core::chat::HistoryRange;
use antiphon::core::event::{Event, EventBody, EventIds};
use antiphon::core::ids::NodeId;
use antiphon::core::protocol::{Access, Mode};
use antiphon::events::kafka::record::Record;
use antiphon::events::kafka::{KafkaLog, KafkaSettings, Ticket, read_all};
use antiphon::events::{EventLog, LogError};
use rdkafka::error::KafkaError;

use super::broker::Kafka as Broker;
use super::{room, sent};

/// For whatever must happen, a broker's start included.
const LONG: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(20);

/// A broker, and the logs of nodes that share it.
pub struct Kafka(Broker);

impl Kafka {
    pub fn start() -> Self {
        Self(Broker::start())
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
    a_record_that_nobody_can_read_is_put_aside(&kafka);
    what_waited_is_written_by_the_next_start(&kafka);
    a_broker_that_is_away_delays_and_loses_nothing(&kafka);
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
