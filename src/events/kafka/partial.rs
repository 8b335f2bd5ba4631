//! A copy that began with snapshots, and the whole one that is made behind it.
//!
//! A node that has nothing yet takes the snapshots, reads the log from the checkpoints on, and serves rooms
//! by that at once. What is older than a room's snapshot it does not have: whoever asks for it is told to ask
//! again. Meanwhile a thread reads the log from its beginning into the whole copy, never past where the
//! partial one stands. When it is close behind it takes the other's place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rdkafka::error::KafkaError;

use super::connect::{Read, consume, read_of};
use super::record::Record;
use super::settings::KafkaSettings;
use super::snapshot::Snapshots;
use crate::core::chat::{HistoryRange, MessagePage};
use crate::core::fence::{Fence, Verdict};
use crate::core::ids::RoomName;
use crate::events::LogError;
use crate::events::sqlite::{Applied, Base, SqliteLog};

/// The file's name in the data directory.
const FILE_NAME: &str = "room-log.partial.sqlite3";
/// Records that are taken in one commit.
const AT_ONCE: usize = 1_000;
/// Records that the whole copy may lack when it takes over; they are read once more.
const LAG_MAX: i64 = 500;
/// Between two tries to reach Kafka, and at most for one record.
const PAUSE: Duration = Duration::from_millis(200);

type Positions = Vec<(i32, i64)>;

/// See the module.
pub(super) struct Partial {
    path: PathBuf,
    /// Rooms that it has from snapshots.
    bases: BTreeMap<RoomName, Base>,
    stand: Arc<Mutex<Positions>>,
    over: Arc<AtomicBool>,
    whole: mpsc::Receiver<SqliteLog>,
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Partial {
    /// The copy that an earlier start began with snapshots.
    ///
    /// # Errors
    /// The disk.
    pub fn find(directory: &Path) -> Result<Option<SqliteLog>, LogError> {
        let path = directory.join(FILE_NAME);
        if !path.exists() {
            return Ok(None);
        }
        let serving = SqliteLog::open(&path)?;
        serving.prepare_shared()?;
        if serving.positions()?.is_empty() {
            // It was not begun to the end.
            drop(serving);
            remove(&path);
            return Ok(None);
        }
        Ok(Some(serving))
    }

    /// A copy that begins with snapshots, and goes on with what the whole one has to write.
    ///
    /// # Errors
    /// The disk.
    pub fn begin(directory: &Path, whole: &SqliteLog, with: &Snapshots) -> Result<SqliteLog, LogError> {
        let mut serving = SqliteLog::open(&directory.join(FILE_NAME))?;
        serving.prepare_shared()?;
        serving.adopt(whole)?;
        serving.restore(with.rooms.values(), &with.positions())?;
        Ok(serving)
    }

    /// Makes the whole copy behind the one that serves.
    ///
    /// # Errors
    /// The disk, or the system gives no thread.
    pub fn start(
        directory: &Path,
        settings: &KafkaSettings,
        whole: SqliteLog,
        serving: &SqliteLog,
    ) -> Result<Self, LogError> {
        let path = directory.join(FILE_NAME);
        let (bases, positions) = (serving.bases()?, serving.positions()?);
        let (stand, over) = (Arc::new(Mutex::new(positions)), Arc::new(AtomicBool::new(false)));
        let (done, ready) = mpsc::channel();
        let builder =
            Builder { settings: settings.clone(), whole, stand: Arc::clone(&stand), over: Arc::clone(&over) };
        let build = move || {
            if let Some(whole) = builder.build() {
                // Whoever waits for it is gone where the node ends.
                let _ = done.send(whole);
            }
        };
        let started = std::thread::Builder::new().name("log-whole".into()).spawn(build);
        started.map_err(|error| LogError::Failed { path: path.clone(), detail: error.to_string() })?;
        Ok(Self { path, bases, stand, over, whole: ready })
    }

    /// Says where the partial copy stands; the whole one, once it is close behind.
    pub fn poll(&mut self, positions: &[(i32, i64)]) -> Option<SqliteLog> {
        *self.stand.lock().unwrap_or_else(PoisonError::into_inner) = positions.to_vec();
        self.whole.try_recv().ok()
    }

    /// The partial copy is closed and of no use any more.
    pub fn remove(&self) {
        remove(&self.path);
    }

    /// Events of a room that the partial copy has not.
    pub fn events_before(&self, room: &RoomName) -> u64 {
        self.bases.get(room).map_or(0, |base| base.events)
    }

    /// What stands before this place of the room's partition is in its snapshot.
    pub fn is_in_snapshot(&self, room: &RoomName, offset: i64) -> bool {
        self.bases.get(room).is_some_and(|base| offset < base.next)
    }

    /// All messages of the room are here.
    pub fn has_all(&self, room: &RoomName) -> bool {
        self.bases.get(room).is_none_or(|base| base.first_seq <= 1)
    }

    /// # Errors
    /// [`LogError::CatchingUp`] for what is older than the room's snapshot.
    pub fn check(
        &self,
        room: &RoomName,
        range: HistoryRange,
        mut page: MessagePage,
    ) -> Result<MessagePage, LogError> {
        let Some(base) = self.bases.get(room).filter(|base| base.first_seq > 1) else { return Ok(page) };
        let reaches = match range {
            HistoryRange::After(seq) => seq + 1 >= base.first_seq,
            HistoryRange::Before(_) => !page.messages.is_empty(),
            HistoryRange::Newest => true,
        };
        if !reaches {
            return Err(LogError::CatchingUp);
        }
        page.more |= !matches!(range, HistoryRange::After(_));
        Ok(page)
    }
}

fn remove(path: &Path) {
    for end in ["", "-wal", "-shm", ".lock"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        // One that is not there is as good.
        let _ = std::fs::remove_file(file);
    }
}

/// Reads the log from its beginning.
struct Builder {
    settings: KafkaSettings,
    whole: SqliteLog,
    stand: Arc<Mutex<Positions>>,
    over: Arc<AtomicBool>,
}

impl Builder {
    fn build(mut self) -> Option<SqliteLog> {
        // What is lost by a power failure is read again.
        self.note(|builder| builder.whole.sync_each(false));
        while !self.over.load(Ordering::Relaxed) {
            let target = self.stand.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Err(error) = self.read_up_to(&target) {
                tracing::debug!(%error, "the whole log cannot be read now");
                std::thread::park_timeout(PAUSE);
                continue;
            }
            let stand = self.stand.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if self.lag(&stand) <= LAG_MAX && self.note(|builder| builder.whole.sync_each(true)) {
                return Some(self.whole);
            }
        }
        None
    }

