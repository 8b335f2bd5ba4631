//! Connections to Kafka: topics, a producer and a consumer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::metadata::Metadata;
use rdkafka::producer::BaseProducer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ends::Ends;
use super::settings::{KafkaSettings, Voice};
use super::snapshot::Snapshots;
use crate::telemetry::traces::TRACEPARENT;

/// For a broker's answer while the connection is made.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Of a client that could not ask, that are heard: one of each broker, or so.
const COMPLAINTS: usize = 20;
/// For all snapshots to be read.
const SNAPSHOTS_WITHIN: Duration = Duration::from_secs(30);

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub payload: Vec<u8>,
    /// What it belongs to (W3C Trace Context), as its writer said.
    pub trace: Option<String>,
}

pub(super) struct Connection {
    pub producer: BaseProducer<Voice>,
    pub consumer: Arc<BaseConsumer<Voice>>,
    pub ends: Ends,
    /// With which to begin, where it is read from their checkpoints on.
    pub begin: Option<Snapshots>,
    pub partitions: i32,
}

pub(super) fn read_of(message: &BorrowedMessage<'_>) -> Read {
    let headers = message.headers();
    let trace = headers.and_then(|headers| headers.iter().find(|header| header.key == TRACEPARENT));
    let trace = trace.and_then(|header| str::from_utf8(header.value?).ok().map(str::to_owned));
    let payload = message.payload().unwrap_or_default().to_vec();
    Read { partition: message.partition(), offset: message.offset(), payload, trace }
}

/// Makes the topics if they are missing, and a producer and a consumer of them.
pub(super) fn connect(settings: &KafkaSettings, positions: &[(i32, i64)]) -> Result<Connection, KafkaError> {
    let partitions = make_topics(settings)?;
    let producer = settings
        .config()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        // What cannot be delivered stays until it can: giving one up would change the order.
        .set("message.timeout.ms", "0")
        .set("linger.ms", "1")
        .create_with_context(settings.voice.clone())?;
    let begin = if positions.is_empty() && settings.begins_with_snapshots {
        read_snapshots(settings)?.filter(|begin| !begin.positions().is_empty())
    } else {
        None
    };
    let from = begin.as_ref().map_or_else(|| positions.to_vec(), Snapshots::positions);
    let consumer = Arc::new(consume(settings, partitions, &from)?);
    let ends = Ends::of(&consumer, &settings.topic, partitions);
    Ok(Connection { producer, consumer, ends, begin, partitions })
}

impl Connection {
    /// Reads on from elsewhere.
    ///
    /// # Errors
    /// Kafka's client refuses; it is as it was.
    pub fn read_from(
        &mut self,
        settings: &KafkaSettings,
        positions: &[(i32, i64)],
    ) -> Result<(), KafkaError> {
        self.consumer = Arc::new(consume(settings, self.partitions, positions)?);
        self.ends = Ends::of(&self.consumer, &settings.topic, self.partitions);
        Ok(())
    }
}

/// All snapshots; none where it takes too long.
fn read_snapshots(settings: &KafkaSettings) -> Result<Option<Snapshots>, KafkaError> {
    let topic = KafkaSettings { topic: settings.snapshots(), ..settings.clone() };
    let consumer = consume(&topic, 1, &[])?;
    let mut snapshots = Snapshots::default();
    let by = Instant::now() + SNAPSHOTS_WITHIN;
    while Instant::now() < by {
        match consumer.poll(ANSWER_WITHIN) {
            Some(Ok(message)) => {
                snapshots.take(message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Some(snapshots)),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    tracing::warn!("the snapshots cannot be read in time: the log is read from its beginning");
    Ok(None)
}

pub(super) fn consume(
    settings: &KafkaSettings,
    partitions: i32,
    positions: &[(i32, i64)],
) -> Result<BaseConsumer<Voice>, KafkaError> {
    let consumer: BaseConsumer<Voice> = settings
        .config()
        .set("group.id", &settings.client)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        .create_with_context(settings.voice.clone())?;
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        let position = positions.iter().find(|(of, _)| *of == partition);
        let offset = position.map_or(Offset::Beginning, |(_, next)| Offset::Offset(*next));
        from.add_partition_offset(&settings.topic, partition, offset)?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

/// A client for questions. What it complains of is heard only where it is polled.
fn asker(settings: &KafkaSettings) -> Result<BaseConsumer<Voice>, KafkaError> {
    let mut config = settings.config();
    config.set("group.id", &settings.client).create_with_context(settings.voice.clone())
}

fn ask_of_topic(asker: &BaseConsumer<Voice>, topic: &str) -> Result<Metadata, KafkaError> {
    asker.fetch_metadata(Some(topic), ANSWER_WITHIN).inspect_err(|_| {
        for _ in 0..COMPLAINTS {
            asker.poll(Duration::ZERO);
        }
    })
}

/// Says how many partitions the log has.
fn make_topics(settings: &KafkaSettings) -> Result<i32, KafkaError> {
    let asker = asker(settings)?;
    let partitions = |topic: &str| -> Result<i32, KafkaError> {
        let found = ask_of_topic(&asker, topic)?;
        let found = found.topics().iter().find(|found| found.name() == topic);
        let all = found.map_or(&[][..], |topic| topic.partitions());
        // One that has no leader yet is not there: a client that has begun with it may not look again for
        // minutes.
        let are_led = all.iter().all(|partition| partition.leader() >= 0);
        Ok(if are_led { i32::try_from(all.len()).unwrap_or(0) } else { 0 })
    };
    let known = partitions(&settings.topic)?;
    let dead_letters = settings.dead_letters();
    let snapshots = settings.snapshots();
    if known > 0 && partitions(&dead_letters)? > 0 && partitions(&snapshots)? > 0 {
        return Ok(known);
    }
    let copies = i32::try_from(settings.replication).unwrap_or(1);
    let count = i32::try_from(settings.partitions).unwrap_or(1);
    // The log is the truth: nothing of it ever expires.
    let make = |name, count| {
        NewTopic::new(name, count, TopicReplication::Fixed(copies))
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
    };
    let compacted =
        NewTopic::new(&snapshots, 1, TopicReplication::Fixed(copies)).set("cleanup.policy", "compact");
    let topics = [make(&settings.topic, count), make(&dead_letters, 1), compacted];
    let options =
        AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    let admin = AdminClient::<Voice>::from_config_and_context(&settings.config(), settings.voice.clone())?;
    // One that another node made meanwhile is as good.
    runtime.block_on(admin.create_topics(&topics, &options))?;
    match partitions(&settings.topic)? {
        count if count > 0 && partitions(&snapshots)? > 0 => Ok(count),
        _ => Err(KafkaError::ClientCreation("the topic is not there yet".into())),
    }
}

/// Reads the whole log as it stands, for operators. Ends at its end, or with `follow` never.
///
/// # Errors
/// Kafka cannot be reached; or what `each` says, which ends it.
pub fn read_all<E: From<KafkaError>>(
    settings: &KafkaSettings,
    follow: bool,
    mut each: impl FnMut(Read) -> Result<(), E>,
) -> Result<(), E> {
    let found = ask_of_topic(&asker(settings)?, &settings.topic)?;
    let topic = found.topics().iter().find(|topic| topic.name() == settings.topic);
    let partitions = topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(0));
    let consumer = consume(settings, partitions, &[])?;
    let mut open = BTreeSet::from_iter(0..partitions);
    while follow || !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => each(read_of(&message))?,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            // Brokers that are away are looked for by the client itself.
            Some(Err(error)) => tracing::warn!(%error, "the log cannot be read now"),
            None => {}
        }
    }
    Ok(())
}
