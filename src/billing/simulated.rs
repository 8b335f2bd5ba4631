//! A wallet that is none: for `--dev` and tests. Whoever asks is said to have paid; nothing is worth
//! anything.
//!
//! It speaks of both ways as real ones do: its addresses are of a public test key, its Lightning invoices are
//! well-formed and signed by a key that everybody has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use tokio::sync::Notify;

use super::wallet::{Bill, Issued, News, Target, Wallet, WalletError, Watched};
use crate::control::unix_ms;
use crate::core::ledger::{Msat, Observed, PaymentKey, Progress, Rail};

/// A key of BIP 32's second test vector, public in every sense, as regtest's kind.
pub const PAYOUT: &str = "wpkh(tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp/0/*)";

/// How long a wait for news lasts at most.
const WAIT: Duration = Duration::from_millis(500);

/// A wallet for one way of paying; clones are the same wallet.
#[derive(Clone)]
pub struct Simulated(Arc<Inner>);

struct Inner {
    rail: Rail,
    books: Mutex<Books>,
    changed: Notify,
}

#[derive(Default)]
struct Books {
    /// What may be paid: the address or payment hash.
    issued: BTreeMap<String, Issued>,
    /// To whom, how much, how far, when.
    payments: BTreeMap<PaymentKey, (String, Msat, Progress, u64)>,
    cancelled: Vec<String>,
    /// The clock of what is said: it never says two things at one time.
    as_of_ms: u64,
}

impl Simulated {
    pub fn new(rail: Rail) -> Self {
        Self(Arc::new(Inner { rail, books: Mutex::default(), changed: Notify::new() }))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pays an address or payment hash, or changes how far that payment is.
    ///
    /// # Errors
    /// [`WalletError::Unfit`] for what nobody is to be paid by, or not any more.
    pub fn pay(&self, to: &str, key: PaymentKey, sum: Msat, progress: Progress) -> Result<(), WalletError> {
        let mut books = self.books();
        let known = books.issued.contains_key(to) && !books.cancelled.iter().any(|hash| hash == to);
        if !known || key.rail() != Some(self.0.rail) {
            return Err(WalletError::Unfit("nobody is to be paid there".into()));
        }
        let paid_at_ms = books.payments.get(&key).map_or_else(unix_ms, |(_, _, _, at)| *at);
        books.payments.insert(key, (to.to_owned(), sum, progress, paid_at_ms));
        self.0.changed.notify_one();
        Ok(())
    }

    fn bolt11(hash: &str, bill: &Bill) -> Result<String, WalletError> {
        let unfit = |_| WalletError::Unfit("no such invoice can be made".into());
        let hash: [u8; 32] =
            super::wallet::from_hex(hash).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let key = SecretKey::from_slice(&[1; 32]).map_err(|_| WalletError::Unfit("no key".into()))?;
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description(bill.memo.clone())
            .payment_hash(sha256::Hash::from_byte_array(hash))
            .payment_secret(PaymentSecret([0; 32]))
            .duration_since_epoch(Duration::from_millis(unix_ms()))
            .min_final_cltv_expiry_delta(80)
            .amount_milli_satoshis(bill.sum.0)
            .expiry_time(Duration::from_secs(bill.expires_in_s))
            .build_signed(|message| Secp256k1::new().sign_ecdsa_recoverable(message, &key));
        invoice.map(|invoice| invoice.to_string()).map_err(unfit)
    }

    fn issue_now(&self, bill: &Bill) -> Result<Issued, WalletError> {
        let (to, issued) = match &bill.target {
            Target::Onchain { payout, index } => {
                let address = payout.address(*index);
                (address.ok_or(WalletError::Unfit("no such address".into()))?, Issued::Watched)
            }
            Target::Lightning { preimage } => {
                let hash = preimage.payment_hash();
                let bolt11 = Self::bolt11(&hash, bill)?;
                (hash, Issued::Bolt11(bolt11))
            }
        };
        Ok(self.books().issued.entry(to).or_insert(issued).clone())
    }

    fn say(&self) -> News {
        let mut books = self.books();
        books.as_of_ms = unix_ms().max(books.as_of_ms + 1);
        let as_of_ms = books.as_of_ms;
        let seen = books.payments.iter().map(|(key, (to, sum, progress, paid_at_ms))| {
            let (key, sum, progress, paid_at_ms) = (key.clone(), *sum, *progress, *paid_at_ms);
            (to.clone(), Observed { key, sum, paid_at_ms, progress, as_of_ms })
        });
        News { seen: seen.collect(), until_ms: Some(as_of_ms) }
    }
}

/// What a network's simulated payments would be on: it has no other.
pub const NETWORK: Network = Network::Regtest;

impl Wallet for Simulated {
    fn issue<'a>(&'a self, bill: &'a Bill) -> BoxFuture<'a, Result<Issued, WalletError>> {
        async move { self.issue_now(bill) }.boxed()
    }

    fn news<'a>(&'a self, watched: &'a Watched) -> BoxFuture<'a, Result<News, WalletError>> {
        async move {
            // Addresses outlive the process as those of a node do.
            for (payout, next, _) in &watched.payouts {
                for address in (0..*next).filter_map(|index| payout.address(index)) {
                    self.books().issued.entry(address).or_insert(Issued::Watched);
                }
            }
            for hash in &watched.hashes {
                self.books().issued.entry(hash.clone()).or_insert(Issued::Watched);
            }
            // Nothing new is no news either.
            let _ = tokio::time::timeout(WAIT, self.0.changed.notified()).await;
            Ok(self.say())
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, payment_hash: &'a str) -> BoxFuture<'a, Result<(), WalletError>> {
        async move {
            let mut books = self.books();
            let paid = books.payments.contains_key(&PaymentKey::PaymentHash(payment_hash.to_owned()));
            if !paid {
                books.cancelled.push(payment_hash.to_owned());
            }
            Ok(())
        }
        .boxed()
    }
}
