//! Payouts: public descriptors from which addresses are made. Nothing that can spend is taken.
//!
//! Understood are output descriptors with one wildcard, and bare account keys as wallets export them: xpub
//! and tpub (with `wpkh`), zpub and vpub (SLIP-132, native segwit), ypub and upub (segwit in P2SH).
//! Whatever is private is refused, and no error repeats what was given.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::base58;
use miniscript::descriptor::{Descriptor, DescriptorPublicKey};

use super::wallet::hex;

/// A longer text is refused unread.
const TEXT_BYTES_MAX: usize = 2_000;

/// Why a payout is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayoutError {
    #[error(
        "this is a private key or seed, which can spend: it was not kept. Treat it as known to others now, and give \
         the public one: xpub, zpub, or a descriptor with it"
    )]
    Private,
    #[error("this key is for another network than this server's, which is {0}")]
    Network(Network),
    #[error(
        "the descriptor needs one wildcard, such as in wpkh(xpub…/0/*), so that each invoice has its own address"
    )]
    NoWildcard,
    #[error("this is no output descriptor and no account key (xpub, ypub, zpub, tpub, upub, vpub)")]
    Malformed,
}

/// Where money goes: a public descriptor with one wildcard, for one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payout {
    descriptor: Arc<Descriptor<DescriptorPublicKey>>,
    network: Network,
}

/// How a bare key's prefix says that its addresses are made (SLIP-132).
#[derive(Clone, Copy)]
enum Script {
    Wpkh,
    ShWpkh,
}

/// Version bytes of public keys, their script, and whether they are for mainnet.
const PREFIXES: [([u8; 4], Script, bool); 6] = [
    ([0x04, 0x88, 0xb2, 0x1e], Script::Wpkh, true),
    ([0x04, 0x9d, 0x7c, 0xb2], Script::ShWpkh, true),
    ([0x04, 0xb2, 0x47, 0x46], Script::Wpkh, true),
    ([0x04, 0x35, 0x87, 0xcf], Script::Wpkh, false),
    ([0x04, 0x4a, 0x52, 0x62], Script::ShWpkh, false),
    ([0x04, 0x5f, 0x1c, 0xf6], Script::Wpkh, false),
];

impl Payout {
    /// # Errors
    /// [`PayoutError`].
    pub fn parse(text: &str, network: Network) -> Result<Self, PayoutError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(PayoutError::Malformed);
        }
        if is_private(text) {
            return Err(PayoutError::Private);
        }
        let text = if text.contains('(') { text.to_owned() } else { from_bare_key(text, network)? };
        let descriptor = Descriptor::<DescriptorPublicKey>::from_str(&text);
        let descriptor = descriptor.map_err(|_| PayoutError::Malformed)?;
        if !descriptor.has_wildcard() || descriptor.is_multipath() || descriptor.sanity_check().is_err() {
            return Err(PayoutError::NoWildcard);
        }
        let payout = Self { descriptor: Arc::new(descriptor), network };
        payout.check_network()?;
        payout.address(0).ok_or(PayoutError::Malformed)?;
        Ok(payout)
    }

    fn check_network(&self) -> Result<(), PayoutError> {
        use miniscript::ForEachKey;
        let is_main = self.network == Network::Bitcoin;
        let fits = self.descriptor.for_each_key(|key| match key {
            DescriptorPublicKey::XPub(key) => key.xkey.network.is_mainnet() == is_main,
            DescriptorPublicKey::MultiXPub(key) => key.xkey.network.is_mainnet() == is_main,
            DescriptorPublicKey::Single(_) => true,
        });
        if fits { Ok(()) } else { Err(PayoutError::Network(self.network)) }
    }

    /// The address at this place.
    pub fn address(&self, index: u32) -> Option<String> {
        let at = self.descriptor.at_derivation_index(index).ok()?;
        at.address(self.network).ok().map(|address| address.to_string())
    }

    /// The wallet whose addresses these are; the same for the same descriptor.
    pub fn profile(&self) -> String {
        let text = self.descriptor.to_string();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        hex(&digest.as_ref()[..8])
    }

    /// The descriptor with its checksum.
    pub fn text(&self) -> String {
        self.descriptor.to_string()
    }
}

/// Anything that may be able to spend: extended private keys of every kind, WIF, seed words.
fn is_private(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() >= 12 && words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())) {
        return true;
    }
    let is_key = |c: char| c.is_ascii_alphanumeric();
    text.split(|c| !is_key(c)).any(|part| {
        let extended = part.len() > 100
            && ["xprv", "yprv", "zprv", "tprv", "uprv", "vprv", "Yprv", "Zprv", "Uprv", "Vprv"]
                .iter()
                .any(|prefix| part.starts_with(prefix));
        extended || bitcoin::PrivateKey::from_wif(part).is_ok()
    })
}

