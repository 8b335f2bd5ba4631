//! The thread that runs a shard: waits on its socket, its commands and its timers, ticks, and sends.
//!
//! One tick takes up to one batch from each socket, then whatever commands wait, then due timers; then all
//! that came of it leaves in GSO runs. Nothing is awaited but the next thing to do, and while much comes
//! in, a moment in which more of it comes ([`super::pace`]).

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::pace::{Pace, Wait};
use super::relay::Relay;
use super::shard::{Command, Counters, Load, Notice, Shard, Surroundings};
use super::siblings::Siblings;
use super::socket::{Listening, MediaSocket};
use crate::mailbox::{self, ControlSender, Refused};
use crate::telemetry::{FORWARD_LATENCY, Tally};

/// Commands that may wait for a shard. Full: the asker is refused.
const QUEUE_DEPTH: usize = 4_096;
/// Batches of relayed packets, and news of spread rooms, that may wait for a shard: about a second of a busy
/// one's. Full: packets are dropped, news waits where it comes from.
const RELAY_QUEUE_DEPTH: usize = 2_048;
/// Batches of other shards taken in one tick.
const RELAYS_PER_TICK_MAX: usize = 64;
/// Commands taken in one tick; media goes on meanwhile.
const COMMANDS_PER_TICK_MAX: usize = 64;
/// RTCP that is kept apart waits for the next tick, at most so long. Where sound flows one comes within
/// 20 ms, a little more or less: this waits for it.
const RTCP_WITHIN: Duration = Duration::from_millis(30);
/// And so long while packets are lost, which are to come again soon.
const RTCP_WITHIN_LOSSY: Duration = Duration::from_millis(10);
/// And is looked for no more often than this.
const RTCP_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// How often figures leave the shard.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Sends commands to a shard.
#[derive(Clone)]
pub struct ShardHandle {
    commands: ControlSender<Command>,
    relays: ControlSender<Relay>,
}

/// Where a shard is reached: made for all shards before the first starts, as each knows the others.
pub struct Inbox {
    commands: mpsc::Receiver<Command>,
    relays: mpsc::Receiver<Relay>,
}

/// What another thread has for a shard.
enum Message {
    Command(Command),
    Relay(Relay),
}

impl Inbox {
    pub fn new() -> (ShardHandle, Self) {
        let (commands, commands_of) = mailbox::control(QUEUE_DEPTH);
        let (relays, relays_of) = mailbox::control(RELAY_QUEUE_DEPTH);
        (ShardHandle { commands, relays }, Self { commands: commands_of, relays: relays_of })
    }

    /// What came first, and `None` when the last handle outside the siblings is gone; while there is nothing,
    /// `doorbell` is woken for the next.
    fn poll(&mut self, doorbell: &Waker) -> Poll<Option<Message>> {
        let mut context = Context::from_waker(doorbell);
        if let Poll::Ready(Some(relay)) = self.relays.poll_recv(&mut context) {
            return Poll::Ready(Some(Message::Relay(relay)));
        }
        self.commands.poll_recv(&mut context).map(|command| command.map(Message::Command))
    }

    /// What a shard would take next.
    #[cfg(test)]
    pub async fn next_command(&mut self) -> Option<Command> {
        self.commands.recv().await
    }
}

impl ShardHandle {
    /// # Errors
    /// [`Refused`] when the shard is overrun or gone.
    pub fn send(&self, command: Command) -> Result<(), Refused> {
        self.commands.send(command)
    }

    /// Sends, for what must not be lost: where the shard is overrun, on `runtime` it waits for its turn.
    /// Whether it was sent at once.
    pub fn send_in_turn(&self, runtime: &Handle, command: Command) -> bool {
        let Err(command) = self.commands.offer(command) else { return true };
        let commands = self.commands.clone();
        runtime.spawn(async move {
            // One that is gone has no rooms any more.
            let _ = commands.send_when_free(command).await;
        });
        false
    }

    /// The way in for the other shards of the node.
    pub fn relays(&self) -> ControlSender<Relay> {
        self.relays.clone()
    }
}

