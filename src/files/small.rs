//! Small files that came over data channels: uploads whose bytes are all there.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc};

use super::receive::Arriving;
use super::{Files, NewUpload};
use crate::control::IncomingFile;
use crate::core::files::SmallFile;
use crate::core::ids::RoomName;
use crate::core::refusal::{Code, Refusal};

/// One that takes long to look into does not hold up all others.
const AT_A_TIME: usize = 8;

impl Files {
    /// Keeps what comes, a few at a time, and tells who sent it.
    pub(super) fn spawn_receiver(&self, mut incoming: mpsc::Receiver<IncomingFile>) {
        let files = self.clone();
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        tokio::spawn(async move {
            while let Some(IncomingFile { room, file }) = incoming.recv().await {
                let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
                let files = files.clone();
                tokio::spawn(async move {
                    let asker = file.asker.clone();
                    let result = files.keep_small(&room, file).await;
                    files.0.control.kept(room, asker, result);
                    drop(turn);
                });
            }
        });
    }

    async fn keep_small(&self, room: &RoomName, file: SmallFile) -> Result<(), Refusal> {
        match self.kept(room, &file.id).await {
            // It was sent again, as its answer got lost.
            Ok(kept) if kept.message.identity == file.author.identity => return Ok(()),
            Ok(_) => return Err(Refusal::new(Code::Forbidden, "another has sent a file of this id")),
            Err(refusal) if refusal.code == Code::NotFound => {}
            Err(refusal) => return Err(refusal),
        }
        let upload = self
            .create_as(
                file.id,
                NewUpload {
                    room: room.clone(),
                    identity: file.author.identity,
                    name: file.author.name,
                    file_name: file.name,
                    size_bytes: file.bytes.len() as u64,
                    metadata: String::new(),
                },
            )
            .await?;
        let body = stream::iter([Ok::<_, Infallible>(Bytes::from(file.bytes))]);
        let arriving = Arriving { offset: 0, length: None, checksum: None, body };
        let received = self.receive(room, &upload.id, arriving).await;
        if received.is_err() {
            // Its sender has it, and sends it again.
            self.forget(&upload.id).await;
        }
        received.map(drop)
    }
}
