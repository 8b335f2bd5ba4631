//! Contents by their SHA-256, in a directory or in an S3-compatible store.
//!
//! Keys are made of hashes alone, never of names. A complete upload is moved into a directory, and streamed
//! into anything else in parts of [`PART_BYTES`].

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncWriteExt as _;

use super::FilesError;
use crate::config::S3;

/// What is in memory of an upload to a bucket, for each of a few parts.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_A_TIME: usize = 2;

/// Bytes of a file, as they come from its store.
pub type ByteStream = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// Where contents are kept.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Where it is a directory, so that files can be moved there.
    directory: Option<PathBuf>,
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
        Ok(Self { objects: Arc::new(objects), directory: Some(path) })
    }

    /// # Errors
    /// [`FilesError::Store`].
    pub fn s3(s3: &S3) -> Result<Self, FilesError> {
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
        Ok(Self::new(Arc::new(objects)))
    }

    /// Any other store.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, directory: None }
    }

    /// Keeps the contents of the file at `from`, durably. Where they are kept already, nothing happens.
    ///
    /// # Errors
    /// The store does not take them.
    pub async fn keep(&self, sha256: &str, from: &Path) -> io::Result<()> {
        let key = contents_key(sha256);
        if self.objects.head(&key).await.is_ok() {
            return Ok(());
        }
        match &self.directory {
            Some(directory) => {
                let (to, from) = (directory.join(key.as_ref()), from.to_owned());
                let moved = tokio::task::spawn_blocking(move || move_durably(&from, &to));
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

    /// Removes contents and their thumbnail; what is not there is removed.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn remove(&self, sha256: &str) -> Result<(), object_store::Error> {
        for key in [contents_key(sha256), thumbnail_key(sha256)] {
            match self.objects.delete(&key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Folders by the first digits, so that none gets too large.
fn contents_key(sha256: &str) -> Key {
    Key::from_iter(["contents", sha256.get(..2).unwrap_or_default(), sha256])
}

fn thumbnail_key(sha256: &str) -> Key {
    Key::from_iter(["thumbnails", sha256.get(..2).unwrap_or_default(), sha256])
}

/// Data was synced before; the names are on return.
fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
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
