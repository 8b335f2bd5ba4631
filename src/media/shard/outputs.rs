//! What rooms decide, carried out: messages to connections, requests to publishers, events to the log.

use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};

use super::{CLOSE_WITHIN, Notice, PeerIndex, Shard, commands};
use crate::core::chat::HistoryRange;
use crate::core::feed::FeedOrder;
use crate::core::files::SmallFile;
use crate::core::protocol::ServerMessage;
use crate::core::refusal::{Code, Refusal};
use crate::core::relay::Downstream;
use crate::core::room::{Audience, Output, ParticipantKey};
use crate::media::ingress::Ingress;
use crate::media::peer::RoomIndex;

/// And the other side this long to answer a goodbye; then it is forgotten.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

impl Shard {
    /// Carries out all that a room has decided, and sets its timer.
    pub(super) fn flush_room(&mut self, now: Instant, index: RoomIndex) {
        loop {
            let Some(seat) = self.seat_mut(index) else { return };
            let Some(output) = seat.room.poll_output() else {
                let at = seat.room.poll_timeout();
                self.timers.rooms.set(index.0, at);
                return;
            };
            self.carry_out(now, index, output);
        }
    }

    fn carry_out(&mut self, now: Instant, index: RoomIndex, output: Output) {
        match output {
            Output::Tell(audience, message) => self.tell(now, index, audience, &message),
            Output::RequestKeyframe { from, mid, rid } => self.request_keyframe(now, index, from, mid, rid),
            Output::LimitBitrate { from, mid, rid, bps } => {
                self.ask_sender(index, from, |ingress| ingress.limit_bitrate(now, mid, rid, bps));
            }
            Output::SetGoal { to, next_bps, desired_bps } => {
                let Some(to) = self.seat_mut(index).and_then(|seat| seat.peer_of(to)) else { return };
                if let Some(peer) = self.peer_mut(to) {
                    peer.egress.set_goal(now, next_bps, desired_bps);
                }
                self.mark_unsent(to);
            }
            Output::Gone { who, reason } => self.send_off(now, index, who, reason),
            Output::Append(event) => {
                let (shard, room) = (self.around.id, event.room.clone());
                let id = event.id.clone();
                if !self.notify(Notice::Append { shard, room, event })
                    && let Some(seat) = self.seat_mut(index)
                {
                    seat.room.handle_append_failed(&id);
                }
            }
            Output::Restore => {
                let Some(room) = self.room_name(index) else { return };
                self.notify(Notice::Restore { shard: self.around.id, room });
            }
            Output::ReadMessage(id) => {
                let stamp = self.stamp(now);
                let Some(room) = self.room_name(index) else { return };
                let notice = Notice::ReadMessage { shard: self.around.id, room, id: id.clone() };
                if !self.notify(notice)
                    && let Some(seat) = self.seat_mut(index)
                {
                    seat.room.handle_message_read(stamp, &id, Err(()));
                }
            }
            Output::ReadHistory { to, before } => {
                let Some(room) = self.room_name(index) else { return };
                let range = HistoryRange::Before(before);
                self.notify(Notice::ReadHistory { shard: self.around.id, room, to, range });
            }
            Output::KeepFile(file) => self.keep_file(index, file),
            Output::Said { number, result } => {
                if let Some(reply) = self.seat_mut(index).and_then(|seat| seat.said.remove(&number)) {
                    commands::answer(reply, result);
                }
            }
            Output::Recorder(order) => self.order_recorder(now, index, order),
            Output::StartRecording { asker, tracks, mix, by } => {
                self.ask_for_recording(now, index, super::RecordingAsked { asker, tracks, mix, by });
            }
            Output::Mixer(order) => self.order_mixer(now, index, order),
            Output::Downstream { to, news } => self.tell_branch(index, to, news),
            Output::Upstream(news) => self.tell_home(index, news),
            Output::Admission { session, admission } => self.admit(now, index, session, admission),
            Output::Look => self.tell_figures(now, index),
            Output::Looked => self.show_all(now, index),
            Output::Ended => self.remove_room(index),
        }
    }

    fn keep_file(&mut self, index: RoomIndex, file: Box<SmallFile>) {
        let Some(room) = self.room_name(index) else { return };
        let asker = file.asker.clone();
        if !self.notify(Notice::KeepFile { room, file })
            && let Some(seat) = self.seat_mut(index)
        {
            let words = "the node has too much to do: try again in a moment";
            seat.room.handle_kept(&asker, Err(Refusal::new(Code::Unavailable, words)));
        }
    }

