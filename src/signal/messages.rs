//! Chat history, by pages. Sending is the data channel's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;

use super::Signal;
use super::auth::Read;
use super::error::{Problem, ProblemBody};
use super::extract::{InRoom, Params};
use super::rooms::readable;
use crate::control::{HistoryRange, MessagePage};
use crate::core::ids::RoomName;
use crate::core::protocol::Code;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// Which page. Without `after` and `before`: the newest.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// The first messages with a greater `seq`.
    after: Option<u64>,
    /// The last messages with a lesser `seq`.
    before: Option<u64>,
    /// 1 to 200; 50 where absent.
    limit: Option<u32>,
}

impl PageParams {
    fn range(&self) -> Result<(HistoryRange, u32), Problem> {
        let range = match (self.after, self.before) {
            (None, None) => HistoryRange::Newest,
            (Some(seq), None) => HistoryRange::After(seq),
            (None, Some(seq)) => HistoryRange::Before(seq),
            (Some(_), Some(_)) => {
                return Err(Problem::new(Code::Malformed, "give `after` or `before`, not both"));
            }
        };
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(Code::Malformed, format!("`limit` is 1 to {LIMIT_MAX}")));
        }
        Ok((range, limit))
    }
}

/// Read the chat
///
/// Oldest first within a page. History outlives its room, so a room that is not open now is no error.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/messages", tag = "rooms",
    params(("room" = RoomName, Path), PageParams),
    responses(
        (status = 200, body = MessagePage),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden or room_private"),
    )
)]
pub async fn page(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<PageParams>,
    headers: HeaderMap,
) -> Result<Json<MessagePage>, Problem> {
    let (range, limit) = params.range()?;
    readable(&signal, &headers, &room, Read::Messages).await?;
    Ok(Json(signal.control.messages(&room, range, limit).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_direction_and_a_bound() {
        let range = |after, before, limit| PageParams { after, before, limit }.range();
        assert!(matches!(range(None, None, None), Ok((HistoryRange::Newest, LIMIT_DEFAULT))));
        assert!(matches!(range(Some(7), None, Some(200)), Ok((HistoryRange::After(7), 200))));
        assert!(matches!(range(None, Some(7), Some(1)), Ok((HistoryRange::Before(7), 1))));
        assert!(range(Some(1), Some(2), None).is_err());
        assert!(range(None, None, Some(0)).is_err());
        assert!(range(None, None, Some(201)).is_err());
    }
}
