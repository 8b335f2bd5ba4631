//! What a run of the load tool found, as one JSON object. Times are milliseconds unless a name says more.
//!
//! Without simulcast loss is counted end to end: what publishers sent in the window against what each viewer
//! got of it. With simulcast the server chooses what to send, so loss is what is missing in each slot's own
//! sequence numbers, and `frames` says whether the picture ran.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::client::Client;
use super::engine::{Seat, Traffic};
use super::forward::{ForwardArgs, Place};
use super::join::Target;
use super::process::{Machine, Noise, Snapshot, Usage};
use super::reception::Slot;
use super::stamp::AUDIO;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub target: Target,
    pub rooms: u32,
    pub publishers: u32,
    pub subscribers: u32,
    pub seconds: f64,
    pub video_bps: u64,
    pub simulcast: bool,
    pub connected: Connected,
    /// What protects media, and of how many clients.
    pub srtp_profiles: BTreeMap<&'static str, u32>,
    /// Why clients failed, and how many.
    pub failures: BTreeMap<String, u32>,
    /// Media packets of all publishers.
    pub sent_packets_per_second: f64,
    /// Media packets of all viewers, each counted once.
    pub received_packets_per_second: f64,
    pub packets: Packets,
    pub frames: Frames,
    pub join_ms: Joins,
    pub latency_ms: Percentiles,
    pub server: Option<ServerCost>,
    pub generator: GeneratorCost,
    /// What disturbed the run; without a `server` that holds its work, too.
    pub machine: Noise,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Connected {
    pub publishers: u32,
    pub subscribers: u32,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Packets {
    pub expected: u64,
    pub received: u64,
    pub lost: u64,
    pub loss_ratio: f64,
    /// Over the whole run, after retransmissions were sorted out.
    pub duplicates: u64,
    pub reordered: u64,
    /// Not from a publisher of the viewer's room.
    pub strangers: u64,
    /// Without a stamp.
    pub foreign: u64,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Frames {
    /// Pictures captured in the window, times those who should see them.
    pub expected: u64,
    pub shown: u64,
    pub freeze_ms_max: f64,
    /// Frames that referred to one that was never sent.
    pub broken: u64,
    pub key_frames_asked: u64,
    /// PLI and FIR that reached publishers.
    pub key_frames_requested: u64,
}

/// From the first request of a client's joining.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Joins {
    pub connected: Percentiles,
    /// Viewers: the first media packet.
    pub first_packet: Percentiles,
    /// Viewers: the first frame that could be decoded.
    pub first_frame: Percentiles,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerCost {
    pub pid: u32,
    #[serde(flatten)]
    pub usage: Usage,
    pub cpu_ns_per_forwarded_packet: f64,
    /// Growth since before the run, over all participants.
    pub rss_bytes_per_participant: u64,
}

/// The load tool itself. Above a CPU share of 0.9 it is what was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct GeneratorCost {
    pub cpu_share: f64,
    pub datagrams_received_per_second: f64,
    pub datagrams_sent_per_second: f64,
    pub datagrams_unsent: u64,
}

/// The state at one end of the measured window.
pub struct Window {
    at: Instant,
    /// Next counter by publisher and encoding.
    counters: BTreeMap<(u32, u8), u32>,
    /// Pictures captured by each publisher.
    pictures: BTreeMap<u32, u32>,
    /// For each seat its slots' next sequence number, and frames shown.
    slots: Vec<(Vec<u32>, u64)>,
    traffic: Traffic,
    server: Option<Snapshot>,
    own: Snapshot,
    machine: Machine,
}

impl Window {
    pub fn edge(
        seats: &mut [Seat],
        places: &[Place],
        traffic: Traffic,
        server: Option<Snapshot>,
        own: Snapshot,
        machine: Machine,
    ) -> Self {
        let (mut counters, mut pictures) = (BTreeMap::new(), BTreeMap::new());
        for (seat, place) in seats.iter_mut().zip(places) {
            let Some(publisher) = place.publisher else { continue };
            if let Some(audio) = seat.client.audio() {
                counters.insert((publisher, AUDIO), audio.sent().packets);
            }
            if let Some(video) = seat.client.video() {
                counters.extend((0u8..).zip(video.sent()).map(|(e, sent)| ((publisher, e), sent.packets)));
                pictures.insert(publisher, video.frames());
            }
        }
        let slots = seats.iter().map(|seat| {
            let slots = seat.client.slots().values();
            (
                slots.clone().map(|slot| slot.sequence.next()).collect(),
                slots.map(|slot| slot.playout.frames).sum(),
            )
        });
        Self { at: Instant::now(), counters, pictures, slots: slots.collect(), traffic, server, own, machine }
    }

    fn sent_until(&self, end: &Self) -> u64 {
        let before = |key| self.counters.get(key).copied().unwrap_or(0);
        end.counters.iter().map(|(key, counter)| u64::from(counter.saturating_sub(before(key)))).sum()
    }
}

/// Puts the report together, `GRACE` after the window ended.
pub fn make(
    args: &ForwardArgs,
    seats: &mut [Seat],
    places: &[Place],
    server_idle: Option<Snapshot>,
    start: &Window,
    end: &Window,
) -> Report {
    let seconds = end.at.duration_since(start.at).as_secs_f64();
    let mut latency = Times::default();
    let mut failures = BTreeMap::new();
    for seat in seats.iter_mut() {
        seat.client.drain_delays().for_each(|ns| latency.add(Duration::from_nanos(ns)));
        let silent =
            seat.client.milestones().connected.is_none().then(|| "did not connect in time".to_owned());
        if let Some(failure) = seat.failure.clone().or(silent) {
            *failures.entry(failure).or_default() += 1;
        }
    }
    let server = start.server.zip(end.server).map_or(0.0, |(from, to)| from.until(&to).cpu_share);
    let own = start.own.until(&end.own).cpu_share;
    let packets = packets(args, seats, places, start, end);
    let traffic = |of: fn(&Traffic) -> u64| (of(&end.traffic) - of(&start.traffic)) as f64 / seconds;
    Report {
        target: args.target,
        rooms: args.rooms,
        publishers: args.publishers,
        subscribers: args.subscribers,
        seconds,
        video_bps: args.bitrate,
        simulcast: args.simulcast,
        connected: connected(seats, places),
        srtp_profiles: srtp_profiles(seats.iter().map(|seat| &seat.client)),
        failures,
        sent_packets_per_second: start.sent_until(end) as f64 / seconds,
        received_packets_per_second: packets.received as f64 / seconds,
        packets,
        frames: frames(args, seats, places, start, end),
        join_ms: joins(seats),
        latency_ms: latency.percentiles(),
        server: server_cost(args, server_idle, start, end, packets.received, seats.len()),
        generator: GeneratorCost {
            cpu_share: own,
            datagrams_received_per_second: traffic(|traffic| traffic.received),
            datagrams_sent_per_second: traffic(|traffic| traffic.sent),
            datagrams_unsent: end.traffic.unsent,
        },
        machine: start.machine.until(&end.machine, seconds, server + own),
    }
}

fn connected(seats: &[Seat], places: &[Place]) -> Connected {
    let mut connected = Connected::default();
    for (seat, place) in seats.iter().zip(places) {
        if seat.client.milestones().connected.is_some() {
            match place.publisher {
                Some(_) => connected.publishers += 1,
                None => connected.subscribers += 1,
            }
        }
    }
    connected
}

fn srtp_profiles<'a>(clients: impl Iterator<Item = &'a Client>) -> BTreeMap<&'static str, u32> {
    let mut counts = BTreeMap::new();
    for profile in clients.filter_map(Client::srtp_profile) {
        *counts.entry(profile).or_default() += 1;
    }
    counts
}

