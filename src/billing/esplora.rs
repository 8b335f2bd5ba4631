//! On-chain payments by an Esplora server's HTTP API, for owners without a node of their own.
//!
//! Esplora keeps nothing for us, so each address is asked about. Those whose invoices wait, or whose payments
//! are not deep yet, are looked at in rounds that follow each other; all others in turn, a few each time, so
//! that what is paid late is found too. A payment that was seen and is not listed any more was replaced.
//! Whoever runs the server learns the addresses, and is believed: see `docs/PAYMENTS.md`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::wallet::{Bill, Issued, News, Target, Wallet, WalletError, Watched, WatchedAddress, cause};
use crate::control::unix_ms;
use crate::core::ledger::{Msat, Observed, PaymentKey, Progress};

const NODE: &str = "the Esplora server";
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Requests at one time: public servers refuse who asks for more.
const AT_ONCE: usize = 4;
/// Addresses that one look asks about. A renewal's waits for days, so there may be many.
const CLOSE_EACH_LOOK: usize = 60;
/// Addresses of old invoices that each look takes along.
const OLD_EACH_LOOK: usize = 10;
/// Transactions in one page of the API; a page that is full has another behind it.
const PAGE: usize = 25;
/// Pages of one address: it was given out once, for one invoice.
const PAGES_MAX: usize = 4;
/// A longer answer is not read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub struct Esplora {
    url: String,
    look_every: Duration,
    client: reqwest::Client,
    /// Where the round over old addresses is.
    next_old: Mutex<usize>,
    round: Mutex<Option<Round>>,
}

/// All addresses that are looked at closely, some at a time.
struct Round {
    /// All that was paid before it is known at its end, ms since the Unix epoch.
    since_ms: u64,
    left: Vec<WatchedAddress>,
}

#[derive(Deserialize)]
struct Transaction {
    txid: String,
    vout: Vec<Output>,
    status: Status,
}

#[derive(Deserialize)]
struct Output {
    scriptpubkey_address: Option<String>,
    /// Satoshis.
    value: u64,
}

#[derive(Deserialize)]
struct Status {
    confirmed: bool,
    block_height: Option<u32>,
    /// Seconds since the Unix epoch.
    block_time: Option<u64>,
}

