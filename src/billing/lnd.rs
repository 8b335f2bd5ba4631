//! Lightning payments by LND's REST interface, with a macaroon for four calls and no more.
//!
//! A stream says at once what was paid; beside it, every open invoice is asked for by its hash, at the
//! start, after each pause and now and then, because the stream's numbers have gaps and forget what came
//! while nobody listened. What LND returns is not believed unread: an invoice for another network, sum,
//! hash or time is refused.

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bitcoin::Network;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lightning_invoice::{Bolt11Invoice, Currency};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use super::macaroon::permissions;
use super::wallet::{Bill, Issued, News, Target, Wallet, WalletError, Watched, cause, from_hex, hex};
use crate::config::Secret;
use crate::control::unix_ms;
use crate::core::ledger::{MSAT_PER_SAT, Msat, Observed, PaymentKey, Progress};

const NODE: &str = "LND";
/// The four calls.
pub const CALLS: [&str; 4] = [
    "/lnrpc.Lightning/AddInvoice",
    "/invoicesrpc.Invoices/LookupInvoiceV2",
    "/lnrpc.Lightning/SubscribeInvoices",
    "/invoicesrpc.Invoices/CancelInvoice",
];
/// Makes a macaroon that permits these alone.
pub const BAKE: &str = "lncli bakemacaroon uri:/lnrpc.Lightning/AddInvoice \
     uri:/invoicesrpc.Invoices/LookupInvoiceV2 uri:/lnrpc.Lightning/SubscribeInvoices \
     uri:/invoicesrpc.Invoices/CancelInvoice";
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long one wait for news lasts.
const WAIT: Duration = Duration::from_secs(1);
/// How often every open invoice is asked for, beside the stream.
const ASK_ALL_EVERY: Duration = Duration::from_secs(10);
/// Invoices that one look asks for. A renewal's waits for days, so there may be many: the stream is heard
/// between two looks.
const ASK_EACH_LOOK: usize = 50;
/// Messages of the stream that may wait. Full: it is read no further until there is room.
const TOLD_MAX: usize = 256;
/// Bytes of one message of the stream.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

pub struct Lnd {
    url: String,
    macaroon: Secret,
    network: Network,
    client: reqwest::Client,
    state: Mutex<Stream>,
}

/// What is told as it happens.
#[derive(Default)]
struct Stream {
    told: Option<mpsc::Receiver<Looked>>,
    asked_all: Option<Instant>,
    /// Invoices that were asked for since the stream is open: new ones are asked for once.
    asked: BTreeSet<String>,
    round: Option<Round>,
}

/// Every open invoice is asked for, some at a time.
struct Round {
    /// All that was paid before it is known at its end, ms since the Unix epoch.
    since_ms: u64,
    left: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Added {
    payment_request: String,
}

#[derive(Debug, Deserialize)]
struct Looked {
    #[serde(default)]
    r_hash: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    amt_paid_msat: String,
    #[serde(default)]
    settle_date: String,
    #[serde(default)]
    payment_request: String,
}

#[derive(Debug, Deserialize)]
struct Streamed {
    result: Option<Looked>,
}

impl Lnd {
    /// # Errors
    /// [`WalletError::Unfit`] for a macaroon that permits more or less than the four calls, with the
    /// command that makes the right one; for a certificate that is none.
    pub fn new(
        url: &str,
        certificate_pem: &[u8],
        macaroon_hex: &Secret,
        network: Network,
    ) -> Result<Self, WalletError> {
        check_macaroon(macaroon_hex)?;
        let tls =
            super::tls::pinned(certificate_pem).map_err(|error| WalletError::Unfit(error.to_string()))?;
        let client = reqwest::Client::builder().connect_timeout(ANSWER_WITHIN).no_proxy();
        let client = client.tls_backend_preconfigured(tls).build();
        let client = client.map_err(|error| WalletError::Unfit(error.to_string()))?;
        let url = url.trim_end_matches('/').to_owned();
        let state = Mutex::default();
        Ok(Self { url, macaroon: macaroon_hex.clone(), network, client, state })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        request.header("Grpc-Metadata-macaroon", self.macaroon.reveal().trim())
    }

    async fn answer(request: reqwest::RequestBuilder) -> Result<(bool, Vec<u8>), WalletError> {
        let response = request.timeout(ANSWER_WITHIN).send().await.map_err(unreachable)?;
        let good = response.status().is_success();
        Ok((good, response.bytes().await.map_err(unreachable)?.to_vec()))
    }

