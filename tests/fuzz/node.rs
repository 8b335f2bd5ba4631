//! A shard with one room: a victim that gets the broken input, and a neighbour that must not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon::core::ids::{Identity, RoomName, SessionId, ShardId};
use antiphon::core::participant::{Entrant, Part};
use antiphon::core::protocol::{Grant, RoomState};
use antiphon::core::refusal::Refusal;
use antiphon::core::room::Settings;
use antiphon::mailbox;
use antiphon::media::negotiate::{self, Negotiated, Offer, Reach};
use antiphon::media::shard::{Command, IceChange, Join, LogAnswer, Notice, RoomCommand, Shard, Surroundings};
use antiphon::media::{Datagram, PeerSerial, credentials};
use str0m::change::SdpAnswer;
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::sync::{mpsc, oneshot};

/// What a browser offers, shortened: sound and simulcast to send, two slots, data.
pub const OFFER: &str = include_str!("offer.sdp");

const ROOM: &str = "fuzzed";

/// A real client in virtual time.
struct Client {
    rtc: Rtc,
    address: SocketAddr,
    control: Option<ChannelId>,
    welcomed: bool,
    pongs: u64,
    session: SessionId,
}

pub struct Node {
    shard: Shard,
    notices: mpsc::Receiver<Notice>,
    media: negotiate::Identity,
    reach: Reach,
    now: Instant,
    serial: u32,
    clients: Vec<Client>,
    sent: Vec<Vec<u8>>,
    /// The shard's counters as they were last taken.
    dropped: u64,
}

impl Node {
    pub fn new() -> Self {
        let now = Instant::now();
        let reach = Reach {
            udp: vec![([127, 0, 0, 1], 7_882).into()],
            tcp: vec![],
            local_ips: vec![[127, 0, 0, 1].into()],
        };
        let (notices, receiver) = mailbox::control(100_000);
        let around = Surroundings {
            id: ShardId(0),
            reach: reach.clone(),
            notices,
            unix_ms_at_start: 1_800_000_000_000,
            start: now,
        };
        let crypto = Arc::new(str0m_aws_lc_rs::default_provider());
        let certificate = crypto.dtls_provider.generate_certificate().expect("a certificate");
        let media = negotiate::Identity { certificate, crypto, initial_estimate_bps: 1_000_000 };
        let mut node = Self {
            shard: Shard::new(around),
            notices: receiver,
            media,
            reach,
            now,
            serial: 0,
            clients: Vec::new(),
            sent: Vec::new(),
            dropped: 0,
        };
        let state = RoomState::new(RoomName::parse(ROOM).expect("a name"), 10, 0);
        let settings = Settings {
            state,
            publishers_max: 10,
            viewers_max: 10,
            video_bps_max: 5_000_000,
            messages_per_second: 1e9,
            chat_chars_max: 4_000,
            empty_after: Duration::from_secs(1_000_000),
            resume_within: Duration::from_secs(15),
            initial_estimate_bps: 1_000_000,
            first_is_admin: false,
            mix: None,
            may_record: true,
            epoch: 1,
        };
        node.shard.handle_command(now, Command::Open(Box::new(settings)));
        for name in ["victim", "neighbour"] {
            node.connect(name);
        }
        node
    }

    /// Accepts an offer as a join would.
    pub fn negotiate(&self, offer: String) -> Result<Negotiated, Refusal> {
        let creds = credentials(ShardId(0), PeerSerial(9_999), [1, 2]);
        let offer = Offer::parse(offer)?;
        negotiate::accept(self.now, &self.media, &self.reach, creds, offer)
    }