/// A descriptor of a bare account key: its receive branch.
fn from_bare_key(text: &str, network: Network) -> Result<String, PayoutError> {
    let mut bytes = base58::decode_check(text).map_err(|_| PayoutError::Malformed)?;
    if bytes.len() != 78 {
        return Err(PayoutError::Malformed);
    }
    let found = PREFIXES.iter().find(|(prefix, _, _)| bytes[..4] == *prefix);
    let &(_, script, is_main) = found.ok_or(PayoutError::Malformed)?;
    if is_main != (network == Network::Bitcoin) {
        return Err(PayoutError::Network(network));
    }
    let plain = if is_main { PREFIXES[0].0 } else { PREFIXES[3].0 };
    bytes[..4].copy_from_slice(&plain);
    let key = base58::encode_check(&bytes);
    Ok(match script {
        Script::Wpkh => format!("wpkh({key}/0/*)"),
        Script::ShWpkh => format!("sh(wpkh({key}/0/*))"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BIP 84's own example: its account key, its zpub, and its first addresses.
    const ZPUB: &str = "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
    const FIRST: &str = "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu";
    const SECOND: &str = "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g";
    const ZPRV: &str = "zprvAdG4iTXWBoARxkkzNpNh8r6Qag3irQB8PzEMkAFeTRXxHpbF9z4QgEvBRmfvqWvGp42t42nvgGpNgYSJA9iefm1yYNZKEm7z6qUWCroSQnE";

    #[test]
    fn a_zpub_makes_the_addresses_of_its_standard() {
        let payout = Payout::parse(&format!(" {ZPUB}\n"), Network::Bitcoin).unwrap();
        assert_eq!(payout.address(0).as_deref(), Some(FIRST));
        assert_eq!(payout.address(1).as_deref(), Some(SECOND));
        let again = Payout::parse(&payout.text(), Network::Bitcoin).unwrap();
        assert_eq!(again, payout);
        assert_eq!(again.profile(), payout.profile());
    }

    /// The same key, said with another prefix (SLIP-132).
    fn prefixed(key: &str, version: [u8; 4]) -> String {
        let mut bytes = base58::decode_check(key).unwrap();
        bytes[..4].copy_from_slice(&version);
        base58::encode_check(&bytes)
    }

    #[test]
    fn each_prefix_makes_the_addresses_that_its_wallet_shows() {
        const TPUB: &str = "tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp";
        let first = |key: &str, network| Payout::parse(key, network).unwrap().address(0).unwrap();
        let (ypub, upub) =
            (prefixed(ZPUB, [0x04, 0x9d, 0x7c, 0xb2]), prefixed(TPUB, [0x04, 0x4a, 0x52, 0x62]));
        let vpub = prefixed(TPUB, [0x04, 0x5f, 0x1c, 0xf6]);
        assert!(ypub.starts_with("ypub") && upub.starts_with("upub") && vpub.starts_with("vpub"));
        assert!(first(&ypub, Network::Bitcoin).starts_with('3'), "wrapped");
        assert!(first(&upub, Network::Regtest).starts_with('2'), "wrapped");
        let xpub = prefixed(ZPUB, [0x04, 0x88, 0xb2, 0x1e]);
        assert_eq!(first(&xpub, Network::Bitcoin), FIRST, "without a word the newest kind");
        assert_eq!(first(&vpub, Network::Regtest), first(TPUB, Network::Regtest));
        assert!(first(&vpub, Network::Regtest).starts_with("bcrt1q"));
    }

    #[test]
    fn what_can_spend_is_refused_and_not_repeated() {
        let wif = "5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss";
        let words =
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        for secret in [ZPRV, &format!("wpkh({ZPRV}/0/*)"), wif, &format!("wpkh({wif})"), words] {
            let error = Payout::parse(secret, Network::Bitcoin).unwrap_err();
            assert_eq!(error, PayoutError::Private);
            assert!(!error.to_string().contains(secret));
        }
    }

    #[test]
    fn a_key_of_another_network_is_refused() {
        assert_eq!(Payout::parse(ZPUB, Network::Regtest), Err(PayoutError::Network(Network::Regtest)));
        let main = Payout::parse(ZPUB, Network::Bitcoin).unwrap().text();
        assert_eq!(Payout::parse(&main, Network::Regtest), Err(PayoutError::Network(Network::Regtest)));
    }

    #[test]
    fn one_wildcard_is_needed_and_nonsense_is_refused() {
        let one = Payout::parse(ZPUB, Network::Bitcoin).unwrap().text().replace("/0/*", "/0/1");
        let one = one.split('#').next().unwrap();
        assert_eq!(Payout::parse(one, Network::Bitcoin), Err(PayoutError::NoWildcard));
        for text in ["", "xpub", "wpkh()", "wpkh(", FIRST, &"x".repeat(3_000)] {
            assert_eq!(Payout::parse(text, Network::Bitcoin), Err(PayoutError::Malformed), "{text}");
        }
    }
}
