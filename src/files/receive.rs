//! Bytes of uploads as they come in, each upload by one request at a time.
//!
//! A request that goes on with an upload, or asks how far it is, ends the one that holds it: that one's
//! connection is most likely dead, and only nobody has noticed.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use super::staging::Staged;
use super::{Files, no_file, stopping, unwritable};
use crate::control::unix_ms;
use crate::core::files::Upload;
use crate::core::ids::{MessageId, RoomName};
use crate::core::refusal::{Code, Refusal};

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// A sender that is silent for so long is gone; what it sent is kept.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The request that holds an upload gets so long to let it go.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

/// An upload that is not complete, or not in its room yet.
pub struct Running {
    pub upload: Upload,
    received: AtomicU64,
    touched_ms: AtomicU64,
    /// Held by the request that writes. `None` until it was opened, after a restart or a failure.
    pub(super) staged: Arc<Mutex<Option<Staged>>>,
    /// Whoever holds it shall let go.
    let_go: Notify,
}

impl Running {
    pub(super) fn new(upload: Upload, staged: Staged, now_ms: u64) -> Self {
        Self {
            upload,
            received: AtomicU64::new(staged.received()),
            touched_ms: AtomicU64::new(now_ms),
            staged: Arc::new(Mutex::new(Some(staged))),
            let_go: Notify::new(),
        }
    }

