//! What the control loop asks of a shard, and its answers.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::{Candidate, IceCreds};
use tokio::sync::oneshot;

use super::{FeedJoin, Home, LogAnswer, Notice, PeerIndex, RoomSeat, Shard, StreamCommand};
use crate::core::chat::{Asker, Author, ChatCommand};
use crate::core::event::{CloseReason, EventBody};
use crate::core::ids::{Identity, RoomName, SessionId};
use crate::core::mix::backdrop::Backdrop;
use crate::core::participant::{Entrant, Member};
use crate::core::protocol::{ParticipantState, RoomChange, RoomState, ServerMessage, Source};
use crate::core::recording::{RecordingId, RecordingState, RecordingWish};
use crate::core::refusal::{Code, Refusal};
use crate::core::room::{Now, ParticipantKey, Room, Settings};
use crate::core::stats::{RoomStats, RoomSummary};
use crate::mailbox::LossySender;
use crate::media::demux::{PeerSerial, credentials};
use crate::media::egress::Egress;
use crate::media::negotiate::{self, Negotiated};
use crate::media::peer::{Peer, RoomIndex, attribute, etag};

pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// A negotiated connection that wants in.
pub struct Join {
    pub serial: PeerSerial,
    pub entrant: Entrant,
    /// The session that it continues.
    pub resume: Option<SessionId>,
    pub negotiated: Negotiated,
    pub asked_at: Instant,
    /// Nothing where it came to a branch, and the room's home alone can serve it.
    pub reply: Reply<Option<Granted>>,
}

/// A join that was granted: the session, the SDP answer, and its entity tag.
#[derive(Debug)]
pub struct Granted {
    pub session: SessionId,
    pub answer: String,
    pub etag: String,
}

/// What a `PATCH` of a session did.
#[derive(Debug)]
pub enum IceChange {
    Trickled,
    Restarted { fragment: String, etag: String },
}

pub enum Command {
    Open(Box<Settings>),
    /// A branch of a room whose home is another shard, or at another node.
    OpenBranch {
        settings: Box<Settings>,
        home: Home,
    },
    InRoom(RoomName, RoomCommand),
    TcpOpened {
        remote: SocketAddr,
        connection: LossySender<Vec<u8>>,
    },
    TcpFrame {
        remote: SocketAddr,
        local: SocketAddr,
        frame: Vec<u8>,
    },
    TcpClosed {
        remote: SocketAddr,
    },
    /// Close every room: the node goes down. Answered when the last peer is gone.
    Drain(oneshot::Sender<()>),
}

pub enum RoomCommand {
    Join(Box<Join>),
    /// Somebody who bears a token comes in elsewhere: its earlier connection goes.
    Displace(Identity),
    Log(LogAnswer),
    Summary(Reply<RoomSummary>),
    Change(RoomChange, Reply<RoomState>),
    /// The picture behind its mix, or none.
    Backdrop(Option<Backdrop>, Reply<RoomState>),
    Stream(StreamCommand, Reply<()>),
    /// A feed wants a seat.
    Feed(Box<FeedJoin>, Reply<Identity>),
    Close(Reply<()>),
    /// It goes on at another node; or this node is to serve nobody of another's any more.
    Move,
    Participants(Reply<Vec<ParticipantState>>),
    Remove {
        identity: Identity,
        by: Identity,
        reply: Reply<()>,
    },
    Tell {
        identity: Identity,
        message: Box<ServerMessage>,
        reply: Reply<()>,
    },
    Mute {
        identity: Identity,
        source: Option<Source>,
        by: Identity,
        reply: Reply<()>,
    },
    Stats(Reply<RoomStats>),
    /// Who this session is in the room.
    Member {
        session: SessionId,
        reply: Reply<Member>,
    },
    /// Something is said in the room by somebody who need not be in it.
    Say {
        said: Box<(Author, ChatCommand)>,
        reply: Reply<()>,
    },
    /// A small file of a participant is kept, or was refused.
    Kept {
        asker: Asker,
        result: Result<(), Refusal>,
    },
    /// Begins a recording.
    Record {
        wish: RecordingWish,
        by: Option<Identity>,
        reply: Reply<RecordingState>,
    },
    /// Whether the node has room for the recording that a participant wants.
    RecordAsked {
        asker: Asker,
        wish: Result<RecordingWish, Refusal>,
        by: Identity,
    },
    StopRecording {
        id: RecordingId,
        by: Option<Identity>,
        reply: Reply<RecordingState>,
    },
    /// `random` makes the new credentials of a restart.
    Patch {
        session: SessionId,
        if_match: Option<String>,
        fragment: String,
        random: [u128; 2],
        reply: Reply<IceChange>,
    },
    Leave {
        session: SessionId,
        reply: Reply<()>,
    },
}

