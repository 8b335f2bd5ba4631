//! Uploads on the disk while they are not complete: one directory each, which outlives the process.
//!
//! `upload.json` says what it is, `data` is what came, `offset` how much of it is certainly on the disk, and
//! `file.json`, once all came, what it has become. An offset that a client was told is never taken back by a
//! crash: data is synced first, then the offset, each replaced as a whole. Every call blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest::{Context, SHA256};

use crate::core::files::{FileState, SNIFFED_BYTES, Upload};
use crate::core::ids::MessageId;

/// A crash costs no more of an upload than this.
const CHECKPOINT_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: usize = 256 << 10;
/// Says what an upload is; without it there is none.
const UPLOAD: &str = "upload.json";

/// The directory of all uploads.
pub struct Staging {
    root: PathBuf,
}

/// An upload as it was found after a restart.
pub struct Found {
    pub upload: Upload,
    pub received: u64,
    /// When it last went on, ms since the Unix epoch.
    pub touched_ms: u64,
}

impl Staging {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn make(&self) -> io::Result<()> {
        // What people send is nobody else's business on this machine.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root)
    }

    /// Of the disk, for who is not its administrator.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// A file that is gone when it is closed.
    pub fn nameless(&self) -> io::Result<File> {
        self.make()?;
        let path = self.root.join(format!(".{:032x}", rand::random::<u128>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    pub fn create(&self, upload: &Upload) -> io::Result<Staged> {
        let directory = self.root.join(upload.id.as_str());
        DirBuilder::new().mode(0o700).create(&directory)?;
        let staged = Staged { directory, received: 0, synced: 0, digest: Context::new(&SHA256) };
        let made = File::create(staged.data())
            .and_then(|_| staged.replace(UPLOAD, &serde_json::to_vec(upload)?))
            .and_then(|()| staged.replace("offset", b"0"))
            .and_then(|()| sync_directory(&self.root));
        if made.is_err() {
            // A half-made upload has been told to nobody.
            let _ = fs::remove_dir_all(&staged.directory);
        }
        made.map(|()| staged)
    }

    /// All uploads that are on the disk. What cannot be read is left where it is.
    pub fn scan(&self) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let directory = entry?.path();
            if !directory.join(UPLOAD).exists() {
                // Told to nobody yet, or given up already, when the node went down.
                fs::remove_dir_all(&directory)?;
                continue;
            }
            match read(&directory) {
                Ok(one) => found.push(one),
                Err(error) => {
                    tracing::warn!(%error, path = %directory.display(), "this is no upload: left as it is");
                }
            }
        }
        Ok(found)
    }

    /// Opens an upload again: what is beyond its offset goes, the rest is hashed once more.
    pub fn open(&self, id: &MessageId) -> io::Result<Staged> {
        let directory = self.root.join(id.as_str());
        let received = offset(&directory)?;
        let mut staged = Staged { directory, received, synced: received, digest: Context::new(&SHA256) };
        if staged.file_state()?.is_some() {
            return Ok(staged);
        }
        let mut file = OpenOptions::new().read(true).write(true).open(staged.data())?;
        file.set_len(received)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(staged),
                count => staged.digest.update(&buffer[..count]),
            }
        }
    }

    /// What it is goes first: a crash on the way leaves nothing that could be taken for an upload.
    pub fn remove(&self, id: &MessageId) -> io::Result<()> {
        let directory = self.root.join(id.as_str());
        for removed in [fs::remove_file(directory.join(UPLOAD)), fs::remove_dir_all(&directory)] {
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

fn read(directory: &Path) -> io::Result<Found> {
    let upload: Upload = serde_json::from_slice(&fs::read(directory.join(UPLOAD))?)?;
    if directory.file_name().and_then(|name| name.to_str()) != Some(upload.id.as_str()) {
        return Err(io::Error::other("it has the id of another"));
    }
    let modified = fs::metadata(directory.join("offset"))?.modified()?;
    let touched_ms = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Ok(Found { upload, received: offset(directory)?, touched_ms })
}

fn offset(directory: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(directory.join("offset"))?;
    text.trim().parse().map_err(|_| io::Error::other("its offset is no number"))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// One upload's place on the disk, and the hash of what came.
pub struct Staged {
    directory: PathBuf,
    received: u64,
    synced: u64,
    digest: Context,
}

/// Where an upload stood, to go back to.
pub struct Mark {
    received: u64,
    digest: Context,
}

impl Staged {
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// SHA-256 of what came, in hex.
    pub fn sha256(&self) -> String {
        self.digest.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn mark(&self) -> Mark {
        Mark { received: self.received, digest: self.digest.clone() }
    }

    /// Forgets what came after the mark.
    pub fn go_back(&mut self, mark: Mark) -> io::Result<()> {
        self.received = mark.received;
        self.digest = mark.digest;
        self.writable()?.set_len(self.received)?;
        self.sync()
    }

    /// The data, to be written at its end.
    pub fn writable(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).open(self.data())?;
        file.seek(SeekFrom::Start(self.received))?;
        Ok(file)
    }

    /// Adds bytes at the end. When that fails, it is as if they had not come.
    pub fn append(&mut self, file: &mut File, chunks: &[bytes::Bytes]) -> io::Result<()> {
        let mut written = 0;
        for chunk in chunks {
            if let Err(error) = file.write_all(chunk) {
                file.set_len(self.received)?;
                file.seek(SeekFrom::Start(self.received))?;
                return Err(error);
            }
            written += chunk.len() as u64;
        }
        chunks.iter().for_each(|chunk| self.digest.update(chunk));
        self.received += written;
        if self.received - self.synced >= CHECKPOINT_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// What came is on the disk on return, and so is how much.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.synced != self.received {
            File::open(self.data())?.sync_data()?;
            self.synced = self.received;
        }
        self.replace("offset", self.received.to_string().as_bytes())
    }

    /// The first bytes, from which its type is told.
    pub fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(self.data())?.take(SNIFFED_BYTES as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// What the upload has become, once it is complete.
    pub fn file_state(&self) -> io::Result<Option<FileState>> {
        match fs::read(self.directory.join("file.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(serde_json::from_slice(&read?)?)),
        }
    }

    pub fn set_file_state(&self, file: &FileState) -> io::Result<()> {
        self.replace("file.json", &serde_json::to_vec(file)?)
    }

    /// A reader sees the old or the new, never a part, whatever happens.
    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let new = self.directory.join("new");
        let mut file = File::create(&new)?;
        file.write_all(contents)?;
        file.sync_data()?;
        fs::rename(new, self.directory.join(name))?;
        sync_directory(&self.directory)
    }
}
