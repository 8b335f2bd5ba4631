//! How the connections of lodgers fare: the home asks their branches when somebody looks, at most once a
//! second, and shows what they said.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Output, ParticipantKey, Room};
use crate::core::ids::Site;
use crate::core::relay::members::Figures;
use crate::core::relay::{Downstream, Upstream};
use crate::core::stats::ParticipantStats;

/// Branches answer within this time, or their lodgers are shown without figures: the link is slow, or their
/// node of a version that does not know the question.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// What was said is shown for so long before it is asked for again.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Lodgers in one frame, some kilobytes each at most.
const FRAME_MAX: usize = 32;

/// What the home has asked.
#[derive(Debug, Default)]
pub(super) struct Looking {
    asked_at: Option<Instant>,
    /// Lodgers whose figures have not come.
    missing: BTreeSet<ParticipantKey>,
}

impl Room {
    /// Somebody looks at how all fare. True: branches are asked, and [`Output::Looked`] comes in a moment.
    pub fn look(&mut self, now: Instant) -> bool {
        if !self.looking.missing.is_empty() {
            return true;
        }
        let is_fresh = |at| now.saturating_duration_since(at) < FRESH_FOR;
        if self.looking.asked_at.is_some_and(is_fresh) {
            return false;
        }
        let lodgers = self.seated().filter(|(_, participant)| participant.via.is_some());
        let missing: BTreeSet<_> = lodgers.map(|(key, _)| key).collect();
        if missing.is_empty() {
            return false;
        }
        self.looking = Looking { asked_at: Some(now), missing };
        for to in self.lodged_at() {
            self.outputs.push_back(Output::Downstream { to, news: Downstream::Look });
        }
        true
    }

    /// The branch at `from` says how some who lodge there fare.
    pub(super) fn handle_figures(&mut self, from: Site, figures: Vec<Figures>) {
        for Figures { seat, connection } in figures {
            let lodger = self.participant_mut(seat).filter(|participant| participant.via == Some(from));
            if let Some(lodger) = lodger {
                lodger.figures = Some(Box::new(connection));
                self.note_figures(seat);
            }
        }
    }

    /// Those of a lodger have come, or will not.
    pub(super) fn note_figures(&mut self, key: ParticipantKey) {
        let missing = &mut self.looking.missing;
        if missing.remove(&key) && missing.is_empty() {
            self.outputs.push_back(Output::Looked);
        }
    }

    pub(super) fn poll_looking(&mut self, now: Instant) {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= ANSWER_WITHIN;
        if self.looking.missing.is_empty() || !self.looking.asked_at.is_some_and(is_over) {
            return;
        }
        for key in std::mem::take(&mut self.looking.missing) {
            if let Some(participant) = self.participant_mut(key) {
                participant.figures = None;
            }
        }
        self.outputs.push_back(Output::Looked);
    }

    /// In a branch, after [`Output::Look`]: tells the home how its lodgers fare.
    pub fn tell_figures(&mut self, stats: Vec<(ParticipantKey, ParticipantStats)>) {
        let of_lodgers = stats.into_iter().filter_map(|(key, stats)| {
            let participant = self.participant(key).filter(|participant| participant.lodger.is_some())?;
            let mut connection = stats.connection;
            connection.gets.retain(|slot| slot.participant.is_some());
            Some(Figures { seat: participant.origin?, connection })
        });
        let figures: Vec<Figures> = of_lodgers.collect();
        for some in figures.chunks(FRAME_MAX) {
            self.outputs.push_back(Output::Upstream(Upstream::Figures(some.to_vec())));
        }
    }
}
