//! Small files over the `control` channel: gathered from their parts, kept by the shell of files by the same
//! rules as uploads, and then in the chat as every file is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::commands::Answer;
use super::{Output, ParticipantKey, Room};
use crate::core::chat::{Asker, Author};
use crate::core::files::{SMALL_FILE_BYTES_MAX, SmallFile, safe_name};
use crate::core::ids::MessageId;
use crate::core::refusal::{Code, Refusal};

/// A part as it comes.
pub(super) struct FilePart {
    pub id: MessageId,
    pub name: String,
    pub size_bytes: u32,
    pub offset: Option<u32>,
    /// In base64.
    pub data: String,
}

impl Room {
    /// One part of a file. Another `id` than before begins another file: of each participant one is gathered
    /// at a time. A part that came already, as its sender lost the answer, does no harm.
    pub(super) fn take_part(
        &mut self,
        key: ParticipantKey,
        request: Option<u64>,
        part: FilePart,
    ) -> Result<Answer, Refusal> {
        let FilePart { id, name, size_bytes, offset, data } = part;
        let Some(participant) = self.participant_mut(key) else { return Ok(Answer::Later) };
        if !participant.grant.files {
            return Err(Refusal::new(Code::Forbidden, "your grant does not let you send files"));
        }
        let size = size_bytes as usize;
        if size > SMALL_FILE_BYTES_MAX {
            let words = "a file has at most 64 KiB here: send larger ones over HTTP";
            return Err(Refusal::new(Code::TooLarge, words));
        }
        let part = STANDARD.decode(data);
        let part = part.map_err(|_| Refusal::new(Code::Malformed, "`data` is no base64"))?;
        let identity = participant.identity.clone();
        let before = participant.small_file.take().filter(|file| file.id == id && file.size == size);
        let mut file = before.unwrap_or_else(|| SmallFile {
            id,
            name: safe_name(&name),
            size,
            bytes: Vec::new(),
            author: Author {
                identity: identity.clone(),
                name: participant.name.clone(),
                is_admin: participant.grant.admin,
            },
            asker: Asker::Participant { identity, request },
        });
        if let Some(offset) = offset {
            let came = file.bytes.len();
            if offset as usize > came {
                let words = format!("{came} bytes of this file have come: send it from its beginning");
                return Err(Refusal::new(Code::WrongOffset, words));
            }
            file.bytes.truncate(offset as usize);
        }
        file.bytes.extend(part);
        if file.bytes.len() > size {
            return Err(Refusal::new(Code::TooLarge, "the file has more bytes than its `size_bytes`"));
        }
        if file.bytes.len() < size {
            participant.small_file = Some(file);
            return Ok(Answer::Ok);
        }
        if let Asker::Participant { request: asked, .. } = &mut file.asker {
            *asked = request;
        }
        self.outputs.push_back(Output::KeepFile(Box::new(file)));
        Ok(Answer::Later)
    }

    /// A small file is kept and in the room, or was refused.
    pub fn handle_kept(&mut self, asker: &Asker, result: Result<(), Refusal>) {
        self.answer(asker, result);
    }
}

#[cfg(test)]
mod tests;
