//! The packet path of the core, without engine, cipher and socket: reading a payload descriptor, and
//! rewriting one packet for the slots of a room's viewers. Watch the time for one packet and receiver.

use std::hint::black_box;
use std::time::{Duration, Instant};

use antiphon::bench::source::{VideoSource, single};
use antiphon::core::forward::{PacketMeta, Rewriter};
use antiphon::core::payload::{Codec, inspect};
use antiphon::core::protocol::Kind;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// One packet of a synthetic VP8 track.
struct Recorded {
    seq_no: u64,
    rtp_time: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// Ten seconds at 1.5 Mbit/s, beginning with a key frame.
fn recorded(start: Instant) -> Vec<Recorded> {
    let mut source = VideoSource::new(1, single(1_500_000), start, Duration::from_secs(3600));
    let mut packets = Vec::new();
    source.emit(start + Duration::from_secs(10), 0, |packet| {
        packets.push(Recorded {
            seq_no: packet.seq_no,
            rtp_time: packet.rtp_time,
            marker: packet.marker,
            payload: packet.payload.to_vec(),
        });
    });
    packets
}

fn inspecting(criterion: &mut Criterion) {
    let packets = recorded(Instant::now());
    let mut group = criterion.benchmark_group("inspect");
    group.throughput(Throughput::Elements(packets.len() as u64));
    group.bench_function("vp8", |bencher| {
        bencher.iter(|| {
            for packet in &packets {
                black_box(inspect(Codec::Vp8, black_box(&packet.payload), None));
            }
        });
    });
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let start = Instant::now();
    let packets = recorded(start);
    let mut group = criterion.benchmark_group("rewrite");
    for viewers in [1, 10, 50] {
        group.throughput(Throughput::Elements((packets.len() * viewers) as u64));
        group.bench_with_input(BenchmarkId::new("vp8", viewers), &viewers, |bencher, viewers| {
            bencher.iter_batched(
                || (0..*viewers as u64).map(|seed| Rewriter::new(Kind::Video, seed)).collect::<Vec<_>>(),
                |mut slots| {
                    for packet in &packets {
                        let frame = inspect(Codec::Vp8, &packet.payload, None);
                        let meta = PacketMeta {
                            seq_no: packet.seq_no,
                            rtp_time: packet.rtp_time,
                            marker: packet.marker,
                            frame: &frame,
                            dd: None,
                        };
                        for slot in &mut slots {
                            black_box(slot.rewrite(start, black_box(&meta)));
                        }
                    }
                    slots
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, inspecting, fan_out);
criterion_main!(benches);
