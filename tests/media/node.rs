//! Real shards under the emulated network: the control loop's part is played here, the rest is the product.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon::bench::client::{Client, Offer};
use antiphon::core::chat::RoomHistory;
use antiphon::core::event::Appended;
use antiphon::core::ids::{FarId, Identity, RoomName, SessionId, ShardId, Site};
use antiphon::core::participant::{Entrant, Part};
use antiphon::core::protocol::{Grant, RoomState};
use antiphon::core::refusal::Refusal;
use antiphon::core::room::Settings;
use antiphon::core::stats::RoomStats;
use antiphon::mailbox;
use antiphon::media::negotiate::{self, Reach};
use antiphon::media::relay::{Freight, Relay, RelayedPacket};
use antiphon::media::shard::{
    Command, Home, IceChange, Join, LogAnswer, Notice, RoomCommand, Shard, Surroundings,
};
use antiphon::media::{Datagram, PeerSerial, credentials};
use str0m_aws_lc_rs::default_provider;
use tokio::sync::{mpsc, oneshot};

use crate::far::Way;
use crate::link::Conditions;
use crate::world::{SERVER, Server, World};

/// First guess of a client's downlink, as the product's default.
const INITIAL_ESTIMATE_BPS: u64 = 1_000_000;

/// By which the home calls the way to a branch at another node, and that one the way back.
const AT_HOME: FarId = FarId(1);
const AT_BRANCH: FarId = FarId(9);
/// Of the room.
const EPOCH: u64 = 1;

/// Shards with one room, whose home is the first.
pub struct Node {
    pub shards: Vec<Shard>,
    /// Which of them serves each client.
    served_by: BTreeMap<SocketAddr, usize>,
    /// The shards' queues take no packets.
    pub relays_full: bool,
    /// Where the other shards stand for other nodes: the ways there and back.
    far: Option<(Way, Way)>,
    /// Packets that went from the home to other shards.
    pub relayed: Vec<(usize, RelayedPacket)>,
    identity: negotiate::Identity,
    reach: Reach,
    notices: mpsc::Receiver<Notice>,
    room: RoomName,
    peers: u32,
    /// Events in the log that is played here.
    offset: u64,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    /// How often the room's history cannot be read.
    pub unreadable: u32,
    /// Who joins gets the lowest layer alone.
    pub lowest_layer: bool,
    pub nonces: Nonces,
    /// Offer and answer of the last who joined.
    pub last_exchange: (String, String),
}

/// Every nonce that was used towards a client, with what it sealed. RTP by SSRC and sequence number, RTCP by
/// SSRC and index.
#[derive(Default)]
pub struct Nonces {
    used: BTreeMap<(SocketAddr, u32, u32), Vec<u8>>,
    pub rtp: u64,
    pub rtcp: u64,
}

impl Nonces {
    /// A nonce may come again only with the very same datagram.
    fn note(&mut self, to: SocketAddr, datagram: &[u8]) {
        let word = |at: usize| u32::from_be_bytes(datagram[at..at + 4].try_into().expect("four bytes"));
        let key = match *datagram {
            [128..=191, 192..=223, ..] => {
                self.rtcp += 1;
                (to, word(4), word(datagram.len() - 4))
            }
            [128..=191, _, high, low, ..] => {
                self.rtp += 1;
                (to, word(8), u32::from(u16::from_be_bytes([high, low])))
            }
            _ => return,
        };
        let first = self.used.entry(key).or_insert_with(|| datagram.to_vec());
        assert_eq!(first, datagram, "a nonce was used twice: {key:?}");
    }
}