    /// An invoice of this hash as the node has it; nothing where it has none.
    async fn look_up(&self, hash: &str) -> Result<Option<Looked>, WalletError> {
        let bytes = from_hex(hash).ok_or_else(|| strange("payment hash"))?;
        let path = format!("/v2/invoices/lookup?payment_hash={}", URL_SAFE.encode(bytes));
        let (good, body) = Self::answer(self.request(reqwest::Method::GET, &path)).await?;
        if good {
            return serde_json::from_slice(&body).map(Some).map_err(|_| strange("lookup"));
        }
        let said = detail(&body);
        let unknown = said.contains("unable to locate") || said.contains("there are no existing invoices");
        if unknown { Ok(None) } else { Err(WalletError::Refused { node: NODE, detail: said }) }
    }

    async fn add(&self, bill: &Bill) -> Result<String, WalletError> {
        let Target::Lightning { preimage } = &bill.target else {
            return Err(WalletError::Unfit("LND is asked for Lightning invoices alone".into()));
        };
        let hash = preimage.payment_hash();
        let body = json!({
            "r_preimage": STANDARD.encode(preimage.0),
            "value_msat": bill.sum.0.to_string(),
            "expiry": bill.expires_in_s.to_string(),
            "memo": bill.memo,
        });
        let (good, answer) =
            Self::answer(self.request(reqwest::Method::POST, "/v1/invoices").json(&body)).await?;
        let text = if good {
            let added: Added = serde_json::from_slice(&answer).map_err(|_| strange("invoice"))?;
            added.payment_request
        } else {
            // It was added before, and its answer was lost on the way.
            let known = self.look_up(&hash).await?.filter(|known| !known.payment_request.is_empty());
            let refused = || WalletError::Refused { node: NODE, detail: detail(&answer) };
            known.ok_or_else(refused)?.payment_request
        };
        check_bolt11(&text, &hash, bill, self.network)?;
        Ok(text)
    }

    /// Listens from a task: LND's answer begins with the first thing that happens, which may be never.
    fn open_stream(&self, state: &mut Stream) {
        if state.told.is_none() {
            let request = self.request(reqwest::Method::GET, "/v1/invoices/subscribe");
            let (teller, told) = mpsc::channel(TOLD_MAX);
            // It ends with its receiver, or with LND.
            tokio::spawn(async move {
                tokio::select! {
                    () = teller.closed() => {}
                    () = read_stream(request, &teller) => {}
                }
            });
            *state = Stream { told: Some(told), ..Stream::default() };
        }
    }

    /// What the stream says within this time.
    async fn listen(state: &mut Stream, wait: Duration) -> Result<Vec<Looked>, WalletError> {
        let Some(told) = &mut state.told else { return Ok(Vec::new()) };
        match tokio::time::timeout(wait, told.recv()).await {
            Err(_) => Ok(Vec::new()),
            Ok(Some(first)) => {
                let mut all = vec![first];
                while let Ok(next) = told.try_recv() {
                    all.push(next);
                }
                Ok(all)
            }
            Ok(None) => {
                *state = Stream::default();
                Err(WalletError::Unreachable { node: NODE, detail: "its stream ended".into() })
            }
        }
    }

    async fn wait_for_news(&self, watched: &Watched) -> Result<News, WalletError> {
        let mut state = self.state.lock().await;
        self.open_stream(&mut state);
        if state.round.is_none() && state.asked_all.is_none_or(|at| at.elapsed() >= ASK_ALL_EVERY) {
            state.round = Some(Round { since_ms: unix_ms(), left: watched.hashes.clone() });
        }
        let asked = self.ask_some(&mut state, watched).await;
        // What was not asked in a round that failed is the next one's.
        let (mut seen, until_ms) = asked.inspect_err(|_| state.round = None)?;
        let waits = seen.is_empty() && until_ms.is_none() && state.round.is_none();
        let told = Self::listen(&mut state, if waits { WAIT } else { Duration::ZERO }).await?;
        let as_of_ms = unix_ms();
        for looked in told {
            let hash = STANDARD.decode(&looked.r_hash).map_err(|_| strange("hash"))?;
            seen.extend(paid(hex(&hash), &looked, as_of_ms)?);
        }
        Ok(News { seen, until_ms })
    }

