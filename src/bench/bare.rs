//! `antiphon bench bare`: what forwarding costs if a server did only what physics asks.
//!
//! One thread takes the load tool's synthetic traffic as it is made and for each receiver writes the RTP
//! header (with the extensions that no server can leave out: mid and transport-cc number), copies the
//! payload, seals it with AES-128-GCM (RFC 7714) and sends; packets of one frame leave in one GSO run. No
//! receiving, no feedback, no pacing, no resend store. Receivers on another thread take datagrams singly and
//! without GRO, as [`super::engine`] does, so the kernel's work in a send is the same as for a server.
//!
//! A nonce is never used twice: each receiver has a random key of its own, each of its streams an SSRC of its
//! own, and an index only grows.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use clap::Args;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{Transmit, UdpSocketState};
use rand::RngExt;
use serde::Serialize;

use super::BenchError;
use super::process::{Machine, Noise, Snapshot, thread_cpu};
use super::source::{AudioSource, MediaPacket, VideoSource, single};

/// RTP header with two one-byte header extensions (RFC 8285): mid "0" and transport-cc, padded to words.
const HEADER_LEN: usize = 12 + 4 + 8;
/// AES-GCM's tag.
const TAG_LEN: usize = 16;
/// What one send can take: an IP packet's length, less headers.
const RUN_LEN_MAX: usize = 65_000;
/// Before measuring.
const SETTLE: Duration = Duration::from_secs(1);
/// For what is under way to arrive.
const GRACE: Duration = Duration::from_millis(300);
/// Asked of the kernel for each receiving socket.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;

/// Options of `antiphon bench bare`.
#[derive(Debug, Clone, Copy, Args)]
pub struct BareArgs {
    #[arg(long, default_value_t = 1)]
    pub rooms: u32,
    /// Publishers in each room
    #[arg(long, default_value_t = 1)]
    pub publishers: u32,
    /// Viewers in each room; each gets all publishers of its room
    #[arg(long, default_value_t = 50)]
    pub subscribers: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
    /// Video bits per second of each publisher
    #[arg(long, default_value_t = 1_500_000)]
    pub bitrate: u64,
    /// Core for the sender
    #[arg(long)]
    pub core: Option<usize>,
    /// Core for the receivers
    #[arg(long)]
    pub receiver_core: Option<usize>,
}

/// What it found, under the names that `bench forward` uses.
#[derive(Debug, Serialize)]
pub struct BareReport {
    pub target: &'static str,
    pub rooms: u32,
    pub publishers: u32,
    pub subscribers: u32,
    pub seconds: f64,
    pub video_bps: u64,
    pub sent_packets_per_second: f64,
    pub received_packets_per_second: f64,
    pub packets: BarePackets,
    pub server: BareCost,
    pub machine: Noise,
}

#[derive(Debug, Serialize)]
pub struct BarePackets {
    pub expected: u64,
    pub received: u64,
    pub lost: u64,
    pub loss_ratio: f64,
}

#[derive(Debug, Serialize)]
pub struct BareCost {
    pub cpu_seconds: f64,
    pub cpu_share: f64,
    pub cpu_ns_per_forwarded_packet: f64,
}

/// Measures and prints one JSON object.
///
/// # Errors
/// The machine has no sockets, threads or per-thread CPU account to give.
pub fn run(args: &BareArgs) -> Result<(), BenchError> {
    println!("{}", serde_json::to_string_pretty(&measure(args)?)?);
    Ok(())
}

/// Measures.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &BareArgs) -> io::Result<BareReport> {
    let (over, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let viewers = args.rooms * args.subscribers;
    let sockets: Vec<UdpSocket> =
        (0..viewers).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    let addresses: Vec<SocketAddr> = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(sockets, args.receiver_core, &over, &received));
        let sent = send(args, &addresses, &received);
        over.store(true, Ordering::Relaxed);
        let drained = receiver.join().unwrap_or_else(|_| Err(io::Error::other("the receivers panicked")));
        let sent = sent?;
        drained?;
        Ok(report(args, &sent))
    })
}

/// What was seen of the window.
struct Sent {
    seconds: f64,
    cpu: Duration,
    packets: u64,
    to_receivers: u64,
    received: u64,
    noise: Noise,
}

