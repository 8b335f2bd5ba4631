//! Puts a recording's files in order once nothing more comes: length and index for those that were cut, and a
//! manifest that says so. Also what a node does with recordings whose recorder did not live to do it.

use std::fs;
use std::io;
use std::path::Path;

use ffmpeg_next::format::{self, context::Input};

use super::folder::{Folder, read_manifest};
use super::media::{self, MediaError, copy_whole};
use super::recorder::MEMORY_BYTES_MAX;
use super::track_file::Grown;
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

/// A file whose pictures grew says so at its beginning, by which players choose their window. Its bytes then.
///
/// # Errors
/// It stays as it is.
pub fn note_growth(folder: &Folder, name: &str, grown: &Grown) -> Result<u64, MediaError> {
    copy(&mut format::input(&folder.path(name))?, folder, name, "matroska", Some(grown))?;
    Ok(fs::metadata(folder.path(name))?.len())
}

fn copy(
    input: &mut Input,
    folder: &Folder,
    name: &str,
    container: &str,
    grown: Option<&Grown>,
) -> Result<(), MediaError> {
    let path = folder.unfinished(name);
    let copied = copy_whole(input, &path, container, &[("avoid_negative_ts", "disabled")], grown);
    if copied.is_err() {
        let _ = fs::remove_file(&path);
    }
    copied?;
    Ok(folder.replace(name)?)
}

fn make_whole(folder: &Folder, file: &mut RecordedFile) -> Result<(), MediaError> {
    let container = match file.content {
        Content::Video | Content::Audio => "matroska",
        Content::Mix => "mp4",
        Content::Chat | Content::Chapters => return Ok(()),
    };
    let mut input = format::input(&folder.path(&file.name))?;
    copy(&mut input, folder, &file.name, container, None)?;
    drop(input);
    let input = format::input(&folder.path(&file.name))?;
    // Of what it now says itself, in microseconds.
    file.end_ms = file.end_ms.max((input.duration().max(0) / 1_000) as u64);
    Ok(())
}
