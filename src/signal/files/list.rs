//! The files of a room, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::access::may_fetch;
use crate::core::files::FileState;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::{ChatMessage, Code};
use crate::signal::Signal;
use crate::signal::error::{Problem, ProblemBody};
use crate::signal::extract::{InRoom, Params};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// The newest files whose messages have a lesser `seq`.
    before: Option<u64>,
    /// 1 to 200; 50 where absent.
    limit: Option<u32>,
}

/// A file, and who sent it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ListedFile {
    /// Its message's too.
    id: MessageId,
    seq: u64,
    identity: Identity,
    /// Of who sent it, as others see them.
    sent_by: String,
    sent_at_ms: u64,
    #[serde(flatten)]
    file: FileState,
    /// Its path in this API.
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_url: Option<String>,
}

/// Files of a room, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FilePage {
    files: Vec<ListedFile>,
    /// There are older ones.
    more: bool,
}

/// List the files of a room
///
/// Newest first. Files outlive their room, so a room that is not open now is no error.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/files", tag = "files",
    params(
        ("room" = RoomName, Path), ListParams,
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = FilePage),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden or room_private"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<ListParams>,
    headers: HeaderMap,
) -> Result<Json<FilePage>, Problem> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::new(Code::Malformed, format!("`limit` is 1 to {LIMIT_MAX}")));
    }
    may_fetch(&signal, &headers, &room).await?;
    let (messages, more) = signal.files.list(&room, params.before.unwrap_or(u64::MAX), limit).await?;
    let files = messages.into_iter().filter_map(|message| listed(&room, message)).collect();
    Ok(Json(FilePage { files, more }))
}

fn listed(room: &RoomName, message: ChatMessage) -> Option<ListedFile> {
    let file = *message.file?;
    let url = format!("/v1/rooms/{room}/files/{}", message.id);
    Some(ListedFile {
        thumbnail_url: file.thumbnail.then(|| format!("{url}/thumbnail")),
        id: message.id,
        seq: message.seq,
        identity: message.identity,
        sent_by: message.name,
        sent_at_ms: message.sent_at_ms,
        file,
        url,
    })
}
