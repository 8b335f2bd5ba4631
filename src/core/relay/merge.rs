//! A node that has branches of another's room on several of its shards, as the room's home sees it: one.
//!
//! What the shards want is merged, so that the node is sent one copy of each encoding; what comes is given to
//! those shards that take it. It outlives the link: when there is one again, all that is wanted is said anew.
//!
//! Of lodgers it knows which shard each is on, and asks that one for what the home and the other shards take
//! of them: what they send goes to either from there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::members::{FromLodger, Seating};
use super::{Downstream, Mirror, Upstream, Way};
use crate::core::event::CloseReason;
use crate::core::ids::{SessionId, ShardId};
use crate::core::protocol::{Kind, LeaveReason};
use crate::core::room::ParticipantKey;

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Merged {
    /// Over the link, to the home.
    Up(Upstream),
    Down(ShardId, Downstream),
}

/// See the module. Drive it with `handle_*`, then [`Merger::poll_output`].
#[derive(Debug, Default)]
pub struct Merger {
    shards: BTreeMap<ShardId, Branch>,
    /// What the home last said.
    mirror: Option<Mirror>,
    /// Where lodgers are, by their seats at the home.
    lodgers: BTreeMap<ParticipantKey, ShardId>,
    /// What the home takes of them: serial and encodings.
    upward: BTreeMap<Line, (u64, u32)>,
    is_linked: bool,
    outputs: VecDeque<Merged>,
}

#[derive(Debug, Default)]
struct Branch {
    viewers: u32,
    /// Serial and encodings, by seat and line.
    demands: BTreeMap<Line, (u64, u32)>,
}

type Line = (ParticipantKey, u8);

impl Merger {
    pub fn poll_output(&mut self) -> Option<Merged> {
        self.outputs.pop_front()
    }

    /// No shard has a branch.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Those who are connected here, and seated at the home.
    pub fn lodgers(&self) -> usize {
        self.lodgers.len()
    }

    /// The shards that have some.
    pub fn lodged_on(&self) -> BTreeSet<ShardId> {
        self.lodgers.values().copied().collect()
    }

    /// There is a link to the home: it is told what is wanted. It `seats` lodgers, or is of a version that
    /// does not.
    pub fn handle_linked(&mut self, seats: bool) {
        self.is_linked = true;
        self.up(Upstream::Opened);
        self.tell_viewers();
        let lines = self.shards.values().flat_map(|branch| branch.demands.keys().copied());
        let lines: BTreeSet<Line> = lines.collect();
        lines.into_iter().for_each(|line| self.tell_demand(line));
        self.tell_way(Way::Open { seats });
    }

    /// The link is gone. What is wanted is kept.
    pub fn handle_lost(&mut self) {
        self.is_linked = false;
        self.upward.clear();
        self.tell_way(Way::Lost);
        self.ask_lodgers();
    }

    /// Asks anew for what is taken on other shards.
    fn ask_lodgers(&mut self) {
        let lines = self.shards.values().flat_map(|branch| branch.demands.keys().copied());
        let lines: BTreeSet<Line> = lines.filter(|(seat, _)| self.lodgers.contains_key(seat)).collect();
        lines.into_iter().for_each(|line| self.tell_demand(line));
    }

    /// Whether a lodger's packet goes to the home.
    pub fn goes_up(&self, origin: ParticipantKey, line: u8, encoding: u8) -> bool {
        let bit = 1_u32.checked_shl(encoding.into()).unwrap_or(0);
        self.upward.get(&(origin, line)).is_some_and(|(_, encodings)| encodings & bit != 0)
    }

    /// Nobody has the room any more, or whoever has it has not opened it.
    pub fn handle_orphaned(&mut self) {
        self.tell_way(Way::Orphaned);
        self.forget_lodgers();
    }

    fn forget_lodgers(&mut self) {
        self.lodgers.clear();
        self.upward.clear();
    }

    fn tell_way(&mut self, way: Way) {
        let told = self.shards.keys().map(|shard| Merged::Down(*shard, Downstream::Way(way)));
        self.outputs.extend(told);
    }

    /// The room goes on under another epoch: its home knows none of what the last one said.
    pub fn handle_moved(&mut self) {
        self.is_linked = false;
        self.forget_lodgers();
        self.tell_way(Way::Moved);
        for branch in self.shards.values_mut() {
            branch.demands.clear();
        }
        let Some(mirror) = self.mirror.take() else { return };
        let nobody = Mirror { publishers: Vec::new(), viewers_elsewhere: 0, ..mirror };
        for shard in self.shards.keys() {
            let news = Downstream::Mirror(Box::new(nobody.clone()));
            self.outputs.push_back(Merged::Down(*shard, news));
        }
    }

