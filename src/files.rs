//! The shell of files: takes uploads, looks into them, keeps their contents, and says in their rooms that
//! they are there.
//!
//! An upload is staged in the data directory, where it outlives the process, and hashed as it comes. When it
//! is complete its contents go into the [`store`] under their SHA-256, so that the same contents are kept
//! once, and a chat message with the file goes into its room through the room's shard. Nothing is held in
//! memory but what is on its way to the disk. What contents are referred to is the event log's knowledge;
//! [`sweep`] removes what is not any more.

mod finish;
mod probe;
mod receive;
mod small;
mod staging;
mod store;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{RwLock, Semaphore, mpsc};

pub use probe::child as probe_child;
pub use receive::{Arriving, Checksum, Progress};
pub use store::{ByteStream, Store, bucket};

use crate::config;
use crate::control::{Author, ChatCommand, Control, IncomingFile, unix_ms};
use crate::core::files::{FileState, Quotas, Upload, Usage};
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::ChatMessage;
use crate::core::refusal::{Code, Refusal};
use crate::events::LogError;
use crate::events::writer::EventWriter;
use receive::Running;
use staging::Staging;

/// Files looked into at a time: each may take a core for some seconds.
const PROBES_MAX: usize = 2;

/// Why files cannot be kept at all; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("the directory {} for files cannot be used: {reason}; make it writable, or set node.data_dir", path.display())]
    Directory { path: PathBuf, reason: std::io::Error },
    #[error("the store for files cannot be used: {0}; look after [files.s3]")]
    Store(#[from] object_store::Error),
}

/// Small files that may wait to be kept. Full: their senders are refused.
pub const INCOMING_MAX: usize = 64;

/// What an upload is to become.
pub struct NewUpload {
    pub room: RoomName,
    pub identity: Identity,
    /// What others see of who sends it.
    pub name: String,
    /// Made safe.
    pub file_name: String,
    pub size_bytes: u64,
    /// `Upload-Metadata` as it came.
    pub metadata: String,
}

/// A message with a file that is kept, and where its contents lie.
pub struct Kept {
    pub message: ChatMessage,
    pub file: FileState,
}

/// Handle of the node's files; cheap to clone.
#[derive(Clone)]
pub struct Files(Arc<Inner>);

struct Inner {
    settings: config::Files,
    quotas: Quotas,
    store: Store,
    staging: Staging,
    uploads: Mutex<BTreeMap<MessageId, Arc<Running>>>,
    /// Held while what is used is read and more of it is promised: an upload is counted here or in the log,
    /// and never in neither.
    admission: tokio::sync::Mutex<()>,
    /// Shared by who puts contents into the store and then refers to them; alone by who removes some.
    contents: RwLock<()>,
    probes: Semaphore,
    /// The program that looks into files; `None` where that is not wanted.
    prober: Option<PathBuf>,
    control: Control,
    events: EventWriter,
}