    fn room_name(&mut self, index: RoomIndex) -> Option<crate::core::ids::RoomName> {
        self.seat_mut(index).map(|seat| seat.room.name().clone())
    }

    fn remove_room(&mut self, index: RoomIndex) {
        let Some(seat) = self.rooms.get_mut(index.0 as usize).and_then(Option::take) else { return };
        self.timers.rooms.clear(index.0);
        let room = seat.room.name().clone();
        self.rooms_by_name.remove(&room);
        let shard = self.around.id;
        match seat.branch {
            None => {
                tracing::info!(room = %room, "room ended");
                self.notify(Notice::Ended { shard, room });
            }
            Some(branch) => {
                tracing::info!(room = %room, shard = shard.0, "branch closed");
                let joins = branch.waiting.into_iter().chain(branch.asking);
                joins.for_each(|join| commands::answer(join.reply, Err(commands::gone())));
                self.notify(Notice::BranchEnded { shard, room });
            }
        }
    }

    fn request_keyframe(
        &mut self,
        now: Instant,
        room: RoomIndex,
        from: ParticipantKey,
        mid: Mid,
        rid: Option<Rid>,
    ) {
        let is_feed = self.seat_mut(room).is_some_and(|seat| seat.order_feed(from, FeedOrder::Keyframe));
        if !is_feed {
            self.ask_sender(room, from, |ingress| ingress.request_keyframe(now, mid, rid));
        }
    }

    fn ask_sender(&mut self, room: RoomIndex, who: ParticipantKey, ask: impl FnOnce(&mut Ingress)) {
        let Some(index) = self.seat_mut(room).and_then(|seat| seat.peer_of(who)) else { return };
        if let Some(peer) = self.peer_mut(index) {
            ask(&mut peer.ingress);
        }
        self.mark_unsent(index);
    }

    /// Serialises once, sends to all in the audience.
    fn tell(&mut self, now: Instant, index: RoomIndex, audience: Audience, message: &ServerMessage) {
        let Some(seat) = self.seat_mut(index) else { return };
        let to: Vec<PeerIndex> =
            seat.room.audience(audience).into_iter().filter_map(|key| seat.peer_of(key)).collect();
        let beyond = seat.room.beyond(audience);
        // Plain data always has a JSON form; were it not so, there would be nothing to send.
        let Ok(json) = serde_json::to_string(message) else { return };
        if matches!(message, ServerMessage::ChatMessage { .. }) {
            self.counters.chat_messages += 1;
        }
        for (branch, to) in beyond {
            let message = Box::new(message.clone());
            self.tell_branch(index, branch, Downstream::Tell { to, message });
        }
        for index in to {
            let Some(peer) = self.peer_mut(index) else { continue };
            if peer.tell(json.clone()) {
                self.mark_dirty(index);
            } else {
                tracing::info!(parent: &peer.span, "too slow for the room's messages: disconnected");
                self.lose_peer(now, index);
            }
        }
    }

    /// A last message, then the connection closes.
    fn send_off(
        &mut self,
        now: Instant,
        room: RoomIndex,
        who: ParticipantKey,
        reason: crate::core::protocol::LeaveReason,
    ) {
        let Some(seat) = self.seat_mut(room) else { return };
        seat.drop_feed(who);
        let Some(index) = seat.peer_of(who) else { return };
        // The seat is free for the next; the connection outlives it only to say goodbye.
        seat.set_peer(who, None);
        let Some(peer) = self.peer_mut(index) else { return };
        tracing::info!(parent: &peer.span, ?reason, "left");
        let removed = serde_json::to_string(&ServerMessage::Removed { reason });
        if let Ok(json) = removed {
            peer.tell(json);
        }
        peer.attached = false;
        peer.closing_at = Some(now + CLOSE_WITHIN);
        self.mark_dirty(index);
    }

    pub(super) fn close_if_due(&mut self, now: Instant, index: PeerIndex) {
        let Some(peer) = self.peer_mut(index) else { return };
        let Some(closing_at) = peer.closing_at else { return };
        if now < closing_at {
            return;
        }
        if peer.said_goodbye {
            // It does not answer any more.
            self.lose_peer(now, index);
            return;
        }
        // A goodbye of what we sent, then the engine's close_notify; the drain that follows takes that out.
        peer.closing_at = Some(now + ANSWER_WITHIN);
        peer.said_goodbye = true;
        self.say_goodbye(index);
        let Some(peer) = self.peer_mut(index) else { return };
        if peer.rtc.close().is_err() {
            peer.rtc.disconnect();
        }
        self.mark_dirty(index);
    }
}
