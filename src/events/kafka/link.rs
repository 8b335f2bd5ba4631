//! The connection to Kafka: looked for on a thread of its own, so that nothing waits for a broker that is
//! away.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::connect::{Connection, Read, connect, read_of};
use super::settings::KafkaSettings;
use super::snapshot::Snapshots;
use crate::core::ids::RoomName;
use crate::telemetry::traces::TRACEPARENT;

/// How often it is looked whether the connection is one that can still be used.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A record that was sent and not read back for so long, or one that is there and not read: the client may
/// have lost sight of a partition, which it does not always notice (librdkafka's issue 5430: one that had no
/// leader for a moment never has one again). Another connection is looked for, beside the one there is.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Once there is another connection, Kafka can be reached: for what is due to come by the one there is, and
/// for a look at where the log ends.
const GRACE: Duration = Duration::from_secs(3);

pub(super) struct Link {
    settings: KafkaSettings,
    /// Where reading goes on, by partition.
    positions: Vec<(i32, i64)>,
    connection: Option<Connection>,
    coming: Option<mpsc::Receiver<Connection>>,
    /// Another connection, and when it takes the place of one that brings nothing.
    spare: Option<(Connection, Instant)>,
    /// When the oldest record was sent that was not read back.
    due_since: Option<Instant>,
    /// Since when nothing was read of a partition that has more.
    behind_since: Option<Instant>,
    is_new: bool,
    checked_at: Instant,
    /// Partitions whose end has not been reached yet since the connection was made.
    behind: BTreeSet<i32>,
}

