//! Chooses, packet by packet, which layers of a scalable stream go to one receiver.
//!
//! Every packet of a frame has the same fate, late ones too. A frame is never forwarded when one that it
//! needs was dropped: going down is always possible where the codec says so, going up waits for a point where
//! the codec lets a receiver begin with the higher layer. Layers come from the dependency descriptor where
//! there is one (AV1 RTP specification appendix A), else from the payload descriptor (RFC 7741, RFC 9628).

use std::sync::Arc;

use super::renumber::extend;
use crate::core::payload::dependency::{DecodeTarget, FrameDependency, Indication, Structure};
use crate::core::payload::{DependencyDescriptor, vp8, vp9};

/// The highest layers that a receiver is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    pub spatial: u8,
    pub temporal: u8,
}

impl Layers {
    /// Everything that the source sends.
    pub const ALL: Self = Self { spatial: u8::MAX, temporal: u8::MAX };
    /// One temporal layer of one spatial layer.
    pub const LOWEST: Self = Self { spatial: 0, temporal: 0 };

    fn min(self, other: Self) -> Self {
        Self { spatial: self.spatial.min(other.spatial), temporal: self.temporal.min(other.temporal) }
    }
}

/// What becomes of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) forward: bool,
    /// The packet ends the last layer that is forwarded of its picture. Where a stream goes up without a key
    /// picture, the former last layer of that one picture says so too: it came before the reason to go up.
    pub(super) ends_picture: bool,
    /// Active decode targets to tell the receiver (dependency descriptor only).
    pub(super) active: Option<u32>,
}

impl Choice {
    pub(super) const DROP: Self = Self { forward: false, ends_picture: false, active: None };
    pub(super) const FORWARD: Self = Self { forward: true, ends_picture: false, active: None };
}

#[derive(Debug, Clone)]
pub(super) struct Selector {
    target: Layers,
    pictures: PictureSelector,
    frames: FrameSelector,
}

impl Selector {
    pub(super) fn new(target: Layers) -> Self {
        Self { target, pictures: PictureSelector::new(), frames: FrameSelector::default() }
    }

    pub(super) fn set_target(&mut self, target: Layers) {
        self.target = target;
    }

    /// Forgets the source; the next one begins with a key frame.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.target);
    }

    /// The layers wished for exist but can be reached only by a key frame.
    pub(super) fn awaits_keyframe(&self) -> bool {
        self.frames.stuck || self.pictures.limit.spatial < self.target.spatial.min(self.pictures.top)
    }

    pub(super) fn choose_vp8(&mut self, id: u64, keyframe: bool, packet: &vp8::Descriptor) -> Choice {
        let target = self.target;
        let raise = packet.layer_sync.then_some(packet.temporal);
        let view = View { id, spatial: 0, temporal: packet.temporal, intra: keyframe, raise };
        let layers = self.pictures.choose(target, &view);
        if layers > 0 { Choice::FORWARD } else { Choice::DROP }
    }

    pub(super) fn choose_vp9(&mut self, id: u64, packet: &vp9::Descriptor) -> Choice {
        let target = self.target;
        let intra = !packet.inter_picture;
        let reachable = packet.temporal <= self.pictures.limit.temporal;
        let raise = (packet.switching_up && reachable).then_some(u8::MAX);
        let (spatial, temporal) = (packet.spatial, packet.temporal);
        let view = View { id, spatial, temporal, intra, raise };
        let layers = self.pictures.choose(target, &view);
        Choice { forward: spatial < layers, ends_picture: packet.ends && spatial + 1 == layers, active: None }
    }

    /// `rtp_time` tells temporal units apart.
    pub(super) fn choose_described(&mut self, rtp_time: u32, packet: &DependencyDescriptor) -> Choice {
        self.frames.choose(self.target, rtp_time, packet)
    }
}

/// What a VP8 or VP9 packet says that matters here.
struct View {
    id: u64,
    spatial: u8,
    temporal: u8,
    /// Uses no earlier picture.
    intra: bool,
    /// From this picture on, temporal layers up to this one can be taken.
    raise: Option<u8>,
}

const PICTURES: usize = 64;
/// Of a picture that was not seen yet.
const UNDECIDED: u8 = u8::MAX;
/// Spatial layers of a VP9 picture: three bits.
const SPATIAL_MAX: u8 = 7;

