//! What must hold in every run, and how far the runs got.

use std::collections::BTreeMap;

use antiphon::core::ids::{Identity, MessageId, SessionId};
use antiphon::core::protocol::ChatMessage;
use antiphon::core::room::Forward;

/// How often each thing happened; all must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached(pub BTreeMap<&'static str, u64>);

const MUST_REACH: [&str; 17] = [
    "joined",
    "refused",
    "admitted",
    "left",
    "lost",
    "resumed",
    "recovered",
    "removed",
    "packet in",
    "packet out",
    "replayed",
    "switch on a key frame",
    "keyframe request",
    "layers told",
    "chat shown",
    "chat not stored",
    "retry answered",
];

impl Reached {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub fn assert_all(&self) {
        for what in MUST_REACH {
            assert!(
                self.0.get(what).is_some_and(|count| *count > 0),
                "no run ever reached {what:?}: {self:?}"
            );
        }
    }
}

/// The outgoing stream of one slot of one connection.
#[derive(Debug, Default)]
struct Stream {
    last_seq_no: Option<u64>,
    last_rtp_time: Option<u32>,
    source: Option<(Identity, usize, u8)>,
}

/// Sees all that leaves the room and panics when a promise is broken.
#[derive(Debug, Default)]
pub struct Checker {
    pub reached: Reached,
    /// Sums up the whole run, to compare two of them.
    pub digest: u64,
    streams: BTreeMap<(SessionId, u64, u16), Stream>,
    /// Messages in the order in which they were first shown, to anyone.
    order: Vec<(u64, MessageId)>,
    /// By person: the messages as last shown to them, of those shown since they came.
    shown: BTreeMap<Identity, BTreeMap<u64, ChatMessage>>,
}

/// Where a forwarded packet came from and went to.
pub struct Flow<'a> {
    pub from: &'a Identity,
    pub line: usize,
    pub encoding: u8,
    pub keyframe: bool,
    pub video: bool,
    pub to: &'a Identity,
    pub session: SessionId,
    /// Counts the connections of a session: each begins its streams anew.
    pub connection: u64,
    pub may_receive: bool,
}

impl Checker {
    pub fn digest(&mut self, value: u64) {
        self.digest = (self.digest.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub fn forwarded(&mut self, flow: &Flow<'_>, forward: &Forward) {
        self.reached.count("packet out");
        assert!(flow.may_receive, "{} got a packet without a grant or a place", flow.to);
        assert_ne!(flow.from, flow.to, "{} got their own packet", flow.to);
        let stream = self.streams.entry((flow.session, flow.connection, forward.slot.0)).or_default();
        let rewritten = &forward.rewritten;
        let source = (flow.from.clone(), flow.line, flow.encoding);
        if stream.source.as_ref() != Some(&source) {
            assert!(flow.keyframe || !flow.video, "{} was switched without a key frame", flow.to);
            if flow.video && stream.source.is_some() {
                self.reached.count("switch on a key frame");
            }
            stream.source = Some(source);
        }
        // Packets are fed in order here, so each must be newer than the one before.
        assert!(stream.last_seq_no.is_none_or(|last| rewritten.seq_no > last), "sequence numbers fell back");
        let step = stream.last_rtp_time.map_or(0, |last| rewritten.rtp_time.wrapping_sub(last));
        assert!(step < 1 << 31, "timestamps fell back");
        assert!(
            stream.last_seq_no.is_some() || rewritten.seq_no < 65_536,
            "a stream began past its first cycle"
        );
        stream.last_seq_no = Some(rewritten.seq_no);
        stream.last_rtp_time = Some(rewritten.rtp_time);
        let (seq_no, rtp_time) = (rewritten.seq_no, rewritten.rtp_time);
        self.digest(seq_no ^ u64::from(rtp_time));
    }

    /// Somebody begins to watch the chat, with what `welcome` told.
    pub fn welcomed(&mut self, who: &Identity, messages: &[ChatMessage]) {
        let known = messages.iter().map(|message| (message.seq, message.clone())).collect();
        self.shown.insert(who.clone(), known);
    }

    pub fn gone(&mut self, who: &Identity) {
        self.shown.remove(who);
    }

    pub fn shown(&mut self, who: &Identity, message: &ChatMessage) {
        self.reached.count("chat shown");
        let place = (message.seq, message.id.clone());
        match self.order.iter().find(|(seq, id)| *seq == message.seq || *id == message.id) {
            Some(known) => assert_eq!(known, &place, "a message changed its place"),
            None => {
                let last = self.order.last().map_or(0, |(seq, _)| *seq);
                assert!(message.seq > last, "a message was shown after a later one");
                self.order.push(place);
            }
        }
        self.shown.entry(who.clone()).or_default().insert(message.seq, message.clone());
        self.digest(message.seq);
    }

    /// At the end everyone sees the same, as far back as each was told.
    pub fn assert_agreement(&self) {
        let Some(fullest) = self.shown.values().max_by_key(|seen| seen.len()) else { return };
        for (who, seen) in &self.shown {
            for (seq, message) in seen {
                let other = fullest.get(seq);
                assert!(other.is_none_or(|other| other == message), "{who} sees message {seq} otherwise");
            }
        }
    }
}
