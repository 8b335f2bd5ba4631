//! What owners of a room that costs money do: say where the money goes, see who pays, and take things into
//! their own hands. All of it needs the room's `admin` grant.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{self, InRoom, OfIdentity, OfInvoice, Params};
use crate::billing::{Hand, PayoutView, SubscriberView, WebhookView};
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{Content, PaymentKey, Period, Resource};
use crate::core::protocol::Code;

/// Who does it where no token says so: under `--dev` alone.
const NOBODY: &str = "dev";

async fn owner(signal: &Signal, headers: &HeaderMap, room: &RoomName) -> Result<Identity, Problem> {
    let caller = signal.authority.caller(headers)?;
    let by = signal.authority.may_administer(&caller, room)?;
    Ok(match by {
        Some(by) => by,
        None => Identity::parse(NOBODY)?,
    })
}

/// See where the money goes
#[utoipa::path(
    get, path = "/v1/rooms/{room}/payout", tag = "payments",
    params(("room" = RoomName, Path)),
    responses(
        (status = 200, body = PayoutView),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn payout(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Json<PayoutView>, Problem> {
    owner(&signal, &headers, &room).await?;
    Ok(Json(signal.billing.payout(room).await?))
}

/// Where the money is to go.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PayoutWish {
    /// A public output descriptor or account key; anything private is refused and not kept. Absent, the
    /// operator's own payout.
    #[serde(default)]
    descriptor: Option<String>,
}

/// Say where the money goes
///
/// From the next invoice on. The answer has the first addresses: compare them with your own wallet.
#[utoipa::path(
    put, path = "/v1/rooms/{room}/payout", tag = "payments",
    params(("room" = RoomName, Path)),
    request_body = PayoutWish,
    responses(
        (status = 200, body = PayoutView),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: no Bitcoin node sees payments here"),
    )
)]
pub async fn set_payout(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
    extract::Json(wish): extract::Json<Option<PayoutWish>>,
) -> Result<Json<PayoutView>, Problem> {
    let by = owner(&signal, &headers, &room).await?;
    let descriptor = wish.and_then(|wish| wish.descriptor);
    Ok(Json(signal.billing.set_payout(room, descriptor.as_deref(), Some(by)).await?))
}

/// Who is to be told of what happens to the money.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookWish {
    /// An https URL on a public address; absent, nobody is told.
    url: Option<String>,
}