/// Layers by picture, for VP8 and VP9.
#[derive(Debug, Clone)]
struct PictureSelector {
    /// What was wished for when the newest picture began: a picture is not cut or raised halfway.
    target: Layers,
    limit: Layers,
    /// The limit for pictures before `since`.
    limit_before: Layers,
    since: u64,
    /// Highest spatial layer that the source sent.
    top: u8,
    newest: Option<u64>,
    /// The lowest spatial layer of which a packet of the newest picture was dropped.
    dropped_from: u8,
    /// How many spatial layers of each recent picture are forwarded, by id.
    layers: [u8; PICTURES],
}

impl PictureSelector {
    fn new() -> Self {
        let limit = Layers::LOWEST;
        let layers = [UNDECIDED; PICTURES];
        Self {
            target: limit,
            limit,
            limit_before: limit,
            since: 0,
            top: 0,
            newest: None,
            dropped_from: u8::MAX,
            layers,
        }
    }

    /// How many spatial layers of the packet's picture are forwarded.
    fn choose(&mut self, target: Layers, packet: &View) -> u8 {
        self.top = self.top.max(packet.spatial);
        let is_new = self.newest.is_none_or(|newest| packet.id > newest);
        if is_new {
            self.advance(packet.id);
            self.target = target;
            self.move_limit(target.min(self.limit), packet.id);
        }
        let slot = packet.id as usize % PICTURES;
        if self.newest == Some(packet.id) {
            self.raise(packet, is_new);
        } else if self.newest.is_some_and(|newest| newest - packet.id >= PICTURES as u64) {
            return 0;
        }
        if self.layers[slot] == UNDECIDED {
            let limit = if packet.id < self.since { self.limit_before } else { self.limit };
            let dropped = packet.temporal > limit.temporal;
            self.layers[slot] = if dropped { 0 } else { limit.spatial.min(SPATIAL_MAX) + 1 };
        }
        let layers = self.layers[slot];
        if packet.spatial >= layers && self.newest == Some(packet.id) {
            self.dropped_from = self.dropped_from.min(packet.spatial);
        }
        layers
    }

    fn raise(&mut self, packet: &View, is_new: bool) {
        let slot = packet.id as usize % PICTURES;
        // Not to a layer of which this picture has lost a packet already: the packets came out of order.
        let Some(highest) = self.dropped_from.checked_sub(1) else { return };
        let target = Layers { spatial: self.target.spatial.min(highest), ..self.target };
        if packet.intra && packet.spatial == 0 {
            self.move_limit(target, packet.id);
            self.layers[slot] = UNDECIDED;
            return;
        }
        let mut limit = self.limit;
        if let Some(raise) = packet.raise
            && is_new
        {
            limit.temporal = limit.temporal.max(raise.min(target.temporal));
        }
        // A layer that uses no earlier picture, on top of layers of this picture that all were forwarded.
        let next = limit.spatial.saturating_add(1);
        let complete_below = self.layers[slot] == next;
        if packet.intra && complete_below && packet.spatial == next && next <= target.spatial {
            limit.spatial = next;
            self.layers[slot] = next + 1;
        }
        self.move_limit(limit, packet.id);
    }

    fn move_limit(&mut self, limit: Layers, id: u64) {
        if limit != self.limit {
            (self.limit_before, self.limit, self.since) = (self.limit, limit, id);
        }
    }

    fn advance(&mut self, id: u64) {
        let first = self.newest.map_or(0, |newest| newest + 1).max(id.saturating_sub(PICTURES as u64 - 1));
        for fresh in first..=id {
            self.layers[fresh as usize % PICTURES] = UNDECIDED;
        }
        self.newest = Some(id);
        self.dropped_from = u8::MAX;
    }
}

/// Frames that are remembered, in frame numbers.
const FRAMES: u64 = u128::BITS as u64;

/// Frames by dependency descriptor.
#[derive(Debug, Clone, Default)]
struct FrameSelector {
    structure: Option<Arc<Structure>>,
    /// The newest temporal unit, and what was wished for when it began: it is not cut or raised halfway.
    unit: Option<(u32, Layers)>,
    /// The decode target that is forwarded.
    chosen: u8,
    chosen_before: u8,
    since: u64,
    newest: Option<u64>,
    /// Bit `n` is frame `newest - n`.
    forwarded: u128,
    dropped: u128,
    /// The receiver was told a set of active decode targets since the last structure.
    told: bool,
    stuck: bool,
}

