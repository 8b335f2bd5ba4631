//! Uploads up to where their rooms come in, over a store in memory: no loop is behind the control handle, so
//! a complete upload waits for its room.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use object_store::memory::InMemory;
use tempfile::TempDir;

use super::receive::Arriving;
use super::{Files, NewUpload, Store};
use crate::config;
use crate::control::Control;
use crate::core::files::Upload;
use crate::core::ids::{Identity, RoomName};
use crate::core::refusal::{Code, Refusal};
use crate::events::memory::MemoryLog;
use crate::events::writer::EventWriter;

fn files(folder: &TempDir) -> Files {
    let settings = config::Files { disk_reserve_bytes: 0, upload_hours: 1, ..config::Files::default() };
    let log = EventWriter::spawn(Box::new(MemoryLog::default())).unwrap();
    let store = Store::new(Arc::new(InMemory::new()));
    let files = Files::new(settings, store, folder.path().join("uploads"), None, Control::unplugged(), log);
    files.recover().unwrap();
    files
}

async fn begin(files: &Files, size_bytes: u64) -> Upload {
    let new = NewUpload {
        room: RoomName::parse("room").unwrap(),
        identity: Identity::parse("ann").unwrap(),
        name: "Ann".into(),
        file_name: "a.txt".into(),
        size_bytes,
        metadata: String::new(),
    };
    files.create(new).await.unwrap()
}

async fn add(files: &Files, upload: &Upload, offset: u64, bytes: &'static [u8]) -> Result<u64, Code> {
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from_static(bytes))]);
    let arriving = Arriving { offset, length: None, checksum: None, body };
    let received = files.receive(&upload.room, &upload.id, arriving).await;
    received.map(|progress| progress.offset).map_err(|refusal| refusal.code)
}

async fn offset(files: &Files, upload: &Upload) -> Result<u64, Code> {
    let progress = files.progress(&upload.room, &upload.id).await;
    progress.map(|progress| progress.offset).map_err(|Refusal { code, .. }| code)
}

#[tokio::test]
async fn an_upload_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = files(&folder);
    let upload = begin(&first, 10).await;
    assert_eq!(add(&first, &upload, 0, b"hello").await, Ok(5));
    drop(first);
    let second = files(&folder);
    assert_eq!(offset(&second, &upload).await, Ok(5));
    assert_eq!(add(&second, &upload, 4, b"x").await, Err(Code::WrongOffset));
    assert_eq!(add(&second, &upload, 5, b" worl").await, Err(Code::Unavailable), "its room is out of reach");
    let staged = second.0.staging.open(&upload.id).unwrap();
    assert_eq!(staged.file_state().unwrap().unwrap().media_type, "text/plain");
    assert_eq!(offset(&second, &upload).await, Err(Code::UploadBusy), "and it is not told to be done");
    drop(second);
    // A crash while it was being removed.
    std::fs::remove_file(folder.path().join("uploads").join(upload.id.as_str()).join("upload.json")).unwrap();
    assert_eq!(offset(&files(&folder), &upload).await, Err(Code::NotFound));
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_crash_left_beyond_the_offset_goes() {
    let folder = tempfile::tempdir().unwrap();
    let first = files(&folder);
    let upload = begin(&first, 10).await;
    assert_eq!(add(&first, &upload, 0, b"hello").await, Ok(5));
    let data = folder.path().join("uploads").join(upload.id.as_str()).join("data");
    std::fs::write(&data, b"hello, half-writ").unwrap();
    let second = files(&folder);
    let staged = second.0.staging.open(&upload.id).unwrap();
    // printf hello | sha256sum
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!((staged.received(), staged.sha256().as_str()), (5, hello));
    assert_eq!(std::fs::read(&data).unwrap(), b"hello");
}

#[tokio::test]
async fn a_request_that_asks_ends_the_one_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let upload = begin(&files, 10).await;
    let (hanging, of) = (files.clone(), upload.clone());
    let body = stream::unfold(true, |first| async move {
        if first {
            Some((Ok::<_, Infallible>(Bytes::from_static(b"hel")), false))
        } else {
            std::future::pending().await
        }
    });
    let arriving = Arriving { offset: 0, length: Some(10), checksum: None, body };
    let dead = tokio::spawn(async move { hanging.receive(&of.room, &of.id, arriving).await });
    let asked = async {
        loop {
            // Until the hanging one has begun there is nothing to keep.
            match offset(&files, &upload).await {
                Ok(0) if !dead.is_finished() => tokio::task::yield_now().await,
                found => return found,
            }
        }
    };
    assert_eq!(asked.await, Ok(3));
    assert_eq!(dead.await.unwrap().map(|progress| progress.offset), Ok(3));
}

#[tokio::test]
async fn an_upload_that_does_not_go_on_is_forgotten_and_its_share_free() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let upload = begin(&files, 10).await;
    let now_ms = crate::control::unix_ms();
    files.forget_stale(now_ms + 3_500_000).await;
    assert_eq!(offset(&files, &upload).await, Ok(0));
    files.forget_stale(now_ms + 3_700_000).await;
    assert_eq!(offset(&files, &upload).await, Err(Code::NotFound));
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}