impl Esplora {
    /// # Errors
    /// The system has no TLS or sockets to give.
    pub fn new(url: &str, look_every: Duration) -> Result<Self, WalletError> {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).no_proxy().build();
        let client = client.map_err(|error| WalletError::Unfit(error.to_string()))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { url, look_every, client, next_old: Mutex::default(), round: Mutex::default() })
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, WalletError> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.map_err(unreachable)?;
        let status = response.status();
        // It may have no time for us, or be behind its node: that passes.
        if status.is_server_error() || status.as_u16() == 429 {
            let detail = format!("it answers {}", status.as_u16());
            return Err(WalletError::Unreachable { node: NODE, detail });
        }
        if !status.is_success() {
            let detail = format!("it answers {}; is this the root of an Esplora API?", status.as_u16());
            return Err(WalletError::Refused { node: NODE, detail });
        }
        if response.content_length().is_some_and(|bytes| bytes > ANSWER_BYTES_MAX) {
            return Err(strange("an answer that is too long"));
        }
        let bytes = response.bytes().await.map_err(unreachable)?;
        serde_json::from_slice(&bytes).map_err(|_| strange(path.split('/').nth(1).unwrap_or_default()))
    }

    /// All transactions of an address, newest first.
    async fn transactions(&self, address: &str) -> Result<Vec<Transaction>, WalletError> {
        let mut found: Vec<Transaction> = self.read(&format!("/address/{address}/txs")).await?;
        let mut confirmed = found.iter().filter(|one| one.status.confirmed).count();
        for _ in 1..PAGES_MAX {
            let Some(last) = found.last().filter(|_| confirmed >= PAGE) else { break };
            let more: Vec<Transaction> =
                self.read(&format!("/address/{address}/txs/chain/{}", last.txid)).await?;
            confirmed = more.len();
            found.extend(more);
        }
        Ok(found)
    }

    async fn look_at(
        &self,
        watched: WatchedAddress,
        tip: u32,
        as_of_ms: u64,
    ) -> Result<Vec<(String, Observed)>, WalletError> {
        let WatchedAddress { address, known } = watched;
        let mut seen = Vec::new();
        let mut listed = BTreeSet::new();
        for Transaction { txid, vout, status } in self.transactions(&address).await? {
            let progress = match status.block_height.filter(|_| status.confirmed) {
                // At least one, should the tip be older than the answer.
                Some(height) => Progress::Confirmations(tip.saturating_sub(height).saturating_add(1)),
                None => Progress::Confirmations(0),
            };
            let paid_at_ms =
                status.block_time.map_or(as_of_ms, |at_s| at_s.saturating_mul(1_000)).min(as_of_ms);
            let ours = vout.iter().enumerate();
            for (at, output) in ours.filter(|(_, to)| to.scriptpubkey_address.as_ref() == Some(&address)) {
                let key = PaymentKey::Outpoint(format!("{txid}:{at}"));
                listed.insert(key.clone());
                let sum = Msat::from_sats(output.value);
                seen.push((address.clone(), Observed { key, sum, paid_at_ms, progress, as_of_ms }));
            }
        }
        for (key, sum) in known.into_iter().filter(|(key, _)| !listed.contains(key)) {
            let progress = Progress::Replaced;
            seen.push((address.clone(), Observed { key, sum, paid_at_ms: as_of_ms, progress, as_of_ms }));
        }
        Ok(seen)
    }

    /// Addresses of old invoices, some at a time.
    fn some_old(&self, watched: &Watched) -> Vec<WatchedAddress> {
        let hot: BTreeSet<&str> = watched.addresses.iter().map(|one| one.address.as_str()).collect();
        let total: usize = watched.payouts.iter().map(|(_, next, _)| *next as usize).sum();
        if total == 0 {
            return Vec::new();
        }
        let mut next = self.next_old.lock().unwrap_or_else(PoisonError::into_inner);
        let start = *next % total;
        *next = start + OLD_EACH_LOOK;
        let places =
            watched.payouts.iter().flat_map(|(payout, next, _)| (0..*next).map(move |index| (payout, index)));
        let some = places.cycle().skip(start).take(OLD_EACH_LOOK.min(total));
        let some = some.filter_map(|(payout, index)| payout.address(index));
        let cold = some.filter(|address| !hot.contains(address.as_str()));
        cold.map(|address| WatchedAddress { address, known: Vec::new() }).collect()
    }

    async fn look(&self, watched: &Watched) -> Result<News, WalletError> {
        // Before the look: what is paid during it is the next one's.
        let as_of_ms = unix_ms();
        let tip: u32 = self.read("/blocks/tip/height").await?;
        let (close, until_ms) = self.some_close(watched, as_of_ms);
        let addresses = close.into_iter().chain(self.some_old(watched));
        let looks = stream::iter(addresses.map(|address| self.look_at(address, tip, as_of_ms)));
        let seen: Vec<Vec<_>> = looks.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(News { seen: seen.into_iter().flatten().collect(), until_ms })
    }

    /// The next addresses of the round, and until when all is known where they are its last.
    fn some_close(&self, watched: &Watched, now_ms: u64) -> (Vec<WatchedAddress>, Option<u64>) {
        let mut slot = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let round = slot.get_or_insert_with(|| Round { since_ms: now_ms, left: watched.addresses.clone() });
        let rest = round.left.len().saturating_sub(CLOSE_EACH_LOOK);
        let some = round.left.split_off(rest);
        let until_ms = round.left.is_empty().then_some(round.since_ms);
        if until_ms.is_some() {
            *slot = None;
        }
        (some, until_ms)
    }
}

fn unreachable(error: reqwest::Error) -> WalletError {
    WalletError::Unreachable { node: NODE, detail: cause(error) }
}

fn strange(what: &str) -> WalletError {
    WalletError::Strange { node: NODE, detail: what.to_owned() }
}

impl Wallet for Esplora {
    fn issue<'a>(&'a self, bill: &'a Bill) -> BoxFuture<'a, Result<Issued, WalletError>> {
        async move {
            match &bill.target {
                // It needs no telling: whoever asks is told.
                Target::Onchain { .. } => Ok(Issued::Watched),
                Target::Lightning { .. } => {
                    Err(WalletError::Unfit("an Esplora server takes no Lightning payments".into()))
                }
            }
        }
        .boxed()
    }

    fn news<'a>(&'a self, watched: &'a Watched) -> BoxFuture<'a, Result<News, WalletError>> {
        async move {
            tokio::time::sleep(self.look_every).await;
            // What was not asked in a round that failed is the next one's.
            let forget = |_: &WalletError| *self.round.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.look(watched).await.inspect_err(forget)
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), WalletError>> {
        // An address cannot be taken back; it is watched.
        async { Ok(()) }.boxed()
    }
}
