//! Webhooks: tells an owner's server what happened to money in a room, signed, in order, at least once.
//!
//! The facts in the event log are the outbox, so nothing is lost by a kill, and how far each room's receiver
//! is stands there, too, so that the next node to keep the ledger goes on. A delivery that fails is tried
//! again for an hour, then given up and counted, so that one dead receiver does not hold what comes after it
//! for ever. Addresses that owners give never lead into this machine's own networks: what a name resolves to
//! is looked at, and that very address is called.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::sync::watch;

use super::gap;
use super::wallet::hex;
use crate::control::unix_ms;
use crate::core::event::{Event, EventBody, EventId};
use crate::core::ids::RoomName;
use crate::events::writer::EventWriter;
use crate::mailbox::Refused;

/// How long a receiver may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pauses between the tries of one delivery.
const PAUSES_S: [u64; 8] = [10, 60, 600, 600, 600, 600, 600, 600];
/// How often the log is looked at for what is new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PAGE: u32 = 100;
/// Characters of a receiver's URL.
const URL_CHARS_MAX: usize = 500;

/// Where a room's facts are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub url: String,
    pub secret: String,
    /// The last event that it was told.
    pub told: Option<EventId>,
}

impl Hook {
    fn is_of_same_receiver(&self, other: &Self) -> bool {
        self.url == other.url && self.secret == other.secret
    }
}

/// Keeps how far a room's receiver is. Where it fails nobody waits for it any more.
pub type Tell = Arc<dyn Fn(RoomName, EventId) -> BoxFuture<'static, Result<(), Refused>> + Send + Sync>;

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error(
        "a webhook's URL is such as https://shop.example.org/antiphon: https, no user, at most 500 characters"
    )]
    Url,
    #[error("the webhook's host has no address that this server may call: private networks are barred")]
    Barred,
}

/// Whether a URL may be called at all. Under `--dev` a plain one on loopback may, for trying things out.
///
/// # Errors
/// [`HookError`]. A name is looked up when it is called, and anew each time.
pub fn check_url(text: &str, dev: bool) -> Result<reqwest::Url, HookError> {
    let url = reqwest::Url::parse(text).map_err(|_| HookError::Url)?;
    let local = dev && url.scheme() == "http" && url.host_str() == Some("127.0.0.1");
    let plain = url.username().is_empty() && url.password().is_none() && url.host_str().is_some();
    let fits = plain && (url.scheme() == "https" || local) && text.len() <= URL_CHARS_MAX;
    if !fits {
        return Err(HookError::Url);
    }
    let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if literal.is_some_and(|ip| !local && !is_public(ip)) { Err(HookError::Barred) } else { Ok(url) }
}

/// May an owner have this server call that address?
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_documentation();
            // This network, carrier NAT (RFC 6598), protocol assignments, benchmarks (RFC 2544), reserved.
            let other = a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
                || ip.octets()[..3] == [192, 0, 0];
            !special && !other
        }
        IpAddr::V6(ip) => {
            let head = ip.segments();
            // Global unicast alone, and none that carries an IPv4 address within: Teredo, 6to4,
            // documentation.
            let carries = (head[0] == 0x2001 && (head[1] == 0 || head[1] == 0xdb8)) || head[0] == 0x2002;
            head[0] & 0xe000 == 0x2000 && !carries
        }
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 of the time, a point and the body, so that an old delivery cannot be
/// played again.
pub fn signature(secret: &str, at_s: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at_s}.{body}").as_bytes());
    format!("t={at_s},v1={}", hex(tag.as_ref()))
}

/// Names a fact among those of all rooms, in letters that any header takes.
fn delivery_id(room: &RoomName, id: &EventId) -> String {
    let digest = digest(&SHA256, format!("{room}/{id}").as_bytes());
    hex(&digest.as_ref()[..16])
}

/// Delivers for as long as the node lives; one courier for each room that has a hook.
pub fn spawn(
    events: EventWriter,
    hooks: watch::Receiver<Arc<BTreeMap<RoomName, Hook>>>,
    told: Tell,
    dev: bool,
) {
    tokio::spawn(async move {
        let mut couriers = BTreeMap::new();
        let mut hooks = hooks;
        loop {
            let wanted = Arc::clone(&hooks.borrow_and_update());
            couriers.retain(|room, (hook, task): &mut (Hook, tokio::task::JoinHandle<()>)| {
                let stays = wanted.get(room).is_some_and(|wanted| wanted.is_of_same_receiver(hook));
                if !stays {
                    task.abort();
                }
                stays
            });
            for (room, hook) in
                wanted.iter().filter(|(room, _)| !couriers.contains_key(*room)).collect::<Vec<_>>()
            {
                let courier = Courier { room: room.clone(), hook: hook.clone(), events: events.clone(), dev };
                couriers.insert(room.clone(), (hook.clone(), tokio::spawn(courier.run(Arc::clone(&told)))));
            }
            if hooks.changed().await.is_err() {
                return;
            }
        }
    });
}

struct Courier {
    room: RoomName,
    hook: Hook,
    events: EventWriter,
    dev: bool,
}