    fn note(&mut self, what: impl FnOnce(&mut Self) -> Result<(), LogError>) -> bool {
        what(self).inspect_err(|error| tracing::error!(%error, "the whole copy of the log waits")).is_ok()
    }

    fn lag(&self, stand: &[(i32, i64)]) -> i64 {
        let own: BTreeMap<i32, i64> = self.whole.positions().unwrap_or_default().into_iter().collect();
        stand.iter().map(|(partition, next)| next - own.get(partition).copied().unwrap_or(0)).sum()
    }

    /// Takes all up to these places, and nothing behind them.
    fn read_up_to(&mut self, target: &[(i32, i64)]) -> Result<(), String> {
        let words = |error: LogError| error.to_string();
        let mut positions: BTreeMap<i32, i64> = self.whole.positions().map_err(words)?.into_iter().collect();
        let target: BTreeMap<i32, i64> = target.iter().copied().collect();
        let partitions = target.keys().max().map_or(0, |last| last + 1);
        let from: Vec<_> = positions.iter().map(|(partition, next)| (*partition, *next)).collect();
        let consumer = consume(&self.settings, partitions, &from).map_err(|error| error.to_string())?;
        let mut fence = self.whole.fence().map_err(words)?;
        let is_behind = |positions: &BTreeMap<i32, i64>| {
            target.iter().any(|(partition, next)| positions.get(partition).copied().unwrap_or(0) < *next)
        };
        let mut batch = Vec::new();
        while is_behind(&positions) && !self.over.load(Ordering::Relaxed) {
            match consumer.poll(PAUSE) {
                Some(Ok(message)) => {
                    let read = read_of(&message);
                    if read.offset < target.get(&read.partition).copied().unwrap_or(0) {
                        positions.insert(read.partition, read.offset + 1);
                        batch.push(read);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
            if batch.len() >= AT_ONCE || !is_behind(&positions) {
                take_all(&mut self.whole, &mut fence, &std::mem::take(&mut batch)).map_err(words)?;
            }
        }
        Ok(())
    }
}

/// Takes records in one commit; where one of them is rejected, each in its own.
fn take_all(whole: &mut SqliteLog, fence: &mut Fence, reads: &[Read]) -> Result<(), LogError> {
    let records: Vec<Option<Record>> = reads
        .iter()
        .map(|read| {
            let record = Record::parse(&read.payload).ok()?;
            let verdict = fence.handle_record(&record.room, &record.writer, record.opens);
            Some(record).filter(|_| verdict == Verdict::Counts)
        })
        .collect();
    let applied: Vec<Applied<'_>> = reads
        .iter()
        .zip(&records)
        .map(|(read, record)| Applied {
            partition: read.partition,
            next: read.offset + 1,
            events: record.as_ref().map_or(&[], |record| record.events.as_slice()),
            opened: record
                .as_ref()
                .filter(|record| record.opens)
                .map(|record| (&record.room, &record.writer)),
            written: None,
        })
        .collect();
    match whole.apply_all(&applied) {
        Err(LogError::Rejected(_)) => applied.into_iter().try_for_each(|one| match whole.apply(&one) {
            // It was put aside when it was new.
            Err(LogError::Rejected(_)) => whole.apply(&Applied { events: &[], ..one }).map(drop),
            result => result.map(drop),
        }),
        result => result.map(drop),
    }
}
