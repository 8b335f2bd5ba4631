//! The door of what costs money: who has paid goes in, the others are told what to pay (402).
//!
//! A room without a price is not asked about. Its admins never pay. A ticket may come as a token, as an
//! `L402` token, or as nothing: then somebody new is asked.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Signal;
use super::auth::{Caller, GUEST};
use super::error::Problem;
use super::member::member;
use crate::billing::{Admission, Challenge, Payer};
use crate::core::ids::{Identity, RoomName, SessionId};
use crate::core::ledger::Resource;
use crate::core::protocol::{Code, Grant};
use crate::token::{RoomGrant, Token};

/// What a look into the room may do.
const PREVIEW: Grant =
    Grant { publish: false, subscribe: true, chat: false, files: false, admin: false, lowest_layer: false };

/// The body of a 402: a problem (RFC 9457) with what to pay beside it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PaymentRequired<'a> {
    #[schema(value_type = String)]
    title: &'a str,
    status: u16,
    #[schema(value_type = String, example = "payment_required")]
    code: &'a str,
    #[schema(value_type = String)]
    detail: &'a str,
    #[serde(flatten)]
    challenge: &'a Challenge,
}

/// What the door says.
pub enum Verdict {
    In(Caller),
    /// A 402.
    Pay(Box<Response>),
}

/// Asks whoever wants into the room for a ticket, where it needs one. `caller` is who its token says it is.
///
/// # Errors
/// 401 and 403 for a token that is no good, 429 for too many invoices, 503.
pub async fn pass(
    signal: &Signal,
    caller: Result<Caller, Problem>,
    headers: &HeaderMap,
    room: &RoomName,
    from: IpAddr,
    resume: Option<SessionId>,
) -> Result<Verdict, Problem> {
    if !signal.billing.is_priced(room) {
        return caller.map(Verdict::In);
    }
    let payer = match (l402(headers), caller) {
        (Some(token), _) => Payer::L402(token),
        (None, Ok(Caller::Holder(token))) => {
            if !token.room.covers(room) {
                return Err(Problem::new(Code::Forbidden, "the token is for another room"));
            }
            if token.room.admin {
                return Ok(Verdict::In(Caller::Holder(token)));
            }
            let identity = token.identity.clone();
            let admission = signal.billing.admit(room.clone(), Payer::Known(identity), from).await?;
            return Ok(match admission {
                Admission::Pay(challenge) => Verdict::Pay(Box::new(required(&challenge))),
                _ => Verdict::In(Caller::Holder(token)),
            });
        }
        (None, Err(problem)) if headers.contains_key(AUTHORIZATION) => return Err(problem),
        // A ticket is sold to whoever comes, with or without a token.
        (None, _) => match returning(signal, room, resume).await {
            Some(Returning::Admin) => return Ok(Verdict::In(Caller::Guest)),
            Some(Returning::Viewer(identity)) => Payer::Known(identity),
            None => Payer::Guest,
        },
    };
    Ok(match signal.billing.admit(room.clone(), payer, from).await? {
        Admission::Entitled { viewer, .. } => Verdict::In(ticket(room, viewer, GUEST)),
        Admission::Preview { viewer, lowest, .. } => {
            Verdict::In(ticket(room, viewer, Grant { lowest_layer: lowest, ..PREVIEW }))
        }
        Admission::Pay(challenge) => Verdict::Pay(Box::new(required(&challenge))),
    })
}

enum Returning {
    Admin,
    Viewer(Identity),
}

/// Who comes back by a session that is still there.
async fn returning(signal: &Signal, room: &RoomName, resume: Option<SessionId>) -> Option<Returning> {
    let member = signal.control.member(room, resume?).await.ok()?;
    Some(if member.grant.admin { Returning::Admin } else { Returning::Viewer(member.identity) })
}

fn ticket(room: &RoomName, viewer: Identity, grant: Grant) -> Caller {
    let Grant { publish, subscribe, chat, files, admin, lowest_layer } = grant;
    let room = room.as_str().to_owned();
    let room = RoomGrant { room, publish, subscribe, chat, files, admin, lowest_layer };
    Caller::Holder(Token { identity: viewer, name: None, room })
}