    /// Something that a shard's branch says.
    pub fn handle_upstream(&mut self, from: ShardId, news: Upstream) {
        match news {
            Upstream::Opened => self.handle_opened(from),
            Upstream::Demand { seat, line, serial, encodings } => {
                self.handle_demand(from, (seat, line), serial, encodings);
            }
            Upstream::Keyframe { seat, mid, rid } => match self.lodgers.get(&seat) {
                Some(shard) => {
                    let news = Downstream::Keyframe { seat, mid, rid };
                    self.outputs.push_back(Merged::Down(*shard, news));
                }
                None => self.up(news),
            },
            Upstream::Attach(_) | Upstream::Lodger { .. } | Upstream::Figures(_) => self.up(news),
            Upstream::Proven(identity) => {
                for shard in self.shards.keys().filter(|shard| **shard != from) {
                    let reason = LeaveReason::Replaced;
                    let news = Downstream::Dismiss { identity: identity.clone(), reason };
                    self.outputs.push_back(Merged::Down(*shard, news));
                }
                self.up(Upstream::Proven(identity));
            }
            Upstream::Viewers(viewers) => {
                if let Some(branch) = self.shards.get_mut(&from) {
                    branch.viewers = viewers;
                    self.tell_viewers();
                }
            }
            Upstream::Closed => {
                let Some(gone) = self.shards.remove(&from) else { return };
                self.lodgers.retain(|_, shard| *shard != from);
                self.upward.retain(|(seat, _), _| self.lodgers.contains_key(seat));
                if self.shards.is_empty() {
                    return self.up(Upstream::Closed);
                }
                self.tell_viewers();
                gone.demands.into_keys().for_each(|line| self.tell_demand(line));
            }
        }
    }

    fn handle_opened(&mut self, from: ShardId) {
        let known = self.shards.insert(from, Branch::default());
        let wanted = known.map(|branch| branch.demands).unwrap_or_default();
        wanted.into_keys().for_each(|line| self.tell_demand(line));
        if !self.is_linked {
            self.outputs.push_back(Merged::Down(from, Downstream::Way(Way::Lost)));
        }
        if let Some(mirror) = &self.mirror {
            let news = Downstream::Mirror(Box::new(self.mirror_of(from, mirror.clone())));
            self.outputs.push_back(Merged::Down(from, news));
        }
    }

    fn handle_demand(&mut self, from: ShardId, line: Line, serial: u64, encodings: u32) {
        let before = self.wanted(line);
        let Some(branch) = self.shards.get_mut(&from) else { return };
        let had = branch.demands.get(&line).filter(|(known, _)| *known == serial);
        let had = had.map_or(0, |(_, encodings)| *encodings);
        if encodings == 0 {
            branch.demands.remove(&line);
        } else {
            branch.demands.insert(line, (serial, encodings));
        }
        if self.wanted(line) != before {
            self.tell_demand(line);
        }
        // What others take already flows, and comes without a key frame.
        let flowing = before.filter(|(known, _)| *known == serial).map_or(0, |(_, encodings)| encodings);
        let fresh = encodings & !had & flowing;
        for index in (0..u32::BITS).filter(|index| fresh >> index & 1 == 1) {
            self.ask_keyframe(line, index as usize);
        }
    }

    fn ask_keyframe(&mut self, (seat, line): Line, encoding: usize) {
        let publishers = self.mirror.iter().flat_map(|mirror| &mirror.publishers);
        let published = publishers.filter(|publisher| publisher.seat == seat);
        let line = published.flat_map(|publisher| publisher.lines.get(usize::from(line))).next();
        let Some(line) = line.filter(|line| line.kind == Kind::Video) else { return };
        let (mid, rid) = (line.mid, line.rids.get(encoding).copied());
        match self.lodgers.get(&seat) {
            Some(shard) => {
                self.outputs.push_back(Merged::Down(*shard, Downstream::Keyframe { seat, mid, rid }));
            }
            None => self.up(Upstream::Keyframe { seat, mid, rid }),
        }
    }

