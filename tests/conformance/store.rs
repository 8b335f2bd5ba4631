//! What every store of files does: in memory, in a directory, and in a bucket.
//!
//! The bucket is one of a real S3-compatible server, named by `ANTIPHON_TEST_S3` as
//! `http://HOST:PORT/BUCKET` with the keys of AWS's own variables; without it that part says so.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use antiphon::config::S3;
use antiphon::files::Store;
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;

/// More than one part of an upload to a bucket.
const LARGE: usize = 17 << 20;

fn file(folder: &Path, contents: &[u8]) -> std::path::PathBuf {
    let path = folder.join("data");
    std::fs::write(&path, contents).expect("writable");
    path
}

async fn read(store: &Store, key: &str, range: Range<u64>) -> Option<Vec<u8>> {
    let parts: Vec<_> = store.contents(key, range).await.ok()?.try_collect().await.ok()?;
    Some(parts.concat())
}

async fn keeps_contents_once_and_gives_parts_of_them(store: Store) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let contents: Vec<u8> = (0..LARGE).map(|at| (at / 7) as u8).collect();
    let (size, key) = (LARGE as u64, "ab12");
    assert!(read(&store, key, 0..size).await.is_none());
    store.keep(key, &file(folder.path(), &contents)).await.expect("kept");
    assert_eq!(read(&store, key, 0..size).await.as_deref(), Some(&contents[..]));
    assert_eq!(read(&store, key, 5..9).await.as_deref(), Some(&contents[5..9]));
    assert_eq!(read(&store, key, size - 3..size).await.as_deref(), Some(&contents[LARGE - 3..]));
    assert_eq!(read(&store, key, 4..4).await.as_deref(), Some(&[][..]));
    // Contents have one hash, so whatever comes under it again is what is there.
    store.keep(key, &file(folder.path(), b"something else")).await.expect("kept already");
    assert_eq!(read(&store, key, 0..4).await.as_deref(), Some(&contents[..4]));
    store.keep_thumbnail(key, "a picture".into()).await.expect("kept");
    assert_eq!(store.thumbnail(key).await.expect("there"), "a picture");
    store.remove(key).await.expect("removed");
    store.remove(key).await.expect("removed already");
    assert!(read(&store, key, 0..4).await.is_none() && store.thumbnail(key).await.is_err());
    store.keep("00ff", &file(folder.path(), b"")).await.expect("nothing can be kept");
}

#[tokio::test]
async fn in_memory() {
    keeps_contents_once_and_gives_parts_of_them(Store::new(Arc::new(InMemory::new()))).await;
}

#[tokio::test]
async fn in_a_directory() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = Store::directory(&folder.path().join("store")).expect("a new store");
    keeps_contents_once_and_gives_parts_of_them(store).await;
}

#[tokio::test]
async fn in_a_bucket() {
    let Ok(address) = std::env::var("ANTIPHON_TEST_S3") else {
        return eprintln!("NOT RUN: ANTIPHON_TEST_S3 names no bucket");
    };
    let (endpoint, bucket) = address.rsplit_once('/').expect("http://HOST:PORT/BUCKET");
    let s3 = S3 {
        bucket: bucket.into(),
        endpoint: Some(endpoint.into()),
        region: "us-east-1".into(),
        access_key_id: None,
        secret_access_key: None,
        prefix: format!("test-{}", std::process::id()),
        allow_http: true,
    };
    keeps_contents_once_and_gives_parts_of_them(Store::s3(&s3).expect("a bucket")).await;
}
