//! Which layer of its track each slot gets, which layers publishers may rest, and when to ask for key frames.

use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};

use super::{Audience, Output, ParticipantKey, Room, TrackKey};
use crate::core::ids::Identity;
use crate::core::layers::{Demand, LayerOffer, Priority};
use crate::core::participant::{Layer, Part, Participant, Slot};
use crate::core::payload::Codec;
use crate::core::protocol::{Kind, ServerMessage, SlotStats, Source};
use crate::core::relay::{Downstream, Upstream};
use crate::core::track::{Encoding, Track};

/// An encoding that nobody took for so long is rested at its publisher.
const REST_AFTER: Duration = Duration::from_secs(2);
/// What an encoding of unknown size is taken for, by its place from the top: 720, 360, 180 lines.
const HEIGHT_TOP_DEFAULT: u32 = 720;

/// What a slot waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    Keyframe,
    /// It gets nothing yet: a replay may do.
    Beginning {
        estimate_bps: u64,
    },
    /// That it comes at all, whenever its publisher can.
    Awake,
}

impl Need {
    fn of(slot: &Slot, estimate_bps: u64) -> Self {
        if slot.current.is_none() { Self::Beginning { estimate_bps } } else { Self::Keyframe }
    }
}

impl Room {
    /// The estimator of a participant's connection has news.
    pub fn handle_estimate(&mut self, now: Instant, key: ParticipantKey, estimate_bps: u64) {
        if let Some(participant) = self.participant_mut(key) {
            participant.allocator.handle_estimate(now, estimate_bps);
        }
        self.allocate(now, key);
        self.tell_slots(key);
    }

    /// A participant's decoder needs a key frame in one of its slots (PLI or FIR).
    pub fn handle_keyframe_request(&mut self, now: Instant, key: ParticipantKey, slot: u16) {
        let Some(participant) = self.participant(key) else { return };
        let Some(slot) = participant.slots.get(usize::from(slot)) else { return };
        let need = Need::of(slot, participant.allocator.estimate_bps());
        if let Some((track, layer)) = slot.track.zip(slot.current.or(slot.target)) {
            self.want_keyframe(now, track, layer.encoding, need);
        }
    }

    pub(super) fn allocate_all(&mut self, now: Instant) {
        for key in self.keys() {
            self.allocate(now, key);
            self.tell_slots(key);
        }
    }

    /// Chooses anew for one participant.
    pub(super) fn allocate(&mut self, now: Instant, key: ParticipantKey) {
        let Room { participants, tracks, on_air, .. } = self;
        let Some(participant) = participants.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        if !participant.is_connected {
            // What is sent before is lost: it begins with a key frame once the connection stands.
            return;
        }
        let lowest = participant.grant.lowest_layer;
        let mut audio_bps = 0;
        let mut offered = Vec::new();
        for (index, slot) in participant.slots.iter_mut().enumerate() {
            let Some(track) = slot.track.and_then(|track| tracks.get_mut(track.0 as usize)?.as_mut()) else {
                continue;
            };
            if slot.kind == Kind::Audio {
                audio_bps += slot.rate.bps(now);
                slot.target = Some(Layer { encoding: 0, spatial: u8::MAX });
                continue;
            }
            if track.is_hushed() {
                // It begins anew: what is asked for meanwhile would be given up on.
                (slot.target, slot.current) = (None, None);
                continue;
            }
            let layers = offers_to(now, slot, track, lowest);
            offered.push((index, priority(slot, track, *on_air), layers));
        }
        let demands: Vec<Demand<'_, usize>> = offered
            .iter()
            .map(|(index, priority, layers)| {
                let Slot { wish, current, .. } = &participant.slots[*index];
                let current = current.map(|layer| usize::from(layer.index()));
                let max_height = wish.max_height;
                Demand { slot: *index, priority: *priority, max_height, current, layers }
            })
            .collect();
        let allocation = participant.allocator.allocate(now, audio_bps, &demands);
        let estimate_bps = participant.allocator.estimate_bps();
        let mut wanted = Vec::new();
        for (index, choice) in allocation.choices {
            let slot = &mut participant.slots[index];
            let Some(track_key) = slot.track else { continue };
            let Some(track) = tracks.get(track_key.0 as usize).and_then(Option::as_ref) else { continue };
            slot.target = choice.map(|layer| Layer::of(layer, track.encodings.len() == 1));
            match participant.part {
                _ if track.encodings.len() == 1 => {}
                Part::Recorder => take_best_that_flows(now, (track_key, track), slot, &mut wanted),
                _ => begin_with_what_flows(now, (track_key, track), slot, &mut wanted),
            }
            let Some(target) = slot.target else {
                slot.current = None;
                continue;
            };
            let waits = slot.current.is_none_or(|current| current.encoding != target.encoding);
            if waits || slot.rewriter.awaits_source() || slot.rewriter.awaits_keyframe() {
                wanted.push((track_key, target.encoding, Need::of(slot, estimate_bps)));
            }
        }
        let goal = (allocation.next_bps, allocation.desired_bps);
        if std::mem::replace(&mut participant.goal, goal) != goal {
            self.outputs.push_back(Output::SetGoal { to: key, next_bps: goal.0, desired_bps: goal.1 });
        }
        for (track, encoding, need) in wanted {
            self.want_keyframe(now, track, encoding, need);
        }
    }

