//! Contents by their SHA-256, in a directory or in an S3-compatible store.
//!
//! Keys are made of hashes alone, never of names. A complete upload is moved into a directory, and streamed
//! into anything else in parts of [`PART_BYTES`].

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::stream::{BoxStream, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncWriteExt as _;

use super::FilesError;
use crate::config::S3;
use crate::core::ids::RoomName;

/// What is in memory of an upload to a bucket, for each of a few parts.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_A_TIME: usize = 2;
/// Contents of a store that other nodes use, too, are not removed while they are younger: one of them may
/// just refer to them anew, and its word be on the way. Far longer than a log that is shared is late, and
/// than clocks are apart.
const YOUNG_MS: u64 = 10 * 60_000;

/// Where pictures behind rooms' mixes lie.
const BACKDROPS: &str = "backdrops";

/// Bytes of a file, as they come from its store.
pub type ByteStream = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// Where contents are kept.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Where it is a directory, so that files can be moved there.
    directory: Option<PathBuf>,
    /// Other nodes keep and remove contents there.
    is_shared: bool,
}

impl Store {
    /// Makes the directory if it is missing.
    ///
    /// # Errors
    /// [`FilesError::Directory`].
    pub fn directory(path: &Path) -> Result<Self, FilesError> {
        let failed = |reason| FilesError::Directory { path: path.to_owned(), reason };
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let objects = LocalFileSystem::new_with_prefix(&path)?.with_fsync(true);
        Ok(Self { objects: Arc::new(objects), directory: Some(path), is_shared: false })
    }

    /// Any other store.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, directory: None, is_shared: false }
    }

    /// One that other nodes use, too.
    pub fn shared(self, is_shared: bool) -> Self {
        Self { is_shared, ..self }
    }

    /// Keeps the contents of the file at `from`, durably. Where they are kept already nothing happens, unless
    /// another node could be about to remove them: then they are made young again.
    ///
    /// # Errors
    /// The store does not take them.
    pub async fn keep(&self, sha256: &str, from: &Path, now_ms: u64) -> io::Result<()> {
        let key = contents_key(sha256);
        let known = self.objects.head(&key).await;
        if known.is_ok_and(|known| !self.is_shared || age_ms(&known, now_ms) < YOUNG_MS / 2) {
            return Ok(());
        }
        match &self.directory {
            Some(directory) => {
                let (to, from) = (directory.join(key.as_ref()), from.to_owned());
                let moved = tokio::task::spawn_blocking(move || move_durably(&from, &to, now_ms));
                moved.await.map_err(io::Error::other)?
            }
            None => {
                let mut source = tokio::fs::File::open(from).await?;
                let mut sink = BufWriter::with_capacity(Arc::clone(&self.objects), key, PART_BYTES)
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
        }
    }

    /// # Errors
    /// The store does not take it.
    pub async fn keep_thumbnail(&self, sha256: &str, jpeg: Bytes) -> Result<(), object_store::Error> {
        self.objects.put(&thumbnail_key(sha256), jpeg.into()).await.map(drop)
    }

    /// # Errors
    /// They are not there, or cannot be read.
    pub async fn contents(&self, sha256: &str, range: Range<u64>) -> Result<ByteStream, object_store::Error> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        Ok(self.objects.get_opts(&contents_key(sha256), options).await?.into_stream())
    }

    /// Where contents lie, if that is a directory of this machine.
    pub fn path(&self, sha256: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(contents_key(sha256).as_ref()))
    }

    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn thumbnail(&self, sha256: &str) -> Result<Bytes, object_store::Error> {
        self.objects.get(&thumbnail_key(sha256)).await?.bytes().await
    }

    /// Keeps the picture behind a room's mix for the room's next node, in place of what was there.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn keep_backdrop(&self, room: &RoomName, picture: Bytes) -> Result<(), object_store::Error> {
        self.objects.put(&backdrop_key(room), picture.into()).await.map(drop)
    }

    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn backdrop(&self, room: &RoomName) -> Result<Bytes, object_store::Error> {
        self.objects.get(&backdrop_key(room)).await?.bytes().await
    }

    /// Removes pictures of rooms that were put there before; a room goes on with its own all the same.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn expire_backdrops(&self, before_ms: u64) -> Result<(), object_store::Error> {
        let all = self.objects.list(Some(&Key::from(BACKDROPS)));
        let mut old = all.try_filter(|object| ready(age_ms(object, before_ms) > 0));
        while let Some(object) = old.try_next().await? {
            self.objects.delete(&object.location).await?;
        }
        Ok(())
    }

    /// Removes contents and their thumbnail; what is not there is removed. False where they are to stay for a
    /// while, as other nodes may refer to them.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn remove(&self, sha256: &str, now_ms: u64) -> Result<bool, object_store::Error> {
        if self.is_shared
            && let Ok(known) = self.objects.head(&contents_key(sha256)).await
            && age_ms(&known, now_ms) < YOUNG_MS
        {
            return Ok(false);
        }
        for key in [contents_key(sha256), thumbnail_key(sha256)] {
            match self.objects.delete(&key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// A bucket, with the prefix under which all of ours lies.
///
/// # Errors
/// [`FilesError::Store`].
pub fn bucket(s3: &S3) -> Result<Arc<dyn ObjectStore>, FilesError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_allow_http(s3.allow_http);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(id), Some(secret)) = (&s3.access_key_id, &s3.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret.reveal());
    }
    let objects = PrefixStore::new(builder.build()?, s3.prefix.as_str());
    Ok(Arc::new(objects))
}

fn age_ms(known: &ObjectMeta, now_ms: u64) -> u64 {
    let modified_ms = u64::try_from(known.last_modified.timestamp_millis()).unwrap_or_default();
    now_ms.saturating_sub(modified_ms)
}

fn backdrop_key(room: &RoomName) -> Key {
    Key::from_iter([BACKDROPS, room.as_str()])
}

/// Folders by the first digits, so that none gets too large.
fn contents_key(sha256: &str) -> Key {
    Key::from_iter(["contents", sha256.get(..2).unwrap_or_default(), sha256])
}

fn thumbnail_key(sha256: &str) -> Key {
    Key::from_iter(["thumbnails", sha256.get(..2).unwrap_or_default(), sha256])
}

/// Data was synced before; the names are on return. It counts as written now, however long it was on its way.
fn move_durably(from: &Path, to: &Path, now_ms: u64) -> io::Result<()> {
    fs::File::open(from)?.set_modified(UNIX_EPOCH + Duration::from_millis(now_ms))?;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
        fs::rename(from, to)?;
        fs::File::open(folder)?.sync_all()?;
        if let Some(above) = folder.parent() {
            fs::File::open(above)?.sync_all()?;
        }
    }
    Ok(())
}