/// The token of an `L402` header, of old called `LSAT`.
pub fn l402(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let named = ["L402", "LSAT"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    named.then(|| token.trim().to_owned())
}

/// May this caller see what is in the room, its people, messages and files?
///
/// # Errors
/// 402 for who has not paid, without an invoice: joining makes one.
pub async fn may_look_inside(signal: &Signal, caller: &Caller, room: &RoomName) -> Result<(), Problem> {
    if !signal.billing.is_priced(room) {
        return Ok(());
    }
    match caller {
        Caller::Holder(token) if token.room.admin => Ok(()),
        Caller::Holder(token) if signal.billing.is_entitled(room.clone(), token.identity.clone()).await? => {
            Ok(())
        }
        _ => Err(Problem::new(Code::PaymentRequired, "this room costs money: join it to get an invoice")),
    }
}

/// Whether this request comes from who runs the room, and so need not pay for what is in it.
///
/// # Errors
/// 401 for a token or session that is no good.
pub async fn runs_room(signal: &Signal, headers: &HeaderMap, room: &RoomName) -> Result<bool, Problem> {
    if let Some(member) = member(signal, headers, room).await? {
        return Ok(member.grant.admin);
    }
    // Under `L402` there is no token of ours.
    if l402(headers).is_some() {
        return Ok(false);
    }
    Ok(match signal.authority.caller(headers) {
        Ok(Caller::Holder(token)) => token.room.covers(room) && token.room.admin,
        Ok(Caller::Guest) => false,
        Err(problem) if headers.contains_key(AUTHORIZATION) => return Err(problem),
        Err(_) => false,
    })
}

/// Whether this request may fetch a recording or file that is sold; if not, the 402 that answers it.
///
/// # Errors
/// 401 and 403 for a token that is no good, 429 for too many invoices, 503.
pub async fn may_fetch_sold(
    signal: &Signal,
    headers: &HeaderMap,
    of: &Resource,
    from: IpAddr,
) -> Result<Option<Response>, Problem> {
    if runs_room(signal, headers, &of.room).await? {
        return Ok(None);
    }
    let payer = match (l402(headers), signal.authority.caller(headers)) {
        (Some(token), _) => Payer::L402(token),
        (None, Ok(Caller::Holder(token))) if token.room.covers(&of.room) => Payer::Known(token.identity),
        (None, Ok(Caller::Holder(_))) => {
            return Err(Problem::new(Code::Forbidden, "the token is for another room"));
        }
        (None, _) => Payer::Guest,
    };
    Ok(match signal.billing.admit(of.clone(), payer, from).await? {
        Admission::Entitled { .. } => None,
        // Contents have no preview; without access there is an invoice.
        Admission::Preview { .. } => Some(unpaid().into_response()),
        Admission::Pay(challenge) => Some(required(&challenge)),
    })
}

/// May the buyer that an address names still have it?
///
/// # Errors
/// 402 without an invoice, where it was taken back or its time is over.
pub async fn still_bought(signal: &Signal, of: &Resource, viewer: Identity) -> Result<(), Problem> {
    if signal.billing.is_entitled(of.clone(), viewer).await? { Ok(()) } else { Err(unpaid()) }
}

/// 402 for what is asked for by who cannot be shown an invoice there.
pub fn unpaid() -> Problem {
    Problem::new(Code::PaymentRequired, "this costs money: its `access` answers with an invoice")
}

/// 402 with what to pay.
pub fn required(challenge: &Challenge) -> Response {
    let code = Code::PaymentRequired;
    let body = PaymentRequired {
        title: "Payment Required",
        status: 402,
        code: code.as_str(),
        detail: "this costs money: pay the invoice and come again",
        challenge,
    };
    let mut response = (StatusCode::PAYMENT_REQUIRED, axum::Json(&body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let (Some(macaroon), Some(bolt11)) = (&challenge.macaroon, &challenge.invoice.bolt11) {
        let value = format!(r#"L402 macaroon="{macaroon}", invoice="{bolt11}""#);
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(WWW_AUTHENTICATE, value);
        }
    }
    response
}