    /// Asks for some invoices, new ones first; and until when all is known, where that ends a round.
    async fn ask_some(
        &self,
        state: &mut Stream,
        watched: &Watched,
    ) -> Result<(Vec<(String, Observed)>, Option<u64>), WalletError> {
        let as_of_ms = unix_ms();
        let new = watched.hashes.iter().filter(|hash| !state.asked.contains(*hash));
        // Those that the node does not have yet are asked for again and again: the others have their share.
        let mut asks: Vec<String> = new.take(ASK_EACH_LOOK / 2).cloned().collect();
        let mut until_ms = None;
        if let Some(round) = &mut state.round {
            let rest = round.left.len().saturating_sub(ASK_EACH_LOOK - asks.len());
            asks.extend(round.left.split_off(rest));
            until_ms = round.left.is_empty().then_some(round.since_ms);
        }
        let mut seen = Vec::new();
        for hash in asks {
            if let Some(looked) = self.look_up(&hash).await? {
                seen.extend(paid(hash.clone(), &looked, as_of_ms)?);
                state.asked.insert(hash);
            }
        }
        if until_ms.is_some() {
            (state.round, state.asked_all) = (None, Some(Instant::now()));
            let open: BTreeSet<&String> = watched.hashes.iter().collect();
            state.asked.retain(|hash| open.contains(hash));
        }
        Ok((seen, until_ms))
    }
}

/// Reads the stream, one JSON object a line, until either end is gone or it says what cannot be understood.
async fn read_stream(request: reqwest::RequestBuilder, told: &mpsc::Sender<Looked>) {
    let Ok(mut response) = request.send().await else { return };
    let mut rest = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Ok(Streamed { result: Some(looked) }) = serde_json::from_slice(&line) else { return };
            if told.send(looked).await.is_err() {
                return;
            }
        }
        if rest.len() > MESSAGE_BYTES_MAX {
            return;
        }
    }
}

/// What an invoice of the node says of its payment; nothing while it is not settled.
fn paid(hash: String, looked: &Looked, as_of_ms: u64) -> Result<Option<(String, Observed)>, WalletError> {
    if looked.state != "SETTLED" {
        return Ok(None);
    }
    let sum: u64 = looked.amt_paid_msat.parse().map_err(|_| strange("sum"))?;
    let at_s: u64 = looked.settle_date.parse().unwrap_or(as_of_ms / 1_000);
    let key = PaymentKey::PaymentHash(hash.clone());
    let (paid_at_ms, progress) = (at_s * 1_000, Progress::Settled);
    Ok(Some((hash, Observed { key, sum: Msat(sum), paid_at_ms, progress, as_of_ms })))
}

/// Permits exactly the four calls.
fn check_macaroon(macaroon_hex: &Secret) -> Result<(), WalletError> {
    let unfit = |what: &str| WalletError::Unfit(format!("{what}; make the right one with: {BAKE}"));
    let bytes = from_hex(macaroon_hex.reveal().trim());
    let permitted = bytes.and_then(|bytes| permissions(&bytes));
    let permitted = permitted.ok_or_else(|| unfit("LND's macaroon is none, in hex, that can be read"))?;
    let wanted = |call: &&str| permitted.iter().any(|has| has.strip_prefix("uri:") == Some(*call));
    if let Some(call) = CALLS.iter().find(|call| !wanted(call)) {
        return Err(unfit(&format!("LND's macaroon lacks {call}")));
    }
    let more = permitted.iter().find(|has| !CALLS.iter().any(|call| has.strip_prefix("uri:") == Some(*call)));
    match more {
        Some(more) => Err(unfit(&format!(
            "LND's macaroon also permits {more}, and this server takes none that can do more than invoices"
        ))),
        None => Ok(()),
    }
}

/// Is this the invoice that was asked for?
fn check_bolt11(text: &str, hash: &str, bill: &Bill, network: Network) -> Result<(), WalletError> {
    let wrong = |what: &str| {
        super::refused("bolt11");
        WalletError::Strange { node: NODE, detail: format!("its invoice has another {what}") }
    };
    let invoice = Bolt11Invoice::from_str(text).map_err(|_| strange("invoice"))?;
    let currency = match network {
        Network::Bitcoin => Currency::Bitcoin,
        Network::Signet => Currency::Signet,
        Network::Regtest => Currency::Regtest,
        _ => Currency::BitcoinTestnet,
    };
    if invoice.currency() != currency {
        return Err(wrong("network"));
    }
    if invoice.amount_milli_satoshis() != Some(bill.sum.0) || bill.sum.0 < MSAT_PER_SAT {
        return Err(wrong("sum"));
    }
    if AsRef::<[u8]>::as_ref(invoice.payment_hash()) != from_hex(hash).unwrap_or_default() {
        return Err(wrong("payment hash"));
    }
    // One that was made before a kill or an outage ends when it was to end, not later.
    let ends = invoice.duration_since_epoch().saturating_add(invoice.expiry_time());
    let latest = Duration::from_millis(unix_ms()) + Duration::from_secs(bill.expires_in_s + 60);
    if ends > latest {
        return Err(wrong("time"));
    }
    Ok(())
}

/// What LND says went wrong.
fn detail(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let said = said["message"].as_str().or_else(|| said["error"]["message"].as_str());
    said.unwrap_or("it does not say why").chars().take(200).collect()
}

