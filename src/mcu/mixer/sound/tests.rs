//! Sound through real encoders and decoders, in real time: a tone for each voice, and who hears which.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;

use super::sum::{CHANNELS, FRAMES, SAMPLES_PER_SECOND};
use super::*;
use crate::core::mix::{LINE_MINUS, LINE_SOUND, Place};
use crate::core::payload::Codec;
use crate::mcu::graph::Stage;

const PATIENCE: Duration = Duration::from_secs(10);
const AMPLITUDE: f64 = 5_000.0;
/// Of each slot, by its number.
const TONES_HZ: [f64; 4] = [400.0, 700.0, 1_100.0, 1_700.0];

/// A graph that is given one buffer and asked for what comes of it.
struct Step(Graph);

impl Step {
    fn start(stage: Stage) -> Self {
        Self(Graph::start(stage, &[("bitrate_bps", &64_000), ("latency_ms", &10)]).unwrap())
    }

    fn push(&self, bytes: Vec<u8>, at: Option<Duration>) {
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let time = at.map(|at| gst::ClockTime::from_nseconds(at.as_nanos() as u64));
        buffer.get_mut().unwrap().set_pts(time);
        self.0.input.push_buffer(buffer).unwrap();
    }

    fn take(&self, bytes: Vec<u8>, at: Option<Duration>) -> Vec<u8> {
        self.push(bytes, at);
        let patience = gst::ClockTime::from_nseconds(PATIENCE.as_nanos() as u64);
        let sample = self.0.output.try_pull_sample(patience).expect("a buffer for a buffer");
        sample.buffer().unwrap().map_readable().unwrap().as_slice().to_vec()
    }
}

fn tone(hz: f64, count: usize) -> Vec<Arc<[u8]>> {
    let encoder = Step::start(Stage::EncodeOpus);
    let sample = |at: usize| (AMPLITUDE * (at as f64 * hz * std::f64::consts::TAU / 48_000.0).sin()) as i16;
    let block = |number: usize| {
        let frames = (number * FRAMES..(number + 1) * FRAMES).map(sample);
        frames.flat_map(|sample| [sample, sample]).flat_map(i16::to_le_bytes).collect()
    };
    (0..count).map(|number| Arc::from(encoder.take(block(number), Some(TICK * number as u32)))).collect()
}

/// The left channel of a line.
fn decoded(packets: &[MixPacket]) -> Vec<f64> {
    let decoder = Step::start(Stage::DecodeOpus);
    // A decoder that can use the next packet's copy gives a packet's sound when the next one is there.
    decoder.push(decode::rtp(&packets[0]), None);
    let blocks = packets[1..].iter().map(|packet| decoder.take(decode::rtp(packet), None));
    let left = |block: Vec<u8>| -> Vec<f64> {
        let frames = block.chunks_exact(2 * CHANNELS);
        frames.map(|frame| f64::from(i16::from_le_bytes([frame[0], frame[1]]))).collect()
    };
    blocks.flat_map(left).collect()
}

/// How loud a tone is in the tenths of the last second, least first: a machine that is busy loses some
/// packets' time, which shifts phases, so that the whole says nothing.
fn amplitudes(sound: &[f64], hz: f64) -> Vec<f64> {
    let second = &sound[sound.len() - SAMPLES_PER_SECOND as usize..];
    let mut tenths: Vec<f64> = second.chunks(4_800).map(|tenth| goertzel(tenth, hz)).collect();
    tenths.sort_by(f64::total_cmp);
    tenths
}

/// The amplitude of a tone that turns a whole number of times (Goertzel).
fn goertzel(sound: &[f64], hz: f64) -> f64 {
    let turn = 2.0 * (hz * std::f64::consts::TAU / f64::from(SAMPLES_PER_SECOND)).cos();
    let (a, b) = sound.iter().fold((0.0, 0.0), |(a, b), sample| (sample + turn * a - b, a));
    2.0 * (a * a + b * b - turn * a * b).max(0.0).sqrt() / sound.len() as f64
}

fn slot_packet(slot: u16, number: usize, payload: Arc<[u8]>) -> MixPacket {
    // One sender's numbers jump, as when a slot is given to somebody else.
    let number = if slot == 1 && number > 55 { number as u64 + 40_000 } else { number as u64 };
    MixPacket {
        place: Place::Slot(slot),
        codec: Codec::Opus,
        seq_no: number + 65_500,
        rtp_time: (number as u32).wrapping_mul(FRAMES as u32).wrapping_sub(9_600),
        captured_us: None,
        marker: number == 0,
        payload,
    }
}

