//! The thread that owns the log, and the handle through which everyone else uses it.
//!
//! Commands are taken in order. Appends that wait together are made durable together, by one commit; each is
//! answered after it, on this thread, so replies must be quick and not block. Every command that was taken is
//! answered. While the log cannot be written appends are answered with the error,
//! [`EventWriter::is_healthy`] is false, and the thread keeps trying.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::kafka::{self, KafkaLog};
use super::{EventLog, FileUsage, LogError, Recorded};
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory};
use crate::core::event::{Appended, Event, EventId};
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::ChatMessage;
use crate::mailbox::{self, ControlSender};
use crate::telemetry::traces;

/// Commands that may wait. Full: the sender gets [`LogError::Refused`] at once and tells its own caller.
const QUEUE_DEPTH: usize = 4096;
/// Events in one commit, bounding how long one may take. A single append may have more.
const COMMIT_EVENTS_MAX: usize = 512;
/// How often a log that cannot be written is tried again.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Takes the answer to an append: one [`Appended`] an event.
pub type AppendReply = Box<dyn FnOnce(Result<Vec<Appended>, LogError>) + Send>;

/// What to do with the log, its answer included.
pub(super) type Query = Box<dyn FnOnce(&mut dyn EventLog) + Send>;

pub(super) enum Command {
    Append {
        events: Vec<Event>,
        /// What it belongs to (W3C Trace Context), where that is kept.
        trace: Option<String>,
        reply: AppendReply,
    },
    Read(Query),
    /// Once all that was appended to this room before is answered.
    ReadSettled(RoomName, Query),
    Close(oneshot::Sender<()>),
}

/// Handle of the log's thread; cheap to clone. The thread ends with the last handle, or by
/// [`EventWriter::close`].
#[derive(Clone)]
pub struct EventWriter {
    commands: ControlSender<Command>,
    healthy: Arc<AtomicBool>,
    ledger_moves: watch::Receiver<u64>,
}

impl EventWriter {
    /// Starts the thread, which owns `log` from now on.
    ///
    /// # Errors
    /// The system gives no thread or no timer.
    pub fn spawn(log: Box<dyn EventLog>) -> io::Result<Self> {
        let (commands, receiver) = mailbox::control(QUEUE_DEPTH);
        let healthy = Arc::new(AtomicBool::new(true));
        let timers = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let health = Health(Arc::clone(&healthy));
        let worker = Worker { log, commands: receiver, put_back: None, health };
        let run = move || timers.block_on(worker.run());
        std::thread::Builder::new().name("events".into()).spawn(run)?;
        let (_, ledger_moves) = watch::channel(0);
        Ok(Self { commands, healthy, ledger_moves })
    }

    /// As [`EventWriter::spawn`], for a log that others share. `overtaken` is told on the log's thread of a
    /// room that another node has opened, and under which epoch.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn_shared(
        log: KafkaLog,
        overtaken: impl Fn(RoomName, u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, receiver) = mailbox::control(QUEUE_DEPTH);
        let healthy = Arc::new(AtomicBool::new(true));
        let (health, ledger_moves) = (Health(Arc::clone(&healthy)), log.ledger_moves());
        let run = move || kafka::Worker::new(log, receiver, health, Box::new(overtaken)).run();
        std::thread::Builder::new().name("events".into()).spawn(run)?;
        Ok(Self { commands, healthy, ledger_moves })
    }

    /// Appends the events in their order, as a whole or not at all. `reply` runs on the log's thread.
    ///
    /// # Errors
    /// [`LogError::Refused`]: nothing was taken, `reply` will not run.
    pub fn append(
        &self,
        events: Vec<Event>,
        reply: impl FnOnce(Result<Vec<Appended>, LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        self.send(Command::Append { events, trace: traces::current(), reply: Box::new(reply) })
    }

    /// As [`Self::append`], and waits until the events are durable.
    ///
    /// # Errors
    /// Nothing was appended.
    pub async fn append_durably(&self, events: Vec<Event>) -> Result<Vec<Appended>, LogError> {
        let (reply, answer) = oneshot::channel();
        // Who asked may have gone away meanwhile.
        self.append(events, |result| drop(reply.send(result)))?;
        answer.await.unwrap_or(Err(LogError::Refused))
    }

    /// Reads after everything that was sent before. `query` and `reply` run on the log's thread.
    ///
    /// # Errors
    /// [`LogError::Refused`]: `reply` will not run.
    pub fn read<T>(
        &self,
        query: impl FnOnce(&mut dyn EventLog) -> Result<T, LogError> + Send + 'static,
        reply: impl FnOnce(Result<T, LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        self.send(Command::Read(Box::new(move |log| reply(query(log)))))
    }

    /// As [`EventWriter::read`], once all that was appended to `room` before is answered.
    ///
    /// # Errors
    /// As there.
    pub fn read_settled<T>(
        &self,
        room: RoomName,
        query: impl FnOnce(&mut dyn EventLog) -> Result<T, LogError> + Send + 'static,
        reply: impl FnOnce(Result<T, LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        self.send(Command::ReadSettled(room, Box::new(move |log| reply(query(log)))))
    }

    /// [`EventLog::messages`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn messages(
        &self,
        room: RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, LogError> {
        self.ask(move |log| log.messages(&room, range, limit)).await
    }

    /// [`EventLog::message`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn message(&self, room: RoomName, id: MessageId) -> Result<Option<ChatMessage>, LogError> {
        self.ask(move |log| log.message(&room, &id)).await
    }

    /// [`EventLog::history`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn history(&self, room: RoomName) -> Result<RoomHistory, LogError> {
        self.ask(move |log| log.history(&room)).await
    }

    /// [`EventLog::last_epoch`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn last_epoch(&self, room: RoomName) -> Result<u64, LogError> {
        self.ask(move |log| log.last_epoch(&room)).await
    }

    /// [`EventLog::events`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn events(&self, room: RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.ask(move |log| log.events(&room, after, limit)).await
    }

    /// [`EventLog::ledger`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn ledger(&self, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.ask(move |log| log.ledger(after, limit)).await
    }

    /// [`EventLog::place`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn place(&self, room: RoomName, id: EventId) -> Result<Option<u64>, LogError> {
        self.ask(move |log| log.place(&room, &id)).await
    }

    /// Changes whenever facts about money came from the nodes that share this log; never for one that is
    /// shared with none.
    pub fn ledger_moves(&self) -> watch::Receiver<u64> {
        self.ledger_moves.clone()
    }

    /// [`EventLog::files`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn files(&self, room: RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError> {
        self.ask(move |log| log.files(&room, before, limit)).await
    }

    /// [`EventLog::file_usage`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn file_usage(&self, room: RoomName, identity: Identity) -> Result<FileUsage, LogError> {
        self.ask(move |log| log.file_usage(&room, &identity)).await
    }

    /// [`EventLog::files_before`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn files_before(&self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError> {
        self.ask(move |log| log.files_before(at_ms, limit)).await
    }

    /// [`EventLog::unreferenced`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn unreferenced(&self, limit: u32) -> Result<Vec<String>, LogError> {
        self.ask(move |log| log.unreferenced(limit)).await
    }

    /// [`EventLog::forget_unreferenced`].
    ///
    /// # Errors
    /// As there, and as [`EventWriter::read`].
    pub async fn forget_unreferenced(&self, sha256: String) -> Result<(), LogError> {
        self.ask(move |log| log.forget_unreferenced(&sha256)).await
    }

    /// False while the log cannot be written, and once its thread has ended.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Answers all that was sent before, closes the log and ends its thread.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        // An error of either means that the thread has ended already.
        if self.commands.send_when_free(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut dyn EventLog) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        // Who asked may have gone away meanwhile.
        self.read(query, |result| drop(reply.send(result)))?;
        answer.await.unwrap_or(Err(LogError::Refused))
    }

    fn send(&self, command: Command) -> Result<(), LogError> {
        self.commands.send(command).map_err(|_| LogError::Refused)
    }
}

