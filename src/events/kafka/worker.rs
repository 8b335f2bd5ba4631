//! The thread that owns a log which others share: it writes and reads all the time, and answers when what it
//! wrote comes back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::super::writer::{AppendReply, Command, Health, PROBE_INTERVAL, Query};
use super::{KafkaLog, OUTBOX_MAX, Ticket};
use crate::core::event::Event;
use crate::core::ids::RoomName;
use crate::events::{EventLog as _, LogError};

/// Commands that are taken together: their appends are one commit.
const COMMANDS_AT_ONCE: usize = 512;
/// How long it waits for the log while there is nothing else to do, and while authors wait.
const WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(1));
/// At the end, for what is on its way. What has not come back by then stays in the outbox.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Is told of a room that another node has opened, and under which epoch. Runs on the log's thread.
pub(in crate::events) type Overtaken = Box<dyn Fn(RoomName, u64) + Send>;

/// Who waits for an append, and what it belongs to.
type Asked = (AppendReply, Option<String>);

pub(in crate::events) struct Worker {
    log: KafkaLog,
    commands: mpsc::Receiver<Command>,
    health: Health,
    replies: BTreeMap<Ticket, AppendReply>,
    /// Wait until nothing of their room is on its way.
    parked: VecDeque<(RoomName, Query)>,
    /// The disk did not take an append; when it is tried again.
    failed: Option<(LogError, Instant)>,
    overtaken: Overtaken,
    closing: Vec<oneshot::Sender<()>>,
    close_by: Option<Instant>,
}

impl Worker {
    pub(in crate::events) fn new(
        log: KafkaLog,
        commands: mpsc::Receiver<Command>,
        health: Health,
        overtaken: Overtaken,
    ) -> Self {
        Self {
            log,
            commands,
            health,
            replies: BTreeMap::new(),
            parked: VecDeque::new(),
            failed: None,
            overtaken,
            closing: Vec::new(),
            close_by: None,
        }
    }

    pub(in crate::events) fn run(mut self) {
        loop {
            self.take_commands();
            let (idle, busy) = WAIT;
            let outcomes = self.log.poll(if self.replies.is_empty() { idle } else { busy });
            for (ticket, result) in outcomes {
                if let Ok(answers) = &result {
                    let new = answers.iter().filter(|appended| appended.is_new).count();
                    metrics::counter!("antiphon_events_appended_total").increment(new as u64);
                }
                if let Some(reply) = self.replies.remove(&ticket) {
                    reply(result);
                }
            }
            for (room, epoch) in self.log.drain_overtaken() {
                (self.overtaken)(room, epoch);
            }
            self.unpark();
            self.look_after_health();
            if self.close_by.is_some_and(|by| self.replies.is_empty() || Instant::now() >= by) {
                break;
            }
        }
        let Self { log, replies, closing, .. } = self;
        replies.into_values().for_each(|reply| reply(Err(LogError::Refused)));
        drop(log);
        for done in closing {
            // Who closed may not have waited.
            let _ = done.send(());
        }
    }

    fn take_commands(&mut self) {
        let (mut batches, mut replies): (Vec<Vec<Event>>, Vec<Asked>) = Default::default();
        for _ in 0..COMMANDS_AT_ONCE {
            match self.commands.try_recv() {
                Ok(Command::Append { events, trace, reply }) => {
                    batches.push(events);
                    replies.push((reply, trace));
                }
                Ok(Command::Read(query)) => query(&mut self.log),
                Ok(Command::ReadSettled(room, query)) => self.parked.push_back((room, query)),
                Ok(Command::Close(done)) => {
                    self.commands.close();
                    self.closing.push(done);
                    self.close_by.get_or_insert(Instant::now() + CLOSE_WITHIN);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.close_by.get_or_insert(Instant::now() + CLOSE_WITHIN);
                    break;
                }
            }
        }
        if batches.is_empty() {
            return;
        }
        let started = Instant::now();
        for (result, (reply, trace)) in self.log.submit(&batches).into_iter().zip(replies) {
            match result {
                Ok(ticket) => {
                    self.log.note_trace(ticket, trace);
                    self.replies.insert(ticket, reply);
                }
                Err(error) => {
                    if !matches!(error, LogError::Rejected(_) | LogError::Fenced | LogError::Refused) {
                        self.failed = Some((error.clone(), Instant::now() + PROBE_INTERVAL));
                    }
                    reply(Err(error));
                }
            }
        }
        metrics::histogram!("antiphon_events_append_seconds").record(started.elapsed());
    }

    fn look_after_health(&mut self) {
        let backlog = self.log.backlog();
        metrics::gauge!("antiphon_log_outbox").set(backlog as f64);
        if self.failed.as_ref().is_some_and(|(_, at)| Instant::now() >= *at) {
            self.failed = self.log.probe().err().map(|error| (error, Instant::now() + PROBE_INTERVAL));
        }
        // Nine tenths full: no new rooms, so that those there are can go on.
        let is_full = (backlog > OUTBOX_MAX / 10 * 9).then_some(&LogError::Away);
        let failed = self.failed.as_ref().map(|(error, _)| error);
        self.health.set(self.log.failure().or(failed).or(is_full));
    }

    fn unpark(&mut self) {
        for (room, query) in std::mem::take(&mut self.parked) {
            if self.log.is_settled(&room) {
                query(&mut self.log);
            } else {
                self.parked.push_back((room, query));
            }
        }
    }
}
