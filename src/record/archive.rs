//! Finished recordings in the bucket where files lie, so that every node has them and none need live on.
//!
//! A recording is a folder there as on the disk. Its manifest comes last, so that what has one is whole,
//! and goes last, so that what could not be removed yet can be removed again. Only the node that made a
//! recording moves it, and does so until it has: what was stored before a crash is not stored again.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use metrics::counter;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncWriteExt as _;

use super::folder::{Folder, read_manifest};
use super::{Recordings, blocking, folders_in, remove_held};
use crate::core::ids::RoomName;
use crate::core::recording::RecordingId;
use crate::core::recording::manifest::{FILE_NAME, Manifest, Progress};

/// Beneath the bucket's prefix.
const FOLDER: &str = "recordings";
/// Between two looks for what is finished.
const MOVE_EVERY: Duration = Duration::from_secs(3);
/// And for what is too old.
const EXPIRE_EVERY: Duration = Duration::from_secs(3_600);
/// What is in memory of a file on its way, for each of a few parts.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_A_TIME: usize = 2;
/// Manifests that are read at a time.
const READ_AT_A_TIME: usize = 8;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Archive(Arc<dyn ObjectStore>);

type Done<T> = Result<T, object_store::Error>;

impl Archive {
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self(objects)
    }

    /// Stores what of a finished recording is not stored yet.
    async fn keep(&self, folder: &Path, manifest: &Manifest) -> io::Result<()> {
        let names = manifest.files.iter().map(|file| file.name.as_str()).chain([FILE_NAME]);
        for name in names {
            self.keep_file(&folder.join(name), key(&manifest.room, &manifest.id, name)).await?;
        }
        Ok(())
    }

    async fn keep_file(&self, from: &Path, to: Key) -> io::Result<()> {
        let mut source = match tokio::fs::File::open(from).await {
            Ok(source) => source,
            // The manifest names it, and it never came to be.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let size = source.metadata().await?.len();
        if self.0.head(&to).await.is_ok_and(|known| known.size == size) {
            return Ok(());
        }
        let mut sink = BufWriter::with_capacity(Arc::clone(&self.0), to, PART_BYTES)
            .with_max_concurrency(PARTS_AT_A_TIME);
        match tokio::io::copy(&mut source, &mut sink).await {
            Ok(_) => sink.shutdown().await,
            Err(error) => {
                // Parts that are left are the bucket's to expire; the first error is the one to tell.
                let _ = sink.abort().await;
                Err(error)
            }
        }
    }

    /// `None` where it is not there.
    ///
    /// # Errors
    /// The bucket cannot be read.
    pub async fn show(&self, room: &RoomName, id: &RecordingId) -> Done<Option<Manifest>> {
        match self.0.get(&key(room, id, FILE_NAME)).await {
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await?).ok()),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of a room, in any order.
    ///
    /// # Errors
    /// The bucket cannot be read.
    pub async fn list(&self, room: &RoomName) -> Done<Vec<Manifest>> {
        let found = self.0.list_with_delimiter(Some(&room_key(room))).await?;
        let ids = found.common_prefixes.iter().filter_map(|key| RecordingId::parse(key.filename()?));
        let ids: Vec<RecordingId> = ids.collect();
        let shown = futures_util::stream::iter(ids).map(async |id| self.show(room, &id).await);
        shown.buffer_unordered(READ_AT_A_TIME).try_filter_map(async |found| Ok(found)).try_collect().await
    }

    /// Of all that is stored of a room's recordings.
    ///
    /// # Errors
    /// The bucket cannot be read.
    pub async fn bytes_of(&self, room: &RoomName) -> Done<u64> {
        let all = self.0.list(Some(&room_key(room)));
        all.try_fold(0, async |sum, object| Ok(sum + object.size)).await
    }

    /// # Errors
    /// It is not there, or the bucket cannot be read.
    pub async fn head(&self, room: &RoomName, id: &RecordingId, name: &str) -> Done<ObjectMeta> {
        self.0.head(&key(room, id, name)).await
    }

    /// # Errors
    /// It is not there, or the bucket cannot be read.
    pub async fn contents(&self, at: &Key, range: Range<u64>) -> Done<BoxStream<'static, Done<Bytes>>> {
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        Ok(self.0.get_opts(at, options).await?.into_stream())
    }

    /// # Errors
    /// The bucket cannot be written; then it can be tried again.
    pub async fn delete(&self, room: &RoomName, id: &RecordingId) -> Done<()> {
        let manifest = key(room, id, FILE_NAME);
        let folder = Key::from_iter([FOLDER, room.as_str(), id.as_str()]);
        let mut all = self.0.list(Some(&folder));
        while let Some(object) = all.try_next().await? {
            if object.location != manifest {
                gone(self.0.delete(&object.location).await)?;
            }
        }
        gone(self.0.delete(&manifest).await)
    }

    /// Removes those that were stored so many days ago. How many.
    async fn expire(&self, days: i64) -> Done<u64> {
        let mut removed = 0;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let oldest = now.as_secs() as i64 - days * 24 * 60 * 60;
        let mut all = self.0.list(Some(&Key::from(FOLDER)));
        while let Some(object) = all.try_next().await? {
            let parts: Vec<_> = object.location.parts().collect();
            let [.., room, id, name] = &parts[..] else { continue };
            let (Ok(room), Some(id)) = (RoomName::parse(room.as_ref()), RecordingId::parse(id.as_ref()))
            else {
                continue;
            };
            if name.as_ref() == FILE_NAME && object.last_modified.timestamp() < oldest {
                self.delete(&room, &id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// What is not there is removed.
fn gone(deleted: Done<()>) -> Done<()> {
    match deleted {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        deleted => deleted,
    }
}

fn room_key(room: &RoomName) -> Key {
    Key::from_iter([FOLDER, room.as_str()])
}

fn key(room: &RoomName, id: &RecordingId, name: &str) -> Key {
    Key::from_iter([FOLDER, room.as_str(), id.as_str(), name])
}

/// Moves what is finished, and removes what is too old, until the runtime ends.
pub(super) async fn run(recordings: Recordings, archive: Archive) {
    let mut moving = tokio::time::interval(MOVE_EVERY);
    let mut expiring = tokio::time::interval(EXPIRE_EVERY);
    let days = i64::try_from(recordings.0.limits.retention_days).unwrap_or(i64::MAX / 100_000);
    loop {
        tokio::select! {
            _ = moving.tick() => move_finished(&recordings, &archive).await,
            _ = expiring.tick(), if days > 0 => match archive.expire(days).await {
                Ok(removed) => counter!("antiphon_recordings_expired_total").increment(removed),
                Err(error) => tracing::warn!(%error, "recordings in the bucket cannot be looked at"),
            }
        }
    }
}

/// Moves every finished recording of this node's disk. What fails is tried again the next time.
pub(super) async fn move_finished(recordings: &Recordings, archive: &Archive) {
    let root = recordings.0.root.clone();
    let held = blocking(move || {
        let folders = folders_in(&root).into_iter().flat_map(|room| folders_in(&room));
        let finished = folders.filter_map(|path| {
            let is_finished = |manifest: &Manifest| manifest.state == Progress::Finished;
            read_manifest(&path).ok().filter(is_finished)?;
            // While it is held it is neither removed nor changed.
            let folder = Folder::open(&path).ok()??;
            Some((read_manifest(&path).ok()?, folder, path))
        });
        finished.collect::<Vec<_>>()
    });
    for (manifest, folder, path) in held.await.unwrap_or_default() {
        if let Err(error) = archive.keep(&path, &manifest).await {
            tracing::warn!(%error, "a recording cannot be moved to the bucket yet");
            continue;
        }
        let removed = blocking(move || remove_held(&folder, &path)).await.and_then(|removed| removed);
        if removed.is_ok() {
            counter!("antiphon_recordings_archived_total").increment(1);
            tracing::info!("a recording is in the bucket");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use object_store::memory::InMemory;

    use super::*;
    use crate::config::Config;

    const MANIFEST: &str = r#"{"version":1,"id":"one","room":"hall","state":"finished","tracks":true,
        "mix":false,"started_at_ms":1000,"duration_ms":5000,"files":[{"name":"a.mkv","content":"video",
        "start_ms":0,"end_ms":5000,"bytes":9,"complete":true}]}"#;

    fn made(state: &str) -> (tempfile::TempDir, Recordings, Archive) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("hall").join("one");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.mkv"), b"a picture").unwrap();
        fs::write(folder.join(FILE_NAME), MANIFEST.replace("finished", state)).unwrap();
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (config, path) = (Config::default(), root.path().to_owned());
        let recordings = Recordings::new(&config, "antiphon".into(), path, Some(Arc::clone(&objects)));
        (root, recordings, Archive::new(objects))
    }

    fn named() -> (RoomName, RecordingId) {
        (RoomName::parse("hall").unwrap(), RecordingId::parse("one").unwrap())
    }

    #[tokio::test]
    async fn what_is_finished_moves_and_is_listed_read_and_deleted_as_before() {
        let (root, recordings, archive) = made("finished");
        let (room, id) = named();
        assert_eq!(recordings.list(&room).await.unwrap().len(), 1);
        // A crash left it half stored.
        archive.0.put(&key(&room, &id, "a.mkv"), Bytes::from_static(b"a pic").into()).await.unwrap();
        assert_eq!(recordings.list(&room).await.unwrap().len(), 1, "it is listed once");
        move_finished(&recordings, &archive).await;
        assert!(!root.path().join("hall").join("one").exists());
        let listed = recordings.list(&room).await.unwrap();
        assert_eq!((listed.len(), listed[0].files.len(), &listed[0].id), (1, 1, &id));
        let file = recordings.file(&room, &id, "a.mkv").await.unwrap();
        assert_eq!(file.size, 9);
        let bytes: Vec<Bytes> = file.stream(2..6).await.unwrap().try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"pict");
        assert!(recordings.file(&room, &id, FILE_NAME).await.is_err(), "no other name leads anywhere");
        assert!(archive.bytes_of(&room).await.unwrap() > 9);
        assert_eq!(archive.expire(1).await.unwrap(), 0, "it is young");
        recordings.delete(&room, &id).await.unwrap();
        assert!(recordings.list(&room).await.unwrap().is_empty());
        assert_eq!(archive.bytes_of(&room).await.unwrap(), 0);
        assert_eq!(
            recordings.delete(&room, &id).await.unwrap_err().code,
            crate::core::refusal::Code::NotFound
        );
    }

    #[tokio::test]
    async fn what_is_written_to_stays_and_what_is_old_goes() {
        let (root, recordings, archive) = made("recording");
        move_finished(&recordings, &archive).await;
        let folder = root.path().join("hall").join("one");
        assert!(folder.join("a.mkv").exists());
        fs::write(folder.join(FILE_NAME), MANIFEST).unwrap();
        let held = Folder::open(&folder).unwrap().unwrap();
        move_finished(&recordings, &archive).await;
        assert!(folder.join("a.mkv").exists(), "somebody holds it");
        drop(held);
        move_finished(&recordings, &archive).await;
        assert!(!folder.exists());
        // The clock of the bucket is this machine's here: what is a day ahead is old.
        assert_eq!(archive.expire(-1).await.unwrap(), 1);
        let (room, _) = named();
        assert!(recordings.list(&room).await.unwrap().is_empty());
    }
}
