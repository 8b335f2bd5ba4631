//! What the mixer is to show and play: from who is in the room to a scene, and from who takes it to bitrates.

use smallvec::SmallVec;

use super::PICTURES_MAX;
use crate::core::mix::layout::{Layout, Placed, Seen, arrange};
use crate::core::mix::{LINE_H264, LINE_SOUND, LINE_VP8, Scene, Tile, ToMixer, Voice};
use crate::core::participant::{Part, Participant};
use crate::core::protocol::{Kind, Source};
use crate::core::replay::{CONTRIBUTORS_MAX, Contributors};
use crate::core::room::{ParticipantKey, Room, TrackKey};

/// Below this an encoding is not worth making; a smaller one is taken instead.
const BITRATE_MIN_BPS: [u64; 2] = [150_000, 500_000];
/// Of a receiver's estimate that the picture may use: the rest is for sound and what is resent.
const PICTURE_SHARE_PERCENT: u64 = 85;
/// A bitrate that changed by less is not told.
const CHANGE_PERCENT: u64 = 10;

/// Something that gets a tile.
struct Picture {
    owner: ParticipantKey,
    /// Without one, an avatar.
    track: Option<TrackKey>,
    is_screen: bool,
}

impl Room {
    /// Tells the mixer what to show and play, if that has changed.
    pub(in crate::core::room) fn tell_scene(&mut self) {
        let (Some(mixer), Some(settings)) = (self.mixing.seat, self.settings.mix) else { return };
        let pictures = self.pictures();
        let seen: Vec<Seen<'_>> = pictures.iter().filter_map(|picture| self.seen(picture)).collect();
        let placed = arrange(&self.state.layout, settings.canvas, &seen);
        let mut heights = vec![0; self.participant(mixer).map_or(0, |p| p.slots.len())];
        let tiles: Vec<Tile> = placed
            .into_iter()
            .filter_map(|placed| {
                let picture = pictures.get(placed.index)?;
                let tile = self.tile(mixer, picture, &placed)?;
                if let Some(height) = tile.slot.and_then(|slot| heights.get_mut(usize::from(slot))) {
                    *height = placed.area.height;
                }
                Some(tile)
            })
            .collect();
        let scene = Scene { background: self.state.background.rgb(), tiles, voices: self.voices(mixer) };
        if let Some(mixer) = self.participant_mut(mixer) {
            for (slot, height) in mixer.slots.iter_mut().zip(heights) {
                slot.wish.max_height = height;
            }
        }
        if self.mixing.scene.as_ref() != Some(&scene) {
            self.mixing.scene = Some(scene.clone());
            self.tell_mixer(ToMixer::Scene(Box::new(scene)));
        }
    }