fn viewers<'a>(seats: &'a [Seat], places: &'a [Place]) -> impl Iterator<Item = (usize, &'a Seat, &'a Place)> {
    let all = seats.iter().zip(places).enumerate();
    all.filter(|(_, (_, place))| place.publisher.is_none()).map(|(index, (seat, place))| (index, seat, place))
}

fn packets(args: &ForwardArgs, seats: &[Seat], places: &[Place], start: &Window, end: &Window) -> Packets {
    let mut packets = Packets::default();
    for (index, seat, place) in viewers(seats, places) {
        if seat.client.milestones().connected.is_none() {
            continue;
        }
        packets.foreign += seat.client.foreign_packets();
        let slots: Vec<&Slot> = seat.client.slots().values().collect();
        for tallies in slots.iter().map(|slot| &slot.tallies) {
            for (&(publisher, _), tally) in tallies {
                packets.duplicates += tally.duplicates;
                packets.reordered += tally.reordered;
                if publisher / args.publishers.max(1) != place.room {
                    packets.strangers += tally.packets;
                }
            }
        }
        if args.simulcast {
            for (position, slot) in slots.iter().enumerate() {
                let edge = |window: &Window| {
                    window.slots.get(index).and_then(|(next, _)| next.get(position).copied())
                };
                let (from, to) = (edge(start).unwrap_or(0), edge(end).unwrap_or(0));
                packets.expected += u64::from(to.saturating_sub(from));
                packets.received += slot.sequence.received(from, to);
            }
        } else {
            for (key, to) in &end.counters {
                if key.0 / args.publishers.max(1) != place.room {
                    continue;
                }
                let from = start.counters.get(key).copied().unwrap_or(0);
                packets.expected += u64::from(to.saturating_sub(from));
                let tallies = slots.iter().filter_map(|slot| slot.tallies.get(key));
                packets.received += tallies.map(|tally| tally.received(from, *to)).sum::<u64>();
            }
        }
    }
    packets.lost = packets.expected.saturating_sub(packets.received);
    packets.loss_ratio = packets.lost as f64 / packets.expected.max(1) as f64;
    packets
}

