//! What an owner sells: a price for a period, with what comes before and after. Versioned; a change holds for
//! invoices made after it.

use chrono::{DateTime, Months};
use serde::{Deserialize, Serialize};

use super::money::{Price, PriceError};
use super::resource::Resource;

/// Milliseconds in a minute.
const MINUTE_MS: u64 = 60_000;
/// No trial, grace or preview is longer, in seconds.
const SPAN_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// How long an invoice may be paid unless its offer says otherwise, in seconds.
const PAY_WITHIN_SECONDS: u64 = 15 * 60;

/// How long one payment lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Minutes(u32),
    Days(u32),
    /// Of the calendar, from the first day on: the 31st becomes a shorter month's last day, and the 31st
    /// again.
    Months(u32),
}

impl Period {
    /// # Errors
    /// [`PriceError::Period`].
    pub fn check(self) -> Result<(), PriceError> {
        let fits = match self {
            Self::Minutes(minutes) => (1..=60 * 24 * 366).contains(&minutes),
            Self::Days(days) => (1..=36_600).contains(&days),
            Self::Months(months) => (1..=1_200).contains(&months),
        };
        if fits { Ok(()) } else { Err(PriceError::Period) }
    }

    /// The end of this period where it begins at this time (ms since the Unix epoch).
    pub fn after(self, start_ms: u64) -> u64 {
        match self {
            Self::Minutes(minutes) => start_ms.saturating_add(u64::from(minutes) * MINUTE_MS),
            Self::Days(days) => start_ms.saturating_add(u64::from(days) * 24 * 60 * MINUTE_MS),
            Self::Months(months) => months_after(start_ms, months),
        }
    }
}

/// Calendar months in UTC, clamped to the last day of a shorter month.
pub fn months_after(start_ms: u64, months: u32) -> u64 {
    i64::try_from(start_ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .and_then(|start| start.checked_add_months(Months::new(months)))
        .and_then(|end| u64::try_from(end.timestamp_millis()).ok())
        .unwrap_or(u64::MAX)
}

fn pay_within() -> u64 {
    PAY_WITHIN_SECONDS
}

/// The terms on which a room is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub price: Price,
    pub period: Period,
    /// Seconds that each viewer gets once before the first payment.
    #[serde(default)]
    pub trial_seconds: u64,
    /// Seconds after a period's end in which access goes on and a renewal begins at the old end.
    #[serde(default)]
    pub grace_seconds: u64,
    /// Seconds for which whoever comes may look in before the paywall, once for each address.
    #[serde(default)]
    pub preview_seconds: u64,
    /// Who looks in gets the lowest layer of each picture. Without `preview_seconds` there is no end to it.
    #[serde(default)]
    pub preview_lowest: bool,
    /// Seconds in which an invoice may be paid.
    #[serde(default = "pay_within")]
    pub pay_within_seconds: u64,
    /// Lets a viewer in when the whole sum was seen on-chain, before a block has it; taken back where the
    /// payment is replaced.
    #[serde(default)]
    pub zero_conf: bool,
    /// Seconds before a period's end at which its viewer is asked to pay for the next one. Absent: in the last
    /// tenth, three days at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_seconds: Option<u64>,
}

impl Offer {
    /// # Errors
    /// By the first thing that is out of bounds.
    pub fn check(&self) -> Result<(), PriceError> {
        self.price.check()?;
        self.period.check()?;
        let spans = [
            self.trial_seconds,
            self.grace_seconds,
            self.preview_seconds,
            self.pay_within_seconds,
            self.remind_seconds.unwrap_or(0),
        ];
        let fits = spans.iter().all(|seconds| *seconds <= SPAN_SECONDS_MAX) && self.pay_within_seconds >= 60;
        if fits { Ok(()) } else { Err(PriceError::Span) }
    }

    /// [`Self::check`], and whether these terms suit what is sold.
    ///
    /// # Errors
    /// As there, and [`PriceError::Content`].
    pub fn check_for(&self, of: &Resource) -> Result<(), PriceError> {
        self.check()?;
        let gives_away =
            self.trial_seconds > 0 || self.preview_seconds > 0 || self.preview_lowest || self.zero_conf;
        if gives_away && !of.is_live() { Err(PriceError::Content) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> u64 {
        DateTime::parse_from_rfc3339(&format!("{day}T12:30:00Z")).unwrap().timestamp_millis() as u64
    }

    #[test]
    fn months_are_the_calendars_and_clamped() {
        let first = at("2027-01-31");
        assert_eq!(Period::Months(1).after(first), at("2027-02-28"));
        assert_eq!(months_after(first, 2), at("2027-03-31"), "from the first day, not from the clamped one");
        assert_eq!(months_after(first, 13), at("2028-02-29"));
        assert_eq!(Period::Days(1).after(first), at("2027-02-01"));
        assert_eq!(Period::Minutes(1).after(0), 60_000);
        assert_eq!(months_after(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn bounds_are_kept() {
        for period in [Period::Minutes(0), Period::Days(0), Period::Months(0), Period::Months(1_201)] {
            assert_eq!(period.check(), Err(PriceError::Period), "{period:?}");
        }
        let offer: Offer =
            serde_json::from_str(r#"{"price": {"sats": 21}, "period": {"months": 1}}"#).unwrap();
        assert_eq!(offer.pay_within_seconds, 900);
        assert_eq!(offer.check(), Ok(()));
        assert_eq!(Offer { pay_within_seconds: 0, ..offer.clone() }.check(), Err(PriceError::Span));
        assert_eq!(Offer { grace_seconds: u64::MAX, ..offer }.check(), Err(PriceError::Span));
    }
}
