//! Who may send, fetch and delete files: by a token, by the session of a connection, or as a guest.

use axum::http::HeaderMap;
use serde::Deserialize;

use crate::control::Author;
use crate::core::ids::{MessageId, RoomName};
use crate::core::ledger::Resource;
use crate::core::participant::Member;
use crate::core::protocol::Code;
use crate::signal::Signal;
use crate::signal::auth::{Caller, Read};
use crate::signal::error::Problem;
use crate::signal::join::introduce;
use crate::signal::member::member;
use crate::signal::paywall::{may_look_inside, runs_room, unpaid};
use crate::signal::rooms::readable;

/// Who a guest is, under `--dev`.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileParams {
    /// Who a guest of a `--dev` node is; absent, one is made up.
    identity: Option<String>,
    /// What others see.
    name: Option<String>,
}

/// Who sends or deletes a file in this room.
///
/// # Errors
/// 401 or 403.
pub async fn author(
    signal: &Signal,
    headers: &HeaderMap,
    room: &RoomName,
    params: FileParams,
) -> Result<Author, Problem> {
    if let Some(Member { identity, name, grant }) = member(signal, headers, room).await? {
        return if grant.files {
            Ok(Author { identity, name, is_admin: grant.admin })
        } else {
            Err(ungranted())
        };
    }
    let caller = signal.authority.caller(headers)?;
    signal.authority.may_read(&caller, room, Read::Files)?;
    may_look_inside(signal, &caller, room).await?;
    let is_admin = match &caller {
        Caller::Holder(token) => token.room.admin,
        Caller::Guest if signal.authority.is_dev() => true,
        Caller::Guest => {
            let words = "a guest shows who it is in the room: send `Antiphon-Session` with its session's id";
            return Err(Problem::new(Code::Unauthorized, words));
        }
    };
    let (identity, name) = introduce(caller, params.identity, params.name)?;
    Ok(Author { identity, name, is_admin })
}

/// May this request see and fetch the room's files?
///
/// # Errors
/// 401 or 403.
pub async fn may_fetch(signal: &Signal, headers: &HeaderMap, room: &RoomName) -> Result<(), Problem> {
    match member(signal, headers, room).await? {
        Some(member) if member.grant.files => Ok(()),
        Some(_) => Err(ungranted()),
        None => readable(signal, headers, room, Read::Files).await,
    }
}

/// As [`may_fetch`], and for a file that is sold only who runs the room: others buy it.
///
/// # Errors
/// 401, 402 or 403.
pub async fn may_fetch_unsold(
    signal: &Signal,
    headers: &HeaderMap,
    room: &RoomName,
    id: &MessageId,
) -> Result<(), Problem> {
    may_fetch(signal, headers, room).await?;
    let is_sold = signal.billing.is_sold(&Resource::file(room, id));
    if is_sold && !runs_room(signal, headers, room).await? { Err(unpaid()) } else { Ok(()) }
}

fn ungranted() -> Problem {
    Problem::new(Code::Forbidden, "your grant does not cover files")
}
