//! Recordings on the disk: begun, listed, fetched and removed; and the recorder's process, which writes them.
//!
//! A recording is a folder under `recordings/ROOM/ID` of the data directory, and once it is finished in the
//! bucket where files lie, if there is one ([`archive`]). Its manifest
//! ([`crate::core::recording::manifest`]) is the only record of it. Whoever writes into a folder holds its
//! lock; what nobody holds and is not finished was cut, and is finished by a process of its own, since it
//! reads what the network once brought.

mod archive;
mod figures;
mod finish;
mod folder;
mod media;
mod mix_file;
pub mod recorder;
pub mod remux;
mod session;
mod sound;
mod sweep;
mod track;
mod track_file;
mod usage;

use std::fs;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use object_store::path::Path as Key;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

pub use finish::run as finish_folder;

use crate::config::{self, Config};
use crate::core::files::readable_size;
use crate::core::ids::RoomName;
use crate::core::recording::manifest::Manifest;
use crate::core::recording::{FromRecorder, RecorderSettings, RecordingId, ToRecorder};
use crate::core::refusal::{Code, Refusal};
use crate::worker::{Delivery, Queues, bridge};
use archive::Archive;
use figures::Account;
use folder::{Folder, read_manifest};

/// Beneath the data directory.
const FOLDER: &str = "recordings";
/// Bytes of a file that are read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// For what is finished when the node goes: a service manager may wait for no more than half a minute.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LEAVE_INTERVAL: Duration = Duration::from_millis(100);
/// Of the random end of an id.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// All recordings of the node.
#[derive(Debug, Clone)]
pub struct Recordings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    root: PathBuf,
    /// Where finished ones go, if not on the disk.
    archive: Option<Archive>,
    limits: config::Recordings,
}

/// A file of a recording, open to be read.
#[derive(Debug)]
pub struct OpenFile {
    contents: Contents,
    pub size: u64,
    /// With its quotes.
    pub etag: String,
}

#[derive(Debug)]
enum Contents {
    Here(tokio::fs::File),
    InBucket(Archive, Key),
}

impl OpenFile {
    /// A range of it, as it is read.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn stream(self, range: Range<u64>) -> Result<BoxStream<'static, io::Result<Bytes>>, Refusal> {
        let mut file = match self.contents {
            Contents::Here(file) => file,
            Contents::InBucket(archive, key) => {
                let bytes = archive.contents(&key, range).await.map_err(unreachable_bucket)?;
                return Ok(bytes.map_err(io::Error::other).boxed());
            }
        };
        file.seek(SeekFrom::Start(range.start)).await.map_err(|error| unreadable(&error))?;
        let left = file.take(range.end - range.start);
        let chunks = futures_util::stream::try_unfold(left, async |mut left| {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let count = (&mut left).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
            Ok::<_, io::Error>((count > 0).then(|| (Bytes::from(chunk), left)))
        });
        Ok(chunks.boxed())
    }
}

