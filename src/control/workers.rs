//! Starts mixers and recorders for rooms, and brings what they say to their shards.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::placement::Placement;
use crate::config::Mcu;
use crate::core::ids::{RoomName, ShardId};
use crate::core::mix::{FromMixer, MixPacket, MixSettings, Rendition, Size};
use crate::core::recording::{FromRecorder, RecorderSettings, RecordingState, RecordingWish};
use crate::mailbox::ControlSender;
use crate::media::relay::{Freight, Relay};
use crate::media::shard::{Command, RecordingAsked, RoomCommand, WorkerLink};
use crate::worker::{Delivery, Queues};

impl Placement {
    pub(super) fn start_mixer(&mut self, shard: ShardId, room: RoomName, epoch: u64, settings: MixSettings) {
        let way = self.way(shard, room, epoch);
        let (deliveries, serial) = (way.clone(), way.serial);
        let started = self
            .mixers
            .as_ref()
            .and_then(|mixers| mixers.start(settings, move |delivery| deliveries.clone().mixed(delivery)));
        let freight = match started {
            Some(Queues { words, packets }) => {
                tracing::info!(room = %way.room, mixer = serial, "mixer ordered");
                Freight::MixerLink(WorkerLink { serial, words, packets })
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

    pub(super) fn start_recorder(&mut self, shard: ShardId, epoch: u64, settings: RecorderSettings) {
        let Some(recordings) = self.recordings.clone() else { return };
        let way = self.way(shard, settings.room.clone(), epoch);
        let (deliveries, serial) = (way.clone(), way.serial);
        let RecordingState { id, .. } = &settings.recording;
        tracing::info!(room = %way.room, recording = %id, part = settings.part, "recorder ordered");
        let Queues { words, packets } =
            recordings.start(settings, move |delivery| deliveries.clone().recorded(delivery));
        let link = Freight::RecorderLink(WorkerLink { serial, words, packets });
        if way.to.send(way.relay(link)).is_err() {
            tracing::warn!(room = %way.room, "a recorder was started in vain: the shard is overrun");
        }
    }

    /// A participant wants a recording: says whether there is room for one, once that was looked into.
    pub(super) fn ask_recording(&self, shard: ShardId, room: RoomName, asked: RecordingAsked) {
        let (to, recordings) = (self.shard(shard), self.recordings.clone());
        let RecordingAsked { asker, tracks, mix, by } = asked;
        tokio::spawn(async move {
            let admitted = match recordings {
                Some(recordings) => recordings.admit(&room).await,
                None => Err(super::no_recordings()),
            };
            let wish = admitted.map(|id| RecordingWish { id, tracks, mix });
            // A shard that is overrun leaves its participant to time out.
            let _ = to.send(Command::InRoom(room, RoomCommand::RecordAsked { asker, wish, by }));
        });
    }

    fn way(&mut self, shard: ShardId, room: RoomName, epoch: u64) -> Way {
        self.workers_started += 1;
        Way { to: self.shard(shard).relays(), room, epoch, shard, serial: self.workers_started }
    }
}

/// To the shard of a worker's room.
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
        Relay { room: self.room.clone(), epoch: self.epoch, from: self.shard.into(), freight }
    }

    /// Packets are dropped where the shard does not keep up; words wait for their turn.
    fn mixed(self, delivery: Delivery<FromMixer>) -> BoxFuture<'static, ()> {
        let serial = self.serial;
        match delivery {
            Delivery::Packets(packets) => self.media(packets),
            Delivery::News(news) => self.say(Freight::Mixer { serial, news }),
        }
    }

    fn recorded(self, delivery: Delivery<FromRecorder>) -> BoxFuture<'static, ()> {
        let serial = self.serial;
        match delivery {
            // It sends none.
            Delivery::Packets(_) => futures_util::future::ready(()).boxed(),
            Delivery::News(news) => self.say(Freight::Recorder { serial, news }),
        }
    }

    fn media(self, packets: Vec<MixPacket>) -> BoxFuture<'static, ()> {
        let serial = self.serial;
        // As if the network had lost them: receivers ask for a key frame.
        let _ = self.to.send(self.relay(Freight::Mixed { serial, packets }));
        futures_util::future::ready(()).boxed()
    }

    fn say(self, freight: Freight) -> BoxFuture<'static, ()> {
        async move {
            // Without a shard there is no room.
            let _ = self.to.send_when_free(self.relay(freight)).await;
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
