//! Rooms that spread over nodes: branches here of rooms that others hold, and branches of ours given to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::placement::{Newcomer, Place, Placement};
use super::{Control, Sent, overloaded};
use crate::cluster::relay::{BranchAsk, BranchGiven, Far};
use crate::core::ids::{RoomName, SessionId, ShardId, Site};
use crate::core::refusal::{Code, Refusal};
use crate::core::relay::Cargo;
use crate::core::relay::wire::Reason;
use crate::core::room::Settings;
use crate::core::spread::{Comer, hosts_branch, node_for};
use crate::mailbox::{ControlSender, Inlet};
use crate::media::relay::{Freight, Relay};
use crate::media::shard::{self, Command, RoomCommand};

/// Says whether a room stays on its node, for what only others know: that it costs money.
pub type Confined = Arc<dyn Fn(&RoomName) -> bool + Send + Sync>;

/// A room that another node holds, as the control loop knows it.
pub(super) struct FarRoom {
    far: Far,
    /// Where members are.
    first: ShardId,
    shards: BTreeSet<ShardId>,
}

impl Control {
    /// Rooms for which this is true stay on their node from now on.
    pub fn confine(&self, confined: Confined) {
        // It is said once, at the start.
        let _ = self.confined.set(confined);
    }

    /// This node has a branch of a room that another holds.
    pub fn has_branch(&self, room: &RoomName) -> bool {
        self.links.as_ref().is_some_and(|links| links.far(room).is_some())
    }

    /// How clients reach this very node; empty where it is alone and nothing says so.
    pub fn own_url(&self) -> String {
        self.cluster.record().url
    }

    /// The branch by which somebody is served here, in a room of another node. `None`: that node serves it,
    /// or nobody can say.
    pub(super) async fn branch_for(&self, newcomer: &Newcomer) -> Option<Far> {
        let links = self.links.as_ref()?;
        let comer = newcomer.comer.filter(|_| newcomer.sent != Some(Sent::ToHome))?;
        let room = &newcomer.room;
        if !self.is_open_to_all() {
            return None;
        }
        if let Some(session) = newcomer.resume {
            let known = links.far(room)?;
            // A member's seat is at the home, wherever it was connected; a viewer's is in its branch.
            let is_of_branch = match comer {
                Comer::Viewer => true,
                _ => session.is_of_lodger() && !self.is_nobodys(room).await,
            };
            return Some(known).filter(|_| is_of_branch);
        }
        let (home, epoch) = self.cluster.home_node(room).await.ok()??;
        let here = self.cluster.record();
        let known = links.far(room);
        let is_asked = newcomer.sent == Some(Sent::ToBranch);
        if home.relay.is_none() || !hosts_branch(comer, &here, &home, known.is_some(), is_asked) {
            return None;
        }
        if known.is_some() {
            return known;
        }
        let _claiming = self.cluster.claiming(room).await;
        match links.open(room, &home, epoch).await {
            Ok(far) => Some(far),
            Err(error) => {
                tracing::info!(room = %room, home = %home.id, %error, "no branch: people go to the home");
                None
            }
        }
    }

    /// No node has the room: whoever comes has it opened.
    async fn is_nobodys(&self, room: &RoomName) -> bool {
        matches!(self.cluster.home_node(room).await, Ok(None))
    }

    /// Where one who comes into a room of this node is better served: another node of its region, as this one
    /// has much to do. `None`: here.
    pub(super) fn better_for(&self, newcomer: &Newcomer) -> Option<String> {
        let comer = newcomer.comer.filter(|_| newcomer.sent.is_none() && newcomer.resume.is_none())?;
        if self.links.is_none() || self.stays(&newcomer.room) {
            return None;
        }
        let others = self.cluster.others();
        node_for(comer, &self.cluster.record(), &others).map(|node| node.url.clone())
    }

    fn stays(&self, room: &RoomName) -> bool {
        self.confined.get().is_some_and(|confined| confined(room))
    }

    /// Whether a branch may serve people of a room here that another node holds.
    pub fn may_serve(&self, room: &RoomName) -> bool {
        self.links.is_some() && !self.stays(room)
    }
}

impl Placement {
    /// Gives another node a branch of a room that this one holds.
    pub(super) fn give_branch(&mut self, ask: BranchAsk) {
        let BranchAsk { room, epoch, id, queue, reply } = ask;
        let given = self.branch_given(&room, epoch).and_then(|(home, settings)| {
            let relays = self.shard(home).relays();
            let link = Relay {
                room: room.clone(),
                epoch,
                from: Site::Far(id),
                freight: Freight::FarLink(id, queue),
            };
            relays.send(link).map_err(|_| Reason::Busy)?;
            let inlet = inlet(relays, room.clone(), epoch, Site::Far(id));
            Ok(BranchGiven { state: settings.state.clone(), inlet })
        });
        // Whoever asked may have given up; its stream ends, and the branch with it.
        let _ = reply.send(given);
    }

    fn branch_given(&self, room: &RoomName, epoch: u64) -> Result<(ShardId, &Settings), Reason> {
        let open = self.rooms.get(room).ok_or(Reason::NotHome)?;
        if open.epoch != epoch || self.lost.contains_key(room) {
            return Err(Reason::OtherEpoch);
        }
        if self.confined.get().is_some_and(|confined| confined(room)) {
            return Err(Reason::Confined);
        }
        if self.draining {
            return Err(Reason::Busy);
        }
        Ok((open.home, &open.settings))
    }