    /// What all shards together want of a line, of the publication that was named last; of a lodger's, with
    /// what the home wants.
    fn wanted(&self, line: Line) -> Option<(u64, u32)> {
        let demands = self.shards.values().filter_map(|branch| branch.demands.get(&line));
        let demands = demands.chain(self.upward.get(&line));
        let newest = demands.clone().map(|(serial, _)| *serial).max()?;
        let of_newest = demands.filter(|(serial, _)| *serial == newest);
        Some((newest, of_newest.fold(0, |all, (_, encodings)| all | encodings)))
    }

    fn tell_demand(&mut self, line: Line) {
        let (seat, number) = line;
        let known = self.wanted(line);
        // Nobody wants any of it: the publication is the one that the home told of last.
        let Some((serial, encodings)) = known.or_else(|| self.serial_of(line).map(|serial| (serial, 0)))
        else {
            return;
        };
        if let Some(shard) = self.lodgers.get(&seat) {
            let news = Downstream::Demand { seat, line: number, serial, encodings };
            return self.outputs.push_back(Merged::Down(*shard, news));
        }
        self.up(Upstream::Demand { seat, line: number, serial, encodings });
    }

    fn serial_of(&self, (seat, line): Line) -> Option<u64> {
        let publishers = self.mirror.iter().flat_map(|mirror| &mirror.publishers);
        let mut tracks =
            publishers.filter(|publisher| publisher.seat == seat).map(|publisher| &publisher.tracks);
        tracks.next()?.get(usize::from(line))?.as_ref().map(|track| track.serial)
    }

    fn tell_viewers(&mut self) {
        let viewers = self.shards.values().fold(0, |sum: u32, branch| sum.saturating_add(branch.viewers));
        self.up(Upstream::Viewers(viewers));
    }

    fn up(&mut self, news: Upstream) {
        // Without a link it is kept, and said when there is one.
        if self.is_linked {
            self.outputs.push_back(Merged::Up(news));
        }
    }

    /// Something that the home says.
    pub fn handle_downstream(&mut self, news: Downstream) {
        match news {
            Downstream::Mirror(mirror) => {
                let told: Vec<_> = self
                    .shards
                    .keys()
                    .map(|shard| (*shard, self.mirror_of(*shard, (*mirror).clone())))
                    .collect();
                let told = told.into_iter();
                let told = told.map(|(shard, told)| Merged::Down(shard, Downstream::Mirror(Box::new(told))));
                self.outputs.extend(told);
                self.mirror = Some(*mirror);
            }
            Downstream::Dismiss { .. } => {
                let told = self.shards.keys().map(|shard| Merged::Down(*shard, news.clone()));
                self.outputs.extend(told);
            }
            Downstream::Ended(reason) => self.end(reason),
            Downstream::Seating { session, seating } => self.handle_seating(session, seating),
            Downstream::Tell { to, message } => {
                let mut told: BTreeMap<ShardId, Vec<ParticipantKey>> = BTreeMap::new();
                for seat in to {
                    if let Some(shard) = self.lodgers.get(&seat) {
                        told.entry(*shard).or_default().push(seat);
                    }
                }
                for (shard, to) in told {
                    let news = Downstream::Tell { to, message: message.clone() };
                    self.outputs.push_back(Merged::Down(shard, news));
                }
            }
            Downstream::Unseated { seat, .. } => {
                let shard = self.lodgers.remove(&seat);
                self.upward.retain(|(other, _), _| *other != seat);
                self.outputs.extend(shard.map(|shard| Merged::Down(shard, news)));
            }
            Downstream::Demand { seat, line, serial, encodings } => {
                self.upward.insert((seat, line), (serial, encodings));
                self.tell_demand((seat, line));
            }
            Downstream::Admitted { seat } | Downstream::Keyframe { seat, .. } => {
                let shard = self.lodgers.get(&seat);
                self.outputs.extend(shard.map(|shard| Merged::Down(*shard, news)));
            }
            Downstream::Look => {
                let asked = self.lodged_on().into_iter().map(|shard| Merged::Down(shard, news.clone()));
                self.outputs.extend(asked);
            }
            // It is for this node alone to say.
            Downstream::Way(_) => {}
        }
    }

    fn handle_seating(&mut self, session: SessionId, seating: Seating) {
        let shard = session.branch();
        if !self.shards.contains_key(&shard) {
            // Its branch has closed meanwhile.
            let news = FromLodger::Left(LeaveReason::Lost);
            return self.up(Upstream::Lodger { session, news });
        }
        if let Seating::Seated(seated) = &seating {
            self.lodgers.insert(seated.seat, shard);
        }
        self.outputs.push_back(Merged::Down(shard, Downstream::Seating { session, seating }));
        self.ask_lodgers();
    }

