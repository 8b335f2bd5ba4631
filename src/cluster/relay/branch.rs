//! The branch's end of a link: one task for each room of which this node has a branch.
//!
//! It outlives its link. When that is lost, or the room has another holder, it finds the home again and says
//! what is wanted; shards and people notice a pause. It ends when its last shard has closed its branch, when
//! the room is over, or when no home was found for too long.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use quinn::SendStream;
use tokio::sync::mpsc;

use super::home::goes_on;
use super::link::{Carried, Route};
use super::{BATCH_MAX, BranchError, CONNECT_WITHIN, Links, frames};
use crate::cluster::Known;
use crate::core::event::CloseReason;
use crate::core::ids::{FarId, RoomName, ShardId};
use crate::core::placement::NodeRecord;
use crate::core::protocol::RoomState;
use crate::core::relay::merge::{Merged, Merger};
use crate::core::relay::wire::{Frame, Reason};
use crate::core::relay::{Cargo, Downstream, Packet};
use crate::mailbox::{self, ControlSender, Inlet, Refused};
use crate::telemetry::traces;

/// What shards say to one branch's task. Full: it waits at the shard.
const WORDS_MAX: usize = 1_024;
/// News that waits for one shard. One that stood still for so much has other troubles.
const WAITING_MAX: usize = 4_096;
/// Without a branch on any shard the task goes on for so long, for one that is just being opened.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// For so long a home is looked for, and its viewers wait.
const LOST_MAX: Duration = Duration::from_secs(30);
/// Between two tries, doubled each time up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// So often a room may be nobody's before it is taken to be over. A registry that was emptied knows none.
const UNHELD_MAX: u32 = 5;
/// For so long it may be that nobody has the room, or has not opened it, before its members are to join anew.
const ORPHANED_MAX: Duration = Duration::from_millis(700);
/// How often the registry is asked whether the home is still the home.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often news that found no room is offered again.
const FLUSH_EVERY: Duration = Duration::from_millis(10);

/// A room of which this node has a branch; cheap to clone.
#[derive(Debug, Clone)]
pub struct Far {
    pub id: FarId,
    /// Of the room, when the branch was opened. It stays, by whoever holds the room later.
    pub epoch: u64,
    /// As it was then.
    pub state: RoomState,
    words: ControlSender<Word>,
}

#[derive(Debug)]
enum Word {
    /// A shard opens a branch, which is reached by this.
    Attach(ShardId, Inlet<Cargo>),
    From(ShardId, Cargo),
}

impl Far {
    /// A shard is about to open a branch, or has one; `inlet` is the way to it.
    ///
    /// # Errors
    /// [`Refused`]: it is over, or has too much to do.
    pub fn attach(&self, shard: ShardId, inlet: Inlet<Cargo>) -> Result<(), Refused> {
        self.words.send(Word::Attach(shard, inlet))
    }

    /// The way from a shard's branch to the home.
    pub fn queue(&self, shard: ShardId) -> Inlet<Cargo> {
        let words = self.words.clone();
        Inlet::new(move |cargo| {
            words.offer(Word::From(shard, cargo)).map_err(|word| match word {
                Word::From(_, cargo) => cargo,
                Word::Attach(..) => Cargo::Packets(Vec::new()),
            })
        })
    }

    pub fn is_over(&self) -> bool {
        self.words.is_closed()
    }
}

/// A branch that a home has given, over one link.
pub(super) struct Session {
    home: NodeRecord,
    epoch: u64,
    state: RoomState,
    send: SendStream,
    frames: mpsc::Receiver<Frame>,
    route: Route,
}

impl Session {
    /// # Errors
    /// [`BranchError`].
    pub async fn open(
        links: &Links,
        room: &RoomName,
        home: &NodeRecord,
        epoch: u64,
    ) -> Result<Self, BranchError> {
        let link = links.dial(home).await?;
        let route = link.route();
        let branch = route.branch;
        let opening = async {
            let (mut send, recv) = link.connection.open_bi().await.ok()?;
            let node = links.0.cluster.id().clone();
            let (room, trace) = (room.clone(), traces::current());
            frames::write(&mut send, &Frame::Open { room, epoch, branch, node, trace }).await.ok()?;
            let mut frames = frames::reading(recv);
            let answer = frames.recv().await?;
            Some((send, frames, answer))
        };
        let opened = tokio::time::timeout(CONNECT_WITHIN, opening).await.ok().flatten();
        let Some((send, frames, answer)) = opened else {
            return Err(BranchError::Unreachable);
        };
        match answer {
            Frame::Accepted { state, epoch } => {
                Ok(Self { home: home.clone(), epoch, state: *state, send, frames, route })
            }
            Frame::Refused(reason) => Err(BranchError::Refused(reason)),
            _ => Err(BranchError::Refused(Reason::Unknown)),
        }
    }
}

