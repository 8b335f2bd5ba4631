//! An upload on its way (tus 1.0.0): what it is to become, how far it is, and what it may do next.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::name::safe_name;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::refusal::{Code, Refusal};

/// Bytes of an `Upload-Metadata` header.
const METADATA_BYTES_MAX: usize = 4 * 1024;

/// What a client says about its file (`Upload-Metadata`). Its type is not taken: contents decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Made safe.
    pub name: String,
}

/// Reads `Upload-Metadata`: pairs of key and base64, parted by commas. Keys that we do not know are passed
/// over.
///
/// # Errors
/// `malformed`, `too_large`.
pub fn metadata(header: &str) -> Result<Metadata, Refusal> {
    if header.len() > METADATA_BYTES_MAX {
        let words = format!("`Upload-Metadata` has at most {METADATA_BYTES_MAX} bytes");
        return Err(Refusal::new(Code::TooLarge, words));
    }
    let malformed =
        || Refusal::new(Code::Malformed, "`Upload-Metadata` is pairs of a key and base64, parted by commas");
    let mut name = None;
    for pair in header.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        if key.is_empty() || !key.is_ascii() {
            return Err(malformed());
        }
        let value = STANDARD.decode(value.trim()).map_err(|_| malformed())?;
        // Clients of the protocol write one or the other.
        if key == "filename" || key == "name" && name.is_none() {
            name = Some(String::from_utf8_lossy(&value).into_owned());
        }
    }
    Ok(Metadata { name: safe_name(&name.unwrap_or_default()) })
}

/// One upload. What is kept of it survives the process: see the shell's staging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// 128 random bits; whoever knows it may go on with the upload. Once finished it names the file.
    pub id: MessageId,
    pub room: RoomName,
    /// Who sends it, and what others see of them.
    pub identity: Identity,
    pub name: String,
    /// The file's, made safe.
    pub file_name: String,
    pub size_bytes: u64,
    /// `Upload-Metadata` as it came, which `HEAD` repeats.
    pub metadata: String,
}

impl Upload {
    /// May bytes be added at `offset`, and how many at most? `length` is what the request says that it
    /// brings.
    ///
    /// # Errors
    /// `wrong_offset`, `too_large`.
    pub fn admit(&self, received: u64, offset: u64, length: Option<u64>) -> Result<u64, Refusal> {
        if offset != received {
            let words = format!(
                "the upload is at offset {received}, not {offset}: ask with HEAD and go on from there"
            );
            return Err(Refusal::new(Code::WrongOffset, words));
        }
        let left = self.size_bytes.saturating_sub(received);
        if length.is_some_and(|length| length > left) {
            return Err(self.overflow());
        }
        Ok(left)
    }

    /// More bytes came than the upload has.
    pub fn overflow(&self) -> Refusal {
        let words = format!("the upload has {} bytes and this would be more", self.size_bytes);
        Refusal::new(Code::TooLarge, words)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn upload() -> Upload {
        Upload {
            id: MessageId::parse("u1").unwrap(),
            room: RoomName::parse("room").unwrap(),
            identity: Identity::parse("ann").unwrap(),
            name: "Ann".into(),
            file_name: "a.txt".into(),
            size_bytes: 100,
            metadata: String::new(),
        }
    }

    #[test]
    fn bytes_are_added_at_the_end_and_nowhere_else() {
        let verdict = |received, offset, length| {
            upload().admit(received, offset, length).map_err(|refusal| refusal.code)
        };
        assert_eq!(verdict(0, 0, Some(100)), Ok(100));
        assert_eq!(verdict(40, 40, None), Ok(60));
        assert_eq!(verdict(100, 100, Some(0)), Ok(0));
        assert_eq!(verdict(40, 0, Some(10)), Err(Code::WrongOffset));
        assert_eq!(verdict(40, 41, Some(10)), Err(Code::WrongOffset));
        assert_eq!(verdict(40, 40, Some(61)), Err(Code::TooLarge));
        assert_eq!(verdict(40, 40, Some(u64::MAX)), Err(Code::TooLarge));
    }

    #[test]
    fn a_name_is_read_from_the_metadata_and_made_safe() {
        let name =
            |header: &str| metadata(header).map(|metadata| metadata.name).map_err(|refusal| refusal.code);
        assert_eq!(name("filename Li4vLi4vZXRjL3Bhc3N3ZA==,filetype aW1hZ2UvcG5n"), Ok("passwd".into()));
        assert_eq!(name("name Y2F0LnBuZw=="), Ok("cat.png".into()));
        assert_eq!(name("is_secret, filename Y2F0LnBuZw=="), Ok("cat.png".into()));
        assert_eq!(name(""), Ok("file".into()));
        assert_eq!(name("filename ///=="), Err(Code::Malformed));
        assert_eq!(name(&format!("filename {}", "A".repeat(5_000))), Err(Code::TooLarge));
    }

    proptest! {
        #[test]
        fn any_metadata_is_read_or_refused(header in "[a-z ,=A-Z0-9+/-]{0,80}") {
            if let Ok(Metadata { name }) = metadata(&header) {
                prop_assert!(!name.is_empty());
            }
        }
    }
}
