//! RTCP as receivers send it, and arbitrary bytes.

use proptest::prelude::*;

use super::*;

fn packet(count: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    assert_eq!(body.len() % 4, 0);
    let mut bytes = vec![0x80 | count, kind, 0, (body.len() / 4) as u8];
    bytes.extend_from_slice(body);
    bytes
}

fn all(compound: &[u8]) -> Vec<Feedback<'_>> {
    let mut all = Vec::new();
    read(compound, |feedback| all.push(feedback));
    all
}

#[test]
fn a_nack_names_packets_across_the_wrap() {
    let bytes =
        packet(1, TRANSPORT_FEEDBACK, &[0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xfe, 0b1000_0000, 0b0000_0011]);
    let feedback = all(&bytes);
    let [Feedback::Nack { ssrc: 9, lost }] = feedback[..] else { panic!("{feedback:?}") };
    assert_eq!(lost.iter().collect::<Vec<_>>(), [0xfffe, 0xffff, 0, 14]);
}

#[test]
fn key_frame_requests_and_estimates_are_read() {
    let mut bytes = packet(1, PAYLOAD_FEEDBACK, &[0, 0, 0, 1, 0, 0, 0, 7]);
    bytes.extend(packet(4, PAYLOAD_FEEDBACK, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 3, 0, 0, 0]));
    // 1,000,000 = 250,000 << 2.
    let remb = [0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 2 << 2 | 3, 0xd0, 0x90, 0, 0, 0, 7];
    bytes.extend(packet(15, PAYLOAD_FEEDBACK, &remb));
    let feedback = all(&bytes);
    let expected = [
        Feedback::KeyframeRequest { ssrc: 7 },
        Feedback::KeyframeRequest { ssrc: 8 },
        Feedback::Remb { bps: 1_000_000 },
    ];
    assert_eq!(feedback, expected);
}

#[test]
fn report_blocks_are_read_from_senders_and_receivers() {
    let block = [0, 0, 0, 5, 64, 0, 0, 3, 0, 1, 0, 2, 0, 0, 0, 9, 1, 2, 3, 4, 0, 1, 0, 0];
    let expected = Feedback::Report(ReportBlock {
        ssrc: 5,
        fraction_lost: 64,
        lost: 3,
        highest_seq_no: 0x1_0002,
        jitter: 9,
        last_report: 0x0102_0304,
        delay_since_last_report: 65_536,
    });
    let receiver = packet(1, RECEIVER_REPORT, &[&[0, 0, 0, 1][..], &block].concat());
    assert_eq!(all(&receiver), [expected]);
    let own = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6];
    let sender = packet(1, SENDER_REPORT, &[&own[..], &block].concat());
    let report = SenderReport { ssrc: 1, ntp_time: 2 << 32 | 3, rtp_time: 4, packets: 5, octets: 6 };
    assert_eq!(all(&sender), [Feedback::SenderReport(report), expected]);
}

#[test]
fn transport_feedback_gives_arrivals_in_order() {
    // 7 packets from 0xfffe: a run of two small deltas, then a vector of two bits: lost, large, small, lost.
    let run = (1u16 << 13 | 2).to_be_bytes();
    let vector = (3u16 << 14 | 2 << 10 | 1 << 8).to_be_bytes();
    let body = [
        &[0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xfe, 0, 7, 0x80, 0, 1, 5][..],
        &run,
        &vector,
        // +1 ms, 0, −0.5 ms, +1 ms; then padding.
        &[4, 0, 0xff, 0xfe, 4, 0, 0, 0],
    ]
    .concat();
    let bytes = packet(15, TRANSPORT_FEEDBACK, &body);
    let feedback = all(&bytes);
    let [Feedback::TransportCc(report)] = feedback[..] else { panic!("{feedback:?}") };
    let packets: Vec<_> = report.packets().collect();
    let expected = [
        (0xfffe, Some(1_000)),
        (0xffff, Some(1_000)),
        (0, None),
        (1, Some(500)),
        (2, Some(1_500)),
        (3, None),
        (4, None),
    ];
    assert_eq!(packets, expected);
    assert_eq!(report.reference_us_since(0x80_0000), 64_000);
    assert_eq!(report.reference_us_since(0x80_0002), -64_000);
}