    pub(super) fn want_keyframe(&mut self, now: Instant, track_key: TrackKey, index: u8, need: Need) {
        let Some(track) = self.track_mut(track_key) else { return };
        if track.kind() == Kind::Audio {
            return;
        }
        let (from, mid) = (track.owner, track.mid);
        let Some(encoding) = track.encodings.get_mut(usize::from(index)) else { return };
        let woken = !encoding.told_active;
        if woken {
            encoding.wake(now);
        }
        encoding.idle_since = None;
        match need {
            Need::Keyframe => encoding.want_keyframe(),
            Need::Beginning { estimate_bps } => encoding.want_beginning(now, estimate_bps),
            Need::Awake => {}
        }
        let asked = encoding.poll_keyframe_request(now).then_some(encoding.rid);
        if let Some(rid) = asked {
            self.ask_keyframe(from, mid, rid);
        }
        if woken {
            self.tell_layers(track_key);
        }
    }

    /// Asks again for key frames that did not come, and rests layers that nobody takes.
    pub(super) fn poll_encodings(&mut self, now: Instant) {
        for index in 0..self.tracks.len() {
            let key = TrackKey(index as u32);
            let taken = self.taken(key);
            let owner = self.track(key).and_then(|track| self.participant(track.owner));
            // What need not cross to another node does not, even if it is the only encoding.
            let crosses = owner.is_some_and(|owner| owner.is_mirrored() || owner.via.is_some());
            let Some(track) = self.track_mut(key) else { continue };
            if track.kind() == Kind::Audio {
                continue;
            }
            let (from, mid) = (track.owner, track.mid);
            let mut requests = Vec::new();
            let mut rested = false;
            let can_rest = track.encodings.len() > 1 || crosses;
            for (encoding, taken) in track.encodings.iter_mut().zip(taken) {
                encoding.replay.handle_timeout(now);
                if encoding.poll_keyframe_request(now) {
                    requests.push(encoding.rid);
                }
                if taken {
                    encoding.idle_since = None;
                    continue;
                }
                let idle_since = *encoding.idle_since.get_or_insert(now);
                let rest = now.saturating_duration_since(idle_since) >= REST_AFTER;
                if can_rest && encoding.told_active && rest {
                    encoding.rest(now);
                    rested = true;
                }
            }
            for rid in requests {
                self.ask_keyframe(from, mid, rid);
            }
            if rested {
                self.tell_layers(key);
            }
        }
        self.tell_stats(now);
    }

    /// Which encodings of a track somebody gets or waits for.
    pub(super) fn taken(&self, key: TrackKey) -> Vec<bool> {
        let Some(track) = self.track(key) else { return Vec::new() };
        let mut taken = vec![false; track.encodings.len()];
        for &(subscriber, slot) in &track.subscribers {
            let slot = self.participant(subscriber).and_then(|p| p.slots.get(usize::from(slot.0)));
            for layer in slot.into_iter().flat_map(|slot| [slot.current, slot.target]).flatten() {
                if let Some(taken) = taken.get_mut(usize::from(layer.encoding)) {
                    *taken = true;
                }
            }
        }
        for relay in &track.relays {
            for (index, taken) in taken.iter_mut().enumerate().take(u32::BITS as usize) {
                *taken |= relay.encodings >> index & 1 == 1;
            }
        }
        taken
    }

    /// Asks whoever sends the track: its publisher, or the home that has it, or the branch that has a lodger.
    fn ask_keyframe(&mut self, from: ParticipantKey, mid: Mid, rid: Option<Rid>) {
        if self.mixer_seat() == Some(from) {
            return self.ask_mixer_for_keyframe(mid, rid);
        }
        let Some(participant) = self.participant(from) else { return };
        let is_mirrored = participant.is_mirrored();
        self.outputs.push_back(match (participant.origin.filter(|_| is_mirrored), participant.via) {
            (Some(seat), _) => Output::Upstream(Upstream::Keyframe { seat, mid, rid }),
            (None, Some(to)) => {
                Output::Downstream { to, news: Downstream::Keyframe { seat: from, mid, rid } }
            }
            (None, None) => Output::RequestKeyframe { from, mid, rid },
        });
    }