    /// As found after a restart.
    pub(super) fn found(upload: Upload, received: u64, touched_ms: u64) -> Self {
        Self {
            upload,
            received: AtomicU64::new(received),
            touched_ms: AtomicU64::new(touched_ms),
            staged: Arc::default(),
            let_go: Notify::new(),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn touched_ms(&self) -> u64 {
        self.touched_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received() == self.upload.size_bytes
    }

    fn note(&self, received: u64) {
        metrics::counter!("antiphon_files_received_bytes_total")
            .increment(received.saturating_sub(self.received()));
        self.received.store(received, Ordering::Relaxed);
        self.touched_ms.store(unix_ms(), Ordering::Relaxed);
    }

    /// The upload for oneself, as soon as who has it lets go.
    pub(super) async fn hold(&self) -> Result<OwnedMutexGuard<Option<Staged>>, Refusal> {
        let lock = Arc::clone(&self.staged).lock_owned();
        let ask = async {
            let mut lock = pin!(lock);
            loop {
                self.let_go.notify_waiters();
                // Asked again, in case that the holder was not listening at that moment.
                if let Ok(held) = tokio::time::timeout(Duration::from_millis(50), &mut lock).await {
                    return held;
                }
            }
        };
        tokio::time::timeout(LET_GO_WITHIN, ask).await.map_err(|_| {
            let words = "another request is at this upload, or it is being stored; try again in a moment";
            Refusal::new(Code::UploadBusy, words)
        })
    }
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub offset: u64,
    pub size_bytes: u64,
    pub metadata: String,
    /// When it is forgotten unless it goes on, ms since the Unix epoch; absent once it is a file.
    pub expires_at_ms: Option<u64>,
}

/// What the bytes of a request have to hash to.
#[derive(Debug, Clone)]
pub struct Checksum {
    pub algorithm: &'static digest::Algorithm,
    pub digest: Vec<u8>,
}

/// One request's bytes.
pub struct Arriving<S> {
    pub offset: u64,
    /// By its `Content-Length`.
    pub length: Option<u64>,
    pub checksum: Option<Checksum>,
    pub body: S,
}

/// How a request's bytes ended.
enum Ended {
    Whole,
    /// The connection is gone, silent, or another request wants the upload.
    Cut,
    Refused(Refusal),
}

impl Files {
    /// How far an upload is. What came is on the disk; a complete upload that could not be stored is tried
    /// again.
    ///
    /// # Errors
    /// `not_found`, `upload_busy`, and as [`Self::finish`].
    pub async fn progress(&self, room: &RoomName, id: &MessageId) -> Result<Progress, Refusal> {
        let Some(running) = self.running(room, id) else {
            let kept = self.kept(room, id).await?;
            let size_bytes = kept.file.size_bytes;
            return Ok(Progress {
                offset: size_bytes,
                size_bytes,
                metadata: String::new(),
                expires_at_ms: None,
            });
        };
        let held = running.hold().await?;
        if !running.is_complete() {
            return Ok(self.progress_of(&running));
        }
        self.finish_held(&running, held).await.map_err(|refusal| {
            // Clients take other failures of this question for an upload that is no more, and send it anew.
            let words = format!("all of it came, but is not stored yet: {}", refusal.message);
            Refusal::new(Code::UploadBusy, words)
        })?;
        Ok(self.progress_of(&running))
    }

    fn progress_of(&self, running: &Running) -> Progress {
        let hours_ms = self.0.settings.upload_hours.saturating_mul(3_600_000);
        Progress {
            offset: running.received(),
            size_bytes: running.upload.size_bytes,
            metadata: running.upload.metadata.clone(),
            expires_at_ms: (!running.is_complete()).then(|| running.touched_ms().saturating_add(hours_ms)),
        }
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// `not_found` when there is none that is unfinished, `upload_busy`.
    pub async fn cancel(&self, room: &RoomName, id: &MessageId) -> Result<(), Refusal> {
        let running = self.running(room, id).ok_or_else(no_file)?;
        let _held = running.hold().await?;
        self.forget(id).await;
        Ok(())
    }

    /// Takes bytes of an upload, and stores it when they were the last. Goes on to its end when the caller
    /// does not wait any more.
    ///
    /// # Errors
    /// `not_found`, `upload_busy`, `wrong_offset`, `too_large`, `checksum_mismatch`, `storage_full`,
    /// `unavailable`.
    pub async fn receive<S, E>(
        &self,
        room: &RoomName,
        id: &MessageId,
        arriving: Arriving<S>,
    ) -> Result<Progress, Refusal>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let running = match self.running(room, id) {
            Some(running) => running,
            None => {
                let kept = self.kept(room, id).await?;
                let words = format!("the upload is complete, with {} bytes", kept.file.size_bytes);
                return Err(Refusal::new(Code::WrongOffset, words));
            }
        };
        let files = self.clone();
        // A task of its own: when the connection is cut its handler is dropped, and what came is to be kept.
        let task = tokio::spawn(async move {
            let mut held = running.hold().await?;
            let left = running.upload.admit(running.received(), arriving.offset, arriving.length)?;
            let staged = files.opened(&running, held.take()).await?;
            let (staged, ended) = files.write(&running, staged, left, arriving).await?;
            running.note(staged.received());
            *held = Some(staged);
            match ended {
                Ended::Refused(refusal) => return Err(refusal),
                Ended::Whole | Ended::Cut => {}
            }
            if running.is_complete() {
                files.finish_held(&running, held).await?;
            }
            Ok(files.progress_of(&running))
        });
        task.await.map_err(|_| stopping())?
    }

    /// The upload's place on the disk, as it was or read again.
    pub(super) async fn opened(&self, running: &Running, staged: Option<Staged>) -> Result<Staged, Refusal> {
        if let Some(staged) = staged {
            return Ok(staged);
        }
        let (files, id) = (self.clone(), running.upload.id.clone());
        let opened = tokio::task::spawn_blocking(move || files.0.staging.open(&id));
        let staged = opened.await.map_err(|_| stopping())?.map_err(|error| unwritable(&error))?;
        running.received.store(staged.received(), Ordering::Relaxed);
        Ok(staged)
    }

    async fn write<S, E>(
        &self,
        running: &Running,
        staged: Staged,
        left: u64,
        arriving: Arriving<S>,
    ) -> Result<(Staged, Ended), Refusal>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        let mark = staged.mark();
        let Arriving { length, checksum, body, .. } = arriving;
        let writer = Writer { file: staged.writable().map_err(|error| unwritable(&error))?, staged };
        let checked = checksum.as_ref().map(|sum| digest::Context::new(sum.algorithm));
        let taken = take(running, writer, Taken::new(checked), left, body).await?;
        let (writer, Taken { came, checked, mut ended, .. }) = taken;
        if matches!(ended, Ended::Whole) && length.is_some_and(|length| length != came) {
            ended = Ended::Cut;
        }
        let sum = checksum.as_ref().map(|sum| sum.digest.as_slice());
        let matches = checked.map(digest::Context::finish).map(|found| Some(found.as_ref()) == sum);
        let discard = match (&ended, matches) {
            (Ended::Refused(refusal), _) if refusal.code == Code::TooLarge => true,
            (Ended::Whole, Some(false)) => {
                let words = "what came is not what its checksum says: send it again";
                ended = Ended::Refused(Refusal::new(Code::ChecksumMismatch, words));
                true
            }
            // What cannot be checked any more is not kept.
            (Ended::Cut | Ended::Refused(_), Some(_)) => true,
            _ => false,
        };
        let (staged, synced) = writer.close(discard.then_some(mark)).await?;
        match synced {
            Err(error) if !matches!(ended, Ended::Refused(_)) => {
                Ok((staged, Ended::Refused(unwritable(&error))))
            }
            _ => Ok((staged, ended)),
        }
    }
}

/// What one request has brought so far.
struct Taken {
    came: u64,
    checked: Option<digest::Context>,
    /// Not written yet.
    waiting: Vec<Bytes>,
    ended: Ended,
}

impl Taken {
    fn new(checked: Option<digest::Context>) -> Self {
        Self { came: 0, checked, waiting: Vec::new(), ended: Ended::Whole }
    }

