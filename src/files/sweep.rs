//! What has to be done though nobody asks: finish what a restart interrupted, forget uploads that do not go
//! on, remove files whose time is over and contents that nobody refers to any more.

use std::sync::Arc;
use std::time::Duration;

use super::receive::Running;
use super::{Files, FilesError};
use crate::control::{Author, ChatCommand, unix_ms};
use crate::core::ids::Identity;
use crate::core::refusal::Code;

/// Between two looks for contents without a file: how long deleted contents may stay.
const REMOVE_EVERY: Duration = Duration::from_secs(2);
/// Between two looks for what is old.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Between two looks for pictures behind mixes that no node came for, and for how long they are kept: rooms
/// live for hours, and a node is gone for minutes.
const BACKDROPS_EVERY: Duration = Duration::from_secs(3_600);
const BACKDROPS_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Taken at a time.
const BATCH: u32 = 100;

impl Files {
    /// Knows again what was on its way when the node went down.
    pub(super) fn recover(&self) -> Result<(), FilesError> {
        let staging = &self.0.staging;
        let found = staging.scan();
        let found =
            found.map_err(|reason| FilesError::Directory { path: staging.root().to_owned(), reason })?;
        let mut uploads = self.uploads();
        for one in found {
            let running = Running::found(one.upload, one.received, one.touched_ms);
            uploads.insert(running.upload.id.clone(), Arc::new(running));
        }
        if !uploads.is_empty() {
            tracing::info!(count = uploads.len(), "uploads can go on");
        }
        Ok(())
    }

    pub(super) fn spawn_sweeper(&self) {
        let files = self.clone();
        tokio::spawn(async move {
            let mut removing = tokio::time::interval(REMOVE_EVERY);
            let mut expiring = tokio::time::interval(EXPIRE_EVERY);
            let mut backdrops = tokio::time::interval(BACKDROPS_EVERY);
            loop {
                tokio::select! {
                    _ = removing.tick() => files.remove_unreferenced().await,
                    _ = backdrops.tick() => files.expire_backdrops(unix_ms()).await,
                    _ = expiring.tick() => {
                        files.finish_complete().await;
                        files.forget_stale(unix_ms()).await;
                        files.expire(unix_ms()).await;
                    }
                }
            }
        });
    }

    async fn expire_backdrops(&self, now_ms: u64) {
        let before_ms = now_ms.saturating_sub(BACKDROPS_KEPT.as_millis() as u64);
        if let Err(error) = self.0.store.expire_backdrops(before_ms).await {
            tracing::warn!(%error, "old pictures behind mixes cannot be removed");
        }
    }

    /// Uploads that are complete, but not in their rooms: the node went down, or something refused them.
    async fn finish_complete(&self) {
        let complete: Vec<_> =
            self.uploads().values().filter(|running| running.is_complete()).cloned().collect();
        for running in complete {
            // One that is held is being finished.
            let Ok(held) = Arc::clone(&running.staged).try_lock_owned() else { continue };
            if let Err(refusal) = self.finish_held(&running, held).await {
                tracing::warn!(code = refusal.code.as_str(), "a complete upload is not stored yet");
            }
        }
    }

    /// Uploads that did not go on for the time they have.
    pub(super) async fn forget_stale(&self, now_ms: u64) {
        let age_max_ms = self.0.settings.upload_hours.saturating_mul(3_600_000);
        let stale: Vec<_> = self
            .uploads()
            .values()
            .filter(|running| !running.is_complete())
            .filter(|running| running.touched_ms().saturating_add(age_max_ms) < now_ms)
            .cloned()
            .collect();
        for running in stale {
            if let Ok(_held) = Arc::clone(&running.staged).try_lock_owned() {
                self.forget(&running.upload.id).await;
            }
        }
    }

    /// Files that are older than they are kept.
    pub(super) async fn expire(&self, now_ms: u64) {
        let days = self.0.settings.retention_days;
        if days == 0 {
            return;
        }
        let before_ms = now_ms.saturating_sub(days.saturating_mul(86_400_000));
        let old = self.0.events.files_before(before_ms, BATCH).await.unwrap_or_default();
        let Ok(identity) = Identity::parse("antiphon") else { return };
        for (room, id) in old {
            let author = Author { identity: identity.clone(), name: String::new(), is_admin: true };
            match self.0.control.say(&room, author, ChatCommand::ExpireFile { id }).await {
                // Its message was deleted meanwhile, and the file with it.
                Ok(()) => {}
                Err(refusal) if refusal.code == Code::NotFound => {}
                Err(refusal) => {
                    tracing::warn!(
                        code = refusal.code.as_str(),
                        "a file that is over its time is still kept"
                    );
                }
            }
        }
    }

    /// Contents whose last file was deleted.
    pub(super) async fn remove_unreferenced(&self) {
        let Ok(candidates) = self.0.events.unreferenced(BATCH).await else { return };
        if candidates.is_empty() {
            return;
        }
        let _alone = self.0.contents.write().await;
        // Asked again: while nobody could refer to any of them anew.
        let Ok(unreferenced) = self.0.events.unreferenced(BATCH).await else { return };
        for sha256 in unreferenced {
            match self.0.store.remove(&sha256, unix_ms()).await {
                // Another node may refer to them: later.
                Ok(false) => {}
                Ok(true) => {
                    if let Err(error) = self.0.events.forget_unreferenced(sha256).await {
                        tracing::warn!(%error, "contents were removed, and will be once more");
                    }
                }
                Err(error) => tracing::warn!(%error, "deleted contents cannot be removed; it is tried again"),
            }
        }
    }
}
