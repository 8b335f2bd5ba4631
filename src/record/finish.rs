//! Puts a recording's files in order once nothing more comes: length and index for those that were cut, and a
//! manifest that says so. Also what a node does with recordings whose recorder did not live to do it.

use std::fs;
use std::io;
use std::path::Path;

use ffmpeg_next::format;

use super::folder::{Folder, read_manifest};
use super::media::{self, MediaError, copy_whole};
use super::recorder::MEMORY_BYTES_MAX;
use crate::core::recording::EndReason;
use crate::core::recording::manifest::{Content, Manifest, Progress, RecordedFile};
use crate::worker::process;

/// Finishes what lies in a folder, unless somebody writes to it.
///
/// # Errors
/// It is no recording's folder, or cannot be written to.
pub fn run(path: &Path) -> Result<(), MediaError> {
    process::limit(MEMORY_BYTES_MAX);
    media::start()?;
    let mut manifest = read_manifest(path)?;
    let Some(folder) = Folder::open(path)? else { return Ok(()) };
    if manifest.state != Progress::Finished {
        manifest.reason.get_or_insert(EndReason::Failed);
        finish(&folder, &mut manifest)?;
    }
    Ok(())
}

/// Makes every file of a recording whole.
///
/// # Errors
/// The manifest cannot be written. A file that cannot be made whole stays as it is.
pub fn finish(folder: &Folder, manifest: &mut Manifest) -> io::Result<()> {
    manifest.state = Progress::Finishing;
    folder.write_manifest(manifest)?;
    for file in &mut manifest.files {
        let fragmented = file.content == Content::Mix;
        if file.complete && !fragmented {
            continue;
        }
        match make_whole(folder, file) {
            Ok(()) => file.complete = true,
            Err(error) => tracing::warn!(%error, "a file of a recording stays as it is"),
        }
        file.bytes = fs::metadata(folder.path(&file.name)).map_or(file.bytes, |metadata| metadata.len());
    }
    let ends = manifest.files.iter().map(|file| file.end_ms);
    manifest.duration_ms = ends.chain([manifest.duration_ms]).max().unwrap_or_default();
    manifest.ended_at_ms.get_or_insert(manifest.started_at_ms + manifest.duration_ms);
    manifest.state = Progress::Finished;
    folder.write_manifest(manifest)
}

fn make_whole(folder: &Folder, file: &mut RecordedFile) -> Result<(), MediaError> {
    let container = match file.content {
        Content::Video | Content::Audio => "matroska",
        Content::Mix => "mp4",
        Content::Chat | Content::Chapters => return Ok(()),
    };
    let mut input = format::input(&folder.path(&file.name))?;
    copy_whole(&mut input, &folder.unfinished(&file.name), container, &[("avoid_negative_ts", "disabled")])?;
    drop(input);
    folder.replace(&file.name)?;
    let input = format::input(&folder.path(&file.name))?;
    // Of what it now says itself, in microseconds.
    file.end_ms = file.end_ms.max((input.duration().max(0) / 1_000) as u64);
    Ok(())
}
