//! A room's HLS stream as players see it: the rings of its tracks, its playlists, and who waits for them.
//!
//! A playlist is written once for each part, whoever asks; all who wait for a part wait for the same change.
#![expect(
    clippy::disallowed_types,
    reason = "thousands of requests read what one task writes a few times a second, none over an await"
)]

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metrics::{counter, gauge, histogram};
use serde::Serialize;
use tokio::sync::watch;

use super::wire::News;
use crate::config;
use crate::control::Control;
use crate::core::ids::RoomName;
use crate::core::refusal::{Code, Refusal};
use crate::core::stream::playlist::{self, Extent, Variant};
use crate::core::stream::reload::{self, HOLD_MS, Verdict, Wish};
use crate::core::stream::shelf::{Found, Shelf};
use crate::core::stream::{Init, Part, Track};

/// The sound's share of a rendition, with what packaging adds.
const SOUND_BPS: u64 = 160_000;
/// A segment may take more than the encoder's bitrate: key frames are sent on credit.
const PEAK_PERCENT: u64 = 140;

/// See the module.
pub struct Live {
    /// Tells its addresses from those of a stream before it.
    id: String,
    started_at_ms: u64,
    frames_per_second: u32,
    /// Of the tracks with pictures, in their order.
    bitrates_bps: [u64; 2],
    state: RwLock<State>,
    /// How often each track's playlist has changed.
    changes: [watch::Sender<u64>; 3],
}

struct State {
    shelves: [Shelf; 3],
    texts: [Texts; 3],
    /// Eras before those of the process that runs now.
    eras_before: u32,
    last_era: u32,
    parts: u64,
    has_ended: bool,
}

/// A playlist, written.
#[derive(Debug, Clone, Default)]
struct Texts {
    whole: Bytes,
    delta: Bytes,
}

/// A stream as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    /// The mix is not there yet.
    Starting,
    Live,
    /// It was stopped, or its room closed.
    Ended,
}