impl Node {
    pub fn new(now: Instant, shards: u8, unreadable: u32) -> Self {
        let crypto = Arc::new(default_provider());
        let certificate = crypto.dtls_provider.generate_certificate().expect("a certificate");
        let identity =
            negotiate::Identity { certificate, crypto, initial_estimate_bps: INITIAL_ESTIMATE_BPS };
        let server = SocketAddr::from(SERVER);
        let reach = Reach { udp: vec![server], tcp: Vec::new(), local_ips: vec![server.ip()] };
        let (sender, notices) = mailbox::control(10_000);
        let shard = |id| {
            Shard::new(Surroundings {
                id: ShardId(id),
                reach: reach.clone(),
                notices: sender.clone(),
                unix_ms_at_start: 1_800_000_000_000,
                start: now,
            })
        };
        let room = RoomName::parse("emulated").expect("a room's name");
        let mut node = Self {
            shards: (0..shards).map(shard).collect(),
            served_by: BTreeMap::new(),
            relays_full: false,
            far: None,
            relayed: Vec::new(),
            identity,
            reach,
            notices,
            room,
            peers: 0,
            last_exchange: Default::default(),
            lowest_layer: false,
            offset: 0,
            transmits: VecDeque::new(),
            unreadable,
            nonces: Nonces::default(),
        };
        let settings = node.settings();
        node.shards[0].handle_command(now, Command::Open(Box::new(settings)));
        node.settle(now);
        node
    }

    fn settings(&self) -> Settings {
        Settings {
            state: RoomState::new(self.room.clone(), 100, 0),
            publishers_max: 100,
            viewers_max: 100,
            video_bps_max: 5_000_000,
            messages_per_second: 20.0,
            chat_chars_max: 4_000,
            empty_after: Duration::from_secs(300),
            resume_within: Duration::from_secs(15),
            initial_estimate_bps: INITIAL_ESTIMATE_BPS,
            first_is_admin: true,
            mix: None,
            may_record: true,
            epoch: EPOCH,
        }
    }

    /// Lets a connection of the client at `address` in on a shard, and returns the SDP answer.
    pub fn join(
        &mut self,
        now: Instant,
        address: SocketAddr,
        shard: usize,
        part: Part,
        offer: String,
    ) -> Result<String, Refusal> {
        self.peers += 1;
        self.served_by.insert(address, shard);
        let id = ShardId(shard as u8);
        if shard != 0 {
            let settings = Box::new(self.settings());
            let home = self.way_home(now, settings.epoch);
            self.shards[shard].handle_command(now, Command::OpenBranch { settings, home });
        }
        let serial = PeerSerial(self.peers);
        let random = u128::from(self.peers);
        let creds = credentials(id, serial, [random, random << 64 | 0x5eed]);
        let negotiated = negotiate::accept(
            now,
            &self.identity,
            &self.reach,
            creds,
            negotiate::Offer::parse(offer.clone()).expect("it parses"),
        )
        .expect("the offer is accepted");
        let entrant = Entrant {
            identity: Identity::parse(&format!("peer-{}", self.peers)).expect("an identity"),
            name: format!("Peer {}", self.peers),
            grant: Grant {
                publish: true,
                subscribe: true,
                chat: true,
                files: true,
                admin: false,
                lowest_layer: self.lowest_layer,
            },
            part,
            session: SessionId::new(id, random << 8),
            has_token: false,
            returns: false,
            lines: negotiated.ingress.lines.clone(),
            slots: negotiated.slots.clone(),
            seed: u64::from(self.peers) * 0x1234_5678_9abc,
        };
        let (reply, mut granted) = oneshot::channel();
        let join = Join { serial, entrant, resume: None, negotiated, asked_at: now, reply };
        self.command(now, shard, RoomCommand::Join(Box::new(join)));
        let answer = granted
            .try_recv()
            .expect("an answer at once")
            .map(|granted| granted.expect("it is served here").answer);
        self.last_exchange = (offer, answer.clone().unwrap_or_default());
        answer
    }

    /// How a branch reaches its home.
    fn way_home(&mut self, now: Instant, epoch: u64) -> Home {
        let Some((down, up)) = &self.far else { return Home::Shard(ShardId(0)) };
        let link = Freight::FarLink(AT_HOME, down.inlet());
        let link = Relay { room: self.room.clone(), epoch, from: Site::Far(AT_HOME), freight: link };
        let home = Home::Far(AT_BRANCH, up.inlet());
        self.shards[0].handle_relay(now, link);
        home
    }

