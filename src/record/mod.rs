//! Recordings on the disk: begun, listed, fetched and removed; and the recorder's process, which writes them.
//!
//! A recording is a folder under `recordings/ROOM/ID` of the data directory. Its manifest
//! ([`crate::core::recording::manifest`]) is the only record of it. Whoever writes into a folder holds its
//! lock; what nobody holds and is not finished was cut, and is finished by a process of its own, since it
//! reads what the network once brought.

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
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use rand::RngExt as _;

pub use finish::run as finish_folder;

use crate::config::{self, Config};
use crate::core::files::readable_size;
use crate::core::ids::RoomName;
use crate::core::recording::manifest::Manifest;
use crate::core::recording::{FromRecorder, RecorderSettings, RecordingId, ToRecorder};
use crate::core::refusal::{Code, Refusal};
use crate::worker::{Delivery, Queues, bridge};
use figures::Account;
use folder::{Folder, read_manifest};

/// Beneath the data directory.
const FOLDER: &str = "recordings";
/// Of the random end of an id.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// All recordings of the node.
#[derive(Debug, Clone)]
pub struct Recordings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    root: PathBuf,
    limits: config::Recordings,
}

/// A file of a recording, open to be read.
#[derive(Debug)]
pub struct OpenFile {
    pub file: tokio::fs::File,
    pub size: u64,
    pub modified: SystemTime,
}

impl Recordings {
    /// Looks after what is there from now on, on the current runtime. `program` is this very binary.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(config: &Config, program: PathBuf) -> io::Result<Self> {
        let root = std::path::absolute(config.node.data_dir.join(FOLDER))?;
        if root.to_str().is_none() {
            return Err(io::Error::other("the data directory's name is no UTF-8, which recordings need"));
        }
        fs::create_dir_all(&root)?;
        let recordings = Self::new(config, program, root);
        tokio::spawn(sweep::keep(recordings.clone()));
        Ok(recordings)
    }

    /// Those in a folder. Nothing runs by itself.
    pub fn new(config: &Config, program: PathBuf, root: PathBuf) -> Self {
        Self(Arc::new(Inner { program, root, limits: config.recordings.clone() }))
    }

    pub fn is_enabled(&self) -> bool {
        self.0.limits.enabled
    }

    /// Whether one more may begin in this room, and its name.
    ///
    /// # Errors
    /// `unavailable`, `storage_full`, `quota_exceeded`.
    pub async fn admit(&self, room: &RoomName) -> Result<RecordingId, Refusal> {
        let (this, room) = (self.clone(), room.clone());
        blocking(move || this.admit_now(&room)).await?
    }

    fn admit_now(&self, room: &RoomName) -> Result<RecordingId, Refusal> {
        let Inner { root, limits, .. } = &*self.0;
        if !limits.enabled {
            return Err(Refusal::new(Code::Unavailable, "this node does not record"));
        }
        let free = Folder::free_bytes(root).map_err(|error| unreadable(&error))?;
        if free < limits.disk_free_min_bytes {
            let words = format!("the server's disk has {} left, too little to record", readable_size(free));
            return Err(Refusal::new(Code::StorageFull, words));
        }
        for (most, path, whose) in [
            (limits.room_bytes_max, root.join(room.as_str()), "the room"),
            (limits.node_bytes_max, root.clone(), "the server"),
        ] {
            if most > 0 && bytes_in(&path) >= most {
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
        blocking(move || {
            let mut manifests: Vec<Manifest> =
                folders_in(&path).iter().filter_map(|path| read(path)).collect();
            manifests.sort_by(|a, b| b.started_at_ms.cmp(&a.started_at_ms).then(b.id.cmp(&a.id)));
            manifests
        })
        .await
    }

    /// # Errors
    /// `not_found`.
    pub async fn show(&self, room: &RoomName, id: &RecordingId) -> Result<Manifest, Refusal> {
        let path = self.path(room, id);
        blocking(move || read(&path)).await?.ok_or_else(not_found)
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
        let file = tokio::fs::File::open(self.path(room, id).join(name)).await.map_err(|_| not_found())?;
        let metadata = file.metadata().await.map_err(|error| unreadable(&error))?;
        let modified = metadata.modified().map_err(|error| unreadable(&error))?;
        Ok(OpenFile { file, size: metadata.len(), modified })
    }

    /// Removes a recording that is not written to.
    ///
    /// # Errors
    /// `not_found`, `already_recording` while it is written to.
    pub async fn delete(&self, room: &RoomName, id: &RecordingId) -> Result<(), Refusal> {
        let path = self.path(room, id);
        blocking(move || {
            read(&path).ok_or_else(not_found)?;
            remove(&path)
        })
        .await?
    }

    fn path(&self, room: &RoomName, id: &RecordingId) -> PathBuf {
        self.0.root.join(room.as_str()).join(id.as_str())
    }
}

/// Removes a folder that nobody writes to.
fn remove(path: &Path) -> Result<(), Refusal> {
    let busy =
        || Refusal::new(Code::AlreadyRecording, "this recording is not finished: stop it first, and wait");
    let _held = Folder::open(path).map_err(|error| unreadable(&error))?.ok_or_else(busy)?;
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

fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such recording, or no such file in it")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_id_begins_with_its_time() {
        let id = new_id(UNIX_EPOCH + Duration::from_secs(1_795_688_100));
        assert!(id.as_str().starts_with("20261126-101500-"), "{id}");
    }
}
