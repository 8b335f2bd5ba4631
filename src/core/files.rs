//! The rules of files: who may send how much, what an upload may do next, what a file is called and taken
//! for.
//!
//! A finished upload is a chat message with a file, in the room's one order; its id is the upload's. So
//! whoever comes late has it from history, deleting the message deletes the file, and sending again is
//! harmless. What clients claim (names, types, lengths) is checked or replaced here; contents are looked at
//! in
//! [`sniff`] and in a process of their own, never by the server itself.

mod name;
mod range;
mod sniff;
mod upload;

use serde::{Deserialize, Serialize};

use super::chat::{Asker, Author};
use super::ids::MessageId;
use super::refusal::{Code, Refusal};

pub use name::{content_disposition, safe_name};
pub use range::{Part, requested_part};
pub use sniff::{SNIFFED_BYTES, is_probed, served_type, sniff};
pub use upload::{Metadata, Upload, metadata};

/// A file as the message that carries it shows it. Its contents lie under `/v1/rooms/{room}/files/{id}`,
/// where
/// `id` is the message's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct FileState {
    /// Made safe: no path, no control characters.
    pub name: String,
    #[cfg_attr(test, ts(type = "number"))]
    pub size_bytes: u64,
    /// By its contents, whatever its name says.
    pub media_type: String,
    /// SHA-256 of the contents, in hex.
    pub sha256: String,
    /// Pixels, of a picture or a video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub width: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub height: Option<u32>,
    /// Of sound or a video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub duration_ms: Option<u64>,
    /// There is a small picture of it at its path with `/thumbnail`.
    pub thumbnail: bool,
    /// Kept as long as the node keeps files; its contents are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, ts(optional, as = "Option<bool>"))]
    pub expired: bool,
}

/// A file that comes over the `control` channel has at most so many bytes.
pub const SMALL_FILE_BYTES_MAX: usize = 64 * 1024;

/// A file that came over the `control` channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallFile {
    /// Made by its author, so that sending it again is not a second file.
    pub id: MessageId,
    /// Made safe.
    pub name: String,
    /// Bytes that it will have.
    pub size: usize,
    pub bytes: Vec<u8>,
    pub author: Author,
    /// Who is told when it is in the room.
    pub asker: Asker,
}

/// How much may be kept, in bytes. 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub file_bytes_max: u64,
    pub room_bytes_max: u64,
    pub identity_bytes_max: u64,
    pub node_bytes_max: u64,
    /// Unfinished uploads of one identity at a time.
    pub uploads_per_identity_max: u32,
    /// Unfinished uploads on the node at a time.
    pub uploads_max: u32,
}

/// How much is kept or promised to unfinished uploads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub room_bytes: u64,
    pub identity_bytes: u64,
    pub node_bytes: u64,
    pub identity_uploads: u32,
    pub node_uploads: u32,
}

impl Quotas {
    /// May an upload of `size` bytes begin, with so much there already?
    ///
    /// # Errors
    /// `too_large`, `quota_exceeded`, `rate_limited`.
    pub fn admit(&self, usage: &Usage, size: u64) -> Result<(), Refusal> {
        let exceeds = |used: u64, max: u64| max > 0 && used.checked_add(size).is_none_or(|total| total > max);
        if exceeds(0, self.file_bytes_max) {
            let words = format!("a file has at most {} here", readable_size(self.file_bytes_max));
            return Err(Refusal::new(Code::TooLarge, words));
        }
        for (used, max, whose) in [
            (usage.identity_bytes, self.identity_bytes_max, "you have"),
            (usage.room_bytes, self.room_bytes_max, "the room has"),
            (usage.node_bytes, self.node_bytes_max, "the server has"),
        ] {
            if exceeds(used, max) {
                let words = format!(
                    "{whose} {} left of {} for files, which this one would exceed; delete some first",
                    readable_size(max.saturating_sub(used)),
                    readable_size(max)
                );
                return Err(Refusal::new(Code::QuotaExceeded, words));
            }
        }
        if usage.identity_uploads >= self.uploads_per_identity_max {
            let words = "you have too many unfinished uploads; finish or cancel some first";
            return Err(Refusal::new(Code::RateLimited, words));
        }
        if usage.node_uploads >= self.uploads_max {
            let words = "the server has too many unfinished uploads now; try again in a while";
            return Err(Refusal::new(Code::RateLimited, words));
        }
        Ok(())
    }
}

/// For people: `1.5 GiB`, `20 KiB`, `7 bytes`.
pub fn readable_size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, size)) = units.into_iter().find(|(_, size)| bytes >= *size) else {
        return format!("{bytes} bytes");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(size);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenth) => format!("{whole}.{tenth} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quotas() -> Quotas {
        Quotas {
            file_bytes_max: 100,
            room_bytes_max: 1_000,
            identity_bytes_max: 500,
            node_bytes_max: 2_000,
            uploads_per_identity_max: 3,
            uploads_max: 5,
        }
    }

    fn verdict(usage: Usage, size: u64) -> Option<Code> {
        quotas().admit(&usage, size).err().map(|refusal| refusal.code)
    }

    #[test]
    fn each_quota_refuses_the_byte_beyond_it() {
        let none = Usage::default();
        assert_eq!(verdict(none, 100), None);
        assert_eq!(verdict(none, 101), Some(Code::TooLarge));
        for usage in [
            Usage { room_bytes: 991, ..none },
            Usage { identity_bytes: 491, ..none },
            Usage { node_bytes: 1_991, ..none },
        ] {
            assert_eq!(verdict(usage, 9), None);
            assert_eq!(verdict(usage, 10), Some(Code::QuotaExceeded));
        }
        assert_eq!(verdict(Usage { identity_uploads: 3, ..none }, 1), Some(Code::RateLimited));
        assert_eq!(verdict(Usage { node_uploads: 5, ..none }, 1), Some(Code::RateLimited));
    }

    #[test]
    fn no_bound_is_no_bound() {
        let open = Quotas {
            file_bytes_max: 0,
            room_bytes_max: 0,
            identity_bytes_max: 0,
            node_bytes_max: 0,
            ..quotas()
        };
        assert_eq!(open.admit(&Usage { node_bytes: u64::MAX, ..Usage::default() }, u64::MAX), Ok(()));
    }

    #[test]
    fn a_size_reads_well() {
        assert_eq!(readable_size(7), "7 bytes");
        assert_eq!(readable_size(20 << 10), "20 KiB");
        assert_eq!(readable_size(3 << 29), "1.5 GiB");
        assert_eq!(readable_size(u64::MAX), "17179869183.9 GiB");
    }

    proptest! {
        #[test]
        fn what_was_admitted_never_exceeds_a_quota(sizes in prop::collection::vec(0u64..200, 0..200)) {
            let mut usage = Usage::default();
            for size in sizes {
                if quotas().admit(&usage, size).is_ok() {
                    usage.room_bytes += size;
                    usage.identity_bytes += size;
                    usage.node_bytes += size;
                }
            }
            prop_assert!(usage.identity_bytes <= 500);
        }
    }
}