impl Courier {
    async fn run(self, told: Tell) {
        let mut after = self.start().await;
        loop {
            let Ok(page) = self.events.events(self.room.clone(), after, PAGE).await else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            if page.is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            for recorded in page {
                after = recorded.offset;
                let EventBody::Ledger(fact) = &recorded.event.body else { continue };
                if !fact.is_news() {
                    continue;
                }
                self.deliver(&recorded.event).await;
                gap::reach_notice(fact);
                if told(self.room.clone(), recorded.event.id.clone()).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Where to go on in this node's log: behind the last that was told.
    async fn start(&self) -> u64 {
        let Some(last) = &self.hook.told else { return 0 };
        loop {
            match self.events.place(self.room.clone(), last.clone()).await {
                Ok(place) => return place.unwrap_or(0),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn deliver(&self, event: &Event) {
        let body = json!({
            "id": event.id, "room": event.room, "at_ms": event.at_ms, "event": event.body,
        })
        .to_string();
        for pause_s in PAUSES_S.map(Some).into_iter().chain([None]) {
            let outcome = self.post(event, &body).await;
            let label = match outcome {
                Outcome::Taken => "taken",
                Outcome::Refused => "refused",
                Outcome::Failed => "failed",
            };
            metrics::counter!("antiphon_webhooks_total", "outcome" => label).increment(1);
            match (outcome, pause_s) {
                (Outcome::Failed, Some(pause_s)) => tokio::time::sleep(Duration::from_secs(pause_s)).await,
                (Outcome::Taken, _) => return,
                (Outcome::Refused | Outcome::Failed, _) => {
                    tracing::warn!(room = %self.room, "a webhook was given up: its receiver did not take it");
                    return;
                }
            }
        }
    }

    async fn post(&self, event: &Event, body: &str) -> Outcome {
        let Ok(client) = client(&self.hook.url, self.dev).await else {
            super::refused("webhook");
            return Outcome::Failed;
        };
        let signed = signature(&self.hook.secret, unix_ms() / 1_000, body);
        let request = client
            .post(&self.hook.url)
            .header("content-type", "application/json")
            .header("antiphon-delivery", delivery_id(&event.room, &event.id))
            .header("antiphon-signature", signed)
            .body(body.to_owned());
        match request.send().await.map(|answer| answer.status().as_u16()) {
            Ok(200..=299) => Outcome::Taken,
            Err(_) | Ok(408 | 429 | 500..=599) => Outcome::Failed,
            Ok(_) => Outcome::Refused,
        }
    }
}

/// A client that reaches the receiver at an address that was looked at, and goes nowhere else from there.
async fn client(url: &str, dev: bool) -> Result<reqwest::Client, HookError> {
    let url = check_url(url, dev)?;
    let host = url.host_str().ok_or(HookError::Url)?.to_owned();
    let port = url.port_or_known_default().ok_or(HookError::Url)?;
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let may_call = |at: &SocketAddr| is_public(at.ip()) || (dev && at.ip().is_loopback());
    let address = found.map_err(|_| HookError::Barred)?.find(may_call).ok_or(HookError::Barred)?;
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).redirect(Policy::none()).no_proxy();
    client.resolve(&host, address).build().map_err(|_| HookError::Barred)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// For good: trying again would be refused again.
    Refused,
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_barred_however_they_are_written() {
        for barred in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "2001:0:1::",
            "64:ff9b::7f00:1",
            "2001:db8::1",
        ] {
            assert!(!is_public(barred.parse().unwrap()), "{barred}");
        }
        for public in ["93.184.215.14", "2606:2800:21f:cb07::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn only_https_without_a_user_is_called() {
        assert!(check_url("https://shop.example.org/hook?x=1", false).is_ok());
        for bad in ["http://shop.example.org/", "https://user:pw@example.org/", "ftp://example.org", "x", ""]
        {
            assert_eq!(check_url(bad, false), Err(HookError::Url), "{bad}");
        }
        assert_eq!(check_url("http://127.0.0.1:1/", false), Err(HookError::Url));
        assert!(check_url("http://127.0.0.1:1/", true).is_ok());
        assert_eq!(check_url("http://10.0.0.1:1/", true), Err(HookError::Url));
        for barred in
            ["https://169.254.169.254/latest", "https://[::1]/", "https://127.1/", "https://0x7f000001/"]
        {
            assert_eq!(check_url(barred, true), Err(HookError::Barred), "{barred}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_into_a_private_network_is_not_called() {
        // Fit to be written down: where a name leads is known only when it is called.
        assert!(check_url("https://localhost/hook", false).is_ok());
        assert_eq!(client("https://localhost/hook", false).await.err(), Some(HookError::Barred));
    }

    #[test]
    fn a_delivery_has_a_name_of_its_own_whoever_it_is_about() {
        let id = |room: &str, id: &str| {
            delivery_id(&RoomName::parse(room).unwrap(), &EventId::from_stored(id.to_owned()))
        };
        assert_eq!(id("show", "trial:Zo\u{eb}"), id("show", "trial:Zo\u{eb}"));
        assert_ne!(id("show", "offer:1"), id("shop", "offer:1"));
        assert!(id("show", "trial:Zo\u{eb}").bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn a_signature_is_of_the_time_and_the_body() {
        let one = signature("secret", 5, "{}");
        assert!(one.starts_with("t=5,v1=") && one.len() == 7 + 64);
        assert_ne!(one, signature("secret", 6, "{}"));
        assert_ne!(one, signature("other", 5, "{}"));
        assert_ne!(one, signature("secret", 5, "{ }"));
    }
}