/// Whether the log can be written, seen by all handles. False when the thread is gone, even by a panic.
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    fn is_good(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, error: Option<&LogError>) {
        let was_good = self.0.swap(error.is_none(), Ordering::Relaxed);
        match error {
            Some(error) if was_good => tracing::error!(%error, "the event log cannot be written"),
            None if !was_good => tracing::info!("the event log can be written again"),
            _ => {}
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Worker {
    log: Box<dyn EventLog>,
    commands: mpsc::Receiver<Command>,
    /// Taken from the queue, but not part of the commit that emptied it.
    put_back: Option<Command>,
    health: Health,
}

impl Worker {
    async fn run(mut self) {
        let mut closing = Vec::new();
        while let Some(command) = self.next().await {
            match command {
                Command::Append { events, reply, .. } => self.commit(events, reply),
                Command::Read(query) | Command::ReadSettled(_, query) => query(&mut *self.log),
                Command::Close(done) => {
                    // What waits is still served, then `next` is empty.
                    self.commands.close();
                    closing.push(done);
                }
            }
        }
        drop(self);
        for done in closing {
            // Who closed may not have waited.
            let _ = done.send(());
        }
    }

    async fn next(&mut self) -> Option<Command> {
        if let Some(command) = self.put_back.take() {
            return Some(command);
        }
        while !self.health.is_good() {
            match tokio::time::timeout(PROBE_INTERVAL, self.commands.recv()).await {
                Ok(command) => return command,
                Err(_) => self.health.set(self.log.probe().err().as_ref()),
            }
        }
        self.commands.recv().await
    }

    /// Makes the events durable, together with those of all appends that wait behind them.
    fn commit(&mut self, mut events: Vec<Event>, reply: AppendReply) {
        let mut replies = vec![(events.len(), reply)];
        while events.len() < COMMIT_EVENTS_MAX && self.put_back.is_none() {
            match self.commands.try_recv() {
                Ok(Command::Append { events: more, reply, .. }) => {
                    replies.push((more.len(), reply));
                    events.extend(more);
                }
                Ok(other) => self.put_back = Some(other),
                Err(_) => break,
            }
        }
        let result = self.append(&events);
        match result {
            // One of them is at fault, which the others need not suffer.
            Err(LogError::Rejected(_)) if replies.len() > 1 => {
                let mut rest = events.as_slice();
                for (count, reply) in replies {
                    let (own, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                    reply(self.append(own));
                    rest = others;
                }
            }
            Err(error) => replies.into_iter().for_each(|(_, reply)| reply(Err(error.clone()))),
            Ok(answers) => {
                let mut answers = answers.into_iter();
                replies
                    .into_iter()
                    .for_each(|(count, reply)| reply(Ok(answers.by_ref().take(count).collect())));
            }
        }
    }

    fn append(&mut self, events: &[Event]) -> Result<Vec<Appended>, LogError> {
        let started = Instant::now();
        let result = self.log.append(events);
        metrics::histogram!("antiphon_events_append_seconds").record(started.elapsed());
        match &result {
            Ok(answers) => {
                let new = answers.iter().filter(|appended| appended.is_new).count();
                metrics::counter!("antiphon_events_appended_total").increment(new as u64);
                self.health.set(None);
            }
            // The log itself is well.
            Err(error @ (LogError::Rejected(_) | LogError::Fenced)) => {
                tracing::error!(%error, "events were not appended")
            }
            Err(error) => self.health.set(Some(error)),
        }
        result
    }
}
