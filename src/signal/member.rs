//! Who a request comes from, where it shows the session of a connection: participants prove by it who they
//! are, beside or in place of a token.

use axum::http::{HeaderMap, HeaderName};

use super::Signal;
use super::error::Problem;
use crate::core::ids::{RoomName, SessionId};
use crate::core::participant::Member;
use crate::core::protocol::Code;

/// A participant proves who it is by its session's id, which stands in its `Location` and is told to nobody
/// else. So what is asked over HTTP works for guests, and for those who became a room's admin by making it.
pub const SESSION: HeaderName = HeaderName::from_static("antiphon-session");

/// The participant whose session the request shows, if it shows one.
///
/// # Errors
/// 400 for what is no session, 401 for one that is over.
pub async fn member(
    signal: &Signal,
    headers: &HeaderMap,
    room: &RoomName,
) -> Result<Option<Member>, Problem> {
    let Some(value) = headers.get(SESSION) else { return Ok(None) };
    let session = value.to_str().ok().and_then(SessionId::parse);
    let session = session.ok_or_else(|| {
        Problem::new(Code::Malformed, "`Antiphon-Session` is no session: it has 32 hex digits")
    })?;
    let member = signal.control.member(room, session).await;
    member.map(Some).map_err(|refusal| match refusal.code {
        Code::NotFound => Problem::new(Code::Unauthorized, "this session is over: join again"),
        _ => refusal.into(),
    })
}

/// May this request change the room? A session counts with what its participant may do inside.
///
/// # Errors
/// 401 or 403.
pub async fn may_change(signal: &Signal, headers: &HeaderMap, room: &RoomName) -> Result<(), Problem> {
    match member(signal, headers, room).await? {
        Some(member) if member.grant.admin => Ok(()),
        Some(_) => Err(Problem::new(Code::Forbidden, "you do not run this room")),
        None => {
            let caller = signal.authority.caller(headers)?;
            signal.authority.may_administer(&caller, room).map(drop)
        }
    }
}
