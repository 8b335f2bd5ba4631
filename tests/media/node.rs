//! A real shard under the emulated network: the control loop's part is played here, the rest is the product.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon::bench::client::{Client, Offer};
use antiphon::core::chat::RoomHistory;
use antiphon::core::event::Appended;
use antiphon::core::ids::{Identity, RoomName, SessionId, ShardId};
use antiphon::core::participant::{Entrant, Part};
use antiphon::core::protocol::{Access, Grant, Mode, RoomState};
use antiphon::core::room::Settings;
use antiphon::core::stats::RoomStats;
use antiphon::mailbox;
use antiphon::media::negotiate::{self, Reach};
use antiphon::media::shard::{Command, Join, LogAnswer, Notice, RoomCommand, Shard, Surroundings};
use antiphon::media::{Datagram, PeerSerial, credentials};
use str0m_aws_lc_rs::default_provider;
use tokio::sync::{mpsc, oneshot};

use crate::link::Conditions;
use crate::world::{SERVER, Server, World};

/// First guess of a client's downlink, as the product's default.
const INITIAL_ESTIMATE_BPS: u64 = 1_000_000;

/// One shard with one room.
pub struct Node {
    shard: Shard,
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
    pub nonces: Nonces,
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
    pub fn new(now: Instant, unreadable: u32) -> Self {
        let crypto = Arc::new(default_provider());
        let certificate = crypto.dtls_provider.generate_certificate().expect("a certificate");
        let identity =
            negotiate::Identity { certificate, crypto, initial_estimate_bps: INITIAL_ESTIMATE_BPS };
        let server = SocketAddr::from(SERVER);
        let reach = Reach { udp: vec![server], tcp: Vec::new(), local_ips: vec![server.ip()] };
        let (sender, notices) = mailbox::control(10_000);
        let shard = Shard::new(Surroundings {
            id: ShardId(0),
            reach: reach.clone(),
            notices: sender,
            unix_ms_at_start: 1_800_000_000_000,
            start: now,
        });
        let room = RoomName::parse("emulated").expect("a room's name");
        let mut node = Self {
            shard,
            identity,
            reach,
            notices,
            room,
            peers: 0,
            offset: 0,
            transmits: VecDeque::new(),
            unreadable,
            nonces: Nonces::default(),
        };
        let settings = node.settings();
        node.shard.handle_command(now, Command::Open(Box::new(settings)));
        node.settle(now);
        node
    }

    fn settings(&self) -> Settings {
        Settings {
            state: RoomState {
                name: self.room.clone(),
                mode: Mode::Sfu,
                access: Access::Open,
                locked: false,
                lobby: false,
                participants_max: 100,
                opened_at_ms: 0,
            },
            publishers_max: 100,
            viewers_max: 100,
            video_bps_max: 5_000_000,
            messages_per_second: 20.0,
            chat_chars_max: 4_000,
            empty_after: Duration::from_secs(300),
            resume_within: Duration::from_secs(15),
            initial_estimate_bps: INITIAL_ESTIMATE_BPS,
            first_is_admin: true,
            epoch: 1,
        }
    }

    /// Lets a connection in, and returns the SDP answer.
    pub fn join(&mut self, now: Instant, part: Part, offer: String) -> String {
        self.peers += 1;
        let serial = PeerSerial(self.peers);
        let random = u128::from(self.peers);
        let creds = credentials(ShardId(0), serial, [random, random << 64 | 0x5eed]);
        let negotiated = negotiate::accept(
            now,
            &self.identity,
            &self.reach,
            creds,
            negotiate::Offer::parse(offer).expect("it parses"),
        )
        .expect("the offer is accepted");
        let entrant = Entrant {
            identity: Identity::parse(&format!("peer-{}", self.peers)).expect("an identity"),
            name: format!("Peer {}", self.peers),
            grant: Grant { publish: true, subscribe: true, chat: true, files: true, admin: false },
            part,
            session: SessionId(random),
            has_token: false,
            lines: negotiated.published.clone(),
            slots: negotiated.slots.clone(),
            seed: u64::from(self.peers) * 0x1234_5678_9abc,
        };
        let (reply, mut granted) = oneshot::channel();
        let join = Join { serial, entrant, resume: None, negotiated, asked_at: now, reply };
        self.command(now, RoomCommand::Join(Box::new(join)));
        granted.try_recv().expect("an answer at once").expect("the join is granted").answer
    }

    /// Closes all rooms; the answer comes when the last peer is gone.
    pub fn drain(&mut self, now: Instant) -> oneshot::Receiver<()> {
        let (done, drained) = oneshot::channel();
        self.shard.handle_command(now, Command::Drain(done));
        self.settle(now);
        drained
    }

    pub fn stats(&mut self, now: Instant) -> RoomStats {
        let (reply, mut stats) = oneshot::channel();
        self.command(now, RoomCommand::Stats(reply));
        stats.try_recv().expect("an answer at once").expect("the room is open")
    }

    fn command(&mut self, now: Instant, command: RoomCommand) {
        self.shard.handle_command(now, Command::InRoom(self.room.clone(), command));
        self.settle(now);
    }

    /// Ends the tick: what is to be sent goes out, what the control loop is asked is answered.
    fn settle(&mut self, now: Instant) {
        self.shard.finish_tick(now);
        while let Ok(notice) = self.notices.try_recv() {
            let answer = match notice {
                Notice::Restore { .. } if self.unreadable > 0 => {
                    self.unreadable -= 1;
                    LogAnswer::RestoreFailed
                }
                Notice::Restore { .. } => LogAnswer::Restored(Box::<RoomHistory>::default()),
                Notice::Append { event, .. } => {
                    self.offset += 1;
                    LogAnswer::Appended(Box::new(Appended {
                        id: event.id,
                        offset: self.offset,
                        is_new: true,
                        message: None,
                    }))
                }
                _ => continue,
            };
            let command = Command::InRoom(self.room.clone(), RoomCommand::Log(answer));
            self.shard.handle_command(now, command);
            self.shard.finish_tick(now);
        }
        for (run, bytes) in self.shard.outbox().runs() {
            let datagrams = bytes.chunks(run.segment_bytes);
            datagrams.clone().for_each(|datagram| self.nonces.note(run.destination, datagram));
            self.transmits.extend(datagrams.map(|datagram| (run.destination, datagram.to_vec())));
        }
        self.shard.outbox().clear();
    }
}

impl Server for Node {
    fn handle_datagram(&mut self, now: Instant, source: SocketAddr, contents: &[u8]) {
        let datagram = Datagram { source, destination: SERVER.into(), bytes: contents };
        self.shard.handle_datagram(now, datagram);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.shard.handle_timeout(now);
        self.settle(now);
    }

    fn timeout(&self, idle_until: Instant) -> Instant {
        self.shard.poll_timeout().unwrap_or(idle_until)
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
    World::new(start, seed, Node::new(start, times))
}

/// A new client joins over a path of these conditions. Returns its site.
pub fn join(world: &mut World<Node>, part: Part, offer: Offer, conditions: Conditions) -> usize {
    let now = world.now();
    let (mut client, sdp) = Client::new(now, world.start(), world.next_address(), offer).expect("a client");
    let answer = world.server.join(now, part, sdp);
    client.accept_answer(now, &answer).expect("the answer fits the offer");
    world.add(client, conditions)
}
