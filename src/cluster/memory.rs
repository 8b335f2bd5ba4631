//! The registry in memory: for a node that is alone, and for tests.
//!
//! What it holds is gone with its process, and so is whoever held it. Its clones are one registry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Answer, Bid, Claim, Known, Lease, LeaseError, Leases, Pulse, boot_time};
use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{NodeRecord, Renewal};
use crate::core::registry::Registry;

/// [`Leases`] of one process.
#[derive(Debug, Clone)]
pub struct MemoryLeases(Arc<Mutex<Registry>>);

impl MemoryLeases {
    pub fn new(ttl: Duration, orphan_kept: Duration) -> Self {
        Self(Arc::new(Mutex::new(Registry::new(ttl, orphan_kept))))
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Each change is whole before the lock is left.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    std::future::ready(Ok::<T, LeaseError>(answer)).boxed()
}

impl Leases for MemoryLeases {
    fn heartbeat<'a>(&'a self, node: &'a NodeRecord) -> Answer<'a, Pulse> {
        now(self.registry().heartbeat(boot_time(), node))
    }

    fn sign_off<'a>(&'a self, node: &'a NodeId, incarnation: u64) -> Answer<'a, ()> {
        self.registry().sign_off(node, incarnation);
        now(())
    }

    fn look_up<'a>(&'a self, room: &'a RoomName) -> Answer<'a, Known> {
        now(self.registry().look_up(boot_time(), room))
    }

    fn claim<'a>(&'a self, bid: &'a Bid) -> Answer<'a, Claim> {
        now(self.registry().claim(boot_time(), bid))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, settings: &'a str) -> Answer<'a, Renewal> {
        now(self.registry().renew(boot_time(), lease, settings))
    }

    fn release<'a>(&'a self, lease: &'a Lease, ended: bool) -> Answer<'a, bool> {
        now(self.registry().release(boot_time(), lease, ended))
    }

    fn hand_over<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a NodeId,
        incarnation: u64,
    ) -> Answer<'a, Option<u64>> {
        now(self.registry().hand_over(boot_time(), lease, to, incarnation))
    }
}