impl Recordings {
    /// Looks after what is there from now on, on the current runtime. `program` is this very binary.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(config: &Config, program: PathBuf, bucket: Option<Arc<dyn ObjectStore>>) -> io::Result<Self> {
        let root = std::path::absolute(config.node.data_dir.join(FOLDER))?;
        if root.to_str().is_none() {
            return Err(io::Error::other("the data directory's name is no UTF-8, which recordings need"));
        }
        fs::create_dir_all(&root)?;
        let recordings = Self::new(config, program, root, bucket);
        tokio::spawn(sweep::keep(recordings.clone()));
        if let Some(archive) = recordings.0.archive.clone() {
            tokio::spawn(archive::run(recordings.clone(), archive));
        }
        Ok(recordings)
    }

    /// Those in a folder. Nothing runs by itself.
    pub fn new(
        config: &Config,
        program: PathBuf,
        root: PathBuf,
        bucket: Option<Arc<dyn ObjectStore>>,
    ) -> Self {
        let (archive, limits) = (bucket.map(Archive::new), config.recordings.clone());
        Self(Arc::new(Inner { program, root, archive, limits }))
    }

    /// Before the node goes: what its recorders are just putting in order is moved to the bucket, too.
    pub async fn leave(&self) {
        let Some(archive) = &self.0.archive else { return };
        let moved = async {
            loop {
                archive::move_finished(self, archive).await;
                let root = self.0.root.clone();
                let is_held = |path: &PathBuf| matches!(Folder::open(path), Ok(None));
                let rooms = move || folders_in(&root).iter().any(|room| folders_in(room).iter().any(is_held));
                if !blocking(rooms).await.unwrap_or_default() {
                    break;
                }
                tokio::time::sleep(LEAVE_INTERVAL).await;
            }
            archive::move_finished(self, archive).await;
        };
        if tokio::time::timeout(LEAVE_WITHIN, moved).await.is_err() {
            tracing::warn!("recordings are left that go to the bucket once this node is back");
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.0.limits.enabled
    }

    /// Whether one more may begin in this room, and its name.
    ///
    /// # Errors
    /// `unavailable`, `storage_full`, `quota_exceeded`.
    pub async fn admit(&self, room: &RoomName) -> Result<RecordingId, Refusal> {
        let moved = match &self.0.archive {
            Some(archive) => archive.bytes_of(room).await.map_err(unreachable_bucket)?,
            None => 0,
        };
        let (this, room) = (self.clone(), room.clone());
        blocking(move || this.admit_now(&room, moved)).await?
    }

    /// `moved` are the bytes of the room that are not on the disk any more.
    fn admit_now(&self, room: &RoomName, moved: u64) -> Result<RecordingId, Refusal> {
        let Inner { root, limits, .. } = &*self.0;
        if !limits.enabled {
            return Err(Refusal::new(Code::Unavailable, "this node does not record"));
        }
        let free = Folder::free_bytes(root).map_err(|error| unreadable(&error))?;
        if free < limits.disk_free_min_bytes {
            let words = format!("the server's disk has {} left, too little to record", readable_size(free));
            return Err(Refusal::new(Code::StorageFull, words));
        }
        for (most, path, moved, whose) in [
            (limits.room_bytes_max, root.join(room.as_str()), moved, "the room"),
            (limits.node_bytes_max, root.clone(), 0, "the server"),
        ] {
            if most > 0 && bytes_in(&path) + moved >= most {
                let words = format!("{whose} has {} of recordings already; delete some", readable_size(most));
                return Err(Refusal::new(Code::QuotaExceeded, words));
            }
        }
        Ok(new_id(SystemTime::now()))
    }

    /// Starts a recorder; what it says goes to `deliver`.
    pub fn start(
        &self,
        settings: RecorderSettings,
        deliver: impl Fn(Delivery<FromRecorder>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Queues<ToRecorder> {
        let Inner { program, limits, .. } = &*self.0;
        let folder = self.path(&settings.room, &settings.recording.id).to_string_lossy().into_owned();
        let settings = RecorderSettings {
            folder,
            disk_free_min_bytes: limits.disk_free_min_bytes,
            bytes_max: limits.recording_bytes_max,
            ..settings
        };
        bridge::start(program.clone(), ToRecorder::Begin(Box::new(settings)), Account::open, deliver)
    }

    /// Those of a room, newest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list(&self, room: &RoomName) -> Result<Vec<Manifest>, Refusal> {
        let path = self.0.root.join(room.as_str());
        let here = blocking(move || folders_in(&path).iter().filter_map(|path| read(path)).collect());
        let mut manifests: Vec<Manifest> = here.await?;
        if let Some(archive) = &self.0.archive {
            let moved = archive.list(room).await.map_err(unreachable_bucket)?;
            // One that is just being moved is in both.
            let is_new = |one: &Manifest| !manifests.iter().any(|known| known.id == one.id);
            let new: Vec<Manifest> = moved.into_iter().filter(is_new).collect();
            manifests.extend(new);
        }
        manifests.sort_by(|a, b| b.started_at_ms.cmp(&a.started_at_ms).then(b.id.cmp(&a.id)));
        Ok(manifests)
    }

    /// # Errors
    /// `not_found`.
    pub async fn show(&self, room: &RoomName, id: &RecordingId) -> Result<Manifest, Refusal> {
        let path = self.path(room, id);
        let here = blocking(move || read(&path)).await?;
        match (here, &self.0.archive) {
            (None, Some(archive)) => {
                archive.show(room, id).await.map_err(unreachable_bucket)?.ok_or_else(not_found)
            }
            (here, _) => here.ok_or_else(not_found),
        }
    }

    /// Opens a file that the recording's manifest names.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn file(&self, room: &RoomName, id: &RecordingId, name: &str) -> Result<OpenFile, Refusal> {
        let manifest = self.show(room, id).await?;
        // No other name leads anywhere.
        let named = manifest.files.iter().find(|file| file.name == name);
        let name = &named.ok_or_else(not_found)?.name;
        if let Ok(file) = tokio::fs::File::open(self.path(room, id).join(name)).await {
            let metadata = file.metadata().await.map_err(|error| unreadable(&error))?;
            let modified = metadata.modified().map_err(|error| unreadable(&error))?;
            let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            let etag = format!("\"{:x}-{:x}\"", metadata.len(), since.as_nanos());
            return Ok(OpenFile { contents: Contents::Here(file), size: metadata.len(), etag });
        }
        let archive = self.0.archive.clone().ok_or_else(not_found)?;
        let object = match archive.head(room, id, name).await {
            Err(object_store::Error::NotFound { .. }) => return Err(not_found()),
            found => found.map_err(unreachable_bucket)?,
        };
        let etag = format!("\"{:x}-b{:x}\"", object.size, object.last_modified.timestamp_millis());
        let (size, contents) = (object.size, Contents::InBucket(archive, object.location));
        Ok(OpenFile { contents, size, etag })
    }

    /// Removes a recording that is not written to.
    ///
    /// # Errors
    /// `not_found`, `already_recording` while it is written to.
    pub async fn delete(&self, room: &RoomName, id: &RecordingId) -> Result<(), Refusal> {
        let path = self.path(room, id);
        let here = blocking(move || read(&path).map(|_| hold(&path).map(|folder| (folder, path)))).await?;
        let here = here.transpose()?;
        let mut is_there = here.is_some();
        if let Some(archive) = &self.0.archive {
            is_there |= archive.show(room, id).await.map_err(unreachable_bucket)?.is_some();
            archive.delete(room, id).await.map_err(unreachable_bucket)?;
        }
        match here {
            Some((folder, path)) => blocking(move || remove_held(&folder, &path)).await?,
            None if is_there => Ok(()),
            None => Err(not_found()),
        }
    }

    fn path(&self, room: &RoomName, id: &RecordingId) -> PathBuf {
        self.0.root.join(room.as_str()).join(id.as_str())
    }
}

