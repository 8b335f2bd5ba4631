//! Refusals: a stable code for programs, and words for people. The same on the `control` channel and in the
//! HTTP API.

use serde::{Deserialize, Serialize};

/// Why something was refused: stable strings, the same on the `control` channel and in the HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not JSON, or not of the message's form.
    Malformed,
    UnknownType,
    TooLarge,
    /// More messages a second than allowed.
    RateLimited,
    /// No token, or not a valid one.
    Unauthorized,
    /// The room costs money, and this viewer has not paid.
    PaymentRequired,
    /// Nobody has said where the money is to go.
    PayoutMissing,
    /// The grant does not cover this.
    Forbidden,
    NotFound,
    RoomExists,
    RoomLocked,
    RoomFull,
    RoomPrivate,
    /// No more rooms or participants on this node.
    NodeFull,
    Draining,
    /// The SDP offer cannot be used.
    BadOffer,
    UnsupportedMediaType,
    PreconditionFailed,
    PreconditionRequired,
    /// The room's media is ciphertext to the server, which so cannot do this.
    EndToEndEncrypted,
    /// The room is being recorded.
    AlreadyRecording,
    /// Somebody in it would have to agree first.
    ConsentNeeded,
    /// An upload is not at the offset from which it is to go on.
    WrongOffset,
    /// Another request holds the upload.
    UploadBusy,
    /// What came is not what its checksum says.
    ChecksumMismatch,
    /// More files than this identity, room or node may have.
    QuotaExceeded,
    /// No space is left on the server's disk.
    StorageFull,
    /// It was here, and was deleted or has expired.
    Gone,
    /// No such part of the file.
    RangeNotSatisfiable,
    /// Cannot be done now, such as MCU mode where no mixer is.
    Unavailable,
    Internal,
}

impl Code {
    /// The stable string.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownType => "unknown_type",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::PaymentRequired => "payment_required",
            Self::PayoutMissing => "payout_missing",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RoomExists => "room_exists",
            Self::RoomLocked => "room_locked",
            Self::RoomFull => "room_full",
            Self::RoomPrivate => "room_private",
            Self::NodeFull => "node_full",
            Self::Draining => "draining",
            Self::BadOffer => "bad_offer",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::PreconditionFailed => "precondition_failed",
            Self::PreconditionRequired => "precondition_required",
            Self::EndToEndEncrypted => "end_to_end_encrypted",
            Self::AlreadyRecording => "already_recording",
            Self::ConsentNeeded => "consent_needed",
            Self::WrongOffset => "wrong_offset",
            Self::UploadBusy => "upload_busy",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::QuotaExceeded => "quota_exceeded",
            Self::StorageFull => "storage_full",
            Self::Gone => "gone",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// Something was refused, with words for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
