//! Plays: reads ahead, sends what is due, and does what the node says.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::FeedError;
use super::input::{Coded, Input};
use super::node::Node;
use super::pace::{Pace, Unit};
use super::picture::{Coder, Copier, Unfit};
use super::sound::Sound;
use crate::core::feed::{FeedFigures, FeedMedia, FeedSettings, FromFeed, LINE_PICTURE, LINE_SOUND, ToFeed};
use crate::core::mix::{MixPacket, Place};
use crate::core::protocol::Kind;
use crate::worker::process;

/// How often it is told where it is, and what it costs.
const TELL_INTERVAL_US: i64 = 1_000_000;
/// Nothing is due for so long at most: then it is looked what is to be told.
const WAIT_US_MAX: i64 = 100_000;
/// A file that is copied has a key frame within this, or is coded from there on.
const KEY_FRAME_WITHIN_US: i64 = 1_500_000;
/// Key frames of a paused picture come no more often.
const SHOW_INTERVAL_US: i64 = 500_000;
/// A picture that is due so long ago is not worth its coding.
const LATE_US_MAX: i64 = 120_000;
/// A live stream's clock may run slower than ours by so much, in millionths.
const DRIFT_PPM: i64 = 200;
/// A live stream whose time jumps by more begins anew.
const JUMP_US: i64 = 5_000_000;

enum Pictures {
    Copied(Copier),
    Coded(Coder),
}

/// How a live stream's time is by our clock.
#[derive(Clone, Copy)]
struct Live {
    /// Of RTP's times: what came at once goes out at its own times.
    shift_us: i64,
    /// When its time 0 was, by the packets that came soonest; and when that was last looked at.
    captured_us: i64,
    looked_us: i64,
}

/// See the module.
pub struct Play {
    input: Input,
    settings: FeedSettings,
    pictures: Option<Pictures>,
    sound: Option<Sound>,
    pace: Pace,
    epoch: Instant,
    epoch_unix_us: i64,
    seq_nos: [u64; 2],
    live: Option<Live>,
    /// Of the last change that was asked for.
    number: u64,
    /// A key frame was asked for that cannot be made.
    asked_at_us: Option<i64>,
    shown_at_us: i64,
    told_at_us: i64,
    told_cpu: Duration,
}

impl Play {
    pub fn open(input: Input, settings: FeedSettings) -> Result<Self, FeedError> {
        let pictures = match &input.picture {
            Some(track) => Some(match Copier::of(track, &settings)? {
                Some(copier) => Pictures::Copied(copier),
                None => Pictures::Coded(Coder::open(track, &settings)?),
            }),
            None => None,
        };
        let sound = input.sound.as_ref().map(Sound::of).transpose()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pace = Pace::new([pictures.is_some(), sound.is_some()]);
        // Below half of the range, as receivers take a first number near its end for a late one.
        let seq_nos = [u64::from(rand::random::<u16>() >> 1), u64::from(rand::random::<u16>() >> 1)];
        Ok(Self {
            input,
            settings,
            pictures,
            sound,
            pace,
            epoch: Instant::now(),
            epoch_unix_us: since.as_micros() as i64,
            seq_nos,
            live: None,
            number: 0,
            asked_at_us: None,
            shown_at_us: i64::MIN / 2,
            told_at_us: 0,
            told_cpu: Duration::ZERO,
        })
    }

    pub fn media(&self) -> FeedMedia {
        FeedMedia {
            picture: self.pictures.is_some(),
            sound: self.sound.is_some(),
            is_copied: matches!(self.pictures, Some(Pictures::Copied(_))),
            duration_ms: self.input.duration_us().map(|us| us as u64 / 1_000).filter(|_| !self.settings.live),
        }
    }

    /// As it is to be when it starts.
    pub fn begin_as(&mut self, number: u64, paused: Option<bool>) {
        self.number = number;
        self.pace.pause(self.now_us(), paused.unwrap_or(self.pace.is_paused()));
    }