    /// False for more than `left`.
    fn add(&mut self, bytes: Bytes, left: u64) -> bool {
        self.came += bytes.len() as u64;
        if self.came > left {
            return false;
        }
        if let Some(checked) = &mut self.checked {
            checked.update(&bytes);
        }
        self.waiting.push(bytes);
        true
    }
}

/// Writes what comes until it ends, one way or another.
async fn take<S, E>(
    running: &Running,
    mut writer: Writer,
    mut taken: Taken,
    left: u64,
    body: S,
) -> Result<(Writer, Taken), Refusal>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let mut body = pin!(body);
    let mut let_go = pin!(running.let_go.notified());
    let_go.as_mut().enable();
    loop {
        let next = tokio::select! {
            biased;
            () = &mut let_go => Err(()),
            next = tokio::time::timeout(SILENCE_MAX, body.next()) => next.map_err(|_| ()),
        };
        let goes_on = match next {
            Ok(Some(Ok(bytes))) => {
                if !taken.add(bytes, left) {
                    taken.ended = Ended::Refused(running.upload.overflow());
                    return Ok((writer, taken));
                }
                true
            }
            Ok(None) => false,
            Ok(Some(Err(_))) | Err(()) => {
                taken.ended = Ended::Cut;
                false
            }
        };
        if goes_on && taken.waiting.iter().map(Bytes::len).sum::<usize>() < WRITE_BYTES {
            continue;
        }
        let written;
        (writer, written) = writer.append(std::mem::take(&mut taken.waiting)).await?;
        if let Err(error) = written {
            taken.ended = Ended::Refused(unwritable(&error));
            return Ok((writer, taken));
        }
        if !goes_on {
            return Ok((writer, taken));
        }
        running.note(writer.staged.received());
    }
}

/// The open file beside what is known of it; lent to a thread that may block.
struct Writer {
    file: File,
    staged: Staged,
}

impl Writer {
    async fn append(mut self, chunks: Vec<Bytes>) -> Result<(Self, io::Result<()>), Refusal> {
        if chunks.is_empty() {
            return Ok((self, Ok(())));
        }
        let task = tokio::task::spawn_blocking(move || {
            let written = self.staged.append(&mut self.file, &chunks);
            (self, written)
        });
        task.await.map_err(|_| stopping())
    }

    async fn close(self, back_to: Option<super::staging::Mark>) -> Result<(Staged, io::Result<()>), Refusal> {
        let Self { mut staged, .. } = self;
        let task = tokio::task::spawn_blocking(move || {
            let synced = match back_to {
                Some(mark) => staged.go_back(mark),
                None => staged.sync(),
            };
            (staged, synced)
        });
        task.await.map_err(|_| stopping())
    }
}
