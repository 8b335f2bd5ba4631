//! A recording's folder: its manifest, written so that it is always whole, and the lock of whoever writes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::core::recording::manifest::{FILE_NAME, Manifest};

/// Held by the process that writes into the folder.
pub const LOCK: &str = ".lock";
/// What is written goes by such a name until it is whole.
const UNFINISHED: &str = ".part";

/// A folder that nobody else writes to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes it, if it is not there. `None` while another process writes to it.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let lock = File::create(path.join(LOCK))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a file is made that takes the place of `name` by [`Folder::replace`].
    pub fn unfinished(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{UNFINISHED}"))
    }

    /// # Errors
    /// As the file system has it.
    pub fn replace(&self, name: &str) -> io::Result<()> {
        fs::rename(self.unfinished(name), self.path(name))
    }

    /// Writes a small file: whole, or not at all.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.unfinished(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.replace(name)
    }

    /// # Errors
    /// As the file system has it.
    pub fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        self.write(FILE_NAME, &serde_json::to_vec_pretty(manifest)?)
    }

    /// Its size on the disk, and what is free there.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn free_bytes(path: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// # Errors
/// There is none, or it is no manifest.
pub fn read_manifest(path: &Path) -> io::Result<Manifest> {
    Ok(serde_json::from_slice(&fs::read(path.join(FILE_NAME))?)?)
}
