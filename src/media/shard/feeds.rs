//! A room's feeds as its shard knows them: the way in of what their processes make, and back of key frame
//! requests.

use std::time::Instant;

use super::mixer::{arrival, made_at};
use super::{Now, RoomSeat, Shard};
use crate::core::feed::{FeedOrder, Playing};
use crate::core::ids::Identity;
use crate::core::mix::MixPacket;
use crate::core::participant::Entrant;
use crate::core::protocol::Source;
use crate::core::refusal::{Code, Refusal};
use crate::core::room::ParticipantKey;
use crate::mailbox::ControlSender;
use crate::media::egress::Passed;
use crate::media::peer::RoomIndex;

/// Of one room. The shell of feeds allows fewer.
const FEEDS_MAX: usize = 64;

/// A feed that wants in.
#[derive(Debug)]
pub struct FeedJoin {
    /// Never used again; what it sends is known by it.
    pub serial: u64,
    pub entrant: Entrant,
    /// What it publishes, by its lines.
    pub sources: Vec<(u8, Source)>,
    /// Full: key frames are asked for again. Closed when the feed has no seat any more.
    pub orders: ControlSender<FeedOrder>,
}

/// The way to a feed.
#[derive(Debug)]
pub struct FeedLink {
    serial: u64,
    who: ParticipantKey,
    orders: ControlSender<FeedOrder>,
}

impl RoomSeat {
    /// Seats a feed. Says who it became: somebody may bear its name already.
    ///
    /// # Errors
    /// As [`crate::core::room::Room::seat_feed`].
    pub(super) fn handle_feed(&mut self, now: Now, join: FeedJoin) -> Result<Identity, Refusal> {
        if self.feeds.len() >= FEEDS_MAX {
            return Err(Refusal::new(Code::QuotaExceeded, "the room has too many feeds"));
        }
        let FeedJoin { serial, entrant, sources, orders } = join;
        let who = self.room.seat_feed(now, entrant, &sources)?;
        self.feeds.push(FeedLink { serial, who, orders });
        let identity = self.room.identity_of(who);
        identity.ok_or_else(|| Refusal::new(Code::Internal, "the feed has no seat"))
    }

    fn feed(&self, serial: u64) -> Option<ParticipantKey> {
        self.feeds.iter().find(|feed| feed.serial == serial).map(|feed| feed.who)
    }

    /// Passes a request on to the feed that sits here. False where none does.
    pub(super) fn order_feed(&self, who: ParticipantKey, order: FeedOrder) -> bool {
        let Some(feed) = self.feeds.iter().find(|feed| feed.who == who) else { return false };
        // One that is overrun is asked again, as publishers are.
        let _ = feed.orders.send(order);
        true
    }

    /// The seat is free; the feed hears of it by the end of its queue.
    pub(super) fn drop_feed(&mut self, who: ParticipantKey) {
        self.feeds.retain(|feed| feed.who != who);
    }
}

impl Shard {
    /// Forwards what a feed has made.
    pub(super) fn handle_fed(&mut self, now: Instant, index: RoomIndex, serial: u64, packets: &[MixPacket]) {
        for packet in packets {
            let Some(seat) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
            let (Some(who), Some(arrival)) = (seat.feed(serial), arrival(packet, None)) else { return };
            let passed = Passed { made_at: made_at(now, packet), ..Passed::default() };
            self.counters.packets_received += 1;
            let mut forwards = std::mem::take(&mut self.forwards);
            let taken = seat.room.handle_rtp(now, who, &arrival, &mut forwards);
            self.fan_out(now, index, &packet.payload, &passed, packet.captured_us, &mut forwards);
            self.forwards = forwards;
            if taken {
                self.relay(now, index, who, &arrival, &passed);
            } else {
                self.counters.dropped.refused += 1;
            }
        }
    }

    pub(super) fn handle_playing(&mut self, index: RoomIndex, serial: u64, playing: Playing) {
        let Some(seat) = self.seat_mut(index) else { return };
        if let Some(who) = seat.feed(serial) {
            seat.room.set_playing(who, playing);
        }
    }

    /// A feed has come to its end.
    pub(super) fn handle_feed_end(&mut self, now: Instant, index: RoomIndex, serial: u64) {
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return };
        if let Some(who) = seat.feed(serial) {
            seat.room.handle_leave(stamp, who);
        }
    }
}