    /// Members of other nodes' rooms are to join elsewhere, as this node goes down.
    pub(super) fn send_lodgers_on(&self) {
        for (room, known) in &self.fars {
            for shard in &known.shards {
                // One that is overrun has its people go with the node, a little later.
                let _ = self.send(*shard, Command::InRoom(room.clone(), RoomCommand::Move));
            }
        }
    }

    /// Seats a viewer, or connects a member, in a branch of another node's room.
    pub(super) fn place_far(&mut self, newcomer: &Newcomer, far: Far) -> Result<Place, Refusal> {
        if self.draining {
            return Err(Refusal::new(Code::Draining, "this node is going down: join on another"));
        }
        if !self.cluster.admits_joins() {
            return Err(Refusal::new(Code::NodeFull, "this node has no room for more people"));
        }
        self.cluster.joined();
        let room = &newcomer.room;
        let known = self.fars.get(room).filter(|known| known.far.id == far.id);
        let shard = match (newcomer.resume, known) {
            (Some(session), Some(known)) => known.shard_of(session).ok_or_else(super::no_room)?,
            (Some(session), None) => self.shard_named(session).ok_or_else(super::no_room)?,
            _ => self.shard_for_far(newcomer, known),
        };
        let settings = Box::new(self.far_settings(&far));
        let (epoch, opened_at_ms) = (far.epoch, far.state.opened_at_ms);
        // It may have closed just now, so it is attached and opened each time: one that is open stays.
        let relays = self.shard(shard).relays();
        far.attach(shard, inlet(relays, room.clone(), epoch, Site::Far(far.id))).map_err(|_| overloaded())?;
        let home = shard::Home::Far(far.id, far.queue(shard));
        self.send(shard, Command::OpenBranch { settings, home })?;
        match self.fars.get_mut(room).filter(|known| known.far.id == far.id) {
            Some(known) => {
                known.shards.insert(shard);
            }
            // The one before is over.
            None => {
                self.fars
                    .insert(room.clone(), FarRoom { far, first: shard, shards: BTreeSet::from([shard]) });
            }
        }
        self.seated_since[usize::from(shard.0)] += 1;
        Ok(Place { in_branch: true, ..self.place_on(shard, epoch, opened_at_ms) })
    }

    /// For a viewer the shard with a branch that has least to do, while that is not too much; else the one
    /// with least. Members stay together, as at home, so that what they send each other stays on this node.
    fn shard_for_far(&self, newcomer: &Newcomer, known: Option<&FarRoom>) -> ShardId {
        let with_branch = |shard: ShardId| known.is_some_and(|known| known.shards.contains(&shard));
        let home = known.map_or_else(|| self.least_busy(), |known| known.first);
        if !newcomer.only_watches() {
            return home;
        }
        self.shard_by_load(home, |shard| shard == home || with_branch(shard))
    }

    /// The home's word for a session comes to the shard that the session names.
    fn shard_named(&self, session: SessionId) -> Option<ShardId> {
        let shard = session.branch();
        (usize::from(shard.0) < self.seated_since.len()).then_some(shard)
    }

    fn far_settings(&self, far: &Far) -> Settings {
        let limits = &self.config.limits;
        Settings {
            epoch: far.epoch,
            publishers_max: limits.publishers_per_room,
            viewers_max: limits.viewers_per_room,
            video_bps_max: limits.video_bps_max,
            messages_per_second: limits.messages_per_second,
            chat_chars_max: limits.chat_chars_max,
            // A branch has its own.
            empty_after: Duration::from_secs(self.config.rooms.empty_seconds),
            resume_within: Duration::from_secs(self.config.rooms.resume_seconds),
            initial_estimate_bps: self.config.media.initial_estimate_bps,
            first_is_admin: false,
            mix: None,
            may_record: false,
            state: far.state.clone(),
        }
    }

    /// The shard of a session in a branch of another node's room.
    pub(super) fn far_shard(&self, room: &RoomName, session: SessionId) -> Option<ShardId> {
        self.fars.get(room)?.shard_of(session)
    }

    pub(super) fn note_far_branch(&mut self, room: &RoomName, shard: ShardId, is_open: bool) {
        let Some(known) = self.fars.get_mut(room) else { return };
        if is_open {
            known.shards.insert(shard);
        } else {
            known.shards.remove(&shard);
        }
        if known.shards.is_empty() {
            self.fars.remove(room);
        }
    }
}

impl FarRoom {
    fn shard_of(&self, session: SessionId) -> Option<ShardId> {
        self.shards.get(&session.branch()).copied()
    }
}

/// The way from a link to a room on a shard.
fn inlet(relays: ControlSender<Relay>, room: RoomName, epoch: u64, from: Site) -> Inlet<Cargo> {
    Inlet::new(move |cargo: Cargo| {
        let relay = Relay { room: room.clone(), epoch, from, freight: Freight::from(cargo) };
        relays.offer(relay).map_err(|relay| match relay.freight {
            Freight::Down(news) => Cargo::Down(news),
            Freight::Up(news) => Cargo::Up(news),
            // Packets and data are lost; nobody offers them again.
            _ => Cargo::Packets(Vec::new()),
        })
    })
}
