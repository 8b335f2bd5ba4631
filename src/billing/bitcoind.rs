//! On-chain payments by a Bitcoin node's RPC: one watch-only wallet for each payout, in the node itself.
//!
//! Each look asks for all of the last hundred blocks and the mempool, so nothing depends on what was seen
//! before: after downtime or a reorganisation the first look says how all stands. The first look of a
//! process goes back to the wallet's beginning. Private keys never come near: the wallets are made unable
//! to hold any.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::descriptor::Payout;
use super::wallet::{Bill, Issued, News, Target, Wallet, WalletError, Watched, cause};
use crate::config::Secret;
use crate::control::unix_ms;
use crate::core::ledger::{Msat, Observed, PaymentKey, Progress, WATCHED_BLOCKS};

const NODE: &str = "bitcoind";
/// How often the node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// A node that takes longer is not there; the first import of an old payout scans the chain.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Addresses beyond the last used one that are watched: wallets look for 20, ours gives away many that are
/// never paid.
const GAP: u32 = 1_000;
/// More are watched when fewer than this are left.
const GAP_LOW: u32 = 200;
/// Bitcoin Core's codes: no such wallet, wallet exists or is loaded already, not in the mempool.
const NO_WALLET: i64 = -18;
const ALREADY_LOADED: i64 = -35;
const NOT_FOUND: i64 = -5;

/// How to sign in.
#[derive(Debug, Clone)]
pub enum Login {
    Password {
        user: String,
        password: Secret,
    },
    /// The node's own `.cookie`, read anew each time: the node makes a new one when it starts.
    Cookie(PathBuf),
}

pub struct Bitcoind {
    url: String,
    login: Login,
    client: reqwest::Client,
    /// For each payout, how many addresses its wallet watches and the block to look from.
    wallets: Mutex<BTreeMap<String, Known>>,
    /// Held while a wallet is made or told of more addresses: the node refuses two at a time.
    importing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    watched: u32,
    since: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<RpcError>,
}

#[derive(Debug, Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    transactions: Vec<Entry>,
    lastblock: String,
}

/// One output of ours in one transaction.
#[derive(Deserialize)]
struct Entry {
    category: String,
    address: Option<String>,
    amount: f64,
    txid: String,
    vout: u32,
    confirmations: i64,
    /// Seconds since the Unix epoch, as the block or we had it first.
    time: u64,
    timereceived: Option<u64>,
}

enum Failure {
    Rpc(RpcError),
    Wallet(WalletError),
}

impl From<WalletError> for Failure {
    fn from(error: WalletError) -> Self {
        Self::Wallet(error)
    }
}

impl Failure {
    fn into_error(self) -> WalletError {
        match self {
            Self::Rpc(error) => WalletError::Refused { node: NODE, detail: error.message },
            Self::Wallet(error) => error,
        }
    }
}