impl Files {
    /// Opens what is in the data directory, and begins to finish and sweep. To be called within a runtime.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn open(
        config: &config::Config,
        control: Control,
        events: EventWriter,
        incoming: mpsc::Receiver<IncomingFile>,
    ) -> Result<Self, FilesError> {
        let root = config.node.data_dir.join("files");
        let store = match &config.files.s3 {
            Some(s3) => Store::new(bucket(s3)?),
            None => Store::directory(&root.join("store"))?,
        };
        let store = store.shared(!config.cluster.kafka_brokers.is_empty());
        let prober = if config.files.previews { std::env::current_exe().ok() } else { None };
        let files = Self::new(config.files.clone(), store, root.join("uploads"), prober, control, events);
        files.recover()?;
        files.spawn_sweeper();
        files.spawn_receiver(incoming);
        Ok(files)
    }

    /// Files over any store. Nothing runs by itself.
    pub fn new(
        settings: config::Files,
        store: Store,
        staging: PathBuf,
        prober: Option<PathBuf>,
        control: Control,
        events: EventWriter,
    ) -> Self {
        let quotas = Quotas {
            file_bytes_max: settings.file_bytes_max,
            room_bytes_max: settings.room_bytes_max,
            identity_bytes_max: settings.identity_bytes_max,
            node_bytes_max: settings.node_bytes_max,
            uploads_per_identity_max: settings.uploads_per_identity_max,
            uploads_max: settings.uploads_max,
        };
        Self(Arc::new(Inner {
            settings,
            quotas,
            store,
            staging: Staging::new(staging),
            uploads: Mutex::default(),
            admission: tokio::sync::Mutex::default(),
            contents: RwLock::default(),
            probes: Semaphore::new(PROBES_MAX),
            prober,
            control,
            events,
        }))
    }

    /// The largest file that is taken; `None` without bound.
    pub fn file_bytes_max(&self) -> Option<u64> {
        Some(self.0.quotas.file_bytes_max).filter(|max| *max > 0)
    }

    /// A file that is kept.
    ///
    /// # Errors
    /// `not_found`, `gone`, `unavailable`.
    pub async fn kept(&self, room: &RoomName, id: &MessageId) -> Result<Kept, Refusal> {
        let message = self.0.events.message(room.clone(), id.clone()).await.map_err(unreadable)?;
        let message = message.ok_or_else(no_file)?;
        match &message.file {
            Some(file) if file.expired => {
                Err(Refusal::new(Code::Gone, "the file has expired: it is no longer kept"))
            }
            Some(file) => Ok(Kept { file: FileState::clone(file), message }),
            None if message.deleted => Err(Refusal::new(Code::Gone, "this was deleted")),
            None => Err(no_file()),
        }
    }

    /// Messages with files, newest first, before a `seq`; and whether there are more.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list(
        &self,
        room: &RoomName,
        before: u64,
        limit: u32,
    ) -> Result<(Vec<ChatMessage>, bool), Refusal> {
        let page = self.0.events.files(room.clone(), before, limit).await.map_err(unreadable)?;
        Ok((page.messages, page.more))
    }

    /// Contents of a file, or a part of them.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    pub async fn contents(
        &self,
        file: &FileState,
        range: std::ops::Range<u64>,
    ) -> Result<ByteStream, Refusal> {
        self.0.store.contents(&file.sha256, range).await.map_err(unfetchable)
    }

    /// The contents as a file that can be sought in, which has no name: where they are kept elsewhere, a
    /// copy.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read, `storage_full` where there is no room for a copy.
    pub async fn open_contents(&self, file: &FileState) -> Result<std::fs::File, Refusal> {
        if let Some(path) = self.0.store.path(&file.sha256) {
            let opened = tokio::fs::File::open(path).await.map_err(|error| unwritable(&error))?;
            return Ok(opened.into_std().await);
        }
        let files = self.clone();
        let made = tokio::task::spawn_blocking(move || files.0.staging.nameless()).await;
        let copy = made.map_err(|_| stopping())?.map_err(|error| unwritable(&error))?;
        let mut copy = tokio::fs::File::from_std(copy);
        let mut bytes = self.contents(file, 0..file.size_bytes).await?;
        while let Some(chunk) = bytes.next().await {
            copy.write_all(&chunk.map_err(unfetchable)?).await.map_err(|error| unwritable(&error))?;
        }
        copy.flush().await.map_err(|error| unwritable(&error))?;
        copy.rewind().await.map_err(|error| unwritable(&error))?;
        Ok(copy.into_std().await)
    }

    /// A small JPEG picture of a file.
    ///
    /// # Errors
    /// `not_found` when there is none, `unavailable`.
    pub async fn thumbnail(&self, file: &FileState) -> Result<bytes::Bytes, Refusal> {
        if !file.thumbnail {
            return Err(Refusal::new(Code::NotFound, "there is no picture of this file"));
        }
        self.0.store.thumbnail(&file.sha256).await.map_err(unfetchable)
    }

    /// Keeps the picture behind a room's mix, so that the room's next node has it.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be written.
    pub async fn keep_backdrop(&self, room: &RoomName, picture: bytes::Bytes) -> Result<(), Refusal> {
        self.0.store.keep_backdrop(room, picture).await.map_err(unfetchable)
    }

    /// The picture that another node kept behind a room's mix.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn backdrop(&self, room: &RoomName) -> Result<bytes::Bytes, Refusal> {
        self.0.store.backdrop(room).await.map_err(unfetchable)
    }

    /// Deletes a file with its message. Whose it is, and who rules the room, the room knows.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `unavailable`.
    pub async fn delete(&self, room: &RoomName, id: MessageId, author: Author) -> Result<(), Refusal> {
        self.0.control.say(room, author, ChatCommand::Delete { id }).await
    }

    /// Begins an upload; what it will take is reserved from now on.
    ///
    /// # Errors
    /// `forbidden`, `too_large`, `quota_exceeded`, `rate_limited`, `storage_full`, `unavailable`.
    pub async fn create(&self, new: NewUpload) -> Result<Upload, Refusal> {
        let id = MessageId::parse(&format!("{:032x}", rand::random::<u128>()));
        let id = id.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        self.create_as(id, new).await
    }

    async fn create_as(&self, id: MessageId, new: NewUpload) -> Result<Upload, Refusal> {
        if !self.0.settings.enabled {
            return Err(Refusal::new(Code::Forbidden, "this server takes no files"));
        }
        let NewUpload { room, identity, name, file_name, size_bytes, metadata } = new;
        let upload = Upload { id, room, identity, name, file_name, size_bytes, metadata };
        let _alone = self.0.admission.lock().await;
        if self.uploads().contains_key(&upload.id) {
            return Err(Refusal::new(Code::UploadBusy, "an upload of this id is on its way"));
        }
        let kept = self.0.events.file_usage(upload.room.clone(), upload.identity.clone()).await;
        let kept = kept.map_err(unreadable)?;
        let mut usage = Usage {
            room_bytes: kept.room_bytes,
            identity_bytes: kept.identity_bytes,
            node_bytes: kept.node_bytes,
            ..Usage::default()
        };
        let mut promised = 0u64;
        for running in self.uploads().values() {
            let other = &running.upload;
            let counted = |counts: bool| if counts { other.size_bytes } else { 0 };
            let other_bytes = other.size_bytes;
            usage.room_bytes = usage.room_bytes.saturating_add(counted(other.room == upload.room));
            usage.identity_bytes =
                usage.identity_bytes.saturating_add(counted(other.identity == upload.identity));
            usage.node_bytes = usage.node_bytes.saturating_add(other_bytes);
            usage.identity_uploads += u32::from(other.identity == upload.identity);
            usage.node_uploads += 1;
            promised = promised.saturating_add(other_bytes.saturating_sub(running.received()));
        }
        self.0.quotas.admit(&usage, upload.size_bytes)?;
        let running = self.stage(upload.clone(), promised).await?;
        self.uploads().insert(upload.id.clone(), Arc::new(running));
        self.count_uploads();
        Ok(upload)
    }

    async fn stage(&self, upload: Upload, promised: u64) -> Result<Running, Refusal> {
        let files = self.clone();
        let staged = tokio::task::spawn_blocking(move || {
            let Inner { staging, settings, .. } = &*files.0;
            staging.make()?;
            let needed =
                promised.saturating_add(upload.size_bytes).saturating_add(settings.disk_reserve_bytes);
            if settings.disk_reserve_bytes > 0 && staging.free_bytes()? < needed {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            staging.create(&upload).map(|staged| Running::new(upload, staged, unix_ms()))
        });
        staged.await.map_err(|_| stopping())?.map_err(|error| unwritable(&error))
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<MessageId, Arc<Running>>> {
        // The map is whole between any two statements that change it.
        self.0.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, room: &RoomName, id: &MessageId) -> Option<Arc<Running>> {
        self.uploads().get(id).filter(|running| running.upload.room == *room).cloned()
    }

    /// Takes an upload off the books, and what is staged of it off the disk.
    async fn forget(&self, id: &MessageId) {
        let _alone = self.0.admission.lock().await;
        self.uploads().remove(id);
        self.count_uploads();
        let (files, id) = (self.clone(), id.clone());
        let removed = tokio::task::spawn_blocking(move || files.0.staging.remove(&id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "what is left of an upload cannot be removed");
        }
    }

    fn count_uploads(&self) {
        metrics::gauge!("antiphon_files_uploads").set(self.uploads().len() as f64);
    }
}

fn no_file() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such file")
}

fn stopping() -> Refusal {
    Refusal::new(Code::Unavailable, "the server is going down; go on with the upload later")
}

fn unreadable(error: LogError) -> Refusal {
    tracing::warn!(%error, "what is known of files cannot be read");
    Refusal::new(Code::Unavailable, "what is known of files cannot be read now; try again")
}

fn unfetchable(error: object_store::Error) -> Refusal {
    tracing::error!(%error, "a file cannot be read from its store");
    Refusal::new(Code::Unavailable, "the file cannot be read from its store now; try again")
}

/// The disk, or the store behind it, did not take something.
fn unwritable(error: &std::io::Error) -> Refusal {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
        let words = "the server has no space left for this; what arrived is kept, go on later";
        return Refusal::new(Code::StorageFull, words);
    }
    tracing::error!(%error, "an upload cannot be written");
    Refusal::new(Code::Unavailable, "the upload cannot be written now; try again")
}