    fn tell_layers(&mut self, key: TrackKey) {
        let Some(track) = self.track(key) else { return };
        if self.mixer_seat() == Some(track.owner) {
            return self.tell_wanted();
        }
        if self.participant(track.owner).is_some_and(Participant::is_mirrored) {
            return self.demand(key);
        }
        if self.participant(track.owner).is_some_and(|owner| owner.via.is_some()) {
            return self.demand_later(key);
        }
        let active = track.encodings.iter().filter(|encoding| encoding.told_active);
        let active = active.filter_map(|encoding| encoding.rid.map(|rid| rid.to_string())).collect();
        let (owner, mid) = (track.owner, track.mid.to_string());
        self.tell(Audience::One(owner), ServerMessage::Layers { mid, active });
    }

    /// After a welcome: the publisher may have missed what was said before.
    pub(super) fn tell_layers_to(&mut self, key: ParticipantKey) {
        let tracks = self.participant(key).map(|p| p.line_tracks.clone()).unwrap_or_default();
        for track in tracks.into_iter().flatten() {
            if self.track(track).is_some_and(|track| track.encodings.len() > 1) {
                self.tell_layers(track);
            }
        }
    }

    /// Takes note of who speaks: rebinds slots and tells all.
    pub(super) fn poll_speakers(&mut self, now: Instant) {
        if let Some(change) = self.speakers.poll(now)
            && let Some(owner) = change.to.and_then(|track| self.track(track)).map(|track| track.owner)
        {
            self.on_air = Some(owner);
            self.was_on_air.retain(|&other| other != owner);
            self.was_on_air.insert(0, owner);
            self.stale_slots();
        }
        if self.speakers.loudest() != self.loudest {
            self.loudest = self.speakers.loudest().to_vec();
            self.stale_slots();
        }
        let owners = self.speakers.speaking(now).into_iter().filter_map(|track| self.track(track));
        let mut heard: Vec<Identity> = Vec::new();
        for owner in owners.filter_map(|track| self.participant(track.owner)) {
            if !heard.contains(&owner.identity) {
                heard.push(owner.identity.clone());
            }
        }
        if heard != self.heard {
            self.heard.clone_from(&heard);
            self.tell(Audience::All, ServerMessage::Speakers { speakers: heard });
        }
    }

