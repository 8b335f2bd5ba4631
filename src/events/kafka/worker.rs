//! The thread that owns a log which others share: it writes and reads all the time, and answers when what it
//! wrote comes back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::super::writer::{AppendReply, Command, Health, Query};
use super::{KafkaLog, OUTBOX_MAX, Ticket};
use crate::core::event::Event;
use crate::core::ids::RoomName;
use crate::events::LogError;

/// Commands that are taken together: their appends are one commit.
const COMMANDS_AT_ONCE: usize = 512;
/// How long it waits for the log while there is nothing else to do, and while authors wait.
const WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(1));
/// At the end, for what is on its way. What has not come back by then stays in the outbox.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(in crate::events) struct Worker {
    log: KafkaLog,
    commands: mpsc::Receiver<Command>,
    health: Health,
    replies: BTreeMap<Ticket, AppendReply>,
    /// Wait until nothing of their room is on its way.
    parked: VecDeque<(RoomName, Query)>,
    closing: Vec<oneshot::Sender<()>>,
    close_by: Option<Instant>,
}

impl Worker {
    pub(in crate::events) fn new(log: KafkaLog, commands: mpsc::Receiver<Command>, health: Health) -> Self {
        Self {
            log,
            commands,
            health,
            replies: BTreeMap::new(),
            parked: VecDeque::new(),
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
            self.unpark();
            let backlog = self.log.backlog();
            metrics::gauge!("antiphon_log_outbox").set(backlog as f64);
            // Nine tenths full: no new rooms, so that those there are can go on.
            self.health.set((backlog > OUTBOX_MAX / 10 * 9).then_some(&LogError::Away));
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
        let (mut batches, mut replies): (Vec<Vec<Event>>, Vec<AppendReply>) = Default::default();
        for _ in 0..COMMANDS_AT_ONCE {
            match self.commands.try_recv() {
                Ok(Command::Append { events, reply }) => {
                    batches.push(events);
                    replies.push(reply);
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
        for (result, reply) in self.log.submit(&batches).into_iter().zip(replies) {
            match result {
                Ok(ticket) => drop(self.replies.insert(ticket, reply)),
                Err(error) => reply(Err(error)),
            }
        }
        metrics::histogram!("antiphon_events_append_seconds").record(started.elapsed());
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