fn report(args: &BareArgs, sent: &Sent) -> BareReport {
    let lost = sent.to_receivers.saturating_sub(sent.received);
    BareReport {
        target: "bare",
        rooms: args.rooms,
        publishers: args.publishers,
        subscribers: args.subscribers,
        seconds: sent.seconds,
        video_bps: args.bitrate,
        sent_packets_per_second: sent.packets as f64 / sent.seconds,
        received_packets_per_second: sent.received as f64 / sent.seconds,
        packets: BarePackets {
            expected: sent.to_receivers,
            received: sent.received,
            lost,
            loss_ratio: lost as f64 / sent.to_receivers.max(1) as f64,
        },
        server: BareCost {
            cpu_seconds: sent.cpu.as_secs_f64(),
            cpu_share: sent.cpu.as_secs_f64() / sent.seconds,
            cpu_ns_per_forwarded_packet: sent.cpu.as_nanos() as f64 / sent.to_receivers.max(1) as f64,
        },
        machine: sent.noise,
    }
}

/// A publisher and who gets what it sends.
struct Track {
    video: VideoSource,
    audio: AudioSource,
    /// Indices of viewers, each with its two streams.
    legs: Vec<(usize, [Stream; 2])>,
}

/// One RTP stream to one viewer.
#[derive(Debug, Clone, Copy)]
struct Stream {
    ssrc: u32,
    payload_type: u8,
    index: u64,
}

/// One receiver of everything in its room.
struct Viewer {
    address: SocketAddr,
    key: LessSafeKey,
    salt: [u8; NONCE_LEN],
    transport_seq: u16,
}

/// The packets that one moment brought of one stream, all of one length.
#[derive(Default)]
struct Burst {
    payloads: Vec<u8>,
    payload_len: usize,
    heads: Vec<(u32, bool)>,
}

impl Burst {
    fn clear(&mut self) {
        self.payloads.clear();
        self.heads.clear();
    }

    fn add(&mut self, packet: &MediaPacket<'_>) {
        self.payload_len = packet.payload.len();
        self.payloads.extend_from_slice(packet.payload);
        self.heads.push((packet.rtp_time, packet.marker));
    }
}

impl Viewer {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let (key, salt): ([u8; 16], [u8; NONCE_LEN]) = rand::rng().random();
        let key = UnboundKey::new(&AES_128_GCM, &key).map_err(io::Error::other)?;
        Ok(Self { address, key: LessSafeKey::new(key), salt, transport_seq: 0 })
    }

    /// Appends a burst to `run` as sealed packets. Returns the length of each.
    fn seal(&mut self, stream: &mut Stream, burst: &Burst, run: &mut Vec<u8>) -> io::Result<usize> {
        for (&(rtp_time, marker), payload) in burst.heads.iter().zip(burst.payloads.chunks(burst.payload_len))
        {
            let start = run.len();
            run.extend_from_slice(&stream.header(rtp_time, marker, self.transport_seq));
            run.extend_from_slice(payload);
            let (header, body) = run[start..].split_at_mut(HEADER_LEN);
            let nonce = Nonce::assume_unique_for_key(stream.nonce(&self.salt));
            let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
            run.extend_from_slice(tag.map_err(io::Error::other)?.as_ref());
            stream.index += 1;
            self.transport_seq = self.transport_seq.wrapping_add(1);
        }
        Ok(HEADER_LEN + burst.payload_len + TAG_LEN)
    }
}

impl Stream {
    fn new(number: usize, payload_type: u8) -> Self {
        Self { ssrc: number as u32 + 1, payload_type, index: 0 }
    }

    fn header(&self, rtp_time: u32, marker: bool, transport_seq: u16) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = 0x90;
        header[1] = self.payload_type | u8::from(marker) << 7;
        header[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&rtp_time.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        header[12..16].copy_from_slice(&[0xbe, 0xde, 0, 2]);
        header[16..19].copy_from_slice(&[0x31, b'0', 0x51]);
        header[19..21].copy_from_slice(&transport_seq.to_be_bytes());
        header
    }

    /// RFC 7714 §8.1: two zeros, SSRC, ROC and sequence number, over the salt.
    fn nonce(&self, salt: &[u8; NONCE_LEN]) -> [u8; NONCE_LEN] {
        let mut nonce = *salt;
        let counter = u128::from(self.ssrc) << 48 | u128::from(self.index);
        for (byte, with) in nonce.iter_mut().zip(&counter.to_be_bytes()[4..]) {
            *byte ^= with;
        }
        nonce
    }
}