    /// An ICE restart of the peer that joined as this one, counted from 1. Returns our new credentials.
    pub fn restart_ice(&mut self, now: Instant, peer: u32, fragment: &str) -> String {
        let (reply, mut changed) = oneshot::channel();
        self.command(
            now,
            0,
            RoomCommand::Patch {
                session: SessionId::new(ShardId(0), u128::from(peer) << 8),
                if_match: None,
                fragment: fragment.to_owned(),
                random: [7, 8],
                reply,
            },
        );
        match changed.try_recv().expect("an answer at once").expect("it is accepted") {
            IceChange::Restarted { fragment, .. } => fragment,
            IceChange::Trickled => panic!("its credentials are others"),
        }
    }

    /// The room is opened anew, with a shard as its home that has not heard of its end.
    pub fn open_again(&mut self, now: Instant, shard: usize) {
        let settings = Settings { epoch: 2, ..self.settings() };
        self.shards[shard].handle_command(now, Command::Open(Box::new(settings)));
        self.settle(now);
    }

    /// Closes all rooms; the answer comes when the last peer is gone.
    pub fn drain(&mut self, now: Instant) -> oneshot::Receiver<()> {
        let (done, drained) = oneshot::channel();
        self.shards[0].handle_command(now, Command::Drain(done));
        self.settle(now);
        drained
    }

    pub fn stats(&mut self, now: Instant) -> RoomStats {
        self.stats_of(now, 0).expect("the room is open")
    }

    /// As a shard has it; not found where the room is not there.
    pub fn stats_of(&mut self, now: Instant, shard: usize) -> Result<RoomStats, Refusal> {
        let (reply, mut stats) = oneshot::channel();
        self.command(now, shard, RoomCommand::Stats(reply));
        stats.try_recv().expect("an answer at once")
    }

    pub fn command(&mut self, now: Instant, shard: usize, command: RoomCommand) {
        self.shards[shard].handle_command(now, Command::InRoom(self.room.clone(), command));
        self.settle(now);
    }

    /// Ends the tick: what is to be sent goes out, what the control loop is asked is answered, and shards
    /// hear from each other.
    fn settle(&mut self, now: Instant) {
        loop {
            (0..self.shards.len()).for_each(|shard| self.finish_tick(now, shard));
            if !self.answer_notices(now) && !self.pass_relays(now) {
                return;
            }
        }
    }

    fn finish_tick(&mut self, now: Instant, shard: usize) {
        loop {
            let shard = &mut self.shards[shard];
            let more = shard.finish_tick(now);
            for (run, bytes) in shard.outbox().runs() {
                let datagrams = bytes.chunks(run.segment_bytes);
                datagrams.clone().for_each(|datagram| self.nonces.note(run.destination, datagram));
                self.transmits.extend(datagrams.map(|datagram| (run.destination, datagram.to_vec())));
            }
            shard.outbox().clear();
            if !more {
                return;
            }
        }
    }

    fn pass_relays(&mut self, now: Instant) -> bool {
        let mut passed = false;
        for from in 0..self.shards.len() {
            while let Some(out) = self.shards[from].poll_relay(now) {
                passed = true;
                match &out.relay.freight {
                    Freight::Packets(_) if self.relays_full => {
                        self.shards[from].handle_relay_loss(now, &out);
                        continue;
                    }
                    Freight::Packets(packets) => {
                        let to = usize::from(out.to.0);
                        self.relayed.extend(packets.iter().map(|packet| (to, packet.clone())));
                    }
                    _ => {}
                }
                self.shards[usize::from(out.to.0)].handle_relay(now, out.relay);
            }
        }
        passed | self.pass_far(now)
    }

