//! What every wallet does, whatever stands behind it: it is told what to be paid for, and says what it saw.
//!
//! No wallet here can spend. What it says may be said again, in any order; the ledger minds that. Calls
//! wait for the wallet's node and are made from tasks, never from the ledger's loop.

use futures_util::future::BoxFuture;

use super::descriptor::Payout;
use crate::core::ledger::{Msat, Observed, PaymentKey};

/// Where the money for one invoice is to go.
#[derive(Debug, Clone)]
pub enum Target {
    /// An address of this payout, which is to be watched.
    Onchain { payout: Payout, index: u32 },
    /// Whoever pays learns this.
    Lightning { preimage: Preimage },
}

/// 32 secret bytes. Whoever has them may claim to have paid, so they have no readable `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Preimage(pub [u8; 32]);

impl std::fmt::Debug for Preimage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Preimage(hidden)")
    }
}

impl Preimage {
    /// SHA-256 of it, in hex: the payment hash of BOLT 11.
    pub fn payment_hash(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        hex(digest.as_ref())
    }
}

/// What is to be paid.
#[derive(Debug, Clone)]
pub struct Bill {
    pub target: Target,
    pub sum: Msat,
    /// Seconds from now.
    pub expires_in_s: u64,
    /// Shown by the payer's wallet.
    pub memo: String,
}

/// The wallet is ready to be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issued {
    /// It watches the address.
    Watched,
    /// BOLT 11, checked: this network, sum, hash and time.
    Bolt11(String),
}

/// What a watcher is to look after: the latest that the ledger knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// Each with its next free place, and the time (ms since the Unix epoch) since when it may have been
    /// paid.
    pub payouts: Vec<(Payout, u32, u64)>,
    /// Addresses whose invoices wait, or whose payments are not deep: for wallets that are asked about each.
    pub addresses: Vec<WatchedAddress>,
    /// Lightning invoices whose end is not known.
    pub hashes: Vec<String>,
}

/// An address, and what was seen paid to it and may yet be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedAddress {
    pub address: String,
    pub known: Vec<(PaymentKey, Msat)>,
}

/// What a wallet saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// To which address or payment hash, and what.
    pub seen: Vec<(String, Observed)>,
    /// All that was paid until then (ms since the Unix epoch) has been said; absent where only some was
    /// looked at.
    pub until_ms: Option<u64>,
}

/// Why a wallet cannot do it. No variant repeats a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    #[error("{node} does not answer: {detail}; it is tried again")]
    Unreachable { node: &'static str, detail: String },
    #[error("{node} refuses: {detail}")]
    Refused { node: &'static str, detail: String },
    #[error("{node} answers what cannot be understood: {detail}")]
    Strange { node: &'static str, detail: String },
    #[error("{0}")]
    Unfit(String),
}

/// A way to be paid.
pub trait Wallet: Send + Sync {
    /// Makes ready to be paid. Again, with the same target, it answers as it did.
    fn issue<'a>(&'a self, bill: &'a Bill) -> BoxFuture<'a, Result<Issued, WalletError>>;

    /// Waits until there may be something new, some seconds at most, and says what is known.
    fn news<'a>(&'a self, watched: &'a Watched) -> BoxFuture<'a, Result<News, WalletError>>;

    /// Lets nobody pay this hash any more. One that is paid stays so.
    fn cancel<'a>(&'a self, payment_hash: &'a str) -> BoxFuture<'a, Result<(), WalletError>>;
}

/// What lies at the bottom of a failed call, without its URL, which may hold a name and password.
pub fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

pub fn hex(bytes: &[u8]) -> String {
    bitcoin::hex::DisplayHex::to_lower_hex_string(bytes)
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    bitcoin::hex::FromHex::from_hex(text).ok()
}