fn tracks(args: &BareArgs, now: Instant) -> Vec<Track> {
    let (mut tracks, mut streams) = (Vec::new(), 0);
    for number in 0..args.rooms * args.publishers {
        let room = number / args.publishers.max(1);
        let viewers = room * args.subscribers..(room + 1) * args.subscribers;
        let legs = viewers.map(|viewer| {
            streams += 2;
            (viewer as usize, [Stream::new(streams, 96), Stream::new(streams + 1, 111)])
        });
        // Spread over a picture's time, as publishers who joined one after another are.
        let first_at = now + Duration::from_micros(u64::from(number) * 7_919 % 33_333);
        tracks.push(Track {
            video: VideoSource::new(number, single(args.bitrate), first_at, Duration::from_secs(10)),
            audio: AudioSource::new(number, first_at),
            legs: legs.collect(),
        });
    }
    tracks
}

fn send(args: &BareArgs, addresses: &[SocketAddr], received: &AtomicU64) -> io::Result<Sent> {
    pin(args.core);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = Sender {
        state: UdpSocketState::new((&socket).into())?,
        socket,
        viewers: addresses.iter().map(|address| Viewer::new(*address)).collect::<io::Result<_>>()?,
        burst: Burst::default(),
        run: Vec::with_capacity(64 << 10),
        packets: 0,
        to_receivers: 0,
    };
    let base = Instant::now();
    let mut tracks = tracks(args, base);
    sender.drive(&mut tracks, base, base + SETTLE)?;
    let (at, cpu) = (Instant::now(), thread_cpu()?);
    let (machine, own) = (Machine::now()?, Snapshot::of(std::process::id())?);
    let (packets, to_receivers) = (sender.packets, sender.to_receivers);
    let received_before = settled(received, sender.to_receivers);
    sender.drive(&mut tracks, base, at + Duration::from_secs(u64::from(args.seconds)))?;
    let seconds = at.elapsed().as_secs_f64();
    let cpu = thread_cpu()?.saturating_sub(cpu);
    let own = own.until(&Snapshot::of(std::process::id())?).cpu_share;
    let noise = machine.until(&Machine::now()?, seconds, own);
    Ok(Sent {
        noise,
        seconds,
        cpu,
        packets: sender.packets - packets,
        to_receivers: sender.to_receivers - to_receivers,
        received: settled(received, sender.to_receivers) - received_before,
    })
}

/// The count once all that was sent is there, or can be waited for no longer.
fn settled(received: &AtomicU64, sent: u64) -> u64 {
    let end = Instant::now() + GRACE;
    while received.load(Ordering::Relaxed) < sent && Instant::now() < end {
        thread::park_timeout(Duration::from_millis(1));
    }
    received.load(Ordering::Relaxed)
}

struct Sender {
    socket: UdpSocket,
    state: UdpSocketState,
    viewers: Vec<Viewer>,
    burst: Burst,
    run: Vec<u8>,
    /// Of publishers.
    packets: u64,
    to_receivers: u64,
}

impl Sender {
    /// Forwards what is due until `end`, sleeping in between.
    fn drive(&mut self, tracks: &mut [Track], base: Instant, end: Instant) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            for track in tracks.iter_mut() {
                let clock_ns = now.duration_since(base).as_nanos() as u64;
                while track.video.next_at() <= now {
                    self.burst.clear();
                    // One picture at a time, although more are due after a late wake-up.
                    track.video.emit(track.video.next_at(), clock_ns, |packet| self.burst.add(&packet));
                    self.forward(&mut track.legs, 0)?;
                }
                while track.audio.next_at() <= now {
                    self.burst.clear();
                    track.audio.emit(track.audio.next_at(), clock_ns, |packet| self.burst.add(&packet));
                    self.forward(&mut track.legs, 1)?;
                }
            }
            let next = tracks.iter().map(|track| track.video.next_at().min(track.audio.next_at())).min();
            let next = next.unwrap_or(end).min(end);
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
    }

    fn forward(&mut self, legs: &mut [(usize, [Stream; 2])], kind: usize) -> io::Result<()> {
        self.packets += self.burst.heads.len() as u64;
        for (viewer, streams) in legs {
            let (Some(viewer), Some(stream)) = (self.viewers.get_mut(*viewer), streams.get_mut(kind)) else {
                continue;
            };
            self.run.clear();
            let packet_len = viewer.seal(stream, &self.burst, &mut self.run)?;
            let segments = self.state.max_gso_segments().min(RUN_LEN_MAX / packet_len);
            for run in self.run.chunks(packet_len * segments.max(1)) {
                let transmit = Transmit {
                    destination: viewer.address,
                    ecn: None,
                    contents: run,
                    segment_size: (run.len() > packet_len).then_some(packet_len),
                    src_ip: None,
                };
                self.state.try_send((&self.socket).into(), &transmit)?;
            }
            self.to_receivers += self.burst.heads.len() as u64;
        }
        Ok(())
    }
}