    /// The room is over, as far as it can be known here.
    pub fn end(&mut self, reason: CloseReason) {
        for shard in self.shards.keys() {
            self.outputs.push_back(Merged::Down(*shard, Downstream::Ended(reason)));
        }
    }

    /// The room as one shard is to see it: who watches on the others is elsewhere, too.
    fn mirror_of(&self, shard: ShardId, mirror: Mirror) -> Mirror {
        let others = self.shards.iter().filter(|(other, _)| **other != shard);
        let viewers = others.map(|(_, branch)| branch.viewers).sum::<u32>();
        Mirror { viewers_elsewhere: mirror.viewers_elsewhere.saturating_add(viewers), ..mirror }
    }

    /// The shards that take a packet of this sender, line and encoding.
    pub fn takers(&self, origin: ParticipantKey, line: u8, encoding: u8) -> impl Iterator<Item = ShardId> {
        let bit = 1_u32.checked_shl(encoding.into()).unwrap_or(0);
        let takes = move |branch: &Branch| {
            branch.demands.get(&(origin, line)).is_some_and(|(_, encodings)| encodings & bit != 0)
        };
        self.shards.iter().filter(move |(_, branch)| takes(branch)).map(|(shard, _)| *shard)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::ids::Identity;
    use crate::core::protocol::{Grant, ServerMessage, Source};
    use crate::core::relay::members::Seated;
    use crate::core::relay::{MirroredPublisher, MirroredTrack};
    use crate::core::room::ParticipantKey;
    use crate::core::track::PublishedLine;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);
    const SEAT: ParticipantKey = ParticipantKey(4);