/// Kinds of the packets of a compound that is whole.
fn kinds(compound: &[u8]) -> Vec<u8> {
    let (mut kinds, mut rest) = (Vec::new(), compound);
    while let Some((packet, after)) = split_packet(rest) {
        kinds.push(packet.kind);
        rest = after;
    }
    assert_eq!(rest, [0u8; 0], "{compound:?}");
    kinds
}

#[test]
fn reports_written_are_read_again() {
    for cname in ["", "a", "ab", "abc", "abcd", "antiphon"] {
        let report = SenderReport { ssrc: 1, ntp_time: 2, rtp_time: 3, packets: 4, octets: 5 };
        let mut bytes = Vec::new();
        write::sender_report(&report, cname, &mut bytes);
        write::goodbye(&[1, 2], &mut bytes);
        // Description and goodbye.
        assert_eq!(kinds(&bytes), [SENDER_REPORT, 202, 203], "{cname:?}");
        assert_eq!(all(&bytes), [Feedback::SenderReport(report)]);
    }
}

#[test]
fn reports_on_what_came_are_read_again() {
    let block = |ssrc| ReportBlock {
        ssrc,
        fraction_lost: 1,
        lost: 2,
        highest_seq_no: 3,
        jitter: 4,
        last_report: 5,
        delay_since_last_report: 6,
    };
    for count in [0, 1, 31] {
        let blocks: Vec<_> = (0..count).map(block).collect();
        let mut bytes = Vec::new();
        write::receiver_report(9, &blocks, &mut bytes);
        assert_eq!(kinds(&bytes), [RECEIVER_REPORT]);
        assert_eq!(all(&bytes), blocks.into_iter().map(Feedback::Report).collect::<Vec<_>>());
    }
}

#[test]
fn requests_written_are_read_again() {
    let mut bytes = Vec::new();
    write::nack(1, 9, [], &mut bytes);
    assert_eq!(bytes, [0u8; 0], "nothing is missing");
    let missing = [65_533, 65_535, 0, 13, 14, 15, 500];
    write::nack(1, 9, missing, &mut bytes);
    let feedback = all(&bytes);
    let [Feedback::Nack { ssrc: 9, lost }] = feedback[..] else { panic!("{feedback:?}") };
    assert_eq!(lost.iter().collect::<Vec<_>>(), missing);
    bytes.clear();
    write::picture_loss(1, 7, &mut bytes);
    assert_eq!(all(&bytes), [Feedback::KeyframeRequest { ssrc: 7 }]);
    for bps in [0, 1, 262_143, 262_144, 1_000_000, 20_000_000_000] {
        bytes.clear();
        write::remb(1, 7, bps, &mut bytes);
        assert_eq!(kinds(&bytes), [PAYLOAD_FEEDBACK]);
        let feedback = all(&bytes);
        let [Feedback::Remb { bps: read }] = feedback[..] else { panic!("{feedback:?}") };
        assert!(read <= bps && bps - read <= bps >> 17, "{bps} read as {read}");
    }
}

#[test]
fn ntp_time_counts_from_1900() {
    assert_eq!(ntp_time(0), 2_208_988_800 << 32);
    assert_eq!(ntp_time(1_500_000) - ntp_time(1_000_000), 1 << 31);
    assert_eq!(unix_us_of_ntp(ntp_time(1_500_000)), 1_500_000);
    assert_eq!(unix_us_of_ntp(0), -2_208_988_800_000_000);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_to_an_end(bytes: Vec<u8>, kind in 198u8..208, count in 0u8..32) {
        let mut whole = bytes.clone();
        whole.resize(bytes.len().next_multiple_of(4).min(1000), 0);
        for compound in [bytes, packet(count, kind, &whole)] {
            read(&compound, |feedback| match feedback {
                Feedback::Nack { lost, .. } => assert!(lost.iter().count() <= compound.len() * 5),
                Feedback::TransportCc(report) => assert!(report.packets().count() <= STATUSES_READ_MAX),
                _ => {}
            });
        }
    }
}

const STATUSES_READ_MAX: usize = 8_192;
