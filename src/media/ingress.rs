//! What one connection gets: RTP opened and put in its place, and what its sender is told of it: reports,
//! requests for lost packets and key frames, and arrivals for its bandwidth estimate.
//!
//! The way of a packet: its header is read, its source found or learnt, and its number extended; only then it
//! is opened, and only what was genuine and new changes anything here. Resends come out under their own
//! number (RFC 4588 §4). What is to be told waits for [`Ingress::poll_feedback`], which the holder of the
//! sending key seals.

mod declared;
mod header;

use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};

pub use self::declared::{Declared, declared};
pub use self::header::{Header, Meanings, Values};
use super::negotiate::PayloadType;
use super::srtp::RtpOpener;
use super::srtp::keys::KeySlot;
use crate::core::captured::CaptureClock;
use crate::core::format::Format;
use crate::core::payload::VIDEO_CLOCK_RATE;
use crate::core::protocol::Kind;
use crate::core::reception::Reception;
use crate::core::rtcp::{Arrivals, SenderReport, write};
use crate::core::track::PublishedLine;

/// Sources of one peer, several for each of its lines. Full: the one that was silent longest is forgotten.
const STREAMS_MAX: usize = 128;
/// Between reports on what came (RFC 3550 §6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// On a stream that was silent for longer nothing is reported.
const REPORTED_FOR: Duration = Duration::from_secs(5);
/// Between two messages with arrivals: the sender's estimate takes no more than a few of them to see that
/// its path fills up. They go at moments of the peer's own: counted from the last message, those of all who
/// were once held up together would go together for ever.
pub const ARRIVALS_INTERVAL: Duration = Duration::from_millis(50);
/// Room in a datagram of feedback after which another begins.
const COMPOUND_BYTES: usize = 400;

/// What a connection was negotiated to get.
#[derive(Debug, Clone)]
pub struct IngressLines {
    pub keys: KeySlot,
    pub lines: Vec<PublishedLine>,
    pub payload_types: Vec<PayloadType>,
    pub meanings: Meanings,
    pub declared: Vec<Declared>,
}

/// A packet that is genuine and new.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// Index of the line, and of the encoding within it.
    pub line: u8,
    pub encoding: u8,
    /// Its source's, also where it came as a resend.
    pub ssrc: u32,
    pub format: Format,
    /// Extended.
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    pub values: Values<'a>,
    /// When its media was captured by its sender's clock, in microseconds since the Unix epoch
    /// ([`CaptureClock`]).
    pub captured_us: Option<i64>,
}

/// Why a datagram was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untaken {
    /// No RTP, forged, or before there are keys.
    Malformed,
    /// Of no line or format of this peer's.
    Unknown,
    /// It came before, or carries nothing.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Media,
    /// Resends of the media of its line and encoding.
    Repair,
    /// Bytes that only probe the path: libwebrtc sends them before there is media, as source 0.
    Probe,
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    line: u8,
    encoding: u8,
    role: Role,
    /// In Hz.
    clock_rate: u32,
    reception: Reception,
    clock: CaptureClock,
    heard_at: Instant,
}

/// What a sender is asked for.
#[derive(Debug)]
struct Wish {
    line: u8,
    encoding: u8,
    keyframe: bool,
    bps: Option<u64>,
}

/// See the module.
pub struct Ingress {
    negotiated: IngressLines,
    opener: Option<RtpOpener>,
    streams: Vec<Stream>,
    /// Place of the stream that was heard last.
    latest: usize,
    arrivals: Arrivals,
    wishes: Vec<Wish>,
    start: Instant,
    /// As whom we report.
    ssrc: u32,
    arrivals_at: Option<Instant>,
    /// When arrivals were told last. A packet may be taken later than it came.
    told_at: Instant,
    report_at: Option<Instant>,
    /// Something has become due earlier than was known.
    alarm: Option<Instant>,
}

impl Ingress {
    /// `ssrc`: as whom we report. Arrivals are told at whole multiples of [`ARRIVALS_INTERVAL`] from `now`.
    pub fn new(now: Instant, negotiated: IngressLines, ssrc: u32) -> Self {
        Self {
            negotiated,
            opener: None,
            streams: Vec::new(),
            latest: 0,
            arrivals: Arrivals::new(now),
            wishes: Vec::new(),
            start: now,
            ssrc,
            arrivals_at: None,
            told_at: now,
            report_at: None,
            alarm: None,
        }
    }

    pub fn lines(&self) -> &[PublishedLine] {
        &self.negotiated.lines
    }

    /// Lines have been negotiated after those before, which are what they were.
    pub fn renegotiate(&mut self, negotiated: IngressLines) {
        self.negotiated = negotiated;
    }