impl FrameSelector {
    fn choose(&mut self, layers: Layers, rtp_time: u32, packet: &DependencyDescriptor) -> Choice {
        let reference = self.newest.unwrap_or(1 << 20);
        let id = extend(reference, u64::from(packet.frame_number), 16);
        let is_new = self.newest.is_none_or(|newest| id > newest);
        if is_new {
            let step = self.newest.map_or(FRAMES, |newest| id - newest);
            let shift = |history: u128| history.checked_shl(step.min(FRAMES) as u32).unwrap_or(0);
            (self.forwarded, self.dropped) = (shift(self.forwarded), shift(self.dropped));
            self.newest = Some(id);
        }
        let back = self.newest.map_or(0, |newest| newest - id);
        if back >= FRAMES {
            return Choice::DROP;
        }
        let Some(frame) = &packet.frame else {
            // Of a structure that has not arrived yet: its key frame may still come.
            self.remember(back, true);
            return Choice::FORWARD;
        };
        if is_new {
            if self.unit.is_none_or(|(unit, _)| unit != rtp_time) {
                self.unit = Some((rtp_time, layers));
            }
            self.retarget(packet, frame, id);
        }
        let bit = 1_u128 << back;
        let forward = if self.forwarded & bit != 0 {
            true
        } else if self.dropped & bit != 0 {
            false
        } else {
            let target = if id < self.since { self.chosen_before } else { self.chosen };
            let needed = frame.references.back & older(self.dropped, back) == 0;
            needed && frame.indications.of(target) != Indication::NotPresent
        };
        self.remember(back, forward);
        if !forward {
            return Choice::DROP;
        }
        let target = frame.structure.targets.get(usize::from(self.chosen));
        Choice {
            forward,
            ends_picture: packet.end_of_frame && target.is_some_and(|target| target.spatial == frame.spatial),
            active: self.active_to_tell(packet, frame, target),
        }
    }

    /// Moves to another decode target where this frame allows it.
    fn retarget(&mut self, packet: &DependencyDescriptor, frame: &FrameDependency, id: u64) {
        let layers = self.unit.map_or(Layers::ALL, |(_, layers)| layers);
        let structure = &frame.structure;
        let best = structure.choose(layers.spatial, layers.temporal, frame.active).unwrap_or(0);
        let known = self.structure.as_ref().is_some_and(|known| Arc::ptr_eq(known, structure));
        if !known || (packet.attached && packet.start_of_frame) {
            self.structure = Some(Arc::clone(structure));
            self.move_to(best, id);
            return;
        }
        if best == self.chosen {
            self.stuck = false;
            return;
        }
        let rank = |target: &DecodeTarget| (target.spatial, target.temporal);
        let rank_of = |index: u8| structure.targets.get(usize::from(index)).map(rank);
        let available = older(self.forwarded, 0);
        let decodable = !frame.references.beyond && frame.references.back & !available == 0;
        // Downward only to the best target itself: one below would cut off layers that may stay.
        let reachable = (0_u8..)
            .zip(&structure.targets)
            .filter(|&(index, _)| decodable && frame.indications.of(index) == Indication::Switch)
            .filter(|(index, _)| frame.active >> index & 1 == 1)
            .filter(|(_, target)| target.spatial <= layers.spatial && target.temporal <= layers.temporal)
            .filter(|&(index, target)| index == best || Some(rank(target)) > rank_of(self.chosen))
            .max_by_key(|(_, target)| rank(target))
            .map(|(index, _)| index);
        if let Some(index) = reachable {
            self.move_to(index, id);
        }
        self.stuck = self.chosen != best;
    }

    fn move_to(&mut self, target: u8, id: u64) {
        self.stuck = false;
        if target != self.chosen {
            (self.chosen_before, self.chosen, self.since) = (self.chosen, target, id);
        }
    }

    fn remember(&mut self, back: u64, forward: bool) {
        let bit = 1_u128 << back.min(FRAMES - 1);
        if forward {
            self.forwarded |= bit;
        } else {
            self.dropped |= bit;
        }
    }

    /// A smaller set is told in every packet, so that no loss hides it; a set that is whole again is told
    /// until the next structure, which implies it (section A.4).
    fn active_to_tell(
        &mut self,
        packet: &DependencyDescriptor,
        frame: &FrameDependency,
        target: Option<&DecodeTarget>,
    ) -> Option<u32> {
        let covered = frame.active & target.map_or(u32::MAX, |target| target.covers);
        if covered != frame.active {
            self.told = true;
        } else if packet.attached {
            self.told = false;
        }
        self.told.then_some(covered)
    }
}

/// Bit `n` of the result is the frame `n + 1` before the one that lies `back` behind the newest.
fn older(history: u128, back: u64) -> u128 {
    history.checked_shr(back as u32 + 1).unwrap_or(0)
}