/// Be told of what happens
///
/// Every fact about the room's money is posted as JSON `{id, room, at_ms, event}`, in order and at least
/// once, with `Antiphon-Delivery` (the same for the same fact) and `Antiphon-Signature: t=SECONDS,v1=HEX`:
/// HMAC-SHA256 by `secret` of the seconds, a point and the body. Facts from before come first.
#[utoipa::path(
    put, path = "/v1/rooms/{room}/webhook", tag = "payments",
    params(("room" = RoomName, Path)),
    request_body = WebhookWish,
    responses(
        (status = 200, body = WebhookView),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden"),
    )
)]
pub async fn set_webhook(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
    extract::Json(WebhookWish { url }): extract::Json<WebhookWish>,
) -> Result<Json<WebhookView>, Problem> {
    let by = owner(&signal, &headers, &room).await?;
    Ok(Json(signal.billing.set_webhook(room, url, Some(by)).await?))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Format {
    /// `csv` for a table of payments; absent, JSON.
    format: Option<String>,
}

/// See subscribers, their invoices, payments and credit
#[utoipa::path(
    get, path = "/v1/rooms/{room}/subscribers", tag = "payments",
    params(("room" = RoomName, Path), Format),
    responses(
        (status = 200, body = Vec<SubscriberView>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn subscribers(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(format): Params<Format>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    owner(&signal, &headers, &room).await?;
    let subscribers = signal.billing.subscribers(room.clone()).await?;
    match format.format.as_deref() {
        None | Some("json") => Ok(Json(subscribers).into_response()),
        Some("csv") => {
            let name = format!("attachment; filename=\"{room}-payments.csv\"");
            let headers = [(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)];
            Ok((headers, table(&subscribers)).into_response())
        }
        Some(_) => Err(Problem::new(Code::Malformed, "`format` is `json` or `csv`")),
    }
}

/// One line a payment (RFC 4180); an invoice without one has a line of its own.
fn table(subscribers: &[SubscriberView]) -> String {
    let mut csv = "viewer,subscription,credit_sat,invoice,state,price_sat,amount_sat,currency,cents_per_btc,\
                   created_at_ms,way,payment,payment_msat,payment_status,paid_at_ms,content\r\n"
        .to_owned();
    for SubscriberView { content, subscription, invoices } in subscribers {
        let content = content.as_ref().map(ToString::to_string).unwrap_or_default();
        for invoice in invoices {
            let (currency, rate) = match &invoice.rate {
                Some(rate) => (rate.currency.as_str(), rate.cents_per_btc.to_string()),
                None => ("", String::new()),
            };
            let head = [
                subscription.viewer.as_str().to_owned(),
                word(&subscription.state),
                subscription.credit_sat().to_string(),
                invoice.id.as_str().to_owned(),
                invoice.state.as_str().to_owned(),
                invoice.price_sat.to_string(),
                invoice.amount_sat.to_string(),
                currency.to_owned(),
                rate,
                invoice.created_at_ms.to_string(),
            ];
            let mut payments: Vec<[String; 5]> = invoice.payments.iter().map(payment).collect();
            if payments.is_empty() {
                payments.push(Default::default());
            }
            for payment in payments {
                let cells: Vec<String> =
                    head.iter().chain(&payment).chain([&content]).map(|text| cell(text)).collect();
                // A string takes all that is written to it.
                let _ = write!(csv, "{}\r\n", cells.join(","));
            }
        }
    }
    csv
}

fn payment(payment: &crate::core::ledger::PaymentView) -> [String; 5] {
    let (way, key) = match &payment.key {
        PaymentKey::Outpoint(text) => ("onchain", text.clone()),
        PaymentKey::PaymentHash(text) => ("lightning", text.clone()),
        PaymentKey::Marked => ("marked", String::new()),
    };
    let (msat, paid) = (payment.msat.to_string(), payment.paid_at_ms.to_string());
    [way.to_owned(), key, msat, word(&payment.status), paid]
}

/// A state's own word.
fn word(state: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(state).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Quoted where it must be. A spreadsheet takes a cell for a formula by its first character.
fn cell(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<i64>().is_err() {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// What to do to a subscriber.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, tag = "action", rename_all = "snake_case")]
pub enum Deed {
    /// Give a period away.
    Comp {
        /// Of what: absent, of the room.
        #[serde(default)]
        content: Option<Content>,
        period: Period,
        reason: String,
    },
    /// Take access away, whatever was paid.
    Revoke {
        #[serde(default)]
        content: Option<Content>,
        reason: String,
    },
    /// Give it back.
    Restore {
        #[serde(default)]
        content: Option<Content>,
    },
}

/// Give, take or restore access
#[utoipa::path(
    post, path = "/v1/rooms/{room}/subscribers/{identity}", tag = "payments",
    params(("room" = RoomName, Path), ("identity" = Identity, Path)),
    request_body = Deed,
    responses(
        (status = 204, description = "Done, and in the log"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn change(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfIdentity(viewer): OfIdentity,
    headers: HeaderMap,
    extract::Json(deed): extract::Json<Option<Deed>>,
) -> Result<StatusCode, Problem> {
    let by = owner(&signal, &headers, &room).await?;
    let deed = deed.ok_or_else(|| Problem::new(Code::Malformed, "the body says what to do: `action`"))?;
    let of = |content| Resource { room: room.clone(), content };
    let hand = match deed {
        Deed::Comp { content, period, reason } => Hand::Comp { of: of(content), viewer, period, reason },
        Deed::Revoke { content, reason } => Hand::Revoke { of: of(content), viewer, reason },
        Deed::Restore { content } => Hand::Restore { of: of(content), viewer },
    };
    signal.billing.lay_hand(hand, by).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why an invoice counts as paid.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mark {
    reason: String,
}

/// Mark an invoice as paid
///
/// For money that came some other way. It is in the log with the reason and who said so.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/invoices/{invoice}/mark", tag = "payments",
    params(("room" = RoomName, Path), ("invoice" = String, Path)),
    request_body = Mark,
    responses(
        (status = 204, description = "It is settled"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn mark(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfInvoice(invoice): OfInvoice,
    headers: HeaderMap,
    extract::Json(Mark { reason }): extract::Json<Mark>,
) -> Result<StatusCode, Problem> {
    let by = owner(&signal, &headers, &room).await?;
    signal.billing.lay_hand(Hand::Mark { room, invoice, reason }, by).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_breaks_no_line() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("-5"), "-5");
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
    }
}
