//! What every store of files does: in memory, in a directory, and in a bucket.
//!
//! The bucket is one of an S3-compatible server that the test starts (moto, which `scripts/setup.sh test`
//! installs). Where there is none the test says so, and fails under `CI=true`.

use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use antiphon::config::{S3, Secret};
use antiphon::files::Store;
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;

/// More than one part of an upload to a bucket.
const LARGE: usize = 17 << 20;
/// Of no meaning where one node alone uses a store.
const NOW_MS: u64 = 0;

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
    store.keep(key, &file(folder.path(), &contents), NOW_MS).await.expect("kept");
    assert_eq!(read(&store, key, 0..size).await.as_deref(), Some(&contents[..]));
    assert_eq!(read(&store, key, 5..9).await.as_deref(), Some(&contents[5..9]));
    assert_eq!(read(&store, key, size - 3..size).await.as_deref(), Some(&contents[LARGE - 3..]));
    assert_eq!(read(&store, key, 4..4).await.as_deref(), Some(&[][..]));
    // Contents have one hash, so whatever comes under it again is what is there.
    store.keep(key, &file(folder.path(), b"something else"), NOW_MS).await.expect("kept already");
    assert_eq!(read(&store, key, 0..4).await.as_deref(), Some(&contents[..4]));
    store.keep_thumbnail(key, "a picture".into()).await.expect("kept");
    assert_eq!(store.thumbnail(key).await.expect("there"), "a picture");
    store.remove(key, NOW_MS).await.expect("removed");
    store.remove(key, NOW_MS).await.expect("removed already");
    assert!(read(&store, key, 0..4).await.is_none() && store.thumbnail(key).await.is_err());
    store.keep("00ff", &file(folder.path(), b""), NOW_MS).await.expect("nothing can be kept");
}

#[tokio::test]
async fn what_other_nodes_may_refer_to_is_not_removed_while_it_is_young() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let minutes = |count: u64| antiphon::control::unix_ms() + count * 60_000;
    for store in [
        Store::new(Arc::new(InMemory::new())).shared(true),
        Store::directory(&folder.path().join("store")).expect("a new store").shared(true),
    ] {
        let kept = |bytes| file(folder.path(), bytes);
        store.keep("ab12", &kept(b"first"), minutes(0)).await.expect("kept");
        assert!(!store.remove("ab12", minutes(9)).await.expect("looked at"));
        store.keep("ab12", &kept(b"other"), minutes(4)).await.expect("kept already");
        assert_eq!(read(&store, "ab12", 0..5).await.as_deref(), Some(&b"first"[..]));
        // Another node could take it for old, and so it is written anew.
        store.keep("ab12", &kept(b"other"), minutes(6)).await.expect("kept anew");
        assert_eq!(read(&store, "ab12", 0..5).await.as_deref(), Some(&b"other"[..]));
        assert!(store.remove("ab12", minutes(17)).await.expect("removed"));
        assert!(store.remove("ab12", minutes(17)).await.expect("removed already"));
    }
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

/// A server on a free port of this machine, which ends with the test.
struct Bucket {
    server: Child,
    endpoint: String,
}

impl Bucket {
    const NAME: &str = "files";

    /// `None`: there is no such server on this machine.
    async fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/moto_server");
        let mut server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut said = BufReader::new(server.stderr.take().expect("piped")).lines();
        let endpoint = said.find_map(|line| {
            let line = line.expect("the server speaks until it listens");
            Some(line.split_once("Running on ")?.1.trim().to_owned())
        });
        // Whatever it says of requests is taken off its pipe, or it would stand still.
        std::thread::spawn(move || said.for_each(drop));
        let bucket = Self { server, endpoint: endpoint.expect("the server listens") };
        let made = reqwest::Client::new().put(format!("{}/{}", bucket.endpoint, Self::NAME)).send().await;
        assert!(made.expect("an answer").status().is_success(), "the bucket is made");
        Some(bucket)
    }

    fn settings(&self) -> S3 {
        S3 {
            bucket: Self::NAME.into(),
            endpoint: Some(self.endpoint.clone()),
            region: "us-east-1".into(),
            access_key_id: Some("a key".into()),
            secret_access_key: Some(Secret::new("a secret")),
            prefix: "of one node".into(),
            allow_http: true,
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("it ended");
    }
}

#[tokio::test]
async fn in_a_bucket() {
    let Some(bucket) = Bucket::start().await else {
        assert!(std::env::var_os("CI").is_none(), "no S3 server: run scripts/setup.sh test");
        return eprintln!("NOT RUN: no S3 server; scripts/setup.sh test installs one");
    };
    keeps_contents_once_and_gives_parts_of_them(Store::new(
        antiphon::files::bucket(&bucket.settings()).expect("a bucket"),
    ))
    .await;
}
