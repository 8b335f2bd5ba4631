//! Whether this node keeps the ledger: watches the wallets, and writes what follows from what they say.
//!
//! Of the nodes of a cluster one at a time does. It has the ledger's lease, and has read back from the log
//! that it opened the ledger under that lease's epoch; all that others wrote before is then known to it, and
//! nothing that they write later counts. The lease says who should, the log says who does
//! ([`Fence`](crate::core::fence::Fence)): an epoch that the log refused is never tried again.

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write that the ledger is opened under this epoch.
    Open(u64),
    /// Forget what is not in the log, and follow it.
    StepDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// There is nobody else.
    Alone,
    Follows,
    Opens(u64),
    Keeps(u64),
}

/// This node's part. Drive it with `handle_*`, each of which says what is to be done.
#[derive(Debug)]
pub struct Keeping {
    role: Role,
    /// The highest epoch that was tried.
    tried: u64,
}

impl Keeping {
    /// Of a node that shares its log with nobody.
    pub fn alone() -> Self {
        Self { role: Role::Alone, tried: 0 }
    }

    /// Of a node among others: it follows at first.
    pub fn among_others() -> Self {
        Self { role: Role::Follows, tried: 0 }
    }

    /// Facts may be made here.
    pub fn may_write(&self) -> bool {
        matches!(self.role, Role::Alone | Role::Keeps(_))
    }

    pub fn is_alone(&self) -> bool {
        self.role == Role::Alone
    }

    /// The epoch of the lease that this node has now, if it has it.
    pub fn handle_lease(&mut self, held: Option<u64>) -> Option<Step> {
        match (self.role, held) {
            (Role::Follows, Some(epoch)) if epoch > self.tried => {
                (self.role, self.tried) = (Role::Opens(epoch), epoch);
                Some(Step::Open(epoch))
            }
            (Role::Opens(epoch) | Role::Keeps(epoch), held) if held != Some(epoch) => self.step_down(),
            _ => None,
        }
    }

    /// The opening under this epoch was read back; true where it counts and nothing came between.
    pub fn handle_opened(&mut self, epoch: u64) -> bool {
        let is_current = self.role == Role::Opens(epoch);
        if is_current {
            self.role = Role::Keeps(epoch);
        }
        is_current
    }

    /// The log took nothing from this node: another one's word counts.
    pub fn handle_fenced(&mut self) -> Option<Step> {
        match self.role {
            Role::Opens(_) | Role::Keeps(_) => self.step_down(),
            Role::Alone | Role::Follows => None,
        }
    }

    fn step_down(&mut self) -> Option<Step> {
        self.role = Role::Follows;
        Some(Step::StepDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_writes_once_its_opening_was_read_back() {
        let mut keeping = Keeping::among_others();
        assert_eq!(keeping.handle_lease(None), None);
        assert_eq!(keeping.handle_lease(Some(3)), Some(Step::Open(3)));
        assert!(!keeping.may_write());
        assert_eq!(keeping.handle_lease(Some(3)), None, "once");
        assert!(keeping.handle_opened(3));
        assert!(keeping.may_write());
        assert_eq!(keeping.handle_lease(None), Some(Step::StepDown));
        assert!(!keeping.may_write());
    }

    #[test]
    fn an_epoch_that_the_log_refused_is_not_tried_again() {
        let mut keeping = Keeping::among_others();
        keeping.handle_lease(Some(3));
        assert_eq!(keeping.handle_fenced(), Some(Step::StepDown));
        assert!(!keeping.handle_opened(3), "an answer that came late");
        assert_eq!(keeping.handle_lease(Some(3)), None);
        assert_eq!(keeping.handle_lease(Some(5)), Some(Step::Open(5)));
        assert_eq!(
            keeping.handle_lease(Some(6)),
            Some(Step::StepDown),
            "another lease than the one it opens by"
        );
        assert_eq!(keeping.handle_fenced(), None, "it follows already");
    }

    #[test]
    fn who_is_alone_always_writes() {
        let mut keeping = Keeping::alone();
        assert!(keeping.may_write() && keeping.is_alone());
        assert_eq!((keeping.handle_lease(None), keeping.handle_fenced()), (None, None));
        assert!(keeping.may_write());
    }
}
