//! The connection to Kafka: looked for on a thread of its own, so that nothing waits for a broker that is
//! away.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfig as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::Cluster;
use crate::core::ids::RoomName;

/// For a broker's answer while the connection is made.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked whether the connection is one that can still be used.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Which Kafka, and what is made there if it is missing.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `HOST:PORT`, by commas.
    pub brokers: String,
    pub topic: String,
    pub partitions: u32,
    pub replication: u32,
    /// Names this reader to the broker.
    pub client: String,
}

impl KafkaSettings {
    /// As configured.
    pub fn of(config: &Cluster) -> Self {
        Self {
            brokers: config.kafka_brokers.clone(),
            topic: config.kafka_topic.clone(),
            partitions: config.kafka_partitions,
            replication: config.kafka_replication,
            client: format!("antiphon-{}", config.node_id),
        }
    }

    /// Where records go that nobody can read.
    fn dead_letters(&self) -> String {
        format!("{}.dlq", self.topic)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client)
            // A broker that comes back is found soon.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.keepalive.enable", "true");
        config
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub payload: Vec<u8>,
}

/// How the reading client speaks: to be at the end of a partition, as it is after each record, is no error.
struct Reader;

impl ClientContext for Reader {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "Kafka's client has a complaint");
        }
    }
}

impl ConsumerContext for Reader {}

struct Connection {
    producer: BaseProducer,
    consumer: BaseConsumer<Reader>,
}

pub(super) struct Link {
    settings: KafkaSettings,
    /// Where reading goes on, by partition.
    positions: Vec<(i32, i64)>,
    connection: Option<Connection>,
    coming: Option<mpsc::Receiver<Connection>>,
    is_new: bool,
    checked_at: Instant,
}

impl Link {
    pub(super) fn new(settings: KafkaSettings, positions: Vec<(i32, i64)>) -> Self {
        let mut link = Self {
            settings,
            positions,
            connection: None,
            coming: None,
            is_new: false,
            checked_at: Instant::now(),
        };
        link.look_for_it();
        link
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.is_some()
    }

    /// True once for each connection.
    pub(super) fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Starts a thread that makes a connection, however long that takes.
    fn look_for_it(&mut self) {
        let (found, coming) = mpsc::channel();
        let (settings, positions) = (self.settings.clone(), self.positions.clone());
        let look = move || {
            let pauses = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(2))
                .without_max_times()
                .with_jitter()
                .build();
            for pause in pauses {
                match connect(&settings, &positions) {
                    // Nobody waits for it any more: the node ends.
                    Ok(connection) => return drop(found.send(connection)),
                    Err(error) => tracing::debug!(%error, "Kafka cannot be used yet"),
                }
                thread::park_timeout(pause);
            }
        };
        match thread::Builder::new().name("kafka".into()).spawn(look) {
            Ok(_) => self.coming = Some(coming),
            Err(error) => tracing::error!(%error, "the system gives no thread to look for Kafka"),
        }
    }

    fn settle(&mut self) {
        if let Some(connection) = self.coming.as_ref().and_then(|coming| coming.try_recv().ok()) {
            tracing::info!(topic = self.settings.topic, "the shared log is connected");
            (self.connection, self.coming, self.is_new) = (Some(connection), None, true);
        }
        if self.checked_at.elapsed() < CHECK_EVERY {
            return;
        }
        self.checked_at = Instant::now();
        let is_broken = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.producer.client().fatal_error().is_some());
        if is_broken || self.connection.is_none() && self.coming.is_none() {
            tracing::warn!("the connection to Kafka is made anew");
            self.connection = None;
            self.look_for_it();
        }
        metrics::gauge!("antiphon_log_connected").set(f64::from(u8::from(self.is_up())));
    }

    /// Sends a record; false when it cannot be taken now. What was taken is delivered once, in order, as long
    /// as this connection lives.
    pub(super) fn send(&mut self, room: &RoomName, payload: &[u8]) -> bool {
        let Some(connection) = &self.connection else { return false };
        let record = BaseRecord::to(&self.settings.topic).key(room.as_str()).payload(payload);
        match connection.producer.send(record) {
            Ok(()) => true,
            Err((error, _)) => {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    tracing::warn!(%error, "Kafka takes no record now");
                }
                false
            }
        }
    }

    /// The next record, waiting so long for it.
    pub(super) fn poll(&mut self, within: Duration) -> Option<Read> {
        self.settle();
        let Some(connection) = &self.connection else {
            // Nothing to wait for but the thread that looks.
            thread::park_timeout(within);
            return None;
        };
        connection.producer.poll(Duration::ZERO);
        let message = match connection.consumer.poll(within)? {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(_)) => return None,
            Err(error) => {
                tracing::debug!(%error, "the shared log cannot be read now");
                return None;
            }
        };
        let payload = message.payload().unwrap_or_default().to_vec();
        let read = Read { partition: message.partition(), offset: message.offset(), payload };
        self.note(&read);
        Some(read)
    }

    fn note(&mut self, read: &Read) {
        let next = read.offset + 1;
        match self.positions.iter_mut().find(|(partition, _)| *partition == read.partition) {
            Some((_, position)) => *position = next,
            None => self.positions.push((read.partition, next)),
        }
    }

    /// Puts a record aside that would hold up all behind it, with where it came from.
    pub(super) fn bury(&self, read: &Read, why: &str) {
        let Read { partition, offset, payload } = read;
        tracing::error!(partition, offset, why, "a record of the shared log is put aside");
        metrics::counter!("antiphon_log_buried_total").increment(1);
        let Some(connection) = &self.connection else { return };
        let source = format!("{}/{partition}/{offset}", self.settings.topic);
        let headers = OwnedHeaders::new()
            .insert(Header { key: "source", value: Some(&source) })
            .insert(Header { key: "why", value: Some(why) });
        let topic = self.settings.dead_letters();
        let record = BaseRecord::to(&topic).key(&source).payload(payload).headers(headers);
        if let Err((error, _)) = connection.producer.send(record) {
            tracing::error!(%error, partition, offset, "it stays where it is alone");
        }
    }
}

