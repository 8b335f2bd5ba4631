//! What every wallet does: simulated ones, a real Bitcoin node, and a real Lightning node.
//!
//! The Bitcoin node is brought up by `scripts/bitcoin.sh`. The Lightning node takes ten minutes to build,
//! so its part runs where `ANTIPHON_TEST_LIGHTNING` is set, as `make test-bitcoin` does, and says so where
//! it is not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use antiphon::billing::{
    Bill, Bitcoind, Esplora, Issued, Lnd, Login, News, Payout, Preimage, SIMULATED_PAYOUT, Simulated, Target,
    Wallet, WalletError, Watched, WatchedAddress,
};
use antiphon::config::Secret;
use antiphon::core::ledger::Rail;
use antiphon::core::ledger::{Msat, Observed, PaymentKey, Progress};
use bitcoin::Network;

/// How long a real node may take to say what happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// A wallet, and the hand that pays it.
trait Stand {
    fn wallet(&self) -> &dyn Wallet;
    /// A new target of the kind that this wallet takes.
    fn target(&self, number: u8) -> Target;
    /// Pays so much, for good.
    fn pay(&self, target: &Target, issued: &Issued, sum: Msat);
}

fn payout() -> Payout {
    Payout::parse(SIMULATED_PAYOUT, Network::Regtest).expect("a public descriptor")
}

fn address(target: &Target) -> String {
    match target {
        Target::Onchain { payout, index } => payout.address(*index).expect("an address"),
        Target::Lightning { preimage } => preimage.payment_hash(),
    }
}

fn bill(target: Target, sats: u64) -> Bill {
    Bill { target, sum: Msat::from_sats(sats), expires_in_s: 600, memo: "Access to a room".into() }
}

fn watched(targets: &[Target]) -> Watched {
    let mut watched = Watched::default();
    for target in targets {
        match target {
            Target::Onchain { payout, index } => {
                watched.payouts = vec![(payout.clone(), index + 1, 0)];
                watched.addresses.push(WatchedAddress { address: address(target), known: Vec::new() });
            }
            Target::Lightning { preimage } => watched.hashes.push(preimage.payment_hash()),
        }
    }
    watched
}

/// Asks for news until `found` finds something in them.
async fn until<T>(wallet: &dyn Wallet, watched: &Watched, found: impl Fn(&News) -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match wallet.news(watched).await {
            Ok(news) => {
                if let Some(found) = found(&news) {
                    return found;
                }
            }
            Err(WalletError::Unreachable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < end, "no such news in time");
    }
}

fn seen_at(news: &News, to: &str) -> Option<Observed> {
    news.seen.iter().find(|(at, _)| at == to).map(|(_, observed)| observed.clone())
}

fn is_final(observed: &Observed) -> bool {
    match observed.progress {
        Progress::Settled => true,
        Progress::Confirmations(blocks) => blocks >= 1,
        Progress::Replaced => false,
    }
}

/// The suite.
async fn conforms(stand: &dyn Stand) {
    let wallet = stand.wallet();
    let (one, other) = (stand.target(1), stand.target(2));
    let issued = wallet.issue(&bill(one.clone(), 2_000)).await.expect("it issues");
    assert_eq!(
        wallet.issue(&bill(one.clone(), 2_000)).await.expect("again"),
        issued,
        "a retry answers the same"
    );
    wallet.issue(&bill(other.clone(), 3_000)).await.expect("it issues another");
    let watched = watched(&[one.clone(), other.clone()]);

    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let until_ms = until(wallet, &watched, |news| news.until_ms).await;
    assert!(u128::from(until_ms) + 1_000 > started.as_millis(), "what it knows reaches to now");
    let quiet = wallet.news(&watched).await.expect("news");
    assert!(seen_at(&quiet, &address(&one)).is_none(), "nobody has paid");

    stand.pay(&one, &issued, Msat::from_sats(2_000));
    let paid = until(wallet, &watched, |news| seen_at(news, &address(&one)).filter(is_final)).await;
    assert_eq!(paid.sum, Msat::from_sats(2_000));
    let again = until(wallet, &watched, |news| seen_at(news, &address(&one))).await;
    assert_eq!(again.key, paid.key, "the same payment has the same key");
    assert!(again.as_of_ms >= paid.as_of_ms);
    let quiet = wallet.news(&watched).await.expect("news");
    assert!(seen_at(&quiet, &address(&other)).is_none(), "the other one is not paid by it");
    for target in [&one, &other] {
        wallet.cancel(&address(target)).await.expect("cancelling is harmless, paid or not");
    }
    let after = until(wallet, &watched, |news| seen_at(news, &address(&one))).await;
    assert!(is_final(&after), "what was paid stays paid");
}

struct Pretended {
    wallet: Simulated,
    rail: Rail,
}