impl Bitcoind {
    /// # Errors
    /// The system has no TLS or sockets to give.
    pub fn new(url: &str, login: Login) -> Result<Self, WalletError> {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).no_proxy();
        let client = client.tls_backend_preconfigured(super::tls::none()).build();
        let client = client.map_err(|error| WalletError::Unfit(error.to_string()))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { url, login, client, wallets: Mutex::default(), importing: tokio::sync::Mutex::default() })
    }

    async fn call(&self, wallet: Option<&str>, method: &str, params: Value) -> Result<Value, Failure> {
        let url = match wallet {
            Some(name) => format!("{}/wallet/{name}", self.url),
            None => self.url.clone(),
        };
        let (user, password) = self.sign_in()?;
        let body = json!({"jsonrpc": "1.0", "id": "antiphon", "method": method, "params": params});
        let sent = self.client.post(url).basic_auth(user, Some(password)).json(&body).send().await;
        let response = sent.map_err(unreachable)?;
        if response.status() == 401 || response.status() == 403 {
            let detail = "user and password are wrong, or this address may not call it".into();
            return Err(WalletError::Refused { node: NODE, detail }.into());
        }
        let bytes = response.bytes().await.map_err(unreachable)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| strange(method))?;
        match answer.error {
            Some(error) => Err(Failure::Rpc(error)),
            None => Ok(answer.result),
        }
    }

    fn sign_in(&self) -> Result<(String, String), WalletError> {
        match &self.login {
            Login::Password { user, password } => Ok((user.clone(), password.reveal().to_owned())),
            Login::Cookie(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| WalletError::Unreachable {
                    node: NODE,
                    detail: format!("its cookie file cannot be read ({error})"),
                })?;
                let (user, password) = text.trim().split_once(':').ok_or_else(|| strange("cookie"))?;
                Ok((user.to_owned(), password.to_owned()))
            }
        }
    }

    /// Sees to it that the node watches this payout some way beyond its next free place.
    async fn watch(&self, payout: &Payout, next: u32, since_ms: u64) -> Result<(), Failure> {
        let profile = payout.profile();
        if next + GAP_LOW <= self.known(&profile).watched {
            return Ok(());
        }
        let _alone = self.importing.lock().await;
        if next + GAP_LOW <= self.known(&profile).watched {
            return Ok(());
        }
        let name = wallet_name(&profile);
        let mut watched = self.open(&name).await?;
        if next + GAP_LOW > watched {
            let end = next + GAP - 1;
            // Two hours of leeway, as block times are no clock's.
            let from = (since_ms / 1_000).saturating_sub(2 * 60 * 60);
            let wish =
                json!([[{"desc": payout.text(), "range": [0, end], "timestamp": from, "internal": false}]]);
            let done = self.call(Some(&name), "importdescriptors", wish).await?;
            if done[0]["success"] != true {
                let detail = done[0]["error"]["message"].as_str().unwrap_or("it did not import").to_owned();
                return Err(WalletError::Refused { node: NODE, detail }.into());
            }
            watched = end + 1;
        }
        self.remember(&profile, |known| known.watched = watched);
        Ok(())
    }

    /// Loads a payout's wallet, or makes it; how many addresses it watches.
    async fn open(&self, name: &str) -> Result<u32, Failure> {
        match self.call(None, "loadwallet", json!([name, true])).await {
            Err(Failure::Rpc(error)) if error.code == NO_WALLET => {
                // No private keys, blank, no passphrase, no reuse, descriptors, loaded when the node starts.
                let wish = json!([name, true, true, "", false, true, true]);
                self.call(None, "createwallet", wish).await?;
            }
            Err(Failure::Rpc(error)) if error.code != ALREADY_LOADED => return Err(Failure::Rpc(error)),
            Err(Failure::Wallet(error)) => return Err(Failure::Wallet(error)),
            _ => {}
        }
        let listed = self.call(Some(name), "listdescriptors", json!([])).await?;
        let ends = listed["descriptors"].as_array().into_iter().flatten();
        let end = ends.filter_map(|each| each["range"][1].as_u64()).max();
        Ok(end.map_or(0, |end| u32::try_from(end + 1).unwrap_or(u32::MAX)))
    }

    async fn look(&self, watched: &Watched) -> Result<News, Failure> {
        // Before the look: what is paid during it is the next one's.
        let as_of_ms = unix_ms();
        let mempool = self.call(None, "getmempoolinfo", json!([])).await?;
        if mempool["loaded"] == false {
            let detail = "it starts, and has not read its mempool yet".into();
            return Err(WalletError::Unreachable { node: NODE, detail }.into());
        }
        let mut seen = Vec::new();
        for (payout, next, since_ms) in &watched.payouts {
            self.watch(payout, *next, *since_ms).await?;
            seen.extend(self.look_at(&payout.profile(), as_of_ms).await?);
        }
        Ok(News { seen, until_ms: Some(as_of_ms) })
    }

    async fn look_at(&self, profile: &str, as_of_ms: u64) -> Result<Vec<(String, Observed)>, Failure> {
        let since = self.known(profile).since.unwrap_or_default();
        let wish = json!([since, WATCHED_BLOCKS, true, true]);
        let found = match self.call(Some(&wallet_name(profile)), "listsinceblock", wish).await {
            // That block is of no chain that the node knows; or its wallet went with a restart.
            Err(Failure::Rpc(error)) => {
                self.remember(profile, |known| *known = Known::default());
                return Err(Failure::Rpc(error));
            }
            other => other?,
        };
        let listed: Listed = serde_json::from_value(found).map_err(|_| strange("listsinceblock"))?;
        let mut seen = Vec::new();
        for entry in listed.transactions {
            if let Some(found) = self.observe(entry, as_of_ms).await? {
                seen.push(found);
            }
        }
        self.remember(profile, |known| known.since = Some(listed.lastblock.clone()));
        Ok(seen)
    }

    async fn observe(&self, entry: Entry, as_of_ms: u64) -> Result<Option<(String, Observed)>, Failure> {
        let Entry { category, address, amount, txid, vout, confirmations, time, timereceived } = entry;
        let (true, Some(address)) = (category == "receive" || category == "generate", address) else {
            return Ok(None);
        };
        let sum = bitcoin::Amount::from_btc(amount).map_err(|_| strange("amount"))?;
        let progress = match u32::try_from(confirmations) {
            Ok(0) if !self.is_in_mempool(&txid).await? => Progress::Replaced,
            Ok(blocks) => Progress::Confirmations(blocks),
            Err(_) => Progress::Replaced,
        };
        let paid_at_ms = timereceived.unwrap_or(time).min(time).saturating_mul(1_000);
        let key = PaymentKey::Outpoint(format!("{txid}:{vout}"));
        let sum = Msat::from_sats(sum.to_sat());
        Ok(Some((address, Observed { key, sum, paid_at_ms, progress, as_of_ms })))
    }

    async fn is_in_mempool(&self, txid: &str) -> Result<bool, Failure> {
        match self.call(None, "getmempoolentry", json!([txid])).await {
            Ok(_) => Ok(true),
            Err(Failure::Rpc(error)) if error.code == NOT_FOUND => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn known(&self, profile: &str) -> Known {
        let wallets = self.wallets.lock().unwrap_or_else(PoisonError::into_inner);
        wallets.get(profile).cloned().unwrap_or_default()
    }

    fn remember(&self, profile: &str, change: impl FnOnce(&mut Known)) {
        let mut wallets = self.wallets.lock().unwrap_or_else(PoisonError::into_inner);
        change(wallets.entry(profile.to_owned()).or_default());
    }
}

fn wallet_name(profile: &str) -> String {
    format!("antiphon-{profile}")
}

fn unreachable(error: reqwest::Error) -> WalletError {
    WalletError::Unreachable { node: NODE, detail: cause(error) }
}

fn strange(what: &str) -> WalletError {
    WalletError::Strange { node: NODE, detail: what.to_owned() }
}

impl Wallet for Bitcoind {
    fn issue<'a>(&'a self, bill: &'a Bill) -> BoxFuture<'a, Result<Issued, WalletError>> {
        async move {
            let Target::Onchain { payout, index } = &bill.target else {
                return Err(WalletError::Unfit("a Bitcoin node takes no Lightning payments".into()));
            };
            // Nobody had the address before, so nothing was paid to it before today.
            let watched = self.watch(payout, *index, unix_ms()).await;
            watched.map(|()| Issued::Watched).map_err(Failure::into_error)
        }
        .boxed()
    }

    fn news<'a>(&'a self, watched: &'a Watched) -> BoxFuture<'a, Result<News, WalletError>> {
        async move {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look(watched).await.map_err(Failure::into_error)
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), WalletError>> {
        // An address cannot be taken back; it is watched.
        async { Ok(()) }.boxed()
    }
}
