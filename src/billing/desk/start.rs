//! How the loop begins: wallets by the configuration, the ledger from the log, watchers, and what was left
//! undone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use futures_util::FutureExt as _;
use tokio::sync::{broadcast, watch};

use super::follow::Books;
use super::{Ask, Billing, BillingKey, CHANGES_DEPTH, Desk, QUEUE_DEPTH, Till};
use crate::billing::passing::Passing;
use crate::billing::waiting::Waiting;
use crate::billing::wallet::{Wallet, WalletError, Watched};
use crate::billing::{
    Bitcoind, Esplora, Fixed, KeyError, Lnd, Login, Payout, PayoutError, Simulated, simulated, webhook,
};
use crate::config::{Chain, Config, Payments};
use crate::control::{Control, unix_ms};
use crate::core::ledger::{Keeping, Rail};
use crate::events::LogError;
use crate::events::writer::EventWriter;
use crate::mailbox::{self, ControlSender};

/// Pauses after a wallet that did not answer, first and longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Why payments cannot begin; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    #[error("`payments.descriptor`: {0}")]
    Payout(#[from] PayoutError),
    #[error("`payments`: {0}")]
    Wallet(#[from] WalletError),
    #[error("`payments.lnd.cert_file` cannot be read: {0}")]
    Certificate(std::io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the ledger cannot be read: {0}")]
    Log(#[from] LogError),
}

impl Desk {
    /// Starts the loop and its watchers on the current runtime.
    ///
    /// # Errors
    /// [`BillingError`].
    pub async fn spawn(
        config: &Config,
        control: Control,
        events: EventWriter,
    ) -> Result<Billing, BillingError> {
        let payments = &config.payments;
        let alone = control.is_alone();
        let (network, tills, house) =
            if is_pretended(config, alone) { simulated_tills()? } else { real_tills(payments)? };
        let key = match &payments.key {
            Some(secret) => BillingKey::of_secret(secret),
            None => BillingKey::open(&config.node.data_dir)?,
        };
        let ((asks, receiver), (questions, asked)) =
            (mailbox::control(QUEUE_DEPTH), mailbox::control(QUEUE_DEPTH));
        let (watched, _) = watch::channel(Watched::default());
        let (priced, prices) = watch::channel(Arc::default());
        let changes = broadcast::Sender::new(CHANGES_DEPTH);
        let (hooks, hooked) = watch::channel(Arc::default());
        let books = Books::read(&events).await?;
        let followed = watch::Sender::new(books.facts);
        let passing = Passing::new(key.clone(), control.clone(), followed.subscribe());
        let billing = Billing {
            asks: asks.clone(),
            questions,
            priced: prices,
            changes: changes.clone(),
            key: key.clone(),
            network,
            dev: config.dev,
            passing: Some(passing).filter(|_| !alone),
            waiting: Waiting::default(),
        };
        let desk = Self {
            books,
            keeping: if alone { Keeping::alone() } else { Keeping::among_others() },
            claiming: None,
            followed,
            watchers: Vec::new(),
            strange_ticks: 0,
            told: BTreeMap::new(),
            events,
            control,
            key,
            rates: Box::new(Fixed::new(&payments.rates)),
            network,
            tills,
            payouts: BTreeMap::new(),
            house,
            asks,
            questions: asked,
            watched,
            priced,
            changes,
            hooks,
            waiting: BTreeMap::new(),
            inside: BTreeMap::new(),
            started_ms: unix_ms(),
            previews: BTreeMap::new(),
            trials: BTreeSet::new(),
            askers: BTreeMap::new(),
            askers_since: Instant::now(),
            invoices_per_address: payments.invoices_per_address,
        };
        // Before anybody is let in.
        desk.publish_prices();
        webhook::spawn(desk.events.clone(), hooked, teller(desk.asks.clone()), config.dev);
        tokio::spawn(desk.run(receiver));
        Ok(billing)
    }

    pub(super) fn remember_payouts(&mut self) {
        let given = self.books.ledger.payouts().filter_map(|text| Payout::parse(text, self.network).ok());
        let all: Vec<Payout> = given.chain(self.house.clone()).collect();
        self.payouts.extend(all.into_iter().map(|payout| (payout.profile(), payout)));
    }
}

/// No money is real: under `--dev`, where no wallet is named and all nodes can be one shop.
fn is_pretended(config: &Config, alone: bool) -> bool {
    let can_share = config.payments.key.is_some() && !config.cluster.kafka_brokers.is_empty();
    config.dev && !config.payments.are_real() && (alone || can_share)
}

/// How couriers tell the loop how far they are.
fn teller(asks: ControlSender<Ask>) -> webhook::Tell {
    Arc::new(move |room, event| {
        let asks = asks.clone();
        async move { asks.send_when_free(Ask::Told { room, event }).await }.boxed()
    })
}

type Tills = (Network, BTreeMap<Rail, Till>, Option<Payout>);

fn simulated_tills() -> Result<Tills, BillingError> {
    let house = Payout::parse(simulated::PAYOUT, simulated::NETWORK)?;
    let tills = [Rail::Onchain, Rail::Lightning].map(|rail| {
        let wallet = Simulated::new(rail);
        (rail, Till { wallet: Arc::new(wallet.clone()), simulated: Some(wallet) })
    });
    Ok((simulated::NETWORK, tills.into(), Some(house)))
}

fn real_tills(payments: &Payments) -> Result<Tills, BillingError> {
    let network = match payments.network {
        Chain::Bitcoin => Network::Bitcoin,
        Chain::Testnet => Network::Testnet,
        Chain::Signet => Network::Signet,
        Chain::Regtest => Network::Regtest,
    };
    let house = payments.descriptor.as_deref().map(|text| Payout::parse(text, network)).transpose()?;
    let mut tills = BTreeMap::new();
    let mut add = |rail, wallet: Arc<dyn Wallet>| tills.insert(rail, Till { wallet, simulated: None });
    if let Some(node) = &payments.bitcoind {
        let login = match (&node.cookie_file, &node.user, &node.password) {
            (Some(path), _, _) => Login::Cookie(path.clone()),
            (None, Some(user), Some(password)) => {
                Login::Password { user: user.clone(), password: password.clone() }
            }
            _ => {
                return Err(
                    WalletError::Unfit("bitcoind needs a cookie file, or user and password".into()).into()
                );
            }
        };
        add(Rail::Onchain, Arc::new(Bitcoind::new(&node.url, login)?));
    }
    if let Some(server) = &payments.esplora {
        let look_every = Duration::from_secs(server.look_seconds.into());
        add(Rail::Onchain, Arc::new(Esplora::new(&server.url, look_every)?));
    }
    if let Some(node) = &payments.lnd {
        let certificate = std::fs::read(&node.cert_file).map_err(BillingError::Certificate)?;
        add(Rail::Lightning, Arc::new(Lnd::new(&node.url, &certificate, &node.macaroon, network)?));
    }
    Ok((network, tills, house))
}

/// Asks one wallet for news, for as long as the loop lives. An outage is said once, and when it ends.
pub(super) async fn follow(
    rail: Rail,
    wallet: Arc<dyn Wallet>,
    watching: watch::Receiver<Watched>,
    asks: ControlSender<Ask>,
) {
    let (mut pause, mut was_away) = (PAUSES.0, false);
    loop {
        let watched = watching.borrow().clone();
        match wallet.news(&watched).await {
            Ok(news) => {
                if std::mem::take(&mut was_away) {
                    tracing::info!(?rail, "the wallet answers again");
                }
                pause = PAUSES.0;
                if asks.send_when_free(Ask::News { rail, news }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut was_away, true) {
                    tracing::warn!(?rail, %error, "a wallet cannot be watched");
                }
                metrics::counter!("antiphon_wallet_errors_total").increment(1);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                if watching.has_changed().is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn money_is_pretended_for_development_alone_and_never_beside_real_wallets() {
        let mut config = Config { dev: true, ..Config::default() };
        assert!(is_pretended(&config, true));
        assert!(!is_pretended(&config, false), "nodes without a shared log and secret are no shop");
        config.payments.key = Some(Secret::new("0123456789abcdef0123456789abcdef"));
        config.cluster.kafka_brokers = "127.0.0.1:9092".into();
        assert!(is_pretended(&config, false));
        config.payments.esplora = serde_json::from_str(r#"{"url": "https://example.org/api"}"#).unwrap();
        assert!(!is_pretended(&config, true));
        assert!(!is_pretended(&Config::default(), true));
    }
}