/// Starts the task of a branch.
pub(super) fn follow(links: Links, room: RoomName, session: Session, id: FarId) -> Far {
    let (words, receiver) = mailbox::control(WORDS_MAX);
    let far = Far { id, epoch: session.epoch, state: session.state.clone(), words };
    let follower = Follower {
        links,
        id,
        home: session.home.clone(),
        epoch: session.epoch,
        room,
        merger: Merger::default(),
        outlets: BTreeMap::new(),
        words: receiver,
        lodgers: 0.0,
        idle_since: Some(Instant::now()),
    };
    tokio::spawn(follower.run(session));
    far
}

/// Why a session is over.
enum End {
    /// There is nothing more to follow.
    Over,
    /// The home is to be found again.
    Lost,
}

struct Follower {
    links: Links,
    id: FarId,
    room: RoomName,
    /// That had the room last, under which epoch.
    home: NodeRecord,
    epoch: u64,
    merger: Merger,
    outlets: BTreeMap<ShardId, Outlet>,
    words: mpsc::Receiver<Word>,
    /// As last told.
    lodgers: f64,
    /// Since when no shard has a branch.
    idle_since: Option<Instant>,
}

/// The way to one shard.
struct Outlet {
    inlet: Inlet<Cargo>,
    /// In order; packets go past it only while it is empty.
    waiting: VecDeque<Cargo>,
}

impl Follower {
    async fn run(mut self, first: Session) {
        let served = gauge!("antiphon_relay_branches", "side" => "branch");
        served.increment(1.0);
        let mut session = Some(first);
        while let Some(current) = session.take() {
            if matches!(self.stay(current).await, End::Over) {
                break;
            }
            let lost_at = Instant::now();
            counter!("antiphon_relay_failures_total", "what" => "lost").increment(1);
            self.merger.handle_lost();
            session = self.find().await;
            if session.is_some() {
                histogram!("antiphon_relay_reopen_seconds").record(lost_at.elapsed());
            }
        }
        // Before the next branch of the room can be opened, so that shards make way for it.
        self.merger.end(CloseReason::Moved);
        self.deliver();
        gauge!("antiphon_relay_lodgers").decrement(std::mem::take(&mut self.lodgers));
        self.words.close();
        self.links.forget(&self.room, self.id);
        // What shards have not taken yet they take within moments, or they are gone.
        let until = Instant::now() + IDLE_MAX;
        while self.has_waiting() && Instant::now() < until {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush();
        }
        served.decrement(1.0);
        tracing::info!(room = %self.room, "the branch of another node's room is no more");
    }

    /// Serves one session.
    async fn stay(&mut self, mut session: Session) -> End {
        tracing::info!(room = %self.room, home = %session.home.id, epoch = session.epoch, "branch linked");
        if session.epoch > self.epoch {
            self.merger.handle_moved();
        }
        (self.home, self.epoch) = (session.home.clone(), session.epoch);
        self.merger.handle_linked(session.home.seats_lodgers);
        let moved = moved(self.links.clone(), self.room.clone(), self.epoch);
        tokio::pin!(moved);
        let mut turn = tokio::time::interval(FLUSH_EVERY);
        loop {
            for news in self.deliver() {
                if frames::write(&mut session.send, &Frame::Up(news)).await.is_err() {
                    return End::Lost;
                }
            }
            tokio::select! {
                Some(first) = session.route.carried.recv() => self.pass(first, &mut session.route.carried),
                word = self.words.recv() => match word {
                    Some(Word::From(_, Cargo::Packets(packets))) => session.route.send(&self.spread(packets)),
                    Some(Word::From(_, Cargo::Data(data))) => session.route.send_data(data),
                    Some(word) => self.hear(word),
                    None => return End::Over,
                },
                frame = session.frames.recv() => match frame {
                    Some(Frame::Down(Downstream::Ended(reason))) if goes_on(reason) => return End::Lost,
                    Some(Frame::Down(news)) => {
                        let is_last = matches!(news, Downstream::Ended(_));
                        self.merger.handle_downstream(news);
                        if is_last {
                            self.deliver();
                            return End::Over;
                        }
                    }
                    Some(_) => {}
                    // The home lets go of who wants nothing any more.
                    None if self.merger.is_empty() => return End::Over,
                    None => return End::Lost,
                },
                () = &mut moved => {
                    tracing::info!(room = %self.room, "the room has another home: its branch follows");
                    return End::Lost;
                }
                _ = turn.tick(), if self.has_waiting() || self.idle_since.is_some() => self.flush(),
            }
            if self.idle_since.is_some_and(|since| since.elapsed() > IDLE_MAX) {
                return End::Over;
            }
        }
    }

