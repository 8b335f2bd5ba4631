//! What a bitcoin costs in other money, by whoever says so. An invoice keeps the rate that it was made with.

use std::collections::BTreeMap;

use crate::core::ledger::{Currency, Rate};

/// Says what a bitcoin costs.
pub trait Rates: Send + Sync {
    /// Now; nothing where the currency is not known, or its rate too old to sell by.
    fn rate(&self, currency: &Currency) -> Option<Rate>;
}

/// Rates that the operator wrote down.
pub struct Fixed(BTreeMap<Currency, u64>);

impl Fixed {
    /// From units of each currency for one bitcoin. What is no currency or no rate is left out: the
    /// configuration was checked.
    pub fn new(rates: &BTreeMap<String, f64>) -> Self {
        let rates = rates.iter().filter_map(|(currency, rate)| {
            let cents = (rate * 100.0).round();
            let fits = (1.0..=1e15).contains(&cents);
            Some((Currency::parse(&currency.to_ascii_uppercase()).ok()?, fits.then_some(cents as u64)?))
        });
        Self(rates.collect())
    }
}

impl Rates for Fixed {
    fn rate(&self, currency: &Currency) -> Option<Rate> {
        let cents_per_btc = *self.0.get(currency)?;
        Some(Rate { currency: currency.clone(), cents_per_btc, source: "configured".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_to_the_cent() {
        let rates = Fixed::new(&BTreeMap::from([("eur".to_owned(), 64_123.45), ("euro".to_owned(), 1.0)]));
        let rate = rates.rate(&Currency::parse("EUR").unwrap()).unwrap();
        assert_eq!(rate.cents_per_btc, 6_412_345);
        assert!(rates.rate(&Currency::parse("USD").unwrap()).is_none());
    }
}
