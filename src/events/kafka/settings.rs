//! Which Kafka, how it is spoken to, and what its client complains of.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::config::{Cluster, FileError, Kafka as Security, Secret};

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
    /// How brokers are spoken to, and as whom.
    pub security: Security,
    /// The password of `security`, from wherever it is.
    pub password: Option<Secret>,
    /// One that has nothing yet begins with snapshots.
    pub begins_with_snapshots: bool,
    pub voice: Voice,
}

impl KafkaSettings {
    /// As configured.
    ///
    /// # Errors
    /// A file that is named cannot be used.
    pub fn of(config: &Cluster) -> Result<Self, FileError> {
        config.kafka.check_files().into_iter().next().map_or(Ok(()), Err)?;
        Ok(Self {
            brokers: config.kafka_brokers.clone(),
            topic: config.kafka_topic.clone(),
            partitions: config.kafka_partitions,
            replication: config.kafka_replication,
            client: format!("antiphon-{}", config.node_id),
            security: config.kafka.clone(),
            password: config.kafka.password()?,
            begins_with_snapshots: true,
            voice: Voice::default(),
        })
    }

    pub(super) fn snapshots(&self) -> String {
        format!("{}.snapshot", self.topic)
    }

    /// Where records go that nobody can read.
    pub(super) fn dead_letters(&self) -> String {
        format!("{}.dlq", self.topic)
    }

    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client)
            // A broker that comes back is found soon.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            // Who leads a partition is looked for soon, and again before long.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .set("socket.keepalive.enable", "true");
        self.secure(&mut config);
        config
    }

    fn secure(&self, config: &mut ClientConfig) {
        let Security { protocol, ca_file, cert_file, key_file, mechanism, user, .. } = &self.security;
        config.set("security.protocol", protocol.as_str());
        if protocol.has_tls() {
            let path = |path: Option<&Path>| path.map(|path| path.display().to_string());
            config.set("ssl.ca.location", path(ca_file.as_deref()).unwrap_or_else(|| "probe".into()));
            for (key, file) in [("ssl.certificate.location", cert_file), ("ssl.key.location", key_file)] {
                path(file.as_deref()).map(|file| config.set(key, file));
            }
        }
        if protocol.has_sasl() {
            config.set("sasl.mechanism", mechanism.as_str());
            config.set("sasl.username", user.as_deref().unwrap_or_default());
            config.set("sasl.password", self.password.as_ref().map_or("", Secret::reveal));
        }
    }
}

/// How a client speaks: what it complains of is logged when it is another thing than before, and kept for who
/// asks why nothing comes. To be at the end of a partition, as a reader is after each record, is no error.
#[derive(Debug, Clone, Default)]
pub struct Voice(Arc<Mutex<Option<RDKafkaErrorCode>>>);

impl Voice {
    /// What an operator has to look at, where a complaint since the last connection says so.
    pub fn advice(&self) -> Option<&'static str> {
        advice((*self.0.lock().unwrap_or_else(PoisonError::into_inner))?)
    }

    /// All is well again: the same complaint is told once more.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn advice(code: RDKafkaErrorCode) -> Option<&'static str> {
    match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => Some(
            "the brokers do not accept who this node says it is: look at cluster.kafka.mechanism, user and \
             password",
        ),
        RDKafkaErrorCode::SSL => Some(
            "TLS with the brokers fails: look at cluster.kafka.ca_file, and whether their certificates name \
             the hosts of cluster.kafka_brokers",
        ),
        _ => None,
    }
}

impl ClientContext for Voice {
    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code().filter(|code| *code != RDKafkaErrorCode::PartitionEOF)
        else {
            return;
        };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That a broker cannot be reached follows what says why, and says less.
        if *last == Some(code) || last.is_some_and(|last| advice(last).is_some()) && advice(code).is_none() {
            return;
        }
        *last = Some(code);
        let advice = advice(code).unwrap_or("it is tried again");
        tracing::warn!(%error, reason, advice, "Kafka's client has a complaint");
    }
}

impl ConsumerContext for Voice {}

impl ProducerContext for Voice {
    type DeliveryOpaque = ();

    /// What counts is that a record is read back.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