    /// Looks for the room's home until there is one that gives a branch.
    async fn find(&mut self) -> Option<Session> {
        let until = Instant::now() + LOST_MAX;
        let mut pause = PAUSE.0;
        let mut unheld = 0;
        let mut orphaned_since = None;
        while Instant::now() < until {
            let (links, room) = (self.links.clone(), self.room.clone());
            let (home, epoch) = (self.home.clone(), self.epoch);
            let found = self.meanwhile(async move { ask_again(&links, &room, home, epoch).await }).await?;
            let is_orphaned = matches!(
                found,
                Ok(Again::Nowhere | Again::Orphaned) | Err(BranchError::Refused(Reason::NotHome))
            );
            orphaned_since = is_orphaned.then(|| orphaned_since.unwrap_or_else(Instant::now));
            if orphaned_since.is_some_and(|since| since.elapsed() >= ORPHANED_MAX) {
                self.merger.handle_orphaned();
            }
            match found {
                Ok(Again::Session(session)) => return Some(*session),
                Ok(Again::Here) => return None,
                // Ended, while we were not told.
                Ok(Again::Nowhere) if unheld >= UNHELD_MAX => return None,
                Ok(Again::Nowhere) => unheld += 1,
                Ok(Again::Orphaned) => {}
                Err(error) => tracing::debug!(room = %self.room, %error, "no branch yet"),
            }
            self.meanwhile(tokio::time::sleep(pause)).await?;
            pause = (pause * 2).min(PAUSE.1);
        }
        None
    }