    fn seen(&self, picture: &Picture) -> Option<Seen<'_>> {
        let identity = &self.participant(picture.owner)?.identity;
        Some(Seen { is_screen: picture.is_screen, identity })
    }

    /// Who is seen, best first. Where all have equal tiles, in the order of their seats, so that nobody jumps
    /// when somebody speaks.
    fn pictures(&self) -> Vec<Picture> {
        let mut pictures = Vec::new();
        for (owner, participant) in self.seated().filter(|(_, p)| p.is_seen() && p.is_here()) {
            let shown = |source| {
                let mut tracks = participant.line_tracks.iter().flatten().copied();
                tracks.find(|&key| self.track(key).is_some_and(|t| t.source == source && t.is_shown()))
            };
            let screen = shown(Source::Screen);
            // A film is no more than its picture.
            let is_film = screen.is_some() && participant.part == Part::Player;
            if let Some(track) = screen {
                pictures.push(Picture { owner, track: Some(track), is_screen: true });
            }
            if !is_film && participant.line_tracks.iter().any(Option::is_some) {
                pictures.push(Picture { owner, track: shown(Source::Camera), is_screen: false });
            }
        }
        let spoke = |owner: ParticipantKey| {
            self.was_on_air.iter().position(|&other| other == owner).unwrap_or(self.was_on_air.len())
        };
        let by_speech = !matches!(self.state.layout, Layout::Grid) || pictures.len() > PICTURES_MAX;
        pictures.sort_by_key(|picture| {
            let spoke = if by_speech { spoke(picture.owner) } else { 0 };
            (!picture.is_screen, spoke, picture.track.is_none() && by_speech, picture.owner)
        });
        pictures
    }

    fn tile(&self, mixer: ParticipantKey, picture: &Picture, placed: &Placed) -> Option<Tile> {
        let owner = self.participant(picture.owner)?;
        let slot = picture.track.and_then(|track| self.mixer_slot(mixer, track));
        let label = if picture.is_screen { String::new() } else { owner.name.clone() };
        let serial = picture.track.and_then(|track| self.track(track)).map_or(0, |track| track.serial);
        let sound = self.sound_of(owner, picture.is_screen).and_then(|track| self.mixer_slot(mixer, track));
        Some(Tile {
            key: tile_key(picture.owner, picture.is_screen),
            slot,
            serial,
            sound,
            area: placed.area,
            fit: placed.fit,
            label,
            muted: !picture.is_screen && self.is_quiet(owner),
            speaking: !picture.is_screen && self.heard.contains(&owner.identity),
        })
    }

    /// What is heard with a picture: of a screen its own sound, where it has any.
    fn sound_of(&self, owner: &Participant, is_screen: bool) -> Option<TrackKey> {
        let with = |source| {
            let mut tracks = owner.line_tracks.iter().flatten().copied();
            tracks.find(|&track| self.track(track).is_some_and(|track| track.source == source))
        };
        is_screen.then(|| with(Source::ScreenAudio)).flatten().or_else(|| with(Source::Microphone))
    }

    /// Its microphone is off, or it has none.
    fn is_quiet(&self, owner: &Participant) -> bool {
        let tracks = owner.line_tracks.iter().flatten().filter_map(|&track| self.track(track));
        !tracks.into_iter().any(|track| track.source == Source::Microphone && !track.muted && !track.silenced)
    }

    fn mixer_slot(&self, mixer: ParticipantKey, track: TrackKey) -> Option<u16> {
        let slots = &self.participant(mixer)?.slots;
        slots.iter().position(|slot| slot.track == Some(track)).and_then(|slot| u16::try_from(slot).ok())
    }

    fn voices(&self, mixer: ParticipantKey) -> Vec<Voice> {
        let Some(mixer) = self.participant(mixer) else { return Vec::new() };
        let slots = (0u16..).zip(&mixer.slots).filter(|(_, slot)| slot.kind == Kind::Audio);
        slots
            .filter_map(|(slot, bound)| {
                let track = self.track(bound.track?)?;
                let (owner, serial) = (track.owner, track.serial);
                let minus = self.mixing.minus.get(&owner).copied();
                Some(Voice { slot, serial, key: tile_key(owner, false), minus })
            })
            .collect()
    }

    /// Tells the mixer what its encodings may use: what the best of their receivers can take, as whoever can
    /// take less has a smaller one.
    pub(super) fn tell_bitrates(&mut self) {
        let Some(settings) = self.settings.mix else { return };
        for line in [LINE_VP8, LINE_H264] {
            let Some(track) = self.mixer_track(line).and_then(|key| self.track(key)) else { continue };
            let mut best = [0_u64; 2];
            for &(subscriber, slot) in &track.subscribers {
                let Some(participant) = self.participant(subscriber) else { continue };
                let Some(slot) = participant.slots.get(usize::from(slot.0)) else { continue };
                let layer = slot.target.or(slot.current).map(|layer| usize::from(layer.encoding));
                if let Some(best) = layer.and_then(|layer| best.get_mut(layer)) {
                    *best = participant.allocator.estimate_bps().max(*best);
                }
            }
            let branches = track.relays.iter().fold(0, |mask, relay| mask | relay.encodings);
            for (index, &estimate_bps) in best.iter().enumerate() {
                let most = settings.renditions[index].bitrate_bps;
                // Who watches in a branch is not known here: they may be able to take all.
                let is_relayed = branches >> index & 1 == 1;
                let share = estimate_bps.saturating_mul(PICTURE_SHARE_PERCENT) / 100;
                if share == 0 && !is_relayed {
                    continue;
                }
                let bps = if is_relayed { most } else { share.clamp(BITRATE_MIN_BPS[index].min(most), most) };
                self.tell_bitrate(line, index as u8, bps);
            }
        }
    }

    fn tell_bitrate(&mut self, line: u8, encoding: u8, bps: u64) {
        let told = self.mixing.bitrates.get(&(line, encoding)).copied().unwrap_or(0);
        if told.abs_diff(bps) * 100 > told * CHANGE_PERCENT {
            self.mixing.bitrates.insert((line, encoding), bps);
            self.tell_mixer(ToMixer::Bitrate { line, encoding, bps });
        }
    }
}

impl Room {
    /// CSRCs of a packet of the mix (RFC 3550 §5.1): who is seen in a picture, who is heard in sound.
    pub fn contributors(&self, line: u8) -> Contributors {
        let is_picture = line < LINE_SOUND;
        let minus = self.mixing.minus.iter().find(|(_, of)| **of == line).map(|(key, _)| *key);
        let seen = || {
            let tiles = self.mixing.scene.iter().flat_map(|scene| &scene.tiles);
            tiles.map(|tile| owner_of_tile(tile.key))
        };
        let heard = || self.heard.iter().filter_map(|identity| self.by_identity.get(identity).copied());
        let keys: SmallVec<[ParticipantKey; 16]> =
            if is_picture { seen().collect() } else { heard().collect() };
        let mut csrcs = Contributors::new();
        for key in keys {
            let csrc = key.csrc();
            if Some(key) != minus && !csrcs.contains(&csrc) && csrcs.len() < CONTRIBUTORS_MAX {
                csrcs.push(csrc);
            }
        }
        csrcs
    }
}

/// Of a participant's camera and voice, or of its screen.
fn tile_key(owner: ParticipantKey, is_screen: bool) -> u32 {
    owner.0.saturating_mul(2) + u32::from(is_screen)
}

fn owner_of_tile(key: u32) -> ParticipantKey {
    ParticipantKey(key / 2)
}