/// Feeds a packet of each tone with each one that comes of the common line; gives all that came, by line.
fn mixed(voices: &[Voice], wanted: &[u8], count: usize) -> BTreeMap<u8, Vec<MixPacket>> {
    graph::start().unwrap();
    let tones = TONES_HZ.map(|hz| tone(hz, count));
    let (sender, receiver) = channel();
    let sound = Sound::start(Clock::start(), move |packet| drop(sender.send(packet))).unwrap();
    sound.set_voices(voices);
    wanted.iter().for_each(|line| sound.set_wanted(*line, true));
    let mut lines = BTreeMap::<u8, Vec<MixPacket>>::new();
    let mut keep = |packet: MixPacket| {
        let Place::Line { line, encoding: 0 } = packet.place else { panic!("{:?}", packet.place) };
        lines.entry(line).or_default().push(packet);
        line
    };
    for number in 0..count {
        while keep(receiver.recv_timeout(PATIENCE).unwrap()) != LINE_SOUND {}
        for (slot, tone) in (0..).zip(&tones) {
            sound.handle_packet(slot_packet(slot, number, tone[number].clone()));
        }
    }
    assert!(sound.take_ticks() >= count as u32 && sound.take_ticks() < 5);
    drop(sound);
    // Dropped, it emits no more: what it sends by is gone with the encoders.
    while let Ok(packet) = receiver.recv() {
        keep(packet);
    }
    lines
}

#[test]
fn everyone_hears_all_but_themselves() {
    let voice = |slot, key, minus| Voice { slot, serial: 1, key, minus };
    let [first, second, two_voices, silent, unwanted] = [0, 1, 2, 3, 4].map(|n| LINE_MINUS + n);
    let voices = [
        voice(0, 10, Some(first)),
        voice(1, 11, Some(second)),
        voice(2, 12, Some(two_voices)),
        voice(3, 12, Some(two_voices)),
        voice(9, 13, Some(silent)),
        voice(8, 14, Some(unwanted)),
    ];
    let lines = mixed(&voices, &[LINE_SOUND, first, second, two_voices, silent], 110);
    let heard = [
        (LINE_SOUND, [true; 4]),
        (silent, [true; 4]),
        (first, [false, true, true, true]),
        (second, [true, false, true, true]),
        (two_voices, [true, true, false, false]),
    ];
    assert_eq!(lines.len(), heard.len());
    for (line, tones) in heard {
        let packets = &lines[&line];
        for (a, b) in packets.iter().zip(&packets[1..]) {
            let blocks = u64::from(b.rtp_time.wrapping_sub(a.rtp_time)) / FRAMES as u64;
            // A busy machine skips ticks, and loses packets before it queues many.
            let numbers = b.seq_no - a.seq_no;
            assert!((1..=blocks).contains(&numbers), "line {line}: {a:?} {b:?}");
        }
        assert!(packets[0].seq_no < 1 << 15 && packets.iter().all(|packet| !packet.marker));
        let sound = decoded(packets);
        for (hz, is_heard) in TONES_HZ.into_iter().zip(tones) {
            let tenths = amplitudes(&sound, hz);
            let fits = if is_heard { tenths[9] > AMPLITUDE / 2.0 } else { tenths[5] < AMPLITUDE / 50.0 };
            assert!(fits, "line {line}, {hz} Hz: {tenths:?}");
        }
    }
    let payloads = |line| lines[&line].iter().map(|packet| (packet.rtp_time, &packet.payload)).collect();
    let (common, copies): (BTreeMap<_, _>, BTreeMap<_, _>) = (payloads(LINE_SOUND), payloads(silent));
    assert!(copies.iter().all(|(time, payload)| common.get(time).is_none_or(|common| common == payload)));
}

#[test]
fn packets_keep_their_ticks_when_an_encoder_pauses() {
    graph::start().unwrap();
    let (sender, receiver) = channel();
    let emit = Arc::new(move |packet| drop(sender.send(packet)));
    let mut encoder = encode::Encoder::start(Clock::start(), emit).unwrap();
    for (count, tick) in [1, 2, 3, 700, 701, 9_000].into_iter().enumerate() {
        encoder.encode(tick, &sum::Sum::default(), vec![(LINE_SOUND, count as u64), (LINE_MINUS, 7)]);
        for (line, seq_no) in [(LINE_SOUND, count as u64), (LINE_MINUS, 7)] {
            let packet = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("tick {tick} is lost"));
            assert_eq!((packet.place, packet.seq_no), (Place::Line { line, encoding: 0 }, seq_no));
            assert_eq!(packet.rtp_time, tick as u32 * FRAMES as u32);
        }
    }
}