    /// Takes one RTP packet as it came.
    ///
    /// # Errors
    /// Why it is not to be forwarded.
    #[inline]
    pub fn receive<'a>(&mut self, now: Instant, sealed: &'a [u8]) -> Result<Incoming<'a>, Untaken> {
        let header = Header::read(sealed, &self.negotiated.meanings).ok_or(Untaken::Malformed)?;
        let place = match self.place_of(header.ssrc) {
            Some(place) => place,
            None => self.begin(now, &header, sealed)?,
        };
        let stream = self.streams.get(place).ok_or(Untaken::Unknown)?;
        let index = stream.reception.extend(header.seq_no);
        if !stream.reception.is_new(index) {
            return Err(Untaken::Nothing);
        }
        let opener = self.opener.as_ref().ok_or(Untaken::Malformed)?;
        let opened = opener.open(sealed, header.len, header.ssrc, index).ok_or(Untaken::Malformed)?;
        self.latest = place;
        self.note(now, place, index, &header);
        let payload = if header.has_padding { unpadded(opened)? } else { opened };
        match self.streams[place].role {
            Role::Media => self.incoming(place, &header, index, payload),
            Role::Repair => self.repaired(now, place, &header, &payload),
            Role::Probe => Err(Untaken::Nothing),
        }
    }

    #[inline]
    fn place_of(&self, ssrc: u32) -> Option<usize> {
        if self.streams.get(self.latest).is_some_and(|stream| stream.ssrc == ssrc) {
            return Some(self.latest);
        }
        self.streams.iter().position(|stream| stream.ssrc == ssrc)
    }

    /// A source that is not known yet. It becomes so if its packet is genuine.
    fn begin(&mut self, now: Instant, header: &Header<'_>, sealed: &[u8]) -> Result<usize, Untaken> {
        if self.opener.is_none() {
            let keys = self.negotiated.keys.get().ok_or(Untaken::Malformed)?;
            // Keys that do not fit their profile cannot come from a handshake; such a peer is not heard.
            self.opener = RtpOpener::new(keys.profile, &keys.incoming).ok();
        }
        let opener = self.opener.as_ref().ok_or(Untaken::Malformed)?;
        let (line, encoding, role) = self.identify(header).ok_or(Untaken::Unknown)?;
        opener.open(sealed, header.len, header.ssrc, u64::from(header.seq_no)).ok_or(Untaken::Malformed)?;
        let pt = header.payload_type;
        let known = self.negotiated.payload_types.iter().find(|known| *known.pt == pt);
        let clock_rate = known.map_or(VIDEO_CLOCK_RATE, |known| known.format.codec.clock_rate());
        let asks = role == Role::Media && known.is_some_and(|known| known.is_resent);
        let (ssrc, reception) = (header.ssrc, Reception::new(asks));
        let clock = CaptureClock::default();
        let stream = Stream { ssrc, line, encoding, role, clock_rate, reception, clock, heard_at: now };
        if self.streams.len() < STREAMS_MAX {
            self.streams.push(stream);
            return Ok(self.streams.len() - 1);
        }
        let eldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.heard_at);
        let place = eldest.map(|(place, _)| place).ok_or(Untaken::Unknown)?;
        self.streams[place] = stream;
        Ok(place)
    }

    /// Which line and encoding an unknown source belongs to: as it says itself (RFC 8843 §9.2, RFC 8852), as
    /// the offer said, or because no other line can be meant.
    fn identify(&self, header: &Header<'_>) -> Option<(u8, u8, Role)> {
        let IngressLines { lines, payload_types, declared, .. } = &self.negotiated;
        if header.ssrc == 0 {
            return Some((0, 0, Role::Probe));
        }
        let Values { mid, rid, repaired_rid, .. } = header.values;
        let pt = header.payload_type;
        let known = payload_types
            .iter()
            .find(|known| *known.pt == pt || known.resend.is_some_and(|resend| *resend == pt))?;
        let role = if *known.pt == pt { Role::Media } else { Role::Repair };
        let Some(mid) = mid else {
            if let Some(source) = declared.iter().find(|source| source.ssrc == header.ssrc) {
                let role = if source.repairs { Role::Repair } else { Role::Media };
                return Some((source.line, source.encoding, role));
            }
            let kind = if known.format.codec.is_video() { Kind::Video } else { Kind::Audio };
            let mut meant = lines.iter().enumerate().filter(|(_, line)| line.kind == kind);
            let (line, _) = meant.next().filter(|(_, line)| line.rids.is_empty())?;
            return meant.next().is_none().then_some((line as u8, 0, role));
        };
        let mid = Mid::from(str::from_utf8(mid).ok()?);
        let line = lines.iter().position(|line| line.mid == mid)?;
        let rids = &lines[line].rids;
        let role = if repaired_rid.is_some() { Role::Repair } else { role };
        let encoding = match rid.or(repaired_rid) {
            Some(rid) if !rids.is_empty() => {
                let rid = Rid::from(str::from_utf8(rid).ok()?);
                rids.iter().position(|known| *known == rid)?
            }
            _ => 0,
        };
        Some((u8::try_from(line).ok()?, u8::try_from(encoding).ok()?, role))
    }

    /// Notes a packet that was genuine and new.
    #[inline]
    fn note(&mut self, now: Instant, place: usize, index: u64, header: &Header<'_>) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.heard_at = now;
        let shows_loss = stream.reception.note(now, index);
        if stream.role == Role::Media {
            let since_start = now.saturating_duration_since(self.start);
            stream.reception.note_time(since_start, header.rtp_time, stream.clock_rate);
            if let Some(ntp_time) = header.values.captured_at {
                stream.clock.handle_packet(header.rtp_time, ntp_time);
            }
            if self.report_at.is_none() {
                self.report_at = Some(now + REPORT_INTERVAL);
                self.alarm_at(now + REPORT_INTERVAL);
            }
        }
        if shows_loss {
            self.alarm_at(now);
        }
        if let Some(seq_no) = header.values.transport_seq_no {
            self.arrivals.note(now, seq_no);
            if self.arrivals_at.is_none() {
                let at = self.next_arrivals(now.max(self.told_at));
                self.arrivals_at = Some(at);
                self.alarm_at(at);
            }
        }
    }

    fn next_arrivals(&self, now: Instant) -> Instant {
        let interval_ns = ARRIVALS_INTERVAL.as_nanos() as u64;
        let since_ns = now.saturating_duration_since(self.start).as_nanos() as u64;
        now + Duration::from_nanos(interval_ns - since_ns % interval_ns)
    }

    #[inline]
    fn incoming<'a>(
        &self,
        place: usize,
        header: &Header<'a>,
        seq_no: u64,
        payload: Arc<[u8]>,
    ) -> Result<Incoming<'a>, Untaken> {
        let stream = self.streams.get(place).ok_or(Untaken::Unknown)?;
        let pt = header.payload_type;
        let known = self.negotiated.payload_types.iter().find(|known| *known.pt == pt);
        let format = known.ok_or(Untaken::Unknown)?.format;
        Ok(Incoming {
            line: stream.line,
            encoding: stream.encoding,
            ssrc: stream.ssrc,
            format,
            seq_no,
            rtp_time: header.rtp_time,
            marker: header.marker,
            payload,
            values: header.values,
            captured_us: stream.clock.captured_us(header.rtp_time, stream.clock_rate),
        })
    }

    /// Takes a resend: its payload begins with the number that the packet had first.
    fn repaired<'a>(
        &mut self,
        now: Instant,
        repair: usize,
        header: &Header<'a>,
        payload: &[u8],
    ) -> Result<Incoming<'a>, Untaken> {
        let (first, rest) = payload.split_first_chunk::<2>().ok_or(Untaken::Nothing)?;
        let Stream { line, encoding, .. } = self.streams[repair];
        let streams = self.streams.iter_mut().enumerate();
        let media = streams
            .filter(|(_, s)| s.role == Role::Media && (s.line, s.encoding) == (line, encoding))
            .max_by_key(|(_, stream)| stream.heard_at);
        let (place, media) = media.ok_or(Untaken::Nothing)?;
        let seq_no = media.reception.extend(u16::from_be_bytes(*first));
        if !media.reception.recover(now, seq_no) {
            return Err(Untaken::Nothing);
        }
        let pt = header.payload_type;
        let of = self
            .negotiated
            .payload_types
            .iter()
            .find(|known| known.resend.is_some_and(|resend| *resend == pt));
        let header = Header { payload_type: *of.ok_or(Untaken::Unknown)?.pt, ..*header };
        self.incoming(place, &header, seq_no, Arc::from(rest))
    }

    /// Takes what the sender says of its own stream.
    pub fn handle_sender_report(&mut self, now: Instant, report: &SenderReport) {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == report.ssrc);
        if let Some(stream) = stream {
            stream.reception.handle_sender_report(now, *report);
            stream.clock.handle_report(report);
        }
    }

    /// Asks for a key frame. A stream of which nothing has come yet will begin with one.
    pub fn request_keyframe(&mut self, now: Instant, mid: Mid, rid: Option<Rid>) {
        self.wish(now, mid, rid, |wish| wish.keyframe = true);
    }

    /// Asks the sender to stay within `bps` (REMB), now or once its stream is known.
    pub fn limit_bitrate(&mut self, now: Instant, mid: Mid, rid: Option<Rid>, bps: u64) {
        self.wish(now, mid, rid, |wish| wish.bps = Some(bps));
    }

    fn wish(&mut self, now: Instant, mid: Mid, rid: Option<Rid>, set: impl FnOnce(&mut Wish)) {
        let Some(line) = self.negotiated.lines.iter().position(|line| line.mid == mid) else { return };
        let encoding =
            rid.and_then(|rid| self.negotiated.lines[line].rids.iter().position(|known| *known == rid));
        let (line, encoding) = (line as u8, encoding.unwrap_or(0) as u8);
        let known = self.wishes.iter().position(|wish| (wish.line, wish.encoding) == (line, encoding));
        let place = known.unwrap_or_else(|| {
            self.wishes.push(Wish { line, encoding, keyframe: false, bps: None });
            self.wishes.len() - 1
        });
        set(&mut self.wishes[place]);
        self.alarm_at(now);
    }

    fn alarm_at(&mut self, at: Instant) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }

    /// When something has become due earlier than [`Ingress::poll_timeout`] has said.
    #[inline]
    pub fn take_alarm(&mut self) -> Option<Instant> {
        self.alarm.take()
    }

    /// When [`Ingress::poll_feedback`] will have something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asks = self.streams.iter().filter_map(|stream| stream.reception.ask_at());
        asks.chain(self.report_at).chain(self.arrivals_at).min()
    }

    /// Writes one compound of what is due, which is empty when nothing is.
    pub fn poll_feedback(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        out.clear();
        if self.report_at.is_some_and(|at| at <= now) {
            self.report(now, out);
        }
        for stream in &mut self.streams {
            if stream.role == Role::Media && stream.reception.ask_at().is_some_and(|at| at <= now) {
                let mut missing = Vec::new();
                stream.reception.ask(now, |seq_no| missing.push(seq_no));
                write::nack(self.ssrc, stream.ssrc, missing, out);
                if out.len() > COMPOUND_BYTES {
                    return true;
                }
            }
        }
        self.write_wishes(out);
        if out.len() <= COMPOUND_BYTES && self.arrivals_at.is_some_and(|at| at <= now) {
            let of = self.streams.get(self.latest).map_or(0, |stream| stream.ssrc);
            self.arrivals.write(self.ssrc, of, out);
            self.told_at = now;
            if self.arrivals.is_empty() {
                self.arrivals_at = None;
            }
        }
        !out.is_empty()
    }

    fn report(&mut self, now: Instant, out: &mut Vec<u8>) {
        let live = |stream: &&mut Stream| {
            stream.role == Role::Media && now.saturating_duration_since(stream.heard_at) < REPORTED_FOR
        };
        let streams = self.streams.iter_mut().filter(live);
        let blocks = streams.filter_map(|stream| stream.reception.poll_report(now, stream.ssrc));
        let blocks: Vec<_> = blocks.take(write::BLOCKS_MAX).collect();
        // Nothing has come since: it begins again with the next packet.
        self.report_at = (!blocks.is_empty()).then(|| now + REPORT_INTERVAL);
        if !blocks.is_empty() {
            write::receiver_report(self.ssrc, &blocks, out);
        }
    }

    fn write_wishes(&mut self, out: &mut Vec<u8>) {
        let (ssrc, streams) = (self.ssrc, &self.streams);
        self.wishes.retain_mut(|wish| {
            let meant = streams
                .iter()
                .filter(|s| s.role == Role::Media && (s.line, s.encoding) == (wish.line, wish.encoding));
            let Some(stream) = meant.max_by_key(|stream| stream.heard_at) else {
                wish.keyframe = false;
                return wish.bps.is_some();
            };
            if wish.keyframe {
                write::picture_loss(ssrc, stream.ssrc, out);
            }
            if let Some(bps) = wish.bps {
                write::remb(ssrc, stream.ssrc, bps, out);
            }
            false
        });
    }
}

/// RFC 3550 §5.1: the last byte says how many are padding, itself included.
fn unpadded(payload: Arc<[u8]>) -> Result<Arc<[u8]>, Untaken> {
    let padding = payload.last().copied().map_or(0, usize::from);
    let len = payload.len().checked_sub(padding).filter(|_| padding > 0).ok_or(Untaken::Malformed)?;
    Ok(Arc::from(&payload[..len]))
}

#[cfg(test)]
mod tests;