impl RoomCommand {
    /// The session that it is about, whose shard has to carry it out.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Patch { session, .. } | Self::Leave { session, .. } | Self::Member { session, .. } => {
                Some(*session)
            }
            _ => None,
        }
    }
}

impl Shard {
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Open(settings) => self.open(now, *settings),
            Command::OpenBranch { settings, home } => self.open_branch(now, *settings, home),
            Command::InRoom(name, command) => match self.rooms_by_name.get(&name).copied() {
                Some(index) => {
                    self.handle_room_command(now, index, command);
                    self.flush_room(now, index);
                }
                None => refuse_all(command),
            },
            Command::TcpOpened { remote, connection } => self.handle_tcp_open(remote, connection),
            Command::TcpFrame { remote, local, frame } => {
                let frame =
                    crate::media::socket::Datagram { source: remote, destination: local, bytes: &frame };
                self.handle_frame(now, frame);
            }
            Command::TcpClosed { remote } => self.handle_tcp_closed(remote),
            Command::Drain(done) => {
                self.drained = Some(done);
                let stamp = self.stamp(now);
                let rooms: Vec<RoomIndex> = self.rooms_by_name.values().copied().collect();
                for index in rooms {
                    if let Some(seat) = self.seat_mut(index) {
                        seat.room.close(stamp, CloseReason::Draining);
                    }
                    self.flush_room(now, index);
                }
            }
        }
    }

    fn open(&mut self, now: Instant, settings: Settings) {
        let name = settings.state.name.clone();
        let (mode, access, epoch) = (settings.state.mode, settings.state.access, settings.epoch);
        if self.make_way(now, &name, epoch) {
            return;
        }
        let mut room = Room::new(self.stamp(now), settings);
        room.note(self.stamp(now), EventBody::RoomOpened { mode, access, by: None });
        let index = self.seat_room(RoomSeat::new(room, epoch, None));
        tracing::info!(room = %name, "room opened");
        // The log has to hear of the opening first: what is read then is what this epoch goes on from.
        self.flush_room(now, index);
        self.notify(Notice::Restore { shard: self.around.id, room: name });
    }

    fn handle_room_command(&mut self, now: Instant, index: RoomIndex, command: RoomCommand) {
        let stamp = self.stamp(now);
        if let RoomCommand::Join(join) = command {
            if let Some(join) = self.keep_waiting(index, *join) {
                self.join(now, index, join);
            }
            return;
        }

        if let RoomCommand::Stats(reply) = command {
            return self.show_stats(now, index, reply);
        }
        if let RoomCommand::Patch { session, if_match, fragment, random, reply } = command {
            return answer(reply, self.patch(index, session, if_match.as_deref(), &fragment, random));
        }
        let Some(seat) = self.seat_mut(index) else { return refuse_all(command) };
        if let RoomCommand::Stream(command, reply) = command {
            return answer(reply, seat.handle_stream(stamp, command));
        }
        if let RoomCommand::Feed(join, reply) = command {
            return answer(reply, seat.handle_feed(stamp, *join));
        }
        let room = &mut seat.room;
        match command {
            RoomCommand::Log(answer) => hear_log(room, stamp, answer),
            RoomCommand::Summary(reply) => answer(reply, Ok(room.summary())),
            RoomCommand::Change(change, reply) => answer(reply, room.change(stamp, change, None)),
            RoomCommand::Backdrop(picture, reply) => answer(reply, Ok(room.set_backdrop(stamp, picture))),
            RoomCommand::Close(reply) => {
                room.close(stamp, CloseReason::Closed);
                answer(reply, Ok(()));
            }
            // Of a branch those go on who can join anew by themselves.
            RoomCommand::Move if room.is_branch() => room.send_lodgers_on(stamp),
            RoomCommand::Move => room.close(stamp, CloseReason::Moved),
            RoomCommand::Participants(reply) => answer(reply, Ok(room.participant_states())),
            RoomCommand::Remove { identity, by, reply } => answer(reply, room.remove(stamp, &identity, &by)),
            RoomCommand::Tell { identity, message, reply } => {
                answer(reply, room.tell_named(&identity, *message));
            }
            RoomCommand::Mute { identity, source, by, reply } => {
                answer(reply, room.mute(stamp, &identity, source, &by));
            }
            RoomCommand::Leave { session, reply } => {
                let left = room.seat_of(session).map(|key| room.handle_leave(stamp, key));
                answer(reply, left);
            }
            RoomCommand::Member { session, reply } => answer(reply, room.member(session)),
            RoomCommand::Say { said, reply } => {
                let (author, command) = *said;
                seat.last_said += 1;
                seat.said.insert(seat.last_said, reply);
                room.handle_said(stamp, seat.last_said, author, command);
            }
            RoomCommand::Record { wish, by, reply } => answer(reply, room.start_recording(stamp, wish, by)),
            RoomCommand::RecordAsked { asker, wish, by } => {
                room.handle_recording_wish(stamp, &asker, wish, by);
            }
            RoomCommand::StopRecording { id, by, reply } => {
                answer(reply, room.stop_recording(stamp, Some(id.as_str()), by));
            }
            RoomCommand::Kept { asker, result } => room.handle_kept(&asker, result),
            RoomCommand::Displace(identity) => room.displace(stamp, &identity),
            RoomCommand::Join(_)
            | RoomCommand::Stats(_)
            | RoomCommand::Stream(..)
            | RoomCommand::Feed(..)
            | RoomCommand::Patch { .. } => {}
        }
    }

    pub(super) fn join(&mut self, now: Instant, index: RoomIndex, join: Join) {
        let Some(join) = self.ask_home(now, index, join) else { return };
        let seated = self.take_seat(now, index, &join);
        // People whom the newcomer replaced go before it takes the place of their connection.
        self.flush_room(now, index);
        match seated {
            Ok(who) => self.connect(now, index, who, join),
            Err(refusal) => answer(join.reply, Err(refusal)),
        }
    }

    /// Gives whoever has a seat its connection.
    pub(super) fn connect(&mut self, now: Instant, index: RoomIndex, who: ParticipantKey, join: Join) {
        let Join { serial, entrant, resume, negotiated, asked_at, reply } = join;
        let shard = self.around.id.0;
        let Some(seat) = self.seat_mut(index) else { return answer(reply, Err(gone())) };
        let span = tracing::info_span!("participant", shard, room = %seat.room.name(), seat = who.0);
        tracing::info!(parent: &span, resumed = resume.is_some(), "joined");
        let (session, seed) = (resume.unwrap_or(entrant.session), entrant.seed);
        let granted = Granted { session, answer: negotiated.answer.clone(), etag: etag(&negotiated.answer) };
        if let Some(old) = seat.peer_of(who) {
            self.drop_peer(old);
        }
        let egress = Egress::new(now, self.wall_clock(), negotiated.egress.clone(), seed);
        let peer = Peer::new(serial, index, who, negotiated, egress, asked_at, span);
        let place = self.peers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        let peer_index = PeerIndex(place as u32);
        self.peers[place] = Some(peer);
        self.demux.add(serial, peer_index);
        if let Some(seat) = self.seat_mut(index) {
            seat.set_peer(who, Some(peer_index));
        }
        self.mark_dirty(peer_index);
        answer(reply, Ok(Some(granted)));
    }

    fn take_seat(&mut self, now: Instant, index: RoomIndex, join: &Join) -> Result<ParticipantKey, Refusal> {
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return Err(gone()) };
        let entrant = join.entrant.clone();
        match join.resume {
            Some(session) => {
                seat.room.handle_resume(stamp, session, entrant.lines, entrant.slots, entrant.seed)
            }
            None => seat.room.handle_join(stamp, entrant),
        }
    }

    /// Trickle, or an ICE restart, by an SDP fragment (RFC 8840, RFC 9725 §4.3).
    fn patch(
        &mut self,
        index: RoomIndex,
        session: SessionId,
        if_match: Option<&str>,
        fragment: &str,
        random: [u128; 2],
    ) -> Result<IceChange, Refusal> {
        let shard = self.around.id;
        let reach = self.around.reach.clone();
        let seat = self.seat_mut(index).ok_or_else(gone)?;
        let who = seat.room.seat_of(session)?;
        let peer_index = seat.peer_of(who).ok_or_else(|| {
            Refusal::new(Code::NotFound, "the connection is gone: join again with ?resume= and this session")
        })?;
        let peer = self.peer_mut(peer_index).ok_or_else(gone)?;
        let ufrag = attribute(fragment, "a=ice-ufrag:");
        let restarts = ufrag.is_some_and(|ufrag| ufrag != peer.remote_ufrag);
        let current = if_match.is_none_or(|tag| tag == "*" || tag == peer.etag);
        if !current {
            let words = "the entity tag is of an earlier ICE session";
            return Err(Refusal::new(Code::PreconditionFailed, words));
        }
        if !restarts {
            for candidate in fragment.lines().filter_map(|line| line.strip_prefix("a=candidate:")) {
                // One that cannot be read, such as a `.local` name, is one path less: the client's checks
                // find us.
                if let Ok(candidate) = Candidate::from_sdp_string(&format!("candidate:{}", candidate.trim()))
                {
                    peer.rtc.add_remote_candidate(candidate);
                }
            }
            self.mark_dirty(peer_index);
            return Ok(IceChange::Trickled);
        }
        let malformed = || Refusal::new(Code::Malformed, "an ICE restart gives a=ice-ufrag and a=ice-pwd");
        let theirs = IceCreds {
            ufrag: ufrag.ok_or_else(malformed)?.to_owned(),
            pass: attribute(fragment, "a=ice-pwd:").ok_or_else(malformed)?.to_owned(),
        };
        if theirs.ufrag.len() > 256
            || theirs.pass.len() > 256
            || theirs.pass.len() < 22
            || theirs.ufrag.len() < 4
        {
            return Err(malformed());
        }
        let ours = credentials(shard, peer.serial, random);
        negotiate::restart(&mut peer.rtc, &peer.offer, &theirs)?;
        peer.rtc.direct_api().set_local_ice_credentials(ours.clone());
        peer.remote_ufrag = theirs.ufrag;
        let fragment = negotiate::fragment(&peer.offer, &reach, &ours);
        peer.etag = etag(&fragment);
        let etag = peer.etag.clone();
        self.mark_dirty(peer_index);
        Ok(IceChange::Restarted { fragment, etag })
    }
}