impl Stand for Pretended {
    fn wallet(&self) -> &dyn Wallet {
        &self.wallet
    }

    fn target(&self, number: u8) -> Target {
        match self.rail {
            Rail::Onchain => Target::Onchain { payout: payout(), index: number.into() },
            Rail::Lightning => Target::Lightning { preimage: Preimage([number; 32]) },
        }
    }

    fn pay(&self, target: &Target, _: &Issued, sum: Msat) {
        let to = address(target);
        let (key, progress) = match self.rail {
            Rail::Onchain => (PaymentKey::Outpoint("tx:0".into()), Progress::Confirmations(6)),
            Rail::Lightning => (PaymentKey::PaymentHash(to.clone()), Progress::Settled),
        };
        self.wallet.pay(&to, key, sum, progress).expect("it may be paid");
    }
}

#[tokio::test]
async fn a_simulated_wallet_conforms_for_both_ways() {
    for rail in [Rail::Onchain, Rail::Lightning] {
        conforms(&Pretended { wallet: Simulated::new(rail), rail }).await;
    }
}

/// Nodes of a test's own, ended with it.
struct Net {
    directory: tempfile::TempDir,
    port: u16,
}

impl Net {
    fn start(kind: &str, port: u16) -> Self {
        let net = Self { directory: tempfile::tempdir().expect("a temporary directory"), port };
        net.run(&[kind]);
        net
    }

    fn run(&self, arguments: &[&str]) -> String {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/bitcoin.sh");
        let log = std::fs::File::create(self.directory.path().join("stderr")).expect("a file");
        // Nodes outlive the script and keep what it has open, so its output goes to a file and no pipe.
        let out = self.directory.path().join("stdout");
        let done = Command::new(script)
            .args(arguments)
            .env("ANTIPHON_BITCOIN_DIR", self.directory.path().join("net"))
            .env("ANTIPHON_BITCOIN_PORT", self.port.to_string())
            .stdout(std::fs::File::create(&out).expect("a file"))
            .stderr(log)
            .status()
            .expect("the script runs");
        let said = std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default();
        assert!(done.success(), "scripts/bitcoin.sh {arguments:?}: {said}");
        std::fs::read_to_string(out).expect("readable").trim().to_owned()
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let lines = self.run(&["env"]);
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.replace("ANTIPHON_PAYMENTS__", ""), value.to_owned())).collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

struct Chain {
    net: Net,
    wallet: Bitcoind,
}

impl Stand for Chain {
    fn wallet(&self) -> &dyn Wallet {
        &self.wallet
    }

    fn target(&self, number: u8) -> Target {
        Target::Onchain { payout: payout(), index: number.into() }
    }

