//! The last steps of an upload: what is it, keep its contents, say so in its room. Each may fail and be tried
//! again, after a restart too; done twice it is done once.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::probe::{self, Look};
use super::receive::Running;
use super::staging::Staged;
use super::{Files, stopping, unfetchable, unwritable};
use crate::control::{Author, ChatCommand, unix_ms};
use crate::core::files::{FileState, is_probed, sniff};
use crate::core::refusal::Refusal;

impl Files {
    /// Finishes a complete upload, even if who asked does not wait for it.
    ///
    /// # Errors
    /// `storage_full`, `unavailable`, and as its room refuses it.
    pub(super) async fn finish_held(
        &self,
        running: &Arc<Running>,
        held: OwnedMutexGuard<Option<Staged>>,
    ) -> Result<(), Refusal> {
        let (files, running) = (self.clone(), Arc::clone(running));
        let task = tokio::spawn(async move { files.finish(&running, held).await });
        task.await.map_err(|_| stopping())?
    }

    async fn finish(
        &self,
        running: &Arc<Running>,
        mut held: OwnedMutexGuard<Option<Staged>>,
    ) -> Result<(), Refusal> {
        let upload = &running.upload;
        if self.running(&upload.room, &upload.id).is_none() {
            // Whoever held it before has finished it.
            return Ok(());
        }
        let staged = self.opened(running, held.take()).await?;
        let stored = self.store(running, &staged).await;
        *held = Some(staged);
        stored?;
        metrics::counter!("antiphon_files_finished_total").increment(1);
        self.forget(&upload.id).await;
        Ok(())
    }

    async fn store(&self, running: &Running, staged: &Staged) -> Result<(), Refusal> {
        let upload = &running.upload;
        let known = staged.file_state().map_err(|error| unwritable(&error))?;
        let file = match known {
            Some(file) => file,
            None => self.examine(running, staged).await?,
        };
        let _referring = self.0.contents.read().await;
        let data = staged.data();
        // Moved away already, when a restart came between here and the room.
        if data.exists() {
            self.0.store.keep(&file.sha256, &data, unix_ms()).await.map_err(|error| unwritable(&error))?;
        }
        let author = Author { identity: upload.identity.clone(), name: upload.name.clone(), is_admin: false };
        let command = ChatCommand::SendFile { id: upload.id.clone(), file: Box::new(file) };
        self.0.control.say(&upload.room, author, command).await
    }

    /// Finds out what the upload has become, and notes it.
    async fn examine(&self, running: &Running, staged: &Staged) -> Result<FileState, Refusal> {
        let upload = &running.upload;
        let head = staged.head().map_err(|error| unwritable(&error))?;
        let media_type = sniff(&head);
        let sha256 = staged.sha256();
        let look = match &self.0.prober {
            Some(program) if is_probed(media_type) => {
                // Closed only when the node ends.
                let _turn = self.0.probes.acquire().await.map_err(|_| stopping())?;
                let data = File::open(staged.data()).map_err(|error| unwritable(&error))?;
                probe::look(program, data).await
            }
            _ => Look::default(),
        };
        let is_picture = media_type.starts_with("image/");
        let mut file = FileState {
            name: upload.file_name.clone(),
            size_bytes: upload.size_bytes,
            media_type: look.media_type(media_type).to_owned(),
            sha256: sha256.clone(),
            width: look.facts.width,
            height: look.facts.height,
            duration_ms: look.facts.duration_ms.filter(|_| !is_picture),
            thumbnail: false,
            expired: false,
        };
        if let Some(jpeg) = look.thumbnail {
            self.0.store.keep_thumbnail(&sha256, jpeg).await.map_err(unfetchable)?;
            file.thumbnail = true;
        }
        staged.set_file_state(&file).map_err(|error| unwritable(&error))?;
        Ok(file)
    }
}
