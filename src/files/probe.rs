//! Looks into pictures, sound and video by a process of its own, which may crash, hang or ask for too much
//! without harm: its time and memory are bounded, it has nothing open but the file, and knows no secret.

pub mod child;

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// The process gets so long. Its own limit of CPU time is below.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Of what it answers, thumbnail and all.
const ANSWER_BYTES_MAX: u64 = 512 << 10;
/// What it may know of our environment: where programs and GStreamer's plugins and cache are.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "LD_LIBRARY_PATH", "XDG_CACHE_HOME"];

/// What is told of a file, one line of JSON before the thumbnail's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub duration_ms: Option<u64>,
    pub has_video: bool,
}

/// What was seen in a file. Nothing, if it could not be looked into.
#[derive(Debug, Default)]
pub struct Look {
    pub facts: Facts,
    /// JPEG, made by us.
    pub thumbnail: Option<Bytes>,
    seen: bool,
}

impl Look {
    /// A container that is made for video may hold sound alone.
    pub fn media_type(&self, sniffed: &'static str) -> &'static str {
        match sniffed {
            "video/mp4" if self.seen && !self.facts.has_video => "audio/mp4",
            "video/webm" if self.seen && !self.facts.has_video => "audio/webm",
            _ => sniffed,
        }
    }
}

/// Has `program`, which is ourselves, look into a file.
pub async fn look(program: &Path, file: File) -> Look {
    let answer = tokio::time::timeout(TIME_MAX, ask(program, file)).await;
    let look = answer.ok().flatten().and_then(|answer| read(&answer));
    let result = if look.is_some() { "seen" } else { "not_seen" };
    metrics::counter!("antiphon_files_probes_total", "result" => result).increment(1);
    look.unwrap_or_default()
}

async fn ask(program: &Path, file: File) -> Option<Vec<u8>> {
    let environment = std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with("GST_"))
    });
    let spawned = Command::new(program)
        .arg("probe")
        .env_clear()
        .envs(environment)
        .stdin(Stdio::from(file))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A terminal interrupts its whole group; this one ends by itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child =
        spawned.inspect_err(|error| tracing::warn!(%error, "files cannot be looked into")).ok()?;
    let mut answer = Vec::new();
    child.stdout.take()?.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
    child.wait().await.ok()?.success().then_some(answer)
}

fn read(answer: &[u8]) -> Option<Look> {
    let end = answer.iter().position(|byte| *byte == b'\n')?;
    let facts = serde_json::from_slice(&answer[..end]).ok()?;
    let thumbnail = answer.get(end + 1..).filter(|rest| rest.starts_with(b"\xff\xd8\xff"));
    Some(Look { facts, thumbnail: thumbnail.map(Bytes::copy_from_slice), seen: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_line_and_a_picture_or_none() {
        let facts = Facts { width: Some(3), ..Facts::default() };
        let mut answer = serde_json::to_vec(&facts).unwrap();
        answer.extend(b"\n\xff\xd8\xff\xe0");
        let look = read(&answer).unwrap();
        assert_eq!((look.facts, look.thumbnail.unwrap().len()), (facts, 4));
        assert!(read(b"{}").is_none() && read(b"nonsense\n").is_none());
        assert!(read(b"{\"has_video\":false}\n<svg>").unwrap().thumbnail.is_none());
    }
}