    fn mirror(viewers_elsewhere: u32) -> Downstream {
        let state = r##"{"name":"abc","mode":"sfu","layout":{"kind":"grid"},"background":"#000000",
            "has_backdrop":false,"e2ee":false,
            "access":"open","locked":false,"lobby":false,"participants_max":50,"hls":false,
            "restreams":0,"opened_at_ms":1}"##;
        let track = MirroredTrack {
            serial: 9,
            source: Source::Camera,
            format: None,
            muted: false,
            silenced: false,
            height_told: None,
        };
        let rids = ["l", "h"].map(str0m::media::Rid::from).to_vec();
        let publisher = MirroredPublisher {
            seat: SEAT,
            identity: Identity::parse("ann").unwrap(),
            name: "Ann".into(),
            lines: vec![PublishedLine { mid: "v0".into(), kind: Kind::Video, rids }],
            tracks: vec![Some(track)],
        };
        let state = serde_json::from_str(state).unwrap();
        Downstream::Mirror(Box::new(Mirror { state, viewers_elsewhere, publishers: vec![publisher] }))
    }

    fn demand(encodings: u32) -> Upstream {
        Upstream::Demand { seat: SEAT, line: 0, serial: 9, encodings }
    }

    fn said(merger: &mut Merger) -> Vec<Upstream> {
        let outputs = std::iter::from_fn(|| merger.poll_output());
        outputs.filter_map(|one| if let Merged::Up(news) = one { Some(news) } else { None }).collect()
    }

    fn elsewhere(merger: &mut Merger) -> Vec<(ShardId, u32)> {
        let outputs = std::iter::from_fn(|| merger.poll_output());
        let mirrors = outputs.filter_map(|one| match one {
            Merged::Down(shard, Downstream::Mirror(mirror)) => Some((shard, mirror.viewers_elsewhere)),
            _ => None,
        });
        mirrors.collect()
    }

    fn linked() -> Merger {
        let mut merger = Merger::default();
        merger.handle_upstream(A, Upstream::Opened);
        merger.handle_linked(true);
        merger.handle_downstream(mirror(5));
        while merger.poll_output().is_some() {}
        merger
    }

    #[test]
    fn what_several_want_is_asked_for_once() {
        let mut merger = linked();
        merger.handle_upstream(B, Upstream::Opened);
        assert_eq!(elsewhere(&mut merger), [(B, 5)], "the second is told what is known");
        merger.handle_upstream(A, demand(0b01));
        assert_eq!(said(&mut merger), [demand(0b01)]);
        merger.handle_upstream(B, demand(0b01));
        let keyframe = Upstream::Keyframe { seat: SEAT, mid: "v0".into(), rid: Some("l".into()) };
        assert_eq!(said(&mut merger), [keyframe], "it flows already, and needs a beginning");
        merger.handle_upstream(B, demand(0b11));
        assert_eq!(said(&mut merger), [demand(0b11)]);
        assert_eq!(merger.takers(SEAT, 0, 1).collect::<Vec<_>>(), [B]);
        assert_eq!(merger.takers(SEAT, 0, 0).collect::<Vec<_>>(), [A, B]);
        merger.handle_upstream(B, Upstream::Closed);
        assert_eq!(said(&mut merger), [Upstream::Viewers(0), demand(0b01)]);
        merger.handle_upstream(A, demand(0));
        assert_eq!(said(&mut merger), [demand(0)]);
        merger.handle_upstream(A, Upstream::Closed);
        assert_eq!(said(&mut merger), [Upstream::Closed]);
        assert!(merger.is_empty());
    }

    #[test]
    fn viewers_of_the_other_shards_are_elsewhere() {
        let mut merger = linked();
        merger.handle_upstream(B, Upstream::Opened);
        merger.handle_upstream(A, Upstream::Viewers(3));
        merger.handle_upstream(B, Upstream::Viewers(4));
        assert_eq!(said(&mut merger).last(), Some(&Upstream::Viewers(7)));
        merger.handle_downstream(mirror(10));
        assert_eq!(elsewhere(&mut merger), [(A, 14), (B, 13)]);
    }

    #[test]
    fn who_proved_an_identity_is_in_one_branch() {
        let mut merger = linked();
        merger.handle_upstream(B, Upstream::Opened);
        while merger.poll_output().is_some() {}
        let ann = Identity::parse("ann").unwrap();
        merger.handle_upstream(A, Upstream::Proven(ann.clone()));
        let told = merger.poll_output();
        assert!(
            matches!(told, Some(Merged::Down(B, Downstream::Dismiss { identity, .. })) if identity == ann)
        );
        assert_eq!(said(&mut merger), [Upstream::Proven(ann)]);
    }

    #[test]
    fn a_new_link_is_told_all_that_is_wanted() {
        let mut merger = linked();
        merger.handle_upstream(A, Upstream::Viewers(3));
        merger.handle_upstream(A, demand(0b10));
        merger.handle_lost();
        assert_eq!(said(&mut merger).len(), 2);
        merger.handle_upstream(A, Upstream::Viewers(2));
        assert!(said(&mut merger).is_empty());
        merger.handle_linked(true);
        assert_eq!(said(&mut merger), [Upstream::Opened, Upstream::Viewers(2), demand(0b10)]);
    }

    #[test]
    fn nothing_that_an_earlier_home_said_holds_under_a_new_epoch() {
        let mut merger = linked();
        merger.handle_upstream(A, demand(0b10));
        while merger.poll_output().is_some() {}
        merger.handle_moved();
        assert!(matches!(merger.poll_output(), Some(Merged::Down(A, Downstream::Way(Way::Moved)))));
        let Some(Merged::Down(A, Downstream::Mirror(mirror))) = merger.poll_output() else {
            panic!("the branch is told that its publishers are gone");
        };
        assert!(mirror.publishers.is_empty());
        assert_eq!(merger.takers(SEAT, 0, 1).count(), 0);
        merger.handle_linked(true);
        assert_eq!(said(&mut merger), [Upstream::Opened, Upstream::Viewers(0)]);
    }

    /// The home's word that somebody has a seat, for a shard.
    fn seated(shard: ShardId, seat: u32) -> Downstream {
        let session = SessionId::of_lodger(shard, u128::from(seat) << 8);
        let grant = Grant {
            publish: true,
            subscribe: true,
            chat: true,
            files: true,
            admin: false,
            lowest_layer: false,
        };
        let (seat, identity) = (ParticipantKey(seat), Identity::parse("ann").unwrap());
        let seated = Seated { seat, epoch: 1, identity, name: String::new(), grant, waits: false };
        Downstream::Seating { session, seating: Seating::Seated(Box::new(seated)) }
    }

    /// Two shards, with a lodger each, by seats of these numbers.
    fn lodged() -> Merger {
        let mut merger = linked();
        merger.handle_upstream(B, Upstream::Opened);
        merger.handle_downstream(seated(A, 1));
        merger.handle_downstream(seated(B, 2));
        while merger.poll_output().is_some() {}
        merger
    }

    #[test]
    fn what_lodgers_are_told_goes_to_their_shards() {
        let mut merger = lodged();
        let message = Box::new(ServerMessage::Pong { request: None });
        let to = vec![ParticipantKey(1), ParticipantKey(2), ParticipantKey(7)];
        merger.handle_downstream(Downstream::Tell { to, message });
        let told = |merger: &mut Merger| match merger.poll_output() {
            Some(Merged::Down(shard, Downstream::Tell { to, .. })) => Some((shard, to)),
            _ => None,
        };
        assert_eq!(told(&mut merger), Some((A, vec![ParticipantKey(1)])));
        assert_eq!(told(&mut merger), Some((B, vec![ParticipantKey(2)])));
        assert_eq!(told(&mut merger), None);
        merger.handle_upstream(B, Upstream::Closed);
        while merger.poll_output().is_some() {}
        assert_eq!(merger.lodgers(), 1);
        // Its branch has closed while it was on its way.
        merger.handle_downstream(seated(B, 3));
        let session = SessionId::of_lodger(B, 3 << 8);
        let news = FromLodger::Left(LeaveReason::Lost);
        assert_eq!(said(&mut merger), [Upstream::Lodger { session, news }]);
    }

    #[test]
    fn shards_with_lodgers_are_asked_how_these_fare() {
        let mut merger = lodged();
        merger.handle_downstream(Downstream::Look);
        let asked = std::iter::from_fn(|| merger.poll_output());
        let asked = asked.filter_map(|one| match one {
            Merged::Down(shard, Downstream::Look) => Some(shard),
            _ => None,
        });
        assert_eq!(asked.collect::<Vec<_>>(), [A, B]);
        merger.handle_upstream(B, Upstream::Figures(Vec::new()));
        assert_eq!(said(&mut merger), [Upstream::Figures(Vec::new())]);
    }

    #[test]
    fn a_lodgers_shard_is_asked_for_what_home_and_other_shards_take() {
        let mut merger = lodged();
        let first = ParticipantKey(1);
        let asked = |merger: &mut Merger| match merger.poll_output() {
            Some(Merged::Down(shard, Downstream::Demand { serial: 9, encodings, .. })) => {
                Some((shard, encodings))
            }
            _ => None,
        };
        merger.handle_upstream(B, Upstream::Demand { seat: first, line: 0, serial: 9, encodings: 0b10 });
        assert_eq!(asked(&mut merger), Some((A, 0b10)));
        merger.handle_downstream(Downstream::Demand { seat: first, line: 0, serial: 9, encodings: 0b01 });
        assert_eq!(asked(&mut merger), Some((A, 0b11)));
        assert!(merger.goes_up(first, 0, 0) && !merger.goes_up(first, 0, 1));
        assert_eq!(merger.takers(first, 0, 1).collect::<Vec<_>>(), [B]);
        assert!(said(&mut merger).is_empty(), "the home is not asked for what is here");
        // Without a link the other shard has it still.
        merger.handle_lost();
        let after: Vec<_> = std::iter::from_fn(|| merger.poll_output()).collect();
        let is_kept = |merged: &Merged| {
            matches!(merged, Merged::Down(A, Downstream::Demand { serial: 9, encodings: 0b10, .. }))
        };
        assert_eq!(after.iter().filter(|merged| is_kept(merged)).count(), 1, "{after:?}");
        assert!(!merger.goes_up(first, 0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever shards say in whatever order: the home has been asked for exactly what somebody wants.
        #[test]
        fn the_home_knows_what_is_wanted(
            words in proptest::collection::vec((0..3u8, 0..4u8, 0..4u32), 0..60),
        ) {
            let mut merger = linked();
            let mut wanted = BTreeMap::from([(A, 0)]);
            let mut asked = 0;
            for (shard, what, encodings) in words {
                let shard = ShardId(shard);
                match what {
                    0 => {
                        wanted.insert(shard, 0);
                        merger.handle_upstream(shard, Upstream::Opened);
                    }
                    1 if wanted.len() > 1 => {
                        wanted.remove(&shard);
                        merger.handle_upstream(shard, Upstream::Closed);
                    }
                    1 => {}
                    _ => {
                        if let Some(wanted) = wanted.get_mut(&shard) {
                            *wanted = encodings;
                        }
                        merger.handle_upstream(shard, demand(encodings));
                    }
                }
                for news in said(&mut merger) {
                    if let Upstream::Demand { encodings, .. } = news {
                        asked = encodings;
                    }
                }
                prop_assert_eq!(asked, wanted.values().fold(0, |all, encodings| all | encodings));
            }
        }
    }
}