    fn tell_stats(&mut self, now: Instant) {
        let due =
            |p: &Participant| p.watches_stats && p.stats_told_at.is_none_or(|at| now >= at + STATS_INTERVAL);
        let watchers: Vec<_> = self.seated().filter(|(_, p)| due(p)).map(|(key, _)| key).collect();
        for key in watchers {
            let Room { participants, tracks, .. } = self;
            let Some(participant) = participants.get_mut(key.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            participant.stats_told_at = Some(now);
            let estimate_bps = participant.allocator.estimate_bps();
            let slots = participant.slots.iter_mut().map(|slot| {
                let track = slot.track.and_then(|track| tracks.get(track.0 as usize)?.as_ref());
                SlotStats {
                    mid: slot.mid.to_string(),
                    layer: track.and_then(|track| layer_name(track, slot.current)),
                    bitrate_bps: slot.rate.bps(now),
                }
            });
            let slots = slots.collect();
            self.tell(Audience::One(key), ServerMessage::Stats { estimate_bps, slots });
        }
    }
}

/// How often the stats panel hears from us.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// The RID, or `s` and the spatial layer, of what flows.
pub(super) fn layer_name(track: &Track, layer: Option<Layer>) -> Option<String> {
    let layer = layer?;
    let encoding = track.encodings.get(usize::from(layer.encoding))?;
    Some(match encoding.rid {
        Some(rid) => rid.to_string(),
        None => format!("s{}", usize::from(layer.spatial).min(encoding.spatial_layers - 1)),
    })
}

/// What a recording gets of simulcast: the best that flows, and nothing is waited for. A publisher may take
/// seconds to send a layer again that it rested, and what was not recorded meanwhile is lost.
fn take_best_that_flows(
    now: Instant,
    (key, track): (TrackKey, &Track),
    slot: &mut Slot,
    wanted: &mut Vec<(TrackKey, u8, Need)>,
) {
    let newest = track.encodings.iter().filter_map(Encoding::heard_at).max();
    let flows = |index: &usize| track.encodings[*index].flows(now, newest);
    let best = (0..track.encodings.len()).rev().find(flows).map(|index| Layer::of(index, false));
    let has_begun = slot.current.is_some();
    // Where none does, the lowest comes first: a sender that wakes all at once takes longest for it.
    slot.target = best.or(slot.current).or(Some(Layer::of(0, false)));
    let next = slot.target.map_or(0, |target| target.encoding + 1);
    let better = (next..track.encodings.len() as u8).filter(|_| has_begun);
    wanted.extend(better.map(|encoding| (key, encoding, Need::Awake)));
}

/// A slot that gets nothing yet does not wait for an encoding that may take its publisher seconds to send: it
/// begins with the best below it that flows, and where none does with the lowest, which comes first. What was
/// meant is woken beside the one that flows; beside one that is woken too it would only hold it up.
fn begin_with_what_flows(
    now: Instant,
    (key, track): (TrackKey, &Track),
    slot: &mut Slot,
    wanted: &mut Vec<(TrackKey, u8, Need)>,
) {
    let Some(meant) = slot.target.map(|target| target.encoding).filter(|_| slot.current.is_none()) else {
        return;
    };
    let newest = track.encodings.iter().filter_map(Encoding::heard_at).max();
    let flows = |index: &u8| track.encodings[usize::from(*index)].flows(now, newest);
    if meant == 0 || flows(&meant) {
        return;
    }
    let flowing = (0..meant).rev().find(flows);
    let first = flowing.or_else(|| Some(0).filter(|_| track.encodings[0].is_alive(now)));
    let Some(first) = first else { return };
    slot.target = Some(Layer::of(first.into(), false));
    if flowing.is_some() {
        wanted.push((key, meant, Need::Awake));
    }
}

fn priority(slot: &Slot, track: &Track, on_air: Option<ParticipantKey>) -> Priority {
    if slot.wish.pinned.is_some() || track.source == Source::Screen {
        Priority::Pinned
    } else if on_air == Some(track.owner) {
        Priority::Speaker
    } else {
        Priority::Other
    }
}

/// What there is of a track for this slot; `lowest` where its participant gets no more than that.
fn offers_to(now: Instant, slot: &Slot, track: &mut Track, lowest: bool) -> Vec<LayerOffer> {
    let mut layers = offers(now, track);
    if !slot.described && track.format.is_some_and(|format| format.codec == Codec::Av1) {
        layers.truncate(track.encodings.len());
    }
    if lowest {
        layers.truncate(1);
    }
    layers
}

/// What there is of a track. One that has gone quiet altogether, such as a screen where nothing moves or a
/// busy sender, is still on offer as it was last heard: its viewers keep their picture and go on without a
/// key frame.
fn offers(now: Instant, track: &mut Track) -> Vec<LayerOffer> {
    let mut offers = sent_offers(now, track);
    if offers.iter().all(|offer| !offer.alive) {
        let heard = track.encodings.iter().enumerate().filter(|(_, encoding)| encoding.heard_at().is_some());
        if let Some((last, _)) = heard.max_by_key(|(_, encoding)| encoding.heard_at()) {
            let single = track.encodings.len() == 1;
            let quiet = offers.iter_mut().enumerate().filter(|(index, _)| single || *index == last);
            quiet.for_each(|(_, offer)| offer.alive = true);
        }
    }
    offers
}

fn sent_offers(now: Instant, track: &mut Track) -> Vec<LayerOffer> {
    let top = track.height_told.unwrap_or(HEIGHT_TOP_DEFAULT);
    let count = track.encodings.len();
    if let [single] = track.encodings.as_mut_slice() {
        let alive = single.is_alive(now);
        let layers = single.spatial_layers;
        let mut bitrate_bps = 0;
        return (0..layers)
            .map(|spatial| {
                bitrate_bps += single.layer_rates[spatial].bps(now);
                let size = single.sizes[spatial].map(|size| u32::from(size.height));
                LayerOffer { height: size.unwrap_or(top >> (layers - 1 - spatial)), bitrate_bps, alive }
            })
            .collect();
    }
    let encodings = track.encodings.iter_mut().enumerate();
    encodings
        .map(|(index, encoding)| LayerOffer {
            height: encoding.height().unwrap_or(top >> (count - 1 - index)),
            bitrate_bps: encoding.rate.bps(now),
            alive: encoding.is_alive(now),
        })
        .collect()
}

#[cfg(test)]
mod tests;