fn frames(args: &ForwardArgs, seats: &[Seat], places: &[Place], start: &Window, end: &Window) -> Frames {
    let mut frames = Frames::default();
    for (index, seat, place) in viewers(seats, places) {
        let shown = |window: &Window| window.slots.get(index).map_or(0, |(_, shown)| *shown);
        frames.shown += shown(end).saturating_sub(shown(start));
        let in_room =
            end.pictures.iter().filter(|(publisher, _)| *publisher / args.publishers.max(1) == place.room);
        for (publisher, pictures) in in_room {
            let before = start.pictures.get(publisher).copied().unwrap_or(0);
            frames.expected += u64::from(pictures.saturating_sub(before));
        }
        for slot in seat.client.slots().values() {
            let freeze_ms = slot.playout.freeze_max.as_secs_f64() * 1e3;
            frames.freeze_ms_max = frames.freeze_ms_max.max(freeze_ms);
            frames.broken += slot.playout.broken;
            frames.key_frames_asked += slot.playout.key_frames_asked;
        }
    }
    frames.key_frames_requested = seats.iter().map(|seat| seat.client.key_frames_requested()).sum();
    frames
}

fn joins(seats: &[Seat]) -> Joins {
    let (mut connected, mut packet, mut frame) = (Times::default(), Times::default(), Times::default());
    for seat in seats {
        let Some(joined_at) = seat.joined_at else { continue };
        let milestones = seat.client.milestones();
        let add = |times: &mut Times, at: Option<Instant>| {
            at.into_iter().for_each(|at| times.add(at.saturating_duration_since(joined_at)));
        };
        add(&mut connected, milestones.connected);
        add(&mut packet, milestones.first_packet);
        add(&mut frame, milestones.first_frame);
    }
    Joins {
        connected: connected.percentiles(),
        first_packet: packet.percentiles(),
        first_frame: frame.percentiles(),
    }
}

fn server_cost(
    args: &ForwardArgs,
    idle: Option<Snapshot>,
    start: &Window,
    end: &Window,
    forwarded: u64,
    participants: usize,
) -> Option<ServerCost> {
    let (pid, idle, before, after) = (args.server_pid?, idle?, start.server?, end.server?);
    let usage = before.until(&after);
    Some(ServerCost {
        pid,
        usage,
        cpu_ns_per_forwarded_packet: usage.cpu_seconds * 1e9 / forwarded.max(1) as f64,
        rss_bytes_per_participant: after.rss_bytes.saturating_sub(idle.rss_bytes)
            / participants.max(1) as u64,
    })
}

/// Durations, to a resolution of 0.1 %.
struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // An hour at three digits is within the library's bounds, so this cannot fail.
        Self(Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("an hour can be recorded"))
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos().min(u128::from(u64::MAX)) as u64);
    }

    fn percentiles(&self) -> Percentiles {
        let ms = |ns: u64| (ns as f64 / 1e3).round() / 1e3;
        Percentiles {
            count: self.0.len(),
            p50: ms(self.0.value_at_quantile(0.5)),
            p99: ms(self.0.value_at_quantile(0.99)),
            p999: ms(self.0.value_at_quantile(0.999)),
            max: ms(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::client::Offer;
    use crate::bench::client::tests::{publisher_and_viewer, run};

    #[test]
    fn profiles_are_counted_once_handshakes_are_done() {
        let start = Instant::now();
        let mut pair = publisher_and_viewer(start);
        assert!(srtp_profiles(pair.iter()).is_empty());
        run(&mut pair, start, Duration::from_secs(1));
        let offer = Offer { video_slots: 1, ..Offer::default() };
        let alone = Client::new(start, start, ([127, 0, 0, 1], 4003).into(), offer).expect("a client").0;
        let clients = pair.iter().chain([&alone]);
        // The side that is passive in DTLS picks, and prefers the cheaper key (decision 4).
        assert_eq!(srtp_profiles(clients), BTreeMap::from([("SRTP_AEAD_AES_128_GCM", 2)]));
    }

    #[test]
    fn percentiles_are_milliseconds() {
        let mut times = Times::default();
        (1..=1000).for_each(|ms| times.add(Duration::from_millis(ms)));
        let found = times.percentiles();
        assert_eq!(found.count, 1000);
        assert!((499.0..502.0).contains(&found.p50), "{found:?}");
        assert!((989.0..992.0).contains(&found.p99), "{found:?}");
        assert!((999.0..1001.0).contains(&found.max), "{found:?}");
    }
}
