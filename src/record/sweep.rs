//! Looks after recordings that nobody writes to: what was cut is finished, what is too old removed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use tokio::process::Command;

use super::folder::{Folder, LOCK};
use super::{Recordings, blocking, bytes_in, folders_in, read, remove};
use crate::core::recording::manifest::Progress;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(15);
/// A folder in which something changed so lately may have another recorder soon.
const QUIET: Duration = Duration::from_secs(30);
/// To finish one recording, which copies it once.
const FINISH_WITHIN: Duration = Duration::from_secs(3_600);
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What there is to do about a folder.
enum Due {
    Finish,
    Remove,
}

/// Goes round until the runtime ends.
pub(super) async fn keep(recordings: Recordings) {
    loop {
        let (root, days) = (recordings.0.root.clone(), recordings.0.limits.retention_days);
        let due = blocking(move || {
            gauge!("antiphon_recordings_disk_bytes").set(bytes_in(&root) as f64);
            folders_in(&root)
                .iter()
                .flat_map(|room| folders_in(room))
                .filter_map(|path| due(path, days))
                .collect()
        });
        let due: Vec<(PathBuf, Due)> = due.await.unwrap_or_default();
        for (path, due) in due {
            match due {
                Due::Finish => finish(&recordings.0.program, &path).await,
                Due::Remove => expire(path).await,
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn due(path: PathBuf, retention_days: u64) -> Option<(PathBuf, Due)> {
    let manifest = read(&path)?;
    // Somebody writes to it.
    drop(Folder::open(&path).ok()??);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let ended_ms = manifest.ended_at_ms.unwrap_or(manifest.started_at_ms);
    let is_old = retention_days > 0 && now_ms.saturating_sub(ended_ms) / DAY_MS >= retention_days;
    match manifest.state {
        Progress::Recording | Progress::Finishing => is_quiet(&path).then_some((path, Due::Finish)),
        Progress::Finished => is_old.then_some((path, Due::Remove)),
    }
}

fn is_quiet(path: &Path) -> bool {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_name() != LOCK);
    let changed = files.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    changed.and_then(|changed| changed.elapsed().ok()).is_none_or(|since| since >= QUIET)
}

async fn finish(program: &Path, path: &Path) {
    let child = Command::new(program)
        .args(["record", "--finish"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .status();
    match tokio::time::timeout(FINISH_WITHIN, child).await {
        Ok(Ok(status)) if status.success() => {
            counter!("antiphon_recordings_repaired_total").increment(1);
            tracing::info!("a recording that was cut is finished");
        }
        Ok(Ok(status)) => tracing::warn!(%status, "a recording that was cut cannot be finished"),
        Ok(Err(error)) => tracing::warn!(%error, "a recording that was cut cannot be finished"),
        Err(_) => tracing::warn!("a recording that was cut takes too long to finish"),
    }
}

async fn expire(path: PathBuf) {
    let removed = blocking(move || remove(&path)).await.and_then(|removed| removed);
    if removed.is_ok() {
        counter!("antiphon_recordings_expired_total").increment(1);
    }
}