impl Live {
    pub fn new(started_at_ms: u64, mcu: &config::Mcu) -> Self {
        gauge!("antiphon_hls_streams").increment(1);
        Self {
            id: format!("{started_at_ms:x}"),
            started_at_ms,
            frames_per_second: mcu.frames_per_second,
            bitrates_bps: [mcu.bitrate_bps, mcu.bitrate_bps * 3 / 10],
            state: RwLock::new(State {
                shelves: Track::ALL.map(Shelf::new),
                texts: Default::default(),
                eras_before: 0,
                last_era: 0,
                parts: 0,
                has_ended: false,
            }),
            changes: Track::ALL.map(|_| watch::Sender::new(0)),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    pub fn has_ended(&self) -> bool {
        self.read().has_ended
    }

    pub fn state(&self) -> LiveState {
        let state = self.read();
        let is_there = Track::ALL.into_iter().all(|track| state.shelf(track).newest().is_some());
        match (state.has_ended, is_there) {
            (true, _) => LiveState::Ended,
            (false, true) => LiveState::Live,
            (false, false) => LiveState::Starting,
        }
    }

    /// Takes what the process made.
    pub fn take(&self, news: News, room: &RoomName, control: &Control) {
        let track = match news {
            News::Keyframe(track) => return control.ask_for_stream_keyframe(room, track),
            News::Pushing => return,
            News::Init(init, bytes) => {
                let mut state = self.write();
                let init = Init { era: state.era(init.era), ..init };
                return state.shelf_mut(init.track).put_init(init, bytes);
            }
            News::Part(part, bytes) => {
                note(&part);
                let mut state = self.write();
                let track = part.track;
                let part = Part { era: state.era(part.era), ..part };
                state.parts += 1;
                state.shelf_mut(track).put(part, bytes);
                state.print(&self.id, track);
                track
            }
        };
        self.tell(track);
    }

    /// What comes next is of another process: time jumps.
    pub fn jump(&self) {
        let mut state = self.write();
        state.shelves.iter_mut().for_each(Shelf::close);
        state.eras_before = state.last_era + u32::from(state.parts > 0);
    }

    /// No more comes.
    pub fn end(&self) {
        {
            let mut state = self.write();
            state.has_ended = true;
            for track in Track::ALL {
                state.shelf_mut(track).close();
                state.print(&self.id, track);
            }
        }
        Track::ALL.into_iter().for_each(|track| self.tell(track));
    }

    fn tell(&self, track: Track) {
        self.changes[track as usize].send_modify(|count| *count += 1);
    }

    /// The multivariant playlist, once there is something to play. `place` goes in front of its addresses.
    ///
    /// # Errors
    /// `unavailable`: the mix did not come, `gone`.
    pub async fn multivariant(&self, place: &str) -> Result<String, Refusal> {
        self.when(Track::Low, |state| {
            let inits: Option<Vec<Init>> = Track::ALL
                .into_iter()
                .map(|track| state.shelf(track).newest().and(state.shelf(track).newest_init()).cloned())
                .collect();
            let [high, low, sound] = &inits?[..] else { return None };
            let variants = [high, low].into_iter().zip(self.bitrates_bps).map(|(init, bps)| Variant {
                init,
                bandwidth_bps: bps * PEAK_PERCENT / 100 + SOUND_BPS,
                frames_per_second: self.frames_per_second,
            });
            Some(Ok(playlist::multivariant(place, &variants.collect::<Vec<_>>(), sound)))
        })
        .await
    }

    /// A media playlist, when it has what was asked for.
    ///
    /// # Errors
    /// `malformed` for what cannot come, `unavailable` for what did not come in time.
    pub async fn playlist(&self, track: Track, wish: Wish, is_delta: bool) -> Result<Bytes, Refusal> {
        self.when(track, |state| {
            let shelf = state.shelf(track);
            let verdict = match reload::judge(shelf, wish) {
                _ if state.has_ended => Verdict::Now,
                Ok(verdict) => verdict,
                Err(refusal) => return Some(Err(refusal)),
            };
            let texts = &state.texts[track as usize];
            let is_there = verdict == Verdict::Now && shelf.newest().is_some();
            is_there.then(|| Ok(if is_delta { texts.delta.clone() } else { texts.whole.clone() }))
        })
        .await
    }

    /// A part; the next one, when it comes.
    ///
    /// # Errors
    /// `not_found`, `gone`, `unavailable` for one that did not come.
    pub async fn part(&self, track: Track, number: u64, index: usize) -> Result<Bytes, Refusal> {
        self.when(track, |state| match state.shelf(track).part(number, index) {
            Found::Here(stored) => Some(Ok(stored.bytes.clone())),
            Found::Soon if !state.has_ended => None,
            Found::Soon | Found::Unknown => Some(Err(unknown())),
            Found::Gone => Some(Err(gone())),
        })
        .await
    }

    /// A whole segment, in its parts.
    ///
    /// # Errors
    /// `not_found`, `gone`.
    pub fn segment(&self, track: Track, number: u64) -> Result<Vec<Bytes>, Refusal> {
        match self.read().shelf(track).segment(number) {
            Found::Here(segment) => Ok(segment.parts.iter().map(|stored| stored.bytes.clone()).collect()),
            Found::Gone => Err(gone()),
            Found::Soon | Found::Unknown => Err(unknown()),
        }
    }

    /// # Errors
    /// `not_found`.
    pub fn init(&self, track: Track, era: u32) -> Result<Bytes, Refusal> {
        self.read().shelf(track).init(era).map(|(_, bytes)| bytes.clone()).ok_or_else(unknown)
    }

    /// Waits for changes of a track until there is an answer.
    async fn when<T>(
        &self,
        track: Track,
        answer: impl Fn(&State) -> Option<Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut changes = self.changes[track as usize].subscribe();
        if let Some(answered) = answer(&self.read()) {
            return answered;
        }
        let _waiting = Waiting::begin();
        let answered = async {
            loop {
                // It lives as long as we do.
                let _ = changes.changed().await;
                if let Some(answered) = answer(&self.read()) {
                    return answered;
                }
            }
        };
        let within = Duration::from_millis(HOLD_MS);
        tokio::time::timeout(within, answered).await.unwrap_or_else(|_| {
            Err(Refusal::new(Code::Unavailable, "the stream has nothing new now: try again in a moment"))
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        gauge!("antiphon_hls_streams").decrement(1);
    }
}

impl State {
    fn shelf(&self, track: Track) -> &Shelf {
        &self.shelves[track as usize]
    }

    fn shelf_mut(&mut self, track: Track) -> &mut Shelf {
        &mut self.shelves[track as usize]
    }

    /// The stream's era of a process's.
    fn era(&mut self, era: u32) -> u32 {
        let era = self.eras_before.saturating_add(era);
        self.last_era = self.last_era.max(era);
        era
    }

    fn print(&mut self, id: &str, track: Track) {
        let others = || self.shelves.iter().filter(|shelf| shelf.track != track);
        let write = |extent| playlist::media(id, self.shelf(track), others(), extent).into_bytes().into();
        self.texts[track as usize] = if self.has_ended {
            let whole: Bytes = write(Extent::Ended);
            Texts { delta: whole.clone(), whole }
        } else {
            Texts { whole: write(Extent::Whole), delta: write(Extent::Delta) }
        };
    }
}

/// Counted among those who wait.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        gauge!("antiphon_hls_waiting").increment(1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!("antiphon_hls_waiting").decrement(1);
    }
}

/// A part's share of the metrics.
fn note(part: &Part) {
    counter!("antiphon_hls_parts_total", "track" => part.track.name()).increment(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ended_s = part.captured_us as f64 / 1e6 + part.seconds();
    histogram!("antiphon_hls_part_delay_seconds").record((now.as_secs_f64() - ended_s).max(0.0));
}

fn unknown() -> Refusal {
    Refusal::new(Code::NotFound, "the stream has no such part")
}

fn gone() -> Refusal {
    Refusal::new(Code::Gone, "this part of the stream is no longer kept")
}
