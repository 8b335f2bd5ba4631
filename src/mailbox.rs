//! Bounded queues between threads, each with its policy when full in its name.
//!
//! - [`control`]: commands and their answers. Full means that the owner is stuck or overrun: the sender is
//!   told and refuses its own caller. Nothing is dropped silently.
//! - [`lossy`]: media. Full drops the newest item and counts it; the packet path never waits.
//!
//! Statistics need no queue: the latest value wins, see `tokio::sync::watch`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// The other side is full, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox is full or closed")]
pub struct Refused;

/// Sends commands; refuses when full.
#[derive(Debug)]
pub struct ControlSender<T>(mpsc::Sender<T>);

impl<T> Clone for ControlSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> ControlSender<T> {
    /// # Errors
    /// [`Refused`] when `depth` commands wait already, or nobody reads them any more.
    pub fn send(&self, item: T) -> Result<(), Refused> {
        self.0.try_send(item).map_err(|_| Refused)
    }

    /// Sends, or gives back what found no room.
    ///
    /// # Errors
    /// The item, when `depth` wait already, or nobody reads them any more.
    pub fn offer(&self, item: T) -> Result<(), T> {
        self.0.try_send(item).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits for its turn, for commands that end something and must not be refused.
    ///
    /// # Errors
    /// [`Refused`] when nobody reads any more.
    pub async fn send_when_free(&self, item: T) -> Result<(), Refused> {
        self.0.send(item).await.map_err(|_| Refused)
    }
}

/// A way into a queue whose items are of another kind, for who need not know of those.
pub struct Inlet<T>(Arc<dyn Fn(T) -> Result<(), T> + Send + Sync>);

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Inlet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inlet")
    }
}

impl<T> Inlet<T> {
    /// `offer` sends, or gives back what found no room.
    pub fn new(offer: impl Fn(T) -> Result<(), T> + Send + Sync + 'static) -> Self {
        Self(Arc::new(offer))
    }

    /// Sends, or gives back what found no room.
    ///
    /// # Errors
    /// The item, when the queue is full, or nobody reads it any more.
    pub fn offer(&self, item: T) -> Result<(), T> {
        (self.0)(item)
    }
}

/// A queue of commands, `depth` deep.
pub fn control<T>(depth: usize) -> (ControlSender<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel(depth);
    (ControlSender(sender), receiver)
}

/// Sends media; drops when full.
#[derive(Debug)]
pub struct LossySender<T> {
    queue: mpsc::Sender<T>,
    dropped: Arc<AtomicU64>,
}

impl<T> Clone for LossySender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), dropped: Arc::clone(&self.dropped) }
    }
}

impl<T> LossySender<T> {
    /// False when the item was dropped because the queue is full or closed.
    pub fn send(&self, item: T) -> bool {
        let sent = self.queue.try_send(item).is_ok();
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Items dropped since the queue was made.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

/// A queue of media, `depth` deep.
pub fn lossy<T>(depth: usize) -> (LossySender<T>, mpsc::Receiver<T>) {
    let (queue, receiver) = mpsc::channel(depth);
    (LossySender { queue, dropped: Arc::default() }, receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_control_queue_tells_its_sender() {
        let (sender, mut receiver) = control(1);
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.send(2), Err(Refused));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(sender.send(3), Ok(()));
    }

    #[test]
    fn a_full_lossy_queue_drops_and_counts() {
        let (sender, _receiver) = lossy(1);
        assert!(sender.send(1));
        assert!(!sender.send(2));
        assert_eq!(sender.dropped(), 1);
    }
}