/// Starts a shard on a thread of its own, pinned to `core` where the system allows. It ends when its last
/// handle outside `siblings` is gone. `siblings` are all shards of the node, by their ids.
///
/// # Errors
/// The system gives no thread, or not the sockets' features.
pub fn spawn(
    around: Surroundings,
    sockets: Vec<Listening>,
    core: Option<core_affinity::CoreId>,
    inbox: Inbox,
    siblings: Siblings,
) -> io::Result<()> {
    let name = format!("shard-{}", around.id.0);
    let socket = MediaSocket::new(sockets, around.reach.local_ips.clone())?;
    std::thread::Builder::new().name(name).spawn(move || {
        if let Some(core) = core {
            core_affinity::set_for_current(core);
        }
        Worker::new(around, socket, inbox, siblings).run();
    })?;
    Ok(())
}

struct Worker {
    shard: Shard,
    socket: MediaSocket,
    inbox: Inbox,
    siblings: Siblings,
    notices: ControlSender<Notice>,
    figures: Figures,
    latency: Tally,
    busy: Duration,
    reported_at: Instant,
    pace: Pace,
    /// When RTCP was last looked for.
    rtcp_at: Instant,
}

impl Worker {
    fn new(around: Surroundings, socket: MediaSocket, inbox: Inbox, siblings: Siblings) -> Self {
        let figures = Figures::new(around.id.0);
        let notices = around.notices.clone();
        let reported_at = around.start;
        let shard = Shard::new(around);
        Self {
            shard,
            socket,
            inbox,
            siblings,
            notices,
            figures,
            latency: Tally::default(),
            busy: Duration::ZERO,
            reported_at,
            pace: Pace::default(),
            rtcp_at: reported_at,
        }
    }

    fn run(mut self) {
        let mut more = false;
        loop {
            let (mut command, mut relay) = (None, None);
            match self.pace.next() {
                _ if more => {}
                Wait::Until(at) => pause_until(at),
                Wait::Readiness => match self.inbox.poll(self.socket.doorbell()) {
                    Poll::Ready(Some(Message::Command(received))) => command = Some(received),
                    Poll::Ready(Some(Message::Relay(received))) => relay = Some(received),
                    Poll::Ready(None) => return,
                    Poll::Pending => self.socket.wait(self.wake_at()),
                },
            }
            let began = Instant::now();
            more = self.tick(began, command, relay);
            let took = began.elapsed();
            self.busy += took;
            self.pace.handle_work(began, took);
            if began >= self.reported_at + REPORT_INTERVAL {
                self.report(began);
            }
        }
    }

    /// When there is something to do even if nothing comes.
    fn wake_at(&self) -> Instant {
        let within = if self.shard.is_lossy(self.rtcp_at) { RTCP_WITHIN_LOSSY } else { RTCP_WITHIN };
        let rtcp_at = (self.shard.has_peers() && self.socket.has_rtcp_apart()).then(|| self.rtcp_at + within);
        let report_at = self.reported_at + REPORT_INTERVAL;
        [self.shard.poll_timeout(), rtcp_at].into_iter().flatten().fold(report_at, Instant::min)
    }

    /// True when there is more to do at once.
    fn tick(&mut self, now: Instant, first: Option<Command>, relay: Option<Relay>) -> bool {
        let shard = &mut self.shard;
        let mut received = self.socket.recv_batch(|datagram| shard.handle_datagram(now, datagram));
        self.pace.handle_tick(now, received.datagrams);
        if now >= self.rtcp_at + RTCP_INTERVAL_MIN {
            let rtcp = self.socket.recv_rtcp(|datagram| shard.handle_datagram(now, datagram));
            received.more |= rtcp.more;
            if !rtcp.more {
                self.rtcp_at = now;
            }
        }
        let waiting = std::iter::from_fn(|| self.inbox.relays.try_recv().ok());
        for relay in relay.into_iter().chain(waiting.take(RELAYS_PER_TICK_MAX)) {
            self.shard.handle_relay(now, relay);
        }
        let waiting = std::iter::from_fn(|| self.inbox.commands.try_recv().ok());
        for command in first.into_iter().chain(waiting.take(COMMANDS_PER_TICK_MAX)) {
            self.shard.handle_command(now, command);
        }
        self.shard.handle_timeout(now);
        // Copies do not wait until all receivers here are served; what is said meanwhile follows them.
        self.pass_on(now);
        while self.shard.finish_tick(now) {
            self.flush(now);
        }
        self.pass_on(now);
        self.flush(now);
        received.more
    }