    /// Until all was played.
    pub fn run(&mut self, node: &mut Node) -> Result<(), FeedError> {
        self.tell(node, self.now_us())?;
        loop {
            while let Some(words) = node.poll()? {
                self.handle(node, words)?;
            }
            let now_us = self.now_us();
            if now_us - self.told_at_us >= TELL_INTERVAL_US {
                self.tell(node, now_us)?;
            }
            if self.settings.live {
                if !self.step(node)? {
                    return Ok(());
                }
                continue;
            }
            if self.pace.begin(now_us)
                && let Some(unit) = self.pace.take_picture()
            {
                self.send(node, &unit, now_us, now_us)?;
            }
            while let Some(unit) = self.pace.take_due(self.now_us()) {
                let due_us = self.pace.due_us(unit.at_us);
                self.send(node, &unit, due_us, due_us)?;
            }
            self.make_key_frame()?;
            if self.pace.wants_more(self.now_us()) {
                self.step(node)?;
            } else if self.pace.is_over() {
                return Ok(());
            } else {
                let idle_us = self.pace.idle_us(self.now_us()).unwrap_or(WAIT_US_MAX).min(WAIT_US_MAX);
                if let Some(words) = node.wait_for(Duration::from_micros(idle_us as u64))? {
                    self.handle(node, words)?;
                }
            }
        }
    }

    fn now_us(&self) -> i64 {
        self.epoch.elapsed().as_micros() as i64
    }

    fn handle(&mut self, node: &mut Node, words: ToFeed) -> Result<(), FeedError> {
        match words {
            ToFeed::Change { number, paused, to_ms } => {
                let now_us = self.now_us();
                self.number = number;
                self.pace.pause(now_us, paused.unwrap_or(self.pace.is_paused()));
                if let Some(to_ms) = to_ms.filter(|_| !self.settings.live) {
                    self.go_to(to_ms as i64 * 1_000)?;
                }
                self.tell(node, now_us)?;
            }
            ToFeed::Keyframe => match &mut self.pictures {
                Some(Pictures::Coded(coder)) if !self.pace.is_paused() => coder.want_key(),
                Some(_) => self.asked_at_us = self.asked_at_us.or(Some(self.now_us())),
                None => {}
            },
            ToFeed::Begin(_) | ToFeed::Start => {}
        }
        Ok(())
    }

    /// Makes the key frame that was asked for of a picture that stands, or of a file that is copied and has
    /// none soon.
    fn make_key_frame(&mut self) -> Result<(), FeedError> {
        let Some(asked_at_us) = self.asked_at_us else { return Ok(()) };
        let now_us = self.now_us();
        let is_due = if self.pace.is_paused() {
            now_us - self.shown_at_us >= SHOW_INTERVAL_US
        } else {
            now_us - asked_at_us >= KEY_FRAME_WITHIN_US
        };
        if !is_due || self.settings.live {
            return Ok(());
        }
        (self.asked_at_us, self.shown_at_us) = (None, now_us);
        self.code_from(self.pace.position_us(now_us))
    }

    /// Codes the picture from now on.
    fn code_from(&mut self, at_us: i64) -> Result<(), FeedError> {
        if let (Some(Pictures::Copied(_)), Some(track)) = (&self.pictures, &self.input.picture) {
            self.pictures = Some(Pictures::Coded(Coder::open(track, &self.settings)?));
        }
        self.go_to(at_us)
    }

    fn go_to(&mut self, to_us: i64) -> Result<(), FeedError> {
        self.input.seek(to_us)?;
        match &mut self.pictures {
            Some(Pictures::Copied(copier)) => copier.restart(),
            Some(Pictures::Coded(coder)) => coder.restart()?,
            None => {}
        }
        self.sound.as_mut().map_or(Ok(()), Sound::restart)?;
        self.pace.restart(to_us);
        Ok(())
    }

    /// Reads one packet and makes of it what is to be sent. False at the end of what is live.
    fn step(&mut self, node: &mut Node) -> Result<bool, FeedError> {
        let Some(coded) = self.input.next()? else {
            let from_us = self.pace.begins_us();
            let mut units = Vec::new();
            if let Some(Pictures::Coded(coder)) = &mut self.pictures {
                units = coder.finish(from_us)?;
            }
            if let Some(sound) = &mut self.sound {
                units.extend(sound.finish()?.into_iter().filter(|unit| unit.at_us >= from_us));
            }
            units.into_iter().for_each(|unit| self.pace.push(unit));
            self.pace.is_complete = true;
            return Ok(!self.settings.live);
        };
        let units = match coded.kind {
            Kind::Video => self.take_picture(&coded)?,
            Kind::Audio => self.take_sound(&coded)?,
        };
        for unit in units {
            if self.settings.live {
                let live = self.look_at_clock(unit.at_us);
                self.send(node, &unit, unit.at_us + live.shift_us, unit.at_us + live.captured_us)?;
            } else {
                self.pace.push(unit);
            }
        }
        Ok(true)
    }