/// Removes a folder that nobody writes to.
fn remove(path: &Path) -> Result<(), Refusal> {
    remove_held(&hold(path)?, path)
}

/// A folder that nobody writes to, nor will while it is held.
fn hold(path: &Path) -> Result<Folder, Refusal> {
    let busy =
        || Refusal::new(Code::AlreadyRecording, "this recording is not finished: stop it first, and wait");
    Folder::open(path).map_err(|error| unreadable(&error))?.ok_or_else(busy)
}

fn remove_held(_held: &Folder, path: &Path) -> Result<(), Refusal> {
    fs::remove_dir_all(path).map_err(|error| unreadable(&error))
}

/// The manifest as it stands, with the sizes of files that are written to.
fn read(path: &Path) -> Option<Manifest> {
    let mut manifest = read_manifest(path).ok()?;
    for file in manifest.files.iter_mut().filter(|file| !file.complete) {
        file.bytes = fs::metadata(path.join(&file.name)).map_or(file.bytes, |metadata| metadata.len());
    }
    Some(manifest)
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Of all files beneath.
fn bytes_in(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Sorts by time, and cannot be guessed: `20261126-101500-7kq2mvab`.
fn new_id(now: SystemTime) -> RecordingId {
    let mut rng = rand::rng();
    let tail: String = (0..8).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect();
    // Such as `Thu, 26 Nov 2026 10:15:00 GMT` (RFC 9110 §5.6.7).
    let date = httpdate::fmt_http_date(now);
    let digits = |range: std::ops::Range<usize>| date.get(range).unwrap_or_default();
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(digits(8..11)).unwrap_or_default() / 3 + 1;
    let time = digits(17..25).replace(':', "");
    let text = format!("{}{month:02}{}-{time}-{tail}", digits(12..16), digits(5..7));
    RecordingId::parse(&text).expect("digits, dashes and lower-case letters are an id")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Refusal::new(Code::Internal, "the recordings could not be looked at"))
}

fn unreadable(error: &io::Error) -> Refusal {
    tracing::warn!(%error, "recordings cannot be read or written");
    Refusal::new(Code::Unavailable, "the recordings cannot be read now; try again")
}

fn unreachable_bucket(error: object_store::Error) -> Refusal {
    tracing::warn!(%error, "the bucket of recordings cannot be read or written");
    Refusal::new(Code::Unavailable, "the recordings cannot be read now; try again")
}

fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such recording, or no such file in it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_begins_with_its_time() {
        let id = new_id(UNIX_EPOCH + Duration::from_secs(1_795_688_100));
        assert!(id.as_str().starts_with("20261126-101500-"), "{id}");
    }
}