    fn connect(&mut self, name: &str) {
        self.serial += 1;
        let port = 40_000 + self.serial as u16;
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::clone(&self.media.crypto))
            .set_rtp_mode(true)
            .build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        let mut api = rtc.sdp_api();
        api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let channel = ChannelConfig {
            label: "control".into(),
            protocol: antiphon::core::protocol::PROTOCOL.into(),
            ..ChannelConfig::default()
        };
        api.add_channel_with_config(channel);
        let (offer, pending) = api.apply().expect("an offer");
        let session = SessionId(u128::from(self.serial));
        let creds = credentials(ShardId(0), PeerSerial(self.serial), [u128::from(self.serial), 7]);
        let offer = offer.to_sdp_string();
        let offer = Offer::parse(offer).expect("an offer that parses");
        let negotiated =
            negotiate::accept(self.now, &self.media, &self.reach, creds, offer).expect("a good offer");
        let entrant = Entrant {
            identity: Identity::parse(name).expect("a name"),
            name: name.into(),
            grant: Grant {
                publish: true,
                subscribe: true,
                chat: true,
                files: true,
                admin: false,
                lowest_layer: false,
            },
            part: Part::Member,
            session,
            has_token: false,
            returns: false,
            lines: negotiated.ingress.lines.clone(),
            slots: negotiated.slots.clone(),
            seed: 1,
        };
        let (reply, mut granted) = oneshot::channel();
        let join = Join {
            serial: PeerSerial(self.serial),
            entrant,
            resume: None,
            negotiated,
            asked_at: self.now,
            reply,
        };
        self.in_room(RoomCommand::Join(Box::new(join)));
        let granted = granted.try_recv().expect("an answer").expect("a seat").expect("this is no branch");
        let answer = SdpAnswer::from_sdp_string(&granted.answer).expect("an answer that parses");
        rtc.sdp_api().accept_answer(pending, answer).expect("an answer that fits");
        self.clients.push(Client { rtc, address, control: None, welcomed: false, pongs: 0, session });
        self.run_until("a welcome", |node| node.clients.last().is_some_and(|client| client.welcomed));
    }

    fn in_room(&mut self, command: RoomCommand) {
        let room = RoomName::parse(ROOM).expect("a name");
        self.shard.handle_command(self.now, Command::InRoom(room, command));
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("{what} did not come within ten virtual seconds");
    }

    /// Five virtual milliseconds: everyone's timers, and all that is on the wire.
    fn turn(&mut self) {
        self.now += Duration::from_millis(5);
        let now = self.now;
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            // A client that a broken datagram killed stays dead; the neighbour gets none.
            let _ = client.rtc.handle_input(Input::Timeout(now));
            self.drain_client(index);
        }
        self.shard.handle_timeout(now);
        self.finish();
        self.answer_log();
    }

    fn finish(&mut self) {
        let mut runs: Vec<(SocketAddr, usize, Vec<u8>)> = Vec::new();
        let mut more = true;
        while more {
            more = self.shard.finish_tick(self.now);
            let outbox = self.shard.outbox();
            runs.extend(
                outbox.runs().map(|(run, bytes)| (run.destination, run.segment_bytes, bytes.to_vec())),
            );
            outbox.clear();
        }
        for (to, segment_bytes, bytes) in runs {
            let Some(index) = self.clients.iter().position(|client| client.address == to) else { continue };
            for datagram in bytes.chunks(segment_bytes) {
                let client = &mut self.clients[index];
                let from = self.reach.udp[0];
                if let Ok(receive) = Receive::new(Protocol::Udp, from, client.address, datagram) {
                    let _ = client.rtc.handle_input(Input::Receive(self.now, receive));
                }
            }
            self.drain_client(index);
        }
    }

    fn drain_client(&mut self, index: usize) {
        loop {
            let client = &mut self.clients[index];
            match client.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => {
                    let bytes = transmit.contents.to_vec();
                    if self.sent.len() < 2_000 {
                        self.sent.push(bytes.clone());
                    }
                    let source = client.address;
                    let datagram = Datagram { source, destination: self.reach.udp[0], bytes: &bytes };
                    self.shard.handle_datagram(self.now, datagram);
                }
                Ok(Output::Event(Event::ChannelOpen(id, _))) => client.control = Some(id),
                Ok(Output::Event(Event::ChannelData(data))) => {
                    let text = String::from_utf8_lossy(&data.data).into_owned();
                    client.welcomed |= text.contains("\"welcome\"");
                    client.pongs += u64::from(text.contains("\"pong\""));
                }
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => return,
            }
        }
    }

    /// The log answers with nothing, or with failure: it is not what is tested here.
    fn answer_log(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            let answer = match notice {
                Notice::Restore { .. } => LogAnswer::Restored(Box::default()),
                Notice::Append { event, .. } => LogAnswer::AppendFailed(event.id),
                Notice::ReadMessage { id, .. } => LogAnswer::Message { id, read: Ok(None) },
                Notice::ReadHistory { to, .. } => LogAnswer::History { to, page: Err(()) },
                Notice::BranchOpened { .. } | Notice::BranchEnded { .. } => continue,
                Notice::StartMixer { .. } | Notice::StartRecorder { .. } | Notice::AskRecording { .. } => {
                    continue;
                }
                Notice::Ended { .. } | Notice::Load { .. } | Notice::KeepFile { .. } => continue,
            };
            self.in_room(RoomCommand::Log(answer));
        }
    }

    /// A control message of the victim's, as bytes on its channel.
    pub fn control(&mut self, bytes: Vec<u8>) {
        let victim = &mut self.clients[0];
        if let Some(mut channel) = victim.control.and_then(|id| victim.rtc.channel(id)) {
            // An oversize message is refused here already.
            let _ = channel.write(false, &bytes);
        }
        self.turn();
    }

    /// A `PATCH` of the victim's session.
    pub fn patch(&mut self, fragment: String) -> Result<IceChange, Refusal> {
        let session = self.clients[0].session;
        let (reply, mut changed) = oneshot::channel();
        let patch = RoomCommand::Patch { session, if_match: None, fragment, random: [3, 4], reply };
        self.in_room(patch);
        while self.shard.finish_tick(self.now) {
            self.shard.outbox().clear();
        }
        self.shard.outbox().clear();
        changed.try_recv().expect("an answer")
    }

    /// A datagram from the victim's address, from a stranger's, or from one more.
    pub fn datagram(&mut self, from: usize, bytes: &[u8]) {
        let source = match from {
            0 => self.clients[0].address,
            other => ([127, 0, 0, 1], 50_000 + other as u16).into(),
        };
        let datagram = Datagram { source, destination: self.reach.udp[0], bytes };
        self.shard.handle_datagram(self.now, datagram);
        self.finish();
    }

    /// What clients really sent while they connected: STUN, DTLS, RTCP, SCTP inside DTLS.
    pub fn good_datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut good = std::mem::take(&mut self.sent);
        good.push(vec![0x80, 0x60, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4]);
        good.push(vec![0x81, 0xc8, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
        good
    }

    pub fn dropped(&mut self) -> u64 {
        let dropped = self.shard.counters.dropped;
        self.dropped = dropped.malformed + dropped.unknown_peer + dropped.refused;
        self.dropped
    }

    /// The neighbour's channel works, both ways.
    pub fn assert_neighbour_lives(&mut self) {
        let neighbour = &mut self.clients[1];
        let before = neighbour.pongs;
        let id = neighbour.control.expect("its channel");
        let mut channel = neighbour.rtc.channel(id).expect("an open channel");
        assert!(
            channel.write(false, br#"{"type":"ping","request":1}"#).expect("written"),
            "the channel is full"
        );
        self.run_until("the neighbour's pong", |node| node.clients[1].pongs > before);
    }
}