    fn take_picture(&mut self, coded: &Coded) -> Result<Vec<Unit>, FeedError> {
        let now_us = self.epoch.elapsed().as_micros() as i64;
        let (pace, live) = (&mut self.pace, self.settings.live);
        match &mut self.pictures {
            Some(Pictures::Copied(copier)) => {
                let had_begun = copier.has_begun();
                match copier.take(coded)? {
                    Ok(unit) => {
                        if !had_begun && copier.has_begun() && !live && pace.begins_us() > 0 {
                            pace.begin_at(coded.at_us);
                        }
                        Ok(unit.into_iter().collect())
                    }
                    Err(unfit) => self.code_instead(unfit),
                }
            }
            Some(Pictures::Coded(coder)) => {
                let late = |at_us| !live && pace.due_us(at_us) < now_us - LATE_US_MAX && pace.is_running();
                coder.take(coded, if live { i64::MIN } else { pace.begins_us() }, late)
            }
            None => Ok(Vec::new()),
        }
    }

    /// What cannot be copied is coded: a file from where it is, a live stream from its next key frame.
    fn code_instead(&mut self, unfit: Unfit) -> Result<Vec<Unit>, FeedError> {
        tracing::info!(?unfit, "a picture is coded anew");
        if self.settings.live {
            if let Some(track) = &self.input.picture {
                self.pictures = Some(Pictures::Coded(Coder::open(track, &self.settings)?));
            }
            return Ok(Vec::new());
        }
        self.code_from(self.pace.position_us(self.now_us()))?;
        Ok(Vec::new())
    }

    fn take_sound(&mut self, coded: &Coded) -> Result<Vec<Unit>, FeedError> {
        // Where a copied picture begins is known with its key frame, which may come later.
        let is_known = match &self.pictures {
            Some(Pictures::Copied(copier)) => copier.has_begun(),
            Some(Pictures::Coded(_)) | None => true,
        };
        let from_us = if is_known && !self.settings.live { self.pace.begins_us() } else { i64::MIN };
        self.sound.as_mut().map_or(Ok(Vec::new()), |sound| sound.take(coded, from_us))
    }

    /// The packets that came soonest say how far a live stream's clock is from ours.
    fn look_at_clock(&mut self, at_us: i64) -> Live {
        let now_us = self.now_us();
        let shift_us = now_us - at_us;
        let anew = Live { shift_us, captured_us: shift_us, looked_us: now_us };
        let mut live =
            self.live.filter(|live| (shift_us - live.captured_us).abs() <= JUMP_US).unwrap_or(anew);
        let drifted_us = live.captured_us + (now_us - live.looked_us) * DRIFT_PPM / 1_000_000;
        (live.captured_us, live.looked_us) = (shift_us.min(drifted_us), now_us);
        *self.live.insert(live)
    }

    /// Sends what is due at one time of the clock, and was captured at another.
    fn send(&mut self, node: &mut Node, unit: &Unit, due_us: i64, captured_us: i64) -> Result<(), FeedError> {
        if unit.is_key {
            self.asked_at_us = None;
            self.shown_at_us = self.now_us();
        }
        let rate = u128::from(unit.codec.clock_rate());
        let rtp_time = (due_us.max(0) as u128 * rate / 1_000_000) as u32;
        let captured_us = Some(self.epoch_unix_us + captured_us);
        let count = unit.payloads.len();
        for (index, payload) in unit.payloads.iter().enumerate() {
            let seq_no = &mut self.seq_nos[usize::from(unit.line == LINE_SOUND)];
            let packet = MixPacket {
                place: Place::Line { line: unit.line, encoding: 0 },
                codec: unit.codec,
                seq_no: *seq_no,
                rtp_time,
                captured_us,
                // Of sound only where silence is not sent (RFC 7587 §4.2).
                marker: unit.line == LINE_PICTURE && index + 1 == count,
                payload: payload.as_slice().into(),
            };
            *seq_no += 1;
            node.send(&packet)?;
        }
        Ok(())
    }

    fn tell(&mut self, node: &mut Node, now_us: i64) -> Result<(), FeedError> {
        let cpu = process::cpu_time();
        let left_out = match &mut self.pictures {
            Some(Pictures::Coded(coder)) => std::mem::take(&mut coder.left_out),
            _ => 0,
        };
        let cpu_ms = cpu.saturating_sub(self.told_cpu).as_millis() as u64;
        (self.told_at_us, self.told_cpu) = (now_us, cpu);
        let rss_bytes = process::rss_bytes();
        node.say(&FromFeed::Figures(FeedFigures { cpu_ms, rss_bytes, left_out }))?;
        let at_ms = self.pace.position_us(now_us).max(0) as u64 / 1_000;
        let (number, paused) = (self.number, self.pace.is_paused());
        node.say(&FromFeed::Position { number, paused, at_ms })
    }
}