    /// Hands other shards what is theirs.
    fn pass_on(&mut self, now: Instant) {
        self.siblings.flush();
        while let Some(out) = self.shard.poll_relay(now) {
            if let Some(lost) = self.siblings.send(out) {
                self.shard.handle_relay_loss(now, &lost);
            }
        }
    }

    fn flush(&mut self, began: Instant) {
        self.socket.send(began, self.shard.outbox().runs());
        self.shard.outbox().clear();
        let forwarded = std::mem::take(&mut self.shard.forwarded_in_tick);
        if forwarded > 0 {
            self.latency.record(began.elapsed(), forwarded);
        }
    }

    fn report(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.reported_at).as_secs_f64();
        let busy = (self.busy.as_secs_f64() / elapsed).min(1.0);
        self.busy = Duration::ZERO;
        self.reported_at = now;
        FORWARD_LATENCY.add(&std::mem::take(&mut self.latency));
        let mut counters = std::mem::take(&mut self.shard.counters);
        counters.dropped.buffer_full += self.socket.take_dropped();
        let joins = std::mem::take(&mut self.shard.joins_s);
        let load = Load {
            packets_per_second: counters.packets_forwarded as f64 / elapsed,
            egress_bps: counters.bytes_forwarded as f64 * 8.0 / elapsed,
            ..self.shard.load(busy)
        };
        self.figures.report(&counters, load, &joins);
        let shard = self.shard.id();
        // Only the latest matters; the next report follows in a second.
        let _ = self.notices.send(Notice::Load { shard, load });
    }
}

#[allow(clippy::disallowed_methods, reason = "what could wake it is what is waited for to gather")]
fn pause_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Reads one reason's drops.
type DropCount = fn(&Counters) -> u64;

/// This shard's metrics.
struct Figures {
    received: Counter,
    forwarded: Counter,
    bytes: Counter,
    relayed: Counter,
    dropped: [(Counter, DropCount); 8],
    chat: Counter,
    busy: Gauge,
    joins: Histogram,
}

impl Figures {
    fn new(shard: u8) -> Self {
        let dropped =
            |reason: &'static str| counter!("antiphon_rtp_packets_dropped_total", "reason" => reason);
        Self {
            received: counter!("antiphon_rtp_packets_received_total"),
            forwarded: counter!("antiphon_rtp_packets_forwarded_total"),
            bytes: counter!("antiphon_rtp_bytes_forwarded_total"),
            relayed: counter!("antiphon_rtp_packets_relayed_total"),
            dropped: [
                (dropped("unknown_peer"), |c| c.dropped.unknown_peer),
                (dropped("malformed"), |c| c.dropped.malformed),
                (dropped("refused"), |c| c.dropped.refused),
                (dropped("unsendable"), |c| c.dropped.unsendable),
                (dropped("buffer_full"), |c| c.dropped.buffer_full),
                (dropped("relay_full"), |c| c.dropped.relay_full),
                (dropped("mixer_full"), |c| c.dropped.mixer_full),
                (dropped("recorder_full"), |c| c.dropped.recorder_full),
            ],
            chat: counter!("antiphon_chat_messages_total"),
            busy: gauge!("antiphon_shard_busy_ratio", "shard" => shard.to_string()),
            joins: histogram!("antiphon_join_seconds"),
        }
    }

    fn report(&self, counters: &Counters, load: Load, joins_s: &[f64]) {
        self.received.increment(counters.packets_received);
        self.forwarded.increment(counters.packets_forwarded);
        self.bytes.increment(counters.bytes_forwarded);
        self.relayed.increment(counters.packets_relayed);
        for (counter, value) in &self.dropped {
            counter.increment(value(counters));
        }
        self.chat.increment(counters.chat_messages);
        self.busy.set(load.busy);
        for join in joins_s {
            self.joins.record(*join);
        }
    }
}