impl Link {
    pub(super) fn new(settings: KafkaSettings, positions: Vec<(i32, i64)>) -> Self {
        let mut link = Self {
            settings,
            positions,
            connection: None,
            coming: None,
            spare: None,
            due_since: None,
            behind_since: None,
            is_new: false,
            checked_at: Instant::now(),
            behind: BTreeSet::from([0]),
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

    /// The snapshots with which to begin, once for a connection that reads from their checkpoints on.
    pub(super) fn take_snapshots(&mut self) -> Option<Snapshots> {
        self.connection.as_mut()?.begin.take()
    }

    /// Where reading goes on, by partition.
    pub(super) fn positions(&self) -> &[(i32, i64)] {
        &self.positions
    }

    /// All has been read that was there when the connection was made.
    pub(super) fn is_caught_up(&self) -> bool {
        self.behind.is_empty()
    }

    /// Reads on from elsewhere.
    pub(super) fn read_from(&mut self, positions: Vec<(i32, i64)>) {
        self.positions = positions;
        let Some(connection) = &mut self.connection else { return };
        if let Err(error) = connection.read_from(&self.settings, &self.positions) {
            // The next connection begins there.
            tracing::warn!(%error, "the log cannot be read from another place: it is connected anew");
            self.connection = None;
            self.look_for_it();
        }
    }

    /// Sends a snapshot or a checkpoint; false when it cannot be taken now.
    pub(super) fn send_snapshot(&self, key: &str, payload: &[u8]) -> bool {
        let Some(connection) = &self.connection else { return false };
        let topic = self.settings.snapshots();
        connection.producer.send(BaseRecord::to(&topic).partition(0).key(key).payload(payload)).is_ok()
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

    /// When the oldest record was sent that was not read back yet.
    pub(super) fn note_due(&mut self, since: Option<Instant>) {
        self.due_since = since;
    }

    /// Reads nothing more by the connection that there is, and says nothing of it: as a client does that has
    /// lost sight of its partitions.
    pub(super) fn go_blind(&mut self) {
        let Some(Connection { consumer, .. }) = &self.connection else { return };
        let paused = consumer.assignment().and_then(|all| consumer.pause(&all));
        if let Err(error) = paused {
            tracing::warn!(%error, "the log is still read");
        }
    }

    fn is_stuck(&self) -> bool {
        let since = [self.due_since, self.behind_since].into_iter().flatten().min();
        since.is_some_and(|since| since.elapsed() > STUCK_AFTER)
    }

    fn settle(&mut self) {
        if let Some(connection) = self.coming.as_ref().and_then(|coming| coming.try_recv().ok()) {
            self.coming = None;
            if self.connection.is_some() {
                self.spare = Some((connection, Instant::now() + GRACE));
            } else {
                tracing::info!(topic = self.settings.topic, "the shared log is connected");
                self.begin(connection);
            }
        }
        self.use_spare();
        if self.checked_at.elapsed() < CHECK_EVERY {
            return;
        }
        self.checked_at = Instant::now();
        let (mut is_broken, mut behind) = (false, 0);
        if let Some(connection) = &mut self.connection {
            is_broken = connection.producer.client().fatal_error().is_some();
            (self.behind_since, behind) = connection.ends.behind(&self.positions, self.checked_at);
        }
        metrics::gauge!("antiphon_log_behind").set(behind as f64);
        if is_broken {
            tracing::warn!("the connection to Kafka is made anew");
            self.connection = None;
        }
        let is_wanted = self.connection.is_none() || self.is_stuck() && self.spare.is_none();
        if is_wanted && self.coming.is_none() {
            self.look_for_it();
        }
        metrics::gauge!("antiphon_log_connected").set(f64::from(u8::from(self.is_up())));
    }

    fn begin(&mut self, connection: Connection) {
        self.settings.voice.forget();
        self.behind = (0..connection.partitions).collect();
        if let Some(begin) = &connection.begin {
            self.positions = begin.positions();
        }
        (self.due_since, self.behind_since) = (None, None);
        (self.connection, self.is_new) = (Some(connection), true);
    }

    /// Whoever writes and reads by the spare connection sends all again that was not read back, and reads on
    /// where it stood. What comes twice by that has the same ids.
    fn use_spare(&mut self) {
        let is_needed = self.connection.is_none() || self.is_stuck();
        let Some((mut connection, at)) = self.spare.take_if(|(_, at)| !is_needed || Instant::now() >= *at)
        else {
            return;
        };
        if !is_needed {
            return end(connection);
        }
        if let Err(error) = connection.read_from(&self.settings, &self.positions) {
            tracing::debug!(%error, "the log cannot be read by another connection yet");
            self.spare = Some((connection, at + GRACE));
            return;
        }
        connection.begin = None;
        metrics::counter!("antiphon_log_stuck_total").increment(1);
        if let Some(old) = self.connection.take() {
            let unsent = old.producer.in_flight_count();
            tracing::warn!(unsent, "what was sent to Kafka did not come back: by another connection it may");
            end(old);
        }
        self.begin(connection);
    }

    /// Sends a record; false when it cannot be taken now. What was taken is delivered once, in order, as long
    /// as this connection lives.
    pub(super) fn send(&mut self, room: &RoomName, payload: &[u8], trace: Option<&str>) -> bool {
        let Some(connection) = &self.connection else { return false };
        let mut record = BaseRecord::to(&self.settings.topic).key(room.as_str()).payload(payload);
        if trace.is_some() {
            record = record.headers(OwnedHeaders::new().insert(Header { key: TRACEPARENT, value: trace }));
        }
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
        if self.is_new {
            // Whoever polls has to know before anything of it is read.
            return None;
        }
        let Some(connection) = &self.connection else {
            // Nothing to wait for but the thread that looks.
            thread::park_timeout(within);
            return None;
        };
        connection.producer.poll(Duration::ZERO);
        let mut wait = within;
        let message = loop {
            match connection.consumer.poll(std::mem::take(&mut wait))? {
                Ok(message) => break message,
                // Other partitions may have more.
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.behind.remove(&partition);
                }
                Err(error) => {
                    tracing::debug!(%error, "the shared log cannot be read now");
                    return None;
                }
            }
        };
        let read = read_of(&message);
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
        let Read { partition, offset, payload, .. } = read;
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

/// Ends a connection beside whoever had it: that takes as long as the broker likes.
fn end(connection: Connection) {
    if let Err(error) = thread::Builder::new().name("kafka".into()).spawn(move || drop(connection)) {
        tracing::error!(%error, "the system gives no thread to end a connection with");
    }
}