/// Who asked may have given up, which is no concern of ours.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>) {
    let _ = reply.send(result);
}

pub(super) fn gone() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such room")
}

fn hear_log(room: &mut Room, stamp: Now, answer: LogAnswer) {
    match answer {
        LogAnswer::Restored(history) => room.handle_restored(stamp, *history),
        LogAnswer::RestoreFailed => room.handle_restore_failed(stamp),
        LogAnswer::Appended(appended) => room.handle_appended(*appended),
        LogAnswer::AppendFailed(id) => room.handle_append_failed(&id),
        LogAnswer::Message { id, read } => room.handle_message_read(stamp, &id, read),
        LogAnswer::History { to, page } => {
            let words = "older messages cannot be read now; try again";
            room.handle_history_read(to, page.map_err(|()| Refusal::new(Code::Unavailable, words)));
        }
    }
}

/// The room ended while the command was on its way.
fn refuse_all(command: RoomCommand) {
    match command {
        RoomCommand::Join(join) => answer(join.reply, Err(gone())),
        RoomCommand::Log(_)
        | RoomCommand::Displace(_)
        | RoomCommand::Kept { .. }
        | RoomCommand::RecordAsked { .. }
        | RoomCommand::Move => {}
        RoomCommand::Record { reply, .. } | RoomCommand::StopRecording { reply, .. } => {
            answer(reply, Err(gone()));
        }
        RoomCommand::Summary(reply) => answer(reply, Err(gone())),
        RoomCommand::Change(_, reply) | RoomCommand::Backdrop(_, reply) => answer(reply, Err(gone())),
        RoomCommand::Close(reply)
        | RoomCommand::Stream(_, reply)
        | RoomCommand::Remove { reply, .. }
        | RoomCommand::Tell { reply, .. }
        | RoomCommand::Mute { reply, .. }
        | RoomCommand::Say { reply, .. }
        | RoomCommand::Leave { reply, .. } => answer(reply, Err(gone())),
        RoomCommand::Participants(reply) => answer(reply, Err(gone())),
        RoomCommand::Stats(reply) => answer(reply, Err(gone())),
        RoomCommand::Feed(_, reply) => answer(reply, Err(gone())),
        RoomCommand::Member { reply, .. } => answer(reply, Err(gone())),
        RoomCommand::Patch { reply, .. } => answer(reply, Err(gone())),
    }
}
