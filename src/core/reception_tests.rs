//! One stream's numbers against plain models of them.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Takes a packet by its wire number, as a connection does.
fn take(reception: &mut Reception, now: Instant, seq_no: u16) -> Option<u64> {
    let extended = reception.extend(seq_no);
    reception.is_new(extended).then(|| {
        reception.note(now, extended);
        extended
    })
}

fn asked(reception: &mut Reception, now: Instant) -> Vec<u16> {
    let mut asked = Vec::new();
    reception.ask(now, |seq_no| asked.push(seq_no));
    asked
}

#[test]
fn numbers_go_on_over_the_wrap_and_back() {
    let (mut reception, now) = (Reception::new(true), Instant::now());
    assert_eq!(take(&mut reception, now, 65_534), Some(65_534));
    assert_eq!(take(&mut reception, now, 1), Some(65_537));
    assert_eq!(take(&mut reception, now, 65_535), Some(65_535), "late, of the round before");
    assert_eq!(take(&mut reception, now, 65_535), None, "and again");
    assert_eq!(take(&mut reception, now, 0), Some(65_536));
    assert_eq!(asked(&mut reception, now), [0u16; 0]);
}

#[test]
fn what_comes_before_the_first_round_is_no_number_of_it() {
    let (mut reception, now) = (Reception::new(true), Instant::now());
    assert_eq!(take(&mut reception, now, 2), Some(2));
    // 65,534 would be 4 behind: there is nothing below zero, and no key stream for it either.
    assert_eq!(reception.extend(65_534), 65_534);
}

#[test]
fn missing_packets_are_asked_for_until_they_come_or_time_is_up() {
    let (mut reception, mut now) = (Reception::new(true), Instant::now());
    take(&mut reception, now, 10);
    take(&mut reception, now, 13);
    assert_eq!(asked(&mut reception, now), [11, 12]);
    assert_eq!(asked(&mut reception, now), [0u16; 0], "not twice at once");
    now += 30 * MS;
    assert!(reception.recover(now, 12));
    assert!(!reception.recover(now, 12), "it has come");
    let mut tries = 1;
    while let Some(at) = reception.ask_at() {
        now = at;
        let again = asked(&mut reception, now);
        tries += again.len();
        assert!(again.iter().all(|seq_no| *seq_no == 11));
    }
    assert_eq!(tries, usize::from(TRIES_MAX));
    assert!(reception.resend_time < RESEND_TIME_UNKNOWN, "learnt from the one that came");
}

#[test]
fn a_jump_asks_for_no_more_than_there_is_room_for() {
    let (mut reception, now) = (Reception::new(true), Instant::now());
    take(&mut reception, now, 0);
    take(&mut reception, now, 20_000);
    let asked = asked(&mut reception, now);
    assert_eq!((asked.len(), asked[0]), (MISSING_MAX, 20_000 - MISSING_MAX as u16));
}

#[test]
fn a_stream_without_resends_asks_for_nothing() {
    let (mut reception, now) = (Reception::new(false), Instant::now());
    take(&mut reception, now, 1);
    take(&mut reception, now, 5);
    assert_eq!(asked(&mut reception, now), [0u16; 0]);
    assert_eq!(reception.ask_at(), None);
}

#[test]
fn a_report_tells_losses_jitter_and_the_sender_s_own_report() {
    let (mut reception, now) = (Reception::new(true), Instant::now());
    assert_eq!(reception.poll_report(now, 7), None);
    for seq_no in 0..100u16 {
        if seq_no % 4 != 3 {
            take(&mut reception, now, seq_no);
        }
        // Each other packet is 10 ms late.
        let at = Duration::from_millis(u64::from(seq_no) * 20 + u64::from(seq_no % 2) * 10);
        reception.note_time(at, u32::from(seq_no) * 960, 48_000);
    }
    let ntp_time = 0x1234_5678_9abc_def0;
    let report = SenderReport { ssrc: 7, ntp_time, rtp_time: 0, packets: 0, octets: 0 };
    reception.handle_sender_report(now, report);
    let block = reception.poll_report(now + 500 * MS, 7).unwrap();
    assert_eq!((block.lost, block.highest_seq_no, block.fraction_lost), (24, 98, (24 * 256 / 99) as u8));
    assert!((400..=480).contains(&block.jitter), "{}", block.jitter);
    assert_eq!((block.last_report, block.delay_since_last_report), (0x5678_9abc, 32_768));
    let again = reception.poll_report(now, 7).unwrap();
    assert_eq!((again.fraction_lost, again.lost), (0, 24), "nothing is lost since");
}

proptest! {
    /// Whatever the order, each number is taken once, and only while it is young enough.
    #[test]
    fn each_packet_is_taken_once(numbers in proptest::collection::vec(0u64..3_000, 1..400)) {
        let mut reception = Reception::new(true);
        let now = Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        let mut highest = None;
        for number in numbers {
            let young = highest.is_none_or(|highest| number + WINDOW_PACKETS > highest);
            prop_assert_eq!(reception.is_new(number), young && !seen.contains(&number));
            if reception.is_new(number) {
                reception.note(now, number);
                seen.insert(number);
            }
            highest = highest.max(Some(number));
            prop_assert!(reception.missing.as_ref().is_none_or(|missing| missing.len() <= MISSING_MAX));
        }
    }

    /// Bytes from the network choose the numbers: none of them breaks anything.
    #[test]
    fn no_number_breaks_it(numbers in proptest::collection::vec(any::<u16>(), 1..300)) {
        let mut reception = Reception::new(true);
        let mut now = Instant::now();
        for number in numbers {
            now += MS;
            take(&mut reception, now, number);
            reception.note_time(MS * u32::from(number), u32::from(number) << 16, 90_000);
            asked(&mut reception, now);
            prop_assert!(reception.poll_report(now, 1).is_some());
        }
    }
}