    fn pay(&self, target: &Target, _: &Issued, sum: Msat) {
        self.net.run(&["send", &address(target), &sum.sats_up().to_string()]);
        self.net.run(&["mine", "1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoin_node_conforms() {
    let net = Net::start("chain", 28_560);
    let settings = net.settings();
    let login = Login::Password {
        user: settings["BITCOIND__USER"].clone(),
        password: Secret::new(&settings["BITCOIND__PASSWORD"]),
    };
    let wallet = Bitcoind::new(&settings["BITCOIND__URL"], login).expect("a client");
    conforms(&Chain { net, wallet }).await;
}

struct Explorer {
    net: Net,
    wallet: Esplora,
}

impl Stand for Explorer {
    fn wallet(&self) -> &dyn Wallet {
        &self.wallet
    }

    fn target(&self, number: u8) -> Target {
        Target::Onchain { payout: payout(), index: number.into() }
    }

    fn pay(&self, target: &Target, _: &Issued, sum: Msat) {
        self.net.run(&["send", &address(target), &sum.sats_up().to_string()]);
        self.net.run(&["mine", "1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_esplora_server_conforms_and_tells_replacements_and_late_payments() {
    let net = Net::start("chain", 28_640);
    let url = super::esplora::serve(&net.settings()).await;
    let wallet = Esplora::new(&url, Duration::from_millis(300)).expect("a client");
    let stand = Explorer { net, wallet };
    conforms(&stand).await;

    let (third, wallet) = (stand.target(3), &stand.wallet);
    let to = address(&third);
    stand.net.run(&["send", &to, "5000"]);
    let mut watching = watched(std::slice::from_ref(&third));
    let seen = until(wallet, &watching, |news| seen_at(news, &to)).await;
    assert_eq!(seen.progress, Progress::Confirmations(0));
    stand.net.run(&["mine", "2"]);
    let deep = |news: &News| seen_at(news, &to).filter(|one| one.progress == Progress::Confirmations(2));
    let seen = until(wallet, &watching, deep).await;
    watching.addresses[0].known = vec![(seen.key.clone(), seen.sum)];
    // In no block any more, and then in no mempool either.
    stand.net.run(&["reorg", "2"]);
    let back = |news: &News| seen_at(news, &to).filter(|one| one.progress == Progress::Confirmations(0));
    until(wallet, &watching, back).await;

    let fourth = stand.target(4);
    let to = address(&fourth);
    stand.net.run(&["send", &to, "5000"]);
    let mut watching = watched(std::slice::from_ref(&fourth));
    let first = until(wallet, &watching, |news| seen_at(news, &to)).await;
    watching.addresses[0].known = vec![(first.key.clone(), first.sum)];
    stand.net.run(&["replace", first_txid(&first)]);
    let replaced = |news: &News| seen_at(news, &to).filter(|one| one.progress == Progress::Replaced);
    assert_eq!(until(wallet, &watching, replaced).await.key, first.key);

    // Nobody waits for these any more: they are looked at in turn.
    let late = Watched { payouts: watching.payouts.clone(), ..Watched::default() };
    until(wallet, &late, |news| seen_at(news, &address(&stand.target(1)))).await;
}

fn first_txid(observed: &Observed) -> &str {
    match &observed.key {
        PaymentKey::Outpoint(outpoint) => outpoint.split(':').next().unwrap_or_default(),
        _ => "",
    }
}

#[tokio::test]
async fn an_esplora_server_that_is_none_is_told_so() {
    let wallet = Esplora::new("http://127.0.0.1:1", Duration::from_millis(10)).expect("a client");
    let error = wallet.news(&Watched::default()).await.expect_err("nobody answers");
    assert!(matches!(error, WalletError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_repeated() {
    let login = Login::Password { user: "antiphon".into(), password: Secret::new("very-secret") };
    // Nobody listens there.
    let wallet = Bitcoind::new("http://127.0.0.1:1", login).expect("a client");
    let error = wallet.news(&Watched::default()).await.expect_err("nobody answers").to_string();
    assert!(error.contains("does not answer") && !error.contains("very-secret"), "{error}");
}

struct Lightning {
    net: Net,
    wallet: Lnd,
}

impl Stand for Lightning {
    fn wallet(&self) -> &dyn Wallet {
        &self.wallet
    }

    fn target(&self, number: u8) -> Target {
        Target::Lightning { preimage: Preimage([number; 32]) }
    }

    fn pay(&self, _: &Target, issued: &Issued, _: Msat) {
        let Issued::Bolt11(bolt11) = issued else { panic!("a Lightning node issues invoices") };
        assert_eq!(self.net.run(&["pay", bolt11]).len(), 64, "it was paid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lightning_node_conforms() {
    if std::env::var_os("ANTIPHON_TEST_LIGHTNING").is_none() {
        println!("NOT RUN: a Lightning node takes ten minutes to build; `make test-bitcoin` runs this part");
        return;
    }
    let net = Net::start("up", 28_600);
    let settings = net.settings();
    let certificate = std::fs::read(&settings["LND__CERT_FILE"]).expect("lnd's certificate");
    let macaroon = Secret::new(&settings["LND__MACAROON"]);
    let wallet = Lnd::new(&settings["LND__URL"], &certificate, &macaroon, Network::Regtest).expect("fit");
    conforms(&Lightning { net, wallet }).await;
}

/// The macaroon of a real node of this script, for exactly the four calls.
const NARROW: &str = "0201036c6e6402ab01030a10cd81f2a649564ebb5a145ccb9401ae7b1201301a92010a0375726912232f696e766f696365737270632e496e766f696365732f43616e63656c496e766f69636512252f696e766f696365737270632e496e766f696365732f4c6f6f6b7570496e766f6963655632121b2f6c6e7270632e4c696768746e696e672f416464496e766f69636512222f6c6e7270632e4c696768746e696e672f537562736372696265496e766f6963657300000620df885d3fe3552db4c296873107686fbc3fd74a88df6f21698125639f1f24a6aa";

#[test]
fn a_macaroon_is_read_before_it_is_used() {
    let bytes = antiphon::billing::from_hex(NARROW).expect("hex");
    let mut permitted = antiphon::billing::permissions(&bytes).expect("LND's form");
    permitted.sort();
    let mut wanted = antiphon::billing::CALLS.map(|call| format!("uri:{call}"));
    wanted.sort();
    assert_eq!(permitted, wanted);
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let pem = certificate.cert.pem();
    let lnd = |macaroon: &str| {
        Lnd::new("https://127.0.0.1:1", pem.as_bytes(), &Secret::new(macaroon), Network::Regtest)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(lnd(NARROW), Ok(()));
    for bad in ["", "00", "zz", &NARROW[..100]] {
        let error = lnd(bad).expect_err("no macaroon");
        assert!(error.contains("lncli bakemacaroon"), "{error}");
    }
}
