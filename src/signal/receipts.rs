//! Receipts of what was paid, as plain text that anybody can keep.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{InRoom, OfInvoice};
use crate::billing::Receipt;
use crate::core::ids::RoomName;
use crate::core::ledger::{InvoiceId, PaymentKey, PaymentView, Period, Resource};

/// Get the receipt of an invoice
///
/// Of one that is settled: what was bought, for how long, by whom and by which payments. Whoever has the
/// invoice's id may have it.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/invoices/{invoice}/receipt", tag = "payments",
    params(("room" = RoomName, Path), ("invoice" = String, Path)),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json",
            description = "not_found: there is no such invoice, or it is not paid"),
    )
)]
pub async fn show(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfInvoice(invoice): OfInvoice,
) -> Result<Response, Problem> {
    let receipt = signal.billing.receipt(room, invoice).await?;
    let name = format!("attachment; filename=\"receipt-{}.txt\"", receipt.invoice.id.as_str());
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (CONTENT_DISPOSITION, name),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, text(&receipt)).into_response())
}

/// Where receipts of these invoices are.
pub fn paths(of: &Resource, invoices: &[InvoiceId]) -> Vec<String> {
    let path = |id: &InvoiceId| format!("/v1/rooms/{}/invoices/{}/receipt", of.room, id.as_str());
    invoices.iter().map(path).collect()
}

fn text(receipt: &Receipt) -> String {
    let Receipt { of, viewer, period, invoice } = receipt;
    let mut text = "RECEIPT\n\n".to_owned();
    let mut line = |name: &str, value: &str| {
        // A string takes all that is written to it.
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("For", &of.to_string());
    line("Period", &period_words(*period));
    line("Buyer", viewer.as_str());
    line("Price", &format!("{} sats", invoice.price_sat));
    if let Some(rate) = &invoice.rate {
        let (whole, cents) = (rate.cents_per_btc / 100, rate.cents_per_btc % 100);
        line("Rate", &format!("{whole}.{cents:02} {} for a bitcoin", rate.currency.as_str()));
    }
    if invoice.amount_sat < invoice.price_sat {
        line("Credit", &format!("{} sats of it were there already", invoice.price_sat - invoice.amount_sat));
    }
    for payment in invoice.payments.iter().filter(|payment| payment.status.counts()) {
        line("Paid", &payment_words(payment));
    }
    line("Invoice", &format!("{}, of {}", invoice.id.as_str(), date(invoice.created_at_ms)));
    text
}

fn payment_words(payment: &PaymentView) -> String {
    let sats = payment.msat / 1_000;
    let way = match &payment.key {
        PaymentKey::Outpoint(outpoint) => format!("on-chain by {outpoint}"),
        PaymentKey::PaymentHash(hash) => format!("by Lightning, payment hash {hash}"),
        PaymentKey::Marked => "as the owner has said".to_owned(),
    };
    format!("{sats} sats on {}, {way}", date(payment.paid_at_ms))
}

fn period_words(period: Period) -> String {
    let (count, unit) = match period {
        Period::Minutes(count) => (count, "minute"),
        Period::Days(count) => (count, "day"),
        Period::Months(count) => (count, "month"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn date(at_ms: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at_ms / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_said_as_people_do() {
        assert_eq!(period_words(Period::Months(1)), "1 month");
        assert_eq!(period_words(Period::Minutes(90)), "90 minutes");
        assert_eq!(date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
