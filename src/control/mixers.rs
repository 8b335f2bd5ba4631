//! Starts mixers for rooms, and brings what they say to their shards.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::placement::Placement;
use crate::config::Mcu;
use crate::core::ids::{RoomName, ShardId};
use crate::core::mix::{FromMixer, MixSettings, Rendition, Size};
use crate::mailbox::ControlSender;
use crate::mcu::{Delivery, MixerQueues};
use crate::media::relay::{Freight, Relay};
use crate::media::shard::MixerLink;

impl Placement {
    pub(super) fn start_mixer(&mut self, shard: ShardId, room: RoomName, epoch: u64, settings: MixSettings) {
        self.mixers_started += 1;
        let serial = self.mixers_started;
        let way = Way { to: self.shard(shard).relays(), room, epoch, shard, serial };
        let deliveries = way.clone();
        let started = self
            .mixers
            .as_ref()
            .and_then(|mixers| mixers.start(settings, move |delivery| deliveries.clone().deliver(delivery)));
        let freight = match started {
            Some(MixerQueues { words, packets }) => {
                tracing::info!(room = %way.room, mixer = serial, "mixer ordered");
                Freight::MixerLink(MixerLink { serial, words, packets })
            }
            None => {
                tracing::warn!(room = %way.room, "no mixer: this node has no room for one more");
                Freight::Mixer { serial, news: FromMixer::Refused }
            }
        };
        if way.to.send(way.relay(freight)).is_err() {
            tracing::warn!(room = %way.room, "a mixer was started in vain: the shard is overrun");
        }
    }
}

/// To the shard of a mixer's room.
#[derive(Clone)]
struct Way {
    to: ControlSender<Relay>,
    room: RoomName,
    epoch: u64,
    shard: ShardId,
    serial: u64,
}

impl Way {
    fn relay(&self, freight: Freight) -> Relay {
        Relay { room: self.room.clone(), epoch: self.epoch, from: self.shard, freight }
    }

    /// Packets are dropped where the shard does not keep up; words wait for their turn.
    fn deliver(self, delivery: Delivery) -> BoxFuture<'static, ()> {
        let serial = self.serial;
        async move {
            match delivery {
                Delivery::Packets(packets) => {
                    // As if the network had lost them: receivers ask for a key frame.
                    let _ = self.to.send(self.relay(Freight::Mixed { serial, packets }));
                }
                Delivery::News(news) => {
                    // Without a shard there is no room.
                    let _ = self.to.send_when_free(self.relay(Freight::Mixer { serial, news })).await;
                }
            }
        }
        .boxed()
    }
}

/// Of the configured size, and of half of it for slow viewers.
pub(super) fn mix_settings(mcu: &Mcu) -> MixSettings {
    let size = |part: u32| Size { width: mcu.width / part, height: mcu.height / part };
    let rendition = |part: u32, bitrate_bps| Rendition { size: size(part), bitrate_bps };
    MixSettings {
        canvas: size(1),
        frames_per_second: mcu.frames_per_second,
        renditions: [rendition(2, mcu.bitrate_bps * 3 / 10), rendition(1, mcu.bitrate_bps)],
        cores_max: mcu.cores_max,
    }
}