    /// Waits for something while shards go on. `None` when none of them has a branch any more.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        let mut turn = tokio::time::interval(FLUSH_EVERY);
        loop {
            tokio::select! {
                done = &mut what => return Some(done),
                word = self.words.recv() => self.hear(word?),
                _ = turn.tick() => self.flush(),
            }
            self.deliver();
            if self.idle_since.is_some_and(|since| since.elapsed() > IDLE_MAX) {
                return None;
            }
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Attach(shard, inlet) => {
                let outlet = self.outlets.entry(shard);
                outlet.or_insert_with(|| Outlet { inlet, waiting: VecDeque::new() });
                self.idle_since = self.idle_since.map(|_| Instant::now());
            }
            Word::From(shard, Cargo::Up(news)) => {
                self.merger.handle_upstream(shard, news);
                self.idle_since = self.merger.is_empty().then(Instant::now);
            }
            // There is no link for it now.
            Word::From(_, Cargo::Packets(packets)) => drop(self.spread(packets)),
            Word::From(..) => {}
        }
    }

    /// Gives what lodgers send to the other shards that take it. Answers with what is for the home.
    fn spread(&self, packets: Vec<Packet>) -> Vec<Packet> {
        let mut batches = BTreeMap::new();
        let is_taken_here = |packet: &&Packet| {
            self.merger.takers(packet.origin, packet.line, packet.encoding).next().is_some()
        };
        for packet in packets.iter().filter(is_taken_here) {
            self.share_out(&mut batches, copied(packet));
        }
        self.hand_on_all(batches);
        let goes_up = |packet: &Packet| self.merger.goes_up(packet.origin, packet.line, packet.encoding);
        packets.into_iter().filter(goes_up).collect()
    }

    /// Gives shards what is theirs; what is for the home is answered.
    fn deliver(&mut self) -> Vec<crate::core::relay::Upstream> {
        let mut up = Vec::new();
        while let Some(output) = self.merger.poll_output() {
            match output {
                Merged::Up(news) => up.push(news),
                Merged::Down(shard, news) => {
                    let Some(outlet) = self.outlets.get_mut(&shard) else { continue };
                    if outlet.waiting.len() < WAITING_MAX {
                        outlet.waiting.push_back(Cargo::Down(news));
                    }
                }
            }
        }
        let lodgers = self.merger.lodgers() as f64;
        gauge!("antiphon_relay_lodgers").increment(lodgers - std::mem::replace(&mut self.lodgers, lodgers));
        self.flush();
        up
    }

    fn flush(&mut self) {
        for outlet in self.outlets.values_mut() {
            while let Some(cargo) = outlet.waiting.pop_front() {
                if let Err(cargo) = outlet.inlet.offer(cargo) {
                    outlet.waiting.push_front(cargo);
                    break;
                }
            }
        }
    }

    fn has_waiting(&self) -> bool {
        self.outlets.values().any(|outlet| !outlet.waiting.is_empty())
    }

    /// Hands packets and data on, this one and those that wait behind it.
    fn pass(&mut self, first: Carried, more: &mut mpsc::Receiver<Carried>) {
        let mut batches: BTreeMap<ShardId, Vec<Packet>> = BTreeMap::new();
        let waiting = std::iter::from_fn(|| more.try_recv().ok());
        for carried in std::iter::once(first).chain(waiting.take(BATCH_MAX)) {
            let packet = match carried {
                Carried::Packet(packet) => packet,
                Carried::Data(data) => {
                    for shard in self.merger.lodged_on() {
                        self.hand_on(shard, Cargo::Data(data.clone()), 1);
                    }
                    continue;
                }
            };
            self.share_out(&mut batches, packet);
        }
        self.hand_on_all(batches);
    }

    /// Gives a packet to each shard that takes it.
    fn share_out(&self, batches: &mut BTreeMap<ShardId, Vec<Packet>>, packet: Packet) {
        let mut takers = self.merger.takers(packet.origin, packet.line, packet.encoding).peekable();
        while let Some(shard) = takers.next() {
            let batch = batches.entry(shard).or_default();
            if takers.peek().is_none() {
                return batch.push(packet);
            }
            batch.push(copied(&packet));
        }
    }

    fn hand_on_all(&self, batches: BTreeMap<ShardId, Vec<Packet>>) {
        for (shard, batch) in batches {
            let count = batch.len() as u64;
            self.hand_on(shard, Cargo::Packets(batch), count);
        }
    }

    /// Gives a shard what may be lost, unless news waits for it.
    fn hand_on(&self, shard: ShardId, cargo: Cargo, count: u64) {
        let Some(outlet) = self.outlets.get(&shard).filter(|outlet| outlet.waiting.is_empty()) else {
            return;
        };
        if outlet.inlet.offer(cargo).is_err() {
            counter!("antiphon_relay_dropped_total", "reason" => "full").increment(count);
        }
    }
}

/// A copy of its own: no count is shared by two cores.
fn copied(packet: &Packet) -> Packet {
    Packet { payload: packet.payload[..].into(), ..packet.clone() }
}

/// What became of looking for a home.
enum Again {
    Session(Box<Session>),
    /// It is this node's own by now.
    Here,
    /// Nobody has it, and nobody had it lately.
    Nowhere,
    /// The lease of whoever had it has run out.
    Orphaned,
}

/// Asks whoever has the room for a branch; while nobody can say who that is, whoever had it last. One of an
/// earlier epoch is not asked.
async fn ask_again(
    links: &Links,
    room: &RoomName,
    home: NodeRecord,
    epoch: u64,
) -> Result<Again, BranchError> {
    let cluster = &links.0.cluster;
    let (home, epoch) = match cluster.known(room).await {
        Ok(Known::Held(owner)) if owner.node == *cluster.id() => return Ok(Again::Here),
        Ok(Known::Held(owner)) if owner.epoch >= epoch => {
            (cluster.node(&owner.node).ok_or(BranchError::Unreachable)?, owner.epoch)
        }
        Ok(Known::Free) => return Ok(Again::Nowhere),
        Ok(Known::Orphaned) => return Ok(Again::Orphaned),
        Ok(_) => return Err(BranchError::Unreachable),
        Err(_) => (home, epoch),
    };
    Session::open(links, room, &home, epoch).await.map(|session| Again::Session(Box::new(session)))
}

/// Ends when the registry says that the room has another holder.
async fn moved(links: Links, room: RoomName, epoch: u64) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        // A registry that does not answer ends nothing.
        if let Ok(Known::Held(owner)) = links.0.cluster.known(&room).await
            && owner.epoch > epoch
        {
            return;
        }
    }
}
