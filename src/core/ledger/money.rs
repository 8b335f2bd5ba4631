//! Sums, prices and rates. Sums are whole millisatoshis and never floating point.

use serde::{Deserialize, Serialize};

/// Millisatoshis in a satoshi.
pub const MSAT_PER_SAT: u64 = 1_000;
/// Satoshis in a bitcoin.
const SAT_PER_BTC: u128 = 100_000_000;
/// All bitcoin that there can be, in satoshis: a larger sum is no sum.
pub const SAT_MAX: u64 = 2_100_000_000_000_000;

/// Thousandths of a satoshi: what Lightning counts in.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct Msat(pub u64);

impl Msat {
    pub fn from_sats(sats: u64) -> Self {
        Self(sats.saturating_mul(MSAT_PER_SAT))
    }

    /// Whole satoshis, rounded up: what is asked for on-chain.
    pub fn sats_up(self) -> u64 {
        self.0.div_ceil(MSAT_PER_SAT)
    }
}

/// A three-letter currency code (ISO 4217) whose amounts have two decimals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "EUR")]
pub struct Currency(String);

impl Currency {
    /// # Errors
    /// Anything but three capital letters.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let plain = text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase());
        if plain { Ok(Self(text.to_owned())) } else { Err(PriceError::Currency) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Currency {
    type Error = PriceError;

    fn try_from(text: String) -> Result<Self, PriceError> {
        Self::parse(&text)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0
    }
}

/// Why a price is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    #[error("a currency has three capital letters, such as EUR")]
    Currency,
    #[error("a price is from 1 satoshi to all there are")]
    Amount,
    #[error("there is no exchange rate for this currency here: ask the operator, or name the price in sats")]
    NoRate,
    #[error("a period is from 1 minute to 1,200 months")]
    Period,
    #[error("a trial, a grace, a preview, a reminder and the time to pay each have an end: at most 366 days")]
    Span,
    #[error(
        "a recording or file is sold without trial, preview and `zero_conf`: what was fetched cannot be taken back"
    )]
    Content,
}

/// What a period costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Price {
    /// Satoshis.
    Sats(u64),
    /// Hundredths of a currency's unit; what that is in bitcoin is settled for each invoice when it is made.
    Fiat { currency: Currency, cents: u64 },
}

/// What a bitcoin cost when an invoice was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rate {
    pub currency: Currency,
    /// Hundredths of the currency's unit for one bitcoin.
    pub cents_per_btc: u64,
    /// Who said so.
    pub source: String,
}

impl Price {
    /// # Errors
    /// [`PriceError::Amount`].
    pub fn check(&self) -> Result<(), PriceError> {
        let amount = match self {
            Self::Sats(sats) => *sats,
            Self::Fiat { cents, .. } => *cents,
        };
        if (1..=SAT_MAX).contains(&amount) { Ok(()) } else { Err(PriceError::Amount) }
    }

    /// In bitcoin by this rate, rounded up to a whole satoshi.
    ///
    /// # Errors
    /// [`PriceError::NoRate`] without the rate of its currency, [`PriceError::Amount`] out of bounds.
    pub fn at(&self, rate: Option<&Rate>) -> Result<Msat, PriceError> {
        let sats = match self {
            Self::Sats(sats) => *sats,
            Self::Fiat { currency, cents } => {
                let rate = rate.filter(|rate| rate.currency == *currency && rate.cents_per_btc > 0);
                let rate = rate.ok_or(PriceError::NoRate)?;
                let sats = (u128::from(*cents) * SAT_PER_BTC).div_ceil(u128::from(rate.cents_per_btc));
                u64::try_from(sats).map_err(|_| PriceError::Amount)?
            }
        };
        if (1..=SAT_MAX).contains(&sats) { Ok(Msat::from_sats(sats)) } else { Err(PriceError::Amount) }
    }
}

/// Blocks over an on-chain payment of this size before it counts: the more is at stake, the deeper.
pub fn confirmations_needed(sum: Msat) -> u32 {
    match sum.0 / MSAT_PER_SAT {
        0..100_000 => 1,
        100_000..1_000_000 => 2,
        1_000_000..10_000_000 => 3,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(cents_per_btc: u64) -> Rate {
        Rate { currency: Currency::parse("EUR").unwrap(), cents_per_btc, source: "test".into() }
    }

    #[test]
    fn a_fiat_price_is_rounded_up_to_a_whole_satoshi() {
        let price = Price::Fiat { currency: Currency::parse("EUR").unwrap(), cents: 500 };
        // 5 EUR at 64,000 EUR: 7812.5 sat.
        assert_eq!(price.at(Some(&eur(6_400_000))), Ok(Msat::from_sats(7_813)));
        assert_eq!(price.at(None), Err(PriceError::NoRate));
        assert_eq!(price.at(Some(&eur(0))), Err(PriceError::NoRate));
        let dollars = Rate { currency: Currency::parse("USD").unwrap(), ..eur(1) };
        assert_eq!(price.at(Some(&dollars)), Err(PriceError::NoRate));
        let huge = Price::Fiat { currency: Currency::parse("EUR").unwrap(), cents: u64::MAX };
        assert_eq!(huge.at(Some(&eur(1))), Err(PriceError::Amount));
    }

    #[test]
    fn more_money_needs_more_blocks() {
        let needed = |sats| confirmations_needed(Msat::from_sats(sats));
        assert_eq!(
            [99_999, 100_000, 999_999, 1_000_000, 9_999_999, 10_000_000].map(needed),
            [1, 2, 2, 3, 3, 6]
        );
    }

    #[test]
    fn a_price_of_nothing_is_none() {
        assert_eq!(Price::Sats(0).check(), Err(PriceError::Amount));
        assert_eq!(Price::Sats(SAT_MAX + 1).check(), Err(PriceError::Amount));
        assert_eq!(Price::Sats(1).at(None), Ok(Msat(1_000)));
    }
}