/// Makes the topics if they are missing, and a producer and a consumer of them.
fn connect(settings: &KafkaSettings, positions: &[(i32, i64)]) -> Result<Connection, KafkaError> {
    let partitions = make_topics(settings)?;
    let producer = settings
        .config()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        // What cannot be delivered stays until it can: giving one up would change the order.
        .set("message.timeout.ms", "0")
        .set("linger.ms", "1")
        .create()?;
    Ok(Connection { producer, consumer: consume(settings, partitions, positions)? })
}

fn consume(
    settings: &KafkaSettings,
    partitions: i32,
    positions: &[(i32, i64)],
) -> Result<BaseConsumer<Reader>, KafkaError> {
    let consumer: BaseConsumer<Reader> = settings
        .config()
        .set("group.id", &settings.client)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        .create_with_context(Reader)?;
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        let position = positions.iter().find(|(of, _)| *of == partition);
        let offset = position.map_or(Offset::Beginning, |(_, next)| Offset::Offset(*next));
        from.add_partition_offset(&settings.topic, partition, offset)?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

/// Says how many partitions the log has.
fn make_topics(settings: &KafkaSettings) -> Result<i32, KafkaError> {
    let admin = AdminClient::<DefaultClientContext>::from_config(&settings.config())?;
    let partitions = |topic: &str| -> Result<i32, KafkaError> {
        let found = admin.inner().fetch_metadata(Some(topic), ANSWER_WITHIN)?;
        let topics = found.topics().iter().find(|found| found.name() == topic);
        Ok(topics.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(0)))
    };
    let known = partitions(&settings.topic)?;
    let dead_letters = settings.dead_letters();
    if known > 0 && partitions(&dead_letters)? > 0 {
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
    let topics = [make(&settings.topic, count), make(&dead_letters, 1)];
    let options =
        AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    // One that another node made meanwhile is as good.
    runtime.block_on(admin.create_topics(&topics, &options))?;
    match partitions(&settings.topic)? {
        0 => Err(KafkaError::ClientCreation("the topic is not there yet".into())),
        count => Ok(count),
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
    let client: BaseConsumer = settings.config().set("group.id", &settings.client).create()?;
    let found = client.fetch_metadata(Some(&settings.topic), ANSWER_WITHIN)?;
    let topic = found.topics().iter().find(|topic| topic.name() == settings.topic);
    let partitions = topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(0));
    let consumer = consume(settings, partitions, &[])?;
    let mut open = std::collections::BTreeSet::from_iter(0..partitions);
    while follow || !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let payload = message.payload().unwrap_or_default().to_vec();
                each(Read { partition: message.partition(), offset: message.offset(), payload })?;
            }
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
