//! How the loop begins: wallets by the configuration, the ledger from the log, watchers, and what was left
//! undone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use tokio::sync::{broadcast, watch};

use super::{Ask, Billing, BillingKey, CHANGES_DEPTH, Desk, QUEUE_DEPTH, Till};
use crate::billing::wallet::{Wallet, WalletError, Watched};
use crate::billing::{
    Bitcoind, Esplora, Fixed, KeyError, Lnd, Login, Payout, PayoutError, Simulated, simulated, webhook,
};
use crate::config::{Chain, Config, Payments};
use crate::control::{Control, unix_ms};
use crate::core::event::EventBody;
use crate::core::ledger::{Ledger, Rail};
use crate::events::LogError;
use crate::events::writer::EventWriter;
use crate::mailbox::{self, ControlSender};

/// Facts in one page while the ledger is read.
const PAGE: u32 = 500;
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
        // In a cluster nothing is sold yet, pretended or not: one node alone may hold the ledger.
        let pretended = config.dev && !payments.are_real() && config.cluster.redis_url.is_none();
        let (network, tills, house) = if pretended { simulated_tills()? } else { real_tills(payments)? };
        let key = BillingKey::open(&config.node.data_dir)?;
        let (asks, receiver) = mailbox::control(QUEUE_DEPTH);
        let (watched, watching) = watch::channel(Watched::default());
        let (priced, prices) = watch::channel(Arc::default());
        let changes = broadcast::Sender::new(CHANGES_DEPTH);
        let (hooks, hooked) = watch::channel(Arc::default());
        let billing = Billing {
            asks: asks.clone(),
            priced: prices,
            changes: changes.clone(),
            key: key.clone(),
            network,
            dev: config.dev,
        };
        let ledger = read_ledger(&events).await?;
        let mut desk = Self {
            ledger,
            events,
            control,
            key,
            rates: Box::new(Fixed::new(&payments.rates)),
            network,
            tills,
            payouts: BTreeMap::new(),
            house,
            asks,
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
        desk.remember_payouts();
        desk.publish_prices();
        desk.watch();
        desk.publish_hooks();
        webhook::spawn(&config.node.data_dir, desk.events.clone(), hooked, config.dev);
        for (rail, till) in &desk.tills {
            tokio::spawn(follow(*rail, Arc::clone(&till.wallet), watching.clone(), desk.asks.clone()));
        }
        tokio::spawn(desk.run(receiver));
        Ok(billing)
    }

    fn remember_payouts(&mut self) {
        let given = self.ledger.payouts().filter_map(|text| Payout::parse(text, self.network).ok());
        let all: Vec<Payout> = given.chain(self.house.clone()).collect();
        self.payouts.extend(all.into_iter().map(|payout| (payout.profile(), payout)));
    }

    /// Forgets what was not made durable.
    pub(super) async fn reload(&mut self) {
        match read_ledger(&self.events).await {
            Ok(ledger) => self.ledger = ledger,
            Err(error) => tracing::error!(%error, "the ledger cannot be read"),
        }
    }
}

async fn read_ledger(events: &EventWriter) -> Result<Ledger, LogError> {
    let (mut ledger, mut after) = (Ledger::default(), 0);
    loop {
        let page = events.ledger(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(ledger) };
        after = last.offset;
        for recorded in page {
            if let EventBody::Ledger(fact) = &recorded.event.body {
                ledger.restore(&recorded.event.room, recorded.event.at_ms, fact);
            }
        }
    }
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
async fn follow(
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
