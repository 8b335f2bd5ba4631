//! The configuration of payments: by which nodes they are seen, and where the operator's own go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Cluster, Secret};

/// A chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chain {
    #[default]
    Bitcoin,
    Testnet,
    Signet,
    Regtest,
}

/// Rooms that cost money. Nothing in here can spend.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Payments {
    pub network: Chain,
    /// Where the operator's own sales go: a public descriptor or account key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<String>,
    /// The node by which on-chain payments are seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitcoind: Option<Bitcoind>,
    /// A server by which on-chain payments are seen where there is no node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esplora: Option<Esplora>,
    /// The operator's Lightning node, for the operator's own sales.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lnd: Option<Lnd>,
    /// What a bitcoin costs in each currency in which prices may be named, such as `EUR = 64000.0`.
    pub rates: BTreeMap<String, f64>,
    /// New invoices that one address may ask for in an hour.
    pub invoices_per_address: u32,
    /// The secret from which claims, preimages and signatures are derived: 32 bytes or more, such as
    /// `openssl rand -hex 32` prints. All nodes of a cluster need the same. Absent, the node makes one and
    /// keeps it in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
}

/// One that can be guessed lets anybody claim to have paid.
const KEY_BYTES_MIN: usize = 32;

impl Default for Payments {
    fn default() -> Self {
        Self {
            network: Chain::default(),
            descriptor: None,
            bitcoind: None,
            esplora: None,
            lnd: None,
            rates: BTreeMap::new(),
            invoices_per_address: 60,
            key: None,
        }
    }
}

/// A Bitcoin node's RPC. Either `cookie_file`, or `user` and `password`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bitcoind {
    /// Such as `http://127.0.0.1:8332`.
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

fn look_seconds() -> u32 {
    10
}

/// An Esplora server's HTTP API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Esplora {
    /// Such as `https://blockstream.info/api`.
    pub url: String,
    /// How often it is asked.
    #[serde(default = "look_seconds")]
    pub look_seconds: u32,
}

/// LND's REST interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lnd {
    /// Such as `https://127.0.0.1:8080`.
    pub url: String,
    /// The node's own `tls.cert`, and no other, is trusted.
    pub cert_file: PathBuf,
    /// Of exactly four calls, in hex; `docs/PAYMENTS.md` has the command that makes it.
    pub macaroon: Secret,
}

impl Payments {
    /// Money is real: a wallet's node is named.
    pub fn are_real(&self) -> bool {
        self.bitcoind.is_some() || self.esplora.is_some() || self.lnd.is_some()
    }

    /// What several nodes need to be one shop.
    pub(super) fn check_in(&self, cluster: &Cluster, wrong: &mut Vec<String>) {
        if !self.are_real() || cluster.redis_url.is_none() {
            return;
        }
        if self.key.is_none() {
            wrong.push(
                "`payments.key`: nodes of a cluster that take payments need the same secret, by which each knows what \
                 another sold; `openssl rand -hex 32` makes one"
                    .into(),
            );
        }
        if cluster.kafka_brokers.is_empty() {
            wrong.push(
                "`payments` in a cluster needs `cluster.kafka_brokers`: the ledger stands in the log that all nodes \
                 share"
                    .into(),
            );
        }
    }

    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        if self.key.as_ref().is_some_and(|key| key.reveal().len() < KEY_BYTES_MIN) {
            wrong.push(format!(
                "`payments.key`: accepted is a secret of {KEY_BYTES_MIN} bytes or more; `openssl rand -hex 32` makes \
                 one"
            ));
        }
        if let Some(bitcoind) = &self.bitcoind {
            let password = bitcoind.user.is_some() && bitcoind.password.is_some();
            if password == bitcoind.cookie_file.is_some() {
                wrong.push("`payments.bitcoind`: give either `cookie_file`, or `user` and `password`".into());
            }
            if !bitcoind.url.starts_with("http://") {
                wrong.push("`payments.bitcoind.url`: accepted is such as `http://127.0.0.1:8332`".into());
            }
        }
        if self.descriptor.is_some() && self.bitcoind.is_none() && self.esplora.is_none() {
            let words = "`payments.descriptor` needs `payments.bitcoind` or `payments.esplora`, by which payments \
                are seen";
            wrong.push(words.into());
        }
        if self.bitcoind.is_some() && self.esplora.is_some() {
            wrong
                .push("`payments`: give either `bitcoind` or `esplora`; a node of your own is better".into());
        }
        if let Some(esplora) = &self.esplora {
            let url = reqwest::Url::parse(&esplora.url).ok();
            let fits = url.is_some_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
            if !fits {
                wrong.push(
                    "`payments.esplora.url`: accepted is such as `https://blockstream.info/api`".into(),
                );
            }
            if !(1..=3_600).contains(&esplora.look_seconds) {
                wrong.push("`payments.esplora.look_seconds`: accepted are 1 to 3600".into());
            }
        }
        if self.lnd.as_ref().is_some_and(|lnd| !lnd.url.starts_with("https://")) {
            wrong.push("`payments.lnd.url`: accepted is such as `https://127.0.0.1:8080`".into());
        }
        for (currency, rate) in &self.rates {
            // Names in the environment have no case.
            let plain = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_alphabetic());
            if !plain || !(0.01..=1e12).contains(rate) {
                wrong.push("`payments.rates`: accepted are such as `EUR = 64000.0`".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_with_wallets_needs_the_shared_secret_and_the_shared_log() {
        let wrong = |payments: &Payments, cluster: &Cluster| {
            let mut wrong = Vec::new();
            payments.check(&mut wrong);
            payments.check_in(cluster, &mut wrong);
            wrong
        };
        let esplora = serde_json::from_str(r#"{"url": "https://example.org/api"}"#).unwrap();
        let mut payments = Payments { esplora: Some(esplora), ..Payments::default() };
        let mut cluster = Cluster::default();
        assert_eq!(wrong(&payments, &cluster), Vec::<String>::new(), "a node that is alone makes its own");
        cluster.redis_url = Some(Secret::new("redis://127.0.0.1:6379"));
        let found = wrong(&payments, &cluster);
        assert!(
            found[0].contains("`payments.key`") && found[0].contains("openssl rand -hex 32"),
            "{found:?}"
        );
        assert!(found[1].contains("`cluster.kafka_brokers`"), "{found:?}");
        cluster.kafka_brokers = "127.0.0.1:9092".into();
        payments.key = Some(Secret::new("short"));
        assert!(wrong(&payments, &cluster)[0].contains("32 bytes"));
        payments.key = Some(Secret::new("0123456789abcdef0123456789abcdef"));
        assert_eq!(wrong(&payments, &cluster), Vec::<String>::new());
    }
}
