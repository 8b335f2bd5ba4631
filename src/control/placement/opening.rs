//! Rooms that open, by what this node won, and those that go.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::wishes::{Resumed, Wish, Wishes};
use super::super::workers::mix_settings;
use super::super::{NewRoom, overloaded};
use super::{OpenRoom, Placement, unix_ms};
use crate::cluster::Won;
use crate::core::event::{Event, EventBody};
use crate::core::ids::{RoomName, ShardId};
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
    #[serde(default, skip_serializing_if = "Wishes::is_none")]
    wishes: Wishes,
}

impl Kept {
    fn of(open: &OpenRoom) -> String {
        let kept = Self { state: open.settings.state.clone(), wishes: open.wishes.clone() };
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
            self.open(state.clone(), Wishes::default(), new.first_is_admin, &won)?;
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
        let asks = self.config.recordings.ask_consent;
        let consent =
            new.recording_consent.unwrap_or(if asks { ConsentRule::Ask } else { ConsentRule::Notice });
        Ok(RoomState {
            mode: new.mode,
            e2ee: new.e2ee,
            access: new.access,
            lobby: new.lobby,
            recording_consent: consent,
            ..RoomState::new(name.clone(), participants_max, unix_ms())
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

    fn open(
        &mut self,
        state: RoomState,
        wishes: Wishes,
        first_is_admin: bool,
        won: &Won,
    ) -> Result<ShardId, Refusal> {
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
        let (epoch, branches, trace) = (won.epoch, BTreeSet::new(), won.trace.clone());
        let open = OpenRoom { epoch, home: shard, branches, settings, wishes, trace };
        self.cluster.opened(&name, won, Kept::of(&open));
        self.rooms.insert(name, open);
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
        let kept =
            won.settings.as_deref().map(serde_json::from_str::<Kept>).transpose().map_err(|error| {
                // Rather not at all than open to all what was private.
                tracing::error!(room = %room, %error, "a room's settings are of a newer version");
                Refusal::new(Code::Unavailable, "a newer version has to go on with this room: try again")
            })?;
        let (state, wishes, first_is_admin) = match kept.filter(|kept| kept.state.name == *room) {
            // What is wished for is begun again. Who came first came there; an owner comes back by its seat.
            Some(Kept { state, wishes }) => {
                let gone =
                    RoomState { has_backdrop: false, hls: false, restreams: 0, recording: None, ..state };
                (gone, wishes, false)
            }
            None => (self.new_state(room, &NewRoom::default())?, Wishes::default(), true),
        };
        self.open(state, wishes.clone(), first_is_admin, won)?;
        let (room, resumed) = (room.clone(), self.resumed.get().filter(|_| !wishes.is_none()));
        if resumed.is_some_and(|resumed| resumed.send(Resumed { room, wishes }).is_err()) {
            tracing::warn!("too many rooms come at once: what one of them had at another node is not begun");
        }
        Ok(())
    }

    /// Keeps what another node would need in step with the room.
    pub(super) fn note_change(&mut self, event: &Event) {
        if let EventBody::RoomChanged { change, .. } = &event.body
            && let Some(open) = self.rooms.get_mut(&event.room)
        {
            change.apply(&mut open.settings.state);
            self.cluster.changed(&event.room, Kept::of(open));
        }
        if let Some(wish) = Wish::of(&event.body) {
            self.note_wish(&event.room, wish);
        }
    }

    pub(super) fn note_wish(&mut self, room: &RoomName, wish: Wish) {
        if let Some(open) = self.rooms.get_mut(room)
            && open.wishes.apply(wish)
        {
            self.cluster.changed(room, Kept::of(open));
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