    fn pass_far(&mut self, now: Instant) -> bool {
        let Some((down, up)) = self.far.clone() else { return false };
        down.set_full(self.relays_full);
        let mut passed = false;
        let relay = |from: FarId, cargo| Relay {
            room: self.room.clone(),
            epoch: EPOCH,
            from: Site::Far(from),
            freight: Freight::from(cargo),
        };
        while let Some(cargo) = down.poll() {
            passed = true;
            let relay = relay(AT_BRANCH, cargo);
            if let Freight::Packets(packets) = &relay.freight {
                self.relayed.extend(packets.iter().map(|packet| (1, packet.clone())));
            }
            self.shards[1].handle_relay(now, relay);
        }
        while let Some(cargo) = up.poll() {
            passed = true;
            self.shards[0].handle_relay(now, relay(AT_HOME, cargo));
        }
        passed
    }

    fn answer_notices(&mut self, now: Instant) -> bool {
        let mut answered = false;
        while let Ok(notice) = self.notices.try_recv() {
            let (shard, answer) = match notice {
                Notice::Restore { shard, .. } if self.unreadable > 0 => {
                    self.unreadable -= 1;
                    (shard, LogAnswer::RestoreFailed)
                }
                Notice::Restore { shard, .. } => (shard, LogAnswer::Restored(Box::<RoomHistory>::default())),
                Notice::Append { shard, event, .. } => {
                    self.offset += 1;
                    let (id, offset) = (event.id, self.offset);
                    let appended = Appended { id, offset, is_new: true, message: None };
                    (shard, LogAnswer::Appended(Box::new(appended)))
                }
                _ => continue,
            };
            answered = true;
            let command = Command::InRoom(self.room.clone(), RoomCommand::Log(answer));
            self.shards[usize::from(shard.0)].handle_command(now, command);
        }
        answered
    }
}

impl Server for Node {
    fn handle_datagram(&mut self, now: Instant, source: SocketAddr, contents: &[u8]) {
        let datagram = Datagram { source, destination: SERVER.into(), bytes: contents };
        let shard = self.served_by.get(&source).copied().unwrap_or(0);
        self.shards[shard].handle_datagram(now, datagram);
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        // As a shard's thread does in each tick, whatever it was woken for.
        self.shards.iter_mut().for_each(|shard| shard.handle_timeout(now));
        self.settle(now);
    }

    fn timeout(&self, idle_until: Instant) -> Instant {
        self.shards.iter().filter_map(Shard::poll_timeout).min().unwrap_or(idle_until)
    }

    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }
}

/// A world around an empty room.
pub fn world(seed: u64) -> World<Node> {
    world_unreadable(seed, 0)
}

/// The same, where the room's history cannot be read for the first so many times.
pub fn world_unreadable(seed: u64, times: u32) -> World<Node> {
    let start = Instant::now();
    World::new(start, seed, Node::new(start, 1, times))
}

/// A world around an empty room of a node with several shards.
pub fn world_of_shards(seed: u64, shards: u8) -> World<Node> {
    let start = Instant::now();
    World::new(start, seed, Node::new(start, shards, 0))
}

/// A world around an empty room of a node, whose second shard stands for another node.
pub fn world_of_nodes(seed: u64) -> World<Node> {
    let mut world = world_of_shards(seed, 2);
    world.server.far = Some(Default::default());
    world
}

/// A new client joins over a path of these conditions. Returns its site.
pub fn join(world: &mut World<Node>, part: Part, offer: Offer, conditions: Conditions) -> usize {
    join_on(world, 0, part, offer, conditions).expect("the join is granted")
}

/// The same, on a certain shard.
pub fn join_on(
    world: &mut World<Node>,
    shard: usize,
    part: Part,
    offer: Offer,
    conditions: Conditions,
) -> Result<usize, Refusal> {
    let now = world.now();
    let address = world.next_address();
    let (mut client, sdp) = Client::new(now, world.start(), address, offer).expect("a client");
    let answer = world.server.join(now, address, shard, part, sdp)?;
    client.accept_answer(now, &answer).expect("the answer fits the offer");
    Ok(world.add(client, conditions))
}