fn unreachable(error: reqwest::Error) -> WalletError {
    WalletError::Unreachable { node: NODE, detail: cause(error) }
}

fn strange(what: &str) -> WalletError {
    WalletError::Strange { node: NODE, detail: what.to_owned() }
}

impl Wallet for Lnd {
    fn issue<'a>(&'a self, bill: &'a Bill) -> BoxFuture<'a, Result<Issued, WalletError>> {
        async move { self.add(bill).await.map(Issued::Bolt11) }.boxed()
    }

    fn news<'a>(&'a self, watched: &'a Watched) -> BoxFuture<'a, Result<News, WalletError>> {
        self.wait_for_news(watched).boxed()
    }

    fn cancel<'a>(&'a self, payment_hash: &'a str) -> BoxFuture<'a, Result<(), WalletError>> {
        async move {
            let bytes = from_hex(payment_hash).ok_or_else(|| strange("payment hash"))?;
            let body = json!({"payment_hash": STANDARD.encode(bytes)});
            let request = self.request(reqwest::Method::POST, "/v2/invoices/cancel").json(&body);
            // One that is settled, or gone already, is refused, and that is as good.
            Self::answer(request).await.map(|_| ())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::{Hash as _, sha256};
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning_invoice::{InvoiceBuilder, PaymentSecret};

    use super::*;
    use crate::billing::wallet::Preimage;

    const SUM: Msat = Msat(21_000_000);
    const EXPIRES_S: u64 = 900;

    /// What a node might answer: made so many seconds ago, to be paid within so many.
    fn invoice(currency: Currency, hash: [u8; 32], sum: Option<Msat>, ago_s: u64, expiry_s: u64) -> String {
        let key = SecretKey::from_slice(&[1; 32]).expect("a key");
        let made = InvoiceBuilder::new(currency)
            .description("Access".into())
            .payment_hash(sha256::Hash::from_byte_array(hash))
            .payment_secret(PaymentSecret([0; 32]))
            .duration_since_epoch(Duration::from_millis(unix_ms()) - Duration::from_secs(ago_s))
            .min_final_cltv_expiry_delta(80)
            .expiry_time(Duration::from_secs(expiry_s));
        let sign = |message: &_| Secp256k1::new().sign_ecdsa_recoverable(message, &key);
        match sum {
            Some(sum) => made.amount_milli_satoshis(sum.0).build_signed(sign),
            None => made.build_signed(sign),
        }
        .expect("an invoice")
        .to_string()
    }

    fn checked(text: &str) -> Result<(), String> {
        let preimage = Preimage([5; 32]);
        let hash = preimage.payment_hash();
        let target = Target::Lightning { preimage };
        let bill = Bill { target, sum: SUM, expires_in_s: EXPIRES_S, memo: String::new() };
        check_bolt11(text, &hash, &bill, Network::Regtest).map_err(|error| error.to_string())
    }

    #[test]
    fn an_invoice_of_another_network_sum_hash_or_time_is_refused() {
        let hash: [u8; 32] = from_hex(&Preimage([5; 32]).payment_hash()).unwrap().try_into().unwrap();
        let regtest = Currency::Regtest;
        assert_eq!(checked(&invoice(regtest.clone(), hash, Some(SUM), 0, EXPIRES_S)), Ok(()));
        let wrong = |text: String| checked(&text).unwrap_err();
        for other in [Currency::Bitcoin, Currency::BitcoinTestnet, Currency::Signet] {
            assert!(wrong(invoice(other, hash, Some(SUM), 0, EXPIRES_S)).contains("network"));
        }
        // A sum that is left open would be settled by any.
        for sum in [None, Some(Msat(SUM.0 - 1_000)), Some(Msat(SUM.0 + 1_000))] {
            assert!(wrong(invoice(regtest.clone(), hash, sum, 0, EXPIRES_S)).contains("sum"));
        }
        assert!(wrong(invoice(regtest.clone(), [6; 32], Some(SUM), 0, EXPIRES_S)).contains("hash"));
        assert!(wrong(invoice(regtest, hash, Some(SUM), 0, 2 * EXPIRES_S)).contains("time"));
        for nonsense in ["", "lnbcrt1", "lightning:"] {
            assert!(checked(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn after_an_outage_the_invoice_that_was_made_before_it_is_taken() {
        let hash: [u8; 32] = from_hex(&Preimage([5; 32]).payment_hash()).unwrap().try_into().unwrap();
        // Made ten minutes ago for twenty-five: it ends with the bill.
        let text = invoice(Currency::Regtest, hash, Some(SUM), 600, 600 + EXPIRES_S);
        assert_eq!(checked(&text), Ok(()));
    }
}