/// Takes what comes, and counts it, until it is over.
fn receive(
    sockets: Vec<UdpSocket>,
    core: Option<usize>,
    over: &AtomicBool,
    received: &AtomicU64,
) -> io::Result<()> {
    pin(core);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut waiting = Vec::with_capacity(sockets.len());
    for (number, socket) in sockets.into_iter().enumerate() {
        socket.set_nonblocking(true)?;
        // A smaller buffer than asked for is no failure; what it loses is counted as loss.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_LEN);
        let mut socket = mio::net::UdpSocket::from_std(socket);
        poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        waiting.push(socket);
    }
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(GRACE)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for socket in events.iter().filter_map(|event| waiting.get(event.token().0)) {
            while socket.recv_from(&mut buffer).is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// Best effort: a machine that refuses runs the bench where it likes.
fn pin(core: Option<usize>) {
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_can_open_what_was_sealed_for_it() {
        let mut viewer = Viewer::new(([127, 0, 0, 1], 9).into()).expect("a key");
        let mut stream = Stream { ssrc: 0x0102_0304, payload_type: 96, index: 0x1_fffe };
        let start = Instant::now();
        let mut source = VideoSource::new(1, single(1_500_000), start, Duration::from_secs(10));
        let mut burst = Burst::default();
        source.emit(start, 1, |packet| burst.add(&packet));
        let mut run = Vec::new();
        let packet_len = viewer.seal(&mut stream, &burst, &mut run).expect("sealed");
        assert!(burst.heads.len() > 3 && run.len() == burst.heads.len() * packet_len);
        for (number, packet) in run.chunks_mut(packet_len).enumerate() {
            let index = 0x1_fffe + number as u64;
            assert_eq!(packet[2..4], (index as u16).to_be_bytes());
            let (header, body) = packet.split_at_mut(HEADER_LEN);
            let nonce = Stream { index, ..stream }.nonce(&viewer.salt);
            let opened =
                viewer.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), body);
            let expected = burst.payloads.chunks(burst.payload_len).nth(number);
            assert_eq!(opened.ok().as_deref(), expected);
        }
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let stream = |ssrc, index| Stream { ssrc, payload_type: 0, index }.nonce(&[0; NONCE_LEN]);
        assert_eq!(stream(0x0102_0304, 0x0506_0708_090a), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let args = BareArgs {
            rooms: 3,
            publishers: 3,
            subscribers: 4,
            seconds: 1,
            bitrate: 1,
            core: None,
            receiver_core: None,
        };
        let tracks = tracks(&args, Instant::now());
        let ssrcs: std::collections::BTreeSet<u32> = tracks
            .iter()
            .flat_map(|track| track.legs.iter().flat_map(|(_, streams)| streams.map(|stream| stream.ssrc)))
            .collect();
        assert_eq!(ssrcs.len(), 3 * 3 * 4 * 2);
    }

    #[test]
    fn every_viewer_gets_all_of_its_room() {
        let args = BareArgs {
            rooms: 2,
            publishers: 2,
            subscribers: 3,
            seconds: 1,
            bitrate: 500_000,
            core: None,
            receiver_core: None,
        };
        let report = measure(&args).expect("loopback is there");
        assert!(report.packets.expected > 600, "{report:?}");
        assert_eq!(report.packets.lost, 0, "{report:?}");
        assert!(report.server.cpu_ns_per_forwarded_packet > 0.0, "{report:?}");
    }
}
