//! Rooms that open, by what this node won, and those that go.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::workers::mix_settings;
use super::super::{NewRoom, overloaded};
use super::{OpenRoom, Placement, unix_ms};
use crate::cluster::Won;
use crate::core::event::{Event, EventBody};
use crate::core::ids::{RoomName, ShardId};
use crate::core::mix::colour::Colour;
use crate::core::mix::layout::Layout;
use crate::core::placement::NodeLoad;
use crate::core::protocol::{Mode, RoomState};
use crate::core::recording::ConsentRule;
use crate::core::refusal::{Code, Refusal};
use crate::core::room::{Settings, no_mix_of_ciphertext};
use crate::media::shard::{Command, RoomCommand};

/// What another node needs to know of a room to go on with it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    state: RoomState,
}

impl Kept {
    fn of(settings: &Settings) -> String {
        let kept = Self { state: settings.state.clone() };
        // Plain data always has a JSON form.
        serde_json::to_string(&kept).unwrap_or_default()
    }
}

impl Placement {
    pub(super) fn create(&mut self, new: NewRoom, won: Option<Won>) -> Result<RoomState, Refusal> {
        let name = match (new.name.clone(), &won) {
            (Some(name), Some(Won { settings: None, .. })) if !self.rooms.contains_key(&name) => name,
            (name, _) => {
                if let (Some(name), Some(won)) = (name, won) {
                    // It waits for those who were in it when its node went.
                    self.cluster.give_up(&name, won.epoch, false);
                }
                return Err(Refusal::new(Code::RoomExists, "a room of this name is open: choose another"));
            }
        };
        let Some(won) = won else { return Err(overloaded()) };
        let made = self.new_state(&name, &new).and_then(|state| {
            self.open(state.clone(), new.first_is_admin, &won)?;
            Ok(state)
        });
        if made.is_err() {
            self.cluster.give_up(&name, won.epoch, true);
        }
        made
    }

    fn new_state(&self, name: &RoomName, new: &NewRoom) -> Result<RoomState, Refusal> {
        self.admit()?;
        if new.mode == Mode::Mcu && new.e2ee {
            return Err(no_mix_of_ciphertext());
        }
        if new.mode == Mode::Mcu && self.mixers.is_none() {
            return Err(Refusal::new(Code::Unavailable, "this node has no mixer: make the room in SFU mode"));
        }
        let ceiling = self.config.limits.participants_per_room;
        let participants_max = new.participants_max.unwrap_or(ceiling);
        if !(1..=ceiling).contains(&participants_max) {
            let words = format!("participants_max is from 1 to {ceiling} on this node");
            return Err(Refusal::new(Code::Malformed, words));
        }
        Ok(RoomState {
            name: name.clone(),
            mode: new.mode,
            layout: Layout::default(),
            background: Colour::default(),
            has_backdrop: false,
            e2ee: new.e2ee,
            access: new.access,
            locked: false,
            lobby: new.lobby,
            participants_max,
            hls: false,
            restreams: 0,
            opened_at_ms: unix_ms(),
            recording: None,
            recording_consent: new.recording_consent.unwrap_or(if self.config.recordings.ask_consent {
                ConsentRule::Ask
            } else {
                ConsentRule::Notice
            }),
        })
    }

    /// No new room: the node drains, or has as many as it may.
    fn admit(&self) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::new(Code::Draining, "this node is going down: join on another"));
        }
        let max = self.config.limits.rooms;
        if self.rooms.len() >= max as usize {
            return Err(Refusal::new(
                Code::NodeFull,
                format!("this node has {max} rooms, the most it takes"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, state: RoomState, first_is_admin: bool, won: &Won) -> Result<ShardId, Refusal> {
        let (limits, rooms) = (&self.config.limits, &self.config.rooms);
        let name = state.name.clone();
        let settings = Settings {
            epoch: won.epoch,
            publishers_max: limits.publishers_per_room,
            viewers_max: limits.viewers_per_room,
            video_bps_max: limits.video_bps_max,
            messages_per_second: limits.messages_per_second,
            chat_chars_max: limits.chat_chars_max,
            empty_after: Duration::from_secs(rooms.empty_seconds),
            resume_within: Duration::from_secs(rooms.resume_seconds),
            initial_estimate_bps: self.config.media.initial_estimate_bps,
            first_is_admin,
            mix: self.mixers.as_ref().map(|_| mix_settings(&self.config.mcu)),
            may_record: self.recordings.is_some(),
            state,
        };
        let shard = self.least_busy();
        self.send(shard, Command::Open(Box::new(settings.clone())))?;
        self.cluster.opened(&name, won, Kept::of(&settings));
        let epoch = won.epoch;
        self.rooms.insert(name, OpenRoom { epoch, home: shard, branches: BTreeSet::new(), settings });
        self.rooms_on[usize::from(shard.0)] += 1;
        self.count_rooms();
        Ok(shard)
    }

    /// Opens a room for its first newcomer, as it was left if it was open before.
    pub(super) fn open_for(&mut self, room: &RoomName, won: &Won) -> Result<(), Refusal> {
        if self.rooms.contains_key(room) {
            // The shard has not closed it yet since another node had it.
            return Err(overloaded());
        }
        self.admit()?;
        let kept = won.settings.as_deref().and_then(|kept| serde_json::from_str::<Kept>(kept).ok());
        let (state, first_is_admin) = match kept.filter(|kept| kept.state.name == *room) {
            // Pictures, streams and recordings stay with the node that had them. Who came first came there;
            // an owner comes back by its seat.
            Some(kept) => {
                let gone = RoomState {
                    has_backdrop: false,
                    hls: false,
                    restreams: 0,
                    recording: None,
                    ..kept.state
                };
                (gone, false)
            }
            None => (self.new_state(room, &NewRoom::default())?, true),
        };
        self.open(state, first_is_admin, won).map(drop)
    }

    /// Keeps what another node would need in step with the room.
    pub(super) fn note_change(&mut self, event: &Event) {
        if let EventBody::RoomChanged { change, .. } = &event.body
            && let Some(open) = self.rooms.get_mut(&event.room)
        {
            change.apply(&mut open.settings.state);
            self.cluster.changed(&event.room, Kept::of(&open.settings));
        }
    }

    /// Has shards close the rooms that other nodes have, until they have done so.
    pub(super) fn drop_lost(&mut self) {
        let rooms = &self.rooms;
        self.lost.retain(|room, epoch| rooms.get(room).is_some_and(|open| open.epoch == *epoch));
        for room in self.lost.keys() {
            if let Some(open) = self.rooms.get(room) {
                // A shard that is overrun is told again in a second.
                let _ = self.send(open.home, Command::InRoom(room.clone(), RoomCommand::Move));
            }
        }
    }

    pub(super) fn tell_load(&self) {
        let loads = self.loads.iter();
        let busy: f64 = loads.clone().map(|load| load.busy).sum();
        self.cluster.measured(NodeLoad {
            cpu: busy / self.loads.len().max(1) as f64,
            egress_bps: loads.clone().map(|load| load.egress_bps).sum(),
            packets_per_second: loads.clone().map(|load| load.packets_per_second).sum(),
            peers: loads.map(|load| load.peers).sum(),
        });
    }
}
