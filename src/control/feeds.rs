//! Feeds of rooms, as their shell asks for them: a seat for each, and the way for what it makes.

use std::net::IpAddr;

use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};

use super::placement::{Newcomer, Place};
use super::{Control, Turned, overloaded};
use crate::core::feed::{self, FeedOrder, Playing};
use crate::core::ids::{Identity, RoomName, SessionId, ShardId, Site};
use crate::core::mix::MixPacket;
use crate::core::participant::{Entrant, Part};
use crate::core::protocol::{Grant, Source};
use crate::mailbox::{self, ControlSender};
use crate::media::relay::{Freight, Relay};
use crate::media::shard::{Command, FeedJoin, RoomCommand};

/// Requests for key frames that may wait for a feed. Full: they are made again.
const ORDERS_DEPTH: usize = 16;
/// All that a file does in a room.
const PLAYS: Grant =
    Grant { publish: true, subscribe: false, chat: false, files: false, admin: false, lowest_layer: false };

/// Who a feed is to be.
#[derive(Debug, Clone)]
pub enum FeedRole {
    /// A file that is played.
    Player,
    /// Whoever pushes a stream, as a WHIP publisher is seated.
    Publisher {
        grant: Grant,
        /// As of a join.
        has_token: bool,
        may_create: bool,
        /// Never logged.
        from: IpAddr,
    },
}

/// A feed that wants a seat.
#[derive(Debug, Clone)]
pub struct FeedRequest {
    pub room: RoomName,
    pub identity: Identity,
    pub name: String,
    pub role: FeedRole,
    /// What it publishes, by its lines.
    pub sources: Vec<(u8, Source)>,
}

/// A feed's seat.
pub struct FeedSeat {
    /// As the room has it.
    pub identity: Identity,
    /// What the room asks. It ends with the seat.
    pub orders: mpsc::Receiver<FeedOrder>,
    way: Way,
}

struct Way {
    to: ControlSender<Relay>,
    room: RoomName,
    epoch: u64,
    shard: ShardId,
    serial: u64,
}

impl Control {
    /// Gives a feed a seat.
    ///
    /// # Errors
    /// Those of a join, `end_to_end_encrypted`; or the room is at another node.
    pub async fn seat_feed(&self, request: FeedRequest) -> Result<FeedSeat, Turned> {
        let FeedRequest { room, identity, name, role, sources } = request;
        let (part, grant, has_token, may_create, from) = match role {
            // Whoever may have it played has shown that already.
            FeedRole::Player => (Part::Player, PLAYS, true, false, IpAddr::from([0u16; 8])),
            FeedRole::Publisher { grant, has_token, may_create, from } => {
                (Part::Publisher, grant, has_token, may_create, from)
            }
        };
        let is_player = part == Part::Player;
        let newcomer = Newcomer {
            room: room.clone(),
            from,
            may_create,
            won: None,
            far: None,
            sent: None,
            resume: None,
            comer: None,
            proven: (has_token && !is_player).then(|| identity.clone()),
        };
        let Place { shard, id, epoch, .. } = self.place(newcomer).await?;
        let entrant = Entrant {
            identity,
            name,
            grant,
            part,
            session: SessionId::new(id, rand::rng().random()),
            has_token,
            returns: false,
            lines: feed::lines(),
            slots: Vec::new(),
            seed: 0,
        };
        let serial = rand::rng().random();
        let (orders, orders_of) = mailbox::control(ORDERS_DEPTH);
        let (reply, seated) = oneshot::channel();
        let join = Box::new(FeedJoin { serial, entrant, sources, orders });
        let command = Command::InRoom(room.clone(), RoomCommand::Feed(join, reply));
        shard.send(command).map_err(|_| overloaded())?;
        let identity = seated.await.map_err(|_| overloaded())??;
        let way = Way { to: shard.relays(), room, epoch, shard: id, serial };
        Ok(FeedSeat { identity, orders: orders_of, way })
    }
}

impl FeedSeat {
    /// Hands on what was made. Where the shard does not keep up it is dropped, as if a network had lost it.
    pub fn send(&self, packets: Vec<MixPacket>) {
        let serial = self.way.serial;
        let _ = self.way.to.send(self.way.relay(Freight::Fed { serial, packets }));
    }

    /// Tells all where in its file it is.
    pub async fn tell(&self, playing: Playing) {
        self.say(Freight::Playing { serial: self.way.serial, playing }).await;
    }

    /// Gives the seat up.
    pub async fn leave(self) {
        self.say(Freight::FeedEnded { serial: self.way.serial }).await;
    }

    async fn say(&self, freight: Freight) {
        // Without a shard there is no room.
        let _ = self.way.to.send_when_free(self.way.relay(freight)).await;
    }
}

impl Way {
    fn relay(&self, freight: Freight) -> Relay {
        Relay { room: self.room.clone(), epoch: self.epoch, from: Site::Shard(self.shard), freight }
    }
}
