//! Wishes on their way to the node that keeps the ledger, and answers on their way back.
//!
//! Both are signed by the secret that the nodes share, with a time and a number that is taken once, so that
//! neither can be made up or played again. They carry no secret. A wish that may have been heard is not said
//! again; one that was not heard, or reached a node that does not keep the ledger, is, for some seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::BillingKey;
use super::wish::{Declined, Done, Outcome, Wish, moving};
use crate::control::{Control, unix_ms};
use crate::core::refusal::{Code, Refusal};

/// Where a node takes wishes of others.
pub const PATH: &str = "/cluster/wishes";
/// Carries the signature, both ways.
pub const SIGNATURE: &str = "antiphon-signature";
/// How long a keeper is looked for: a lease runs out and another node opens the ledger.
const LOOK_WITHIN: Duration = Duration::from_secs(12);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// For an answer: the keeper itself waits some seconds for its Lightning node.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// For what another node wrote to be read here.
const FOLLOW_WITHIN: Duration = Duration::from_secs(5);
/// How far two nodes' clocks may be apart, ms.
const CLOCKS_APART_MS: u64 = 60_000;
/// Numbers of wishes that are remembered. Full: wishes are refused until the oldest are out of time.
const HEARD_MAX: usize = 65_536;

#[derive(Serialize, Deserialize)]
struct Passed {
    at_ms: u64,
    number: u64,
    wish: Wish,
}

#[derive(Serialize, Deserialize)]
struct Answered {
    /// Of the wish.
    number: u64,
    answer: Result<Done, Declined>,
}

/// What became of a wish at another node.
enum Sent {
    Answered(Result<Done, Declined>),
    /// Nobody heard it.
    Unheard,
    /// It may have been done.
    Unknown,
}

/// The way to the keeper; cheap to clone.
#[derive(Clone)]
pub struct Passing {
    key: BillingKey,
    control: Control,
    client: reqwest::Client,
    /// How many facts are known here.
    followed: watch::Receiver<u64>,
    /// Numbers that were taken, and when.
    heard: Arc<Mutex<BTreeMap<u64, u64>>>,
    /// Where the keeper was last, for while the registry cannot be asked.
    last: Arc<Mutex<Option<String>>>,
}

impl Passing {
    pub fn new(key: BillingKey, control: Control, followed: watch::Receiver<u64>) -> Self {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().unwrap_or_default();
        Self { key, control, client, followed, heard: Arc::default(), last: Arc::default() }
    }

    /// Has a wish done by whoever keeps the ledger: `here`, or by another node.
    ///
    /// # Errors
    /// What the keeper refuses, and `unavailable` without one.
    pub async fn wish<F>(&self, wish: Wish, here: impl Fn(Wish) -> F) -> Result<Outcome, Refusal>
    where
        F: Future<Output = Result<Done, Declined>>,
    {
        let deadline = Instant::now() + LOOK_WITHIN;
        loop {
            let answer = match here(wish.clone()).await {
                Err(Declined::NotHere) => self.pass(&wish).await?,
                answer => answer,
            };
            match answer {
                Ok(done) => return self.follow(done).await,
                Err(Declined::Refused(refusal)) => return Err(refusal),
                Err(Declined::NotHere) if Instant::now() >= deadline => return Err(moving()),
                Err(Declined::NotHere) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until what a wish changed is known here.
    async fn follow(&self, done: Done) -> Result<Outcome, Refusal> {
        let mut followed = self.followed.clone();
        let known = followed.wait_for(|facts| *facts >= done.facts);
        match tokio::time::timeout(FOLLOW_WITHIN, known).await {
            Ok(Ok(_)) => Ok(done.outcome),
            _ => Err(Refusal::new(
                Code::Unavailable,
                "it was done, and this node has not read it from the shared log yet: look again in a moment",
            )),
        }
    }

    async fn pass(&self, wish: &Wish) -> Result<Result<Done, Declined>, Refusal> {
        let Some(url) = self.keeper().await else { return Ok(Err(Declined::NotHere)) };
        let sent = self.send(&url, wish).await;
        let label = match &sent {
            Sent::Answered(Ok(_)) => "done",
            Sent::Answered(Err(Declined::Refused(_))) => "refused",
            Sent::Answered(Err(Declined::NotHere)) | Sent::Unheard => "again",
            Sent::Unknown => "lost",
        };
        counter!("antiphon_ledger_wishes_total", "outcome" => label).increment(1);
        match sent {
            Sent::Answered(answer) => Ok(answer),
            Sent::Unheard => Ok(Err(Declined::NotHere)),
            Sent::Unknown => Err(Refusal::new(
                Code::Unavailable,
                "the node that keeps the ledger did not answer: look whether it was done, and try again",
            )),
        }
    }

    async fn keeper(&self) -> Option<String> {
        let mut found = self.control.ledger_home().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut found {
            Ok(url) => last.clone_from(url),
            Err(_) => return last.clone(),
        }
        last.clone()
    }

    async fn send(&self, url: &str, wish: &Wish) -> Sent {
        let number = rand::random();
        let passed = Passed { at_ms: unix_ms(), number, wish: wish.clone() };
        // Plain data always has a JSON form.
        let text = serde_json::to_string(&passed).unwrap_or_default();
        let request = self.client.post(format!("{url}{PATH}"));
        let request = request.header(SIGNATURE, self.key.sign("wish", &text)).body(text);
        let response = match request.send().await {
            Ok(response) if response.status() == 200 => response,
            // By something between the nodes, which may have passed it on.
            Ok(response) if [500, 502, 504].contains(&response.status().as_u16()) => return Sent::Unknown,
            // Who answers otherwise is no keeper, or has another secret, which it says in its log.
            Ok(_) => return Sent::Unheard,
            Err(error) if error.is_connect() => return Sent::Unheard,
            Err(_) => return Sent::Unknown,
        };
        let signature = response.headers().get(SIGNATURE).and_then(|value| value.to_str().ok());
        let signature = signature.unwrap_or_default().to_owned();
        let Ok(text) = response.text().await else { return Sent::Unknown };
        if !self.key.is_signed("answer", &text, &signature) {
            return Sent::Unknown;
        }
        match serde_json::from_str::<Answered>(&text) {
            Ok(answered) if answered.number == number => Sent::Answered(answered.answer),
            _ => Sent::Unknown,
        }
    }

    /// Takes a wish of another node; the answer, and its signature.
    ///
    /// # Errors
    /// `unauthorized` for what is not signed, out of time or was heard; `malformed`; `unavailable`.
    pub async fn take<F>(
        &self,
        text: &str,
        signature: &str,
        here: impl FnOnce(Wish) -> F,
    ) -> Result<(String, String), Refusal>
    where
        F: Future<Output = Result<Done, Declined>>,
    {
        let Passed { number, wish, .. } = self.check(text, signature, unix_ms())?;
        let answered = Answered { number, answer: here(wish).await };
        let text = serde_json::to_string(&answered).unwrap_or_default();
        let signature = self.key.sign("answer", &text);
        Ok((text, signature))
    }

    fn check(&self, text: &str, signature: &str, now_ms: u64) -> Result<Passed, Refusal> {
        let unauthorized = |words: &str| {
            counter!("antiphon_ledger_wishes_refused_total").increment(1);
            tracing::warn!(words, "a wish about money was refused");
            Refusal::new(Code::Unauthorized, words)
        };
        if !self.key.is_signed("wish", text, signature) {
            return Err(unauthorized("the wish is not signed by the `payments.key` of this node"));
        }
        let passed: Passed = serde_json::from_str(text)
            .map_err(|_| Refusal::new(Code::Malformed, "the wish is of another version"))?;
        if passed.at_ms.abs_diff(now_ms) > CLOCKS_APART_MS {
            return Err(unauthorized("the wish is out of time: set the nodes' clocks"));
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= HEARD_MAX {
            heard.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) <= 2 * CLOCKS_APART_MS);
        }
        if heard.len() >= HEARD_MAX {
            return Err(super::overloaded());
        }
        if heard.insert(passed.number, now_ms).is_some() {
            return Err(unauthorized("the wish was heard before"));
        }
        Ok(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::core::ids::RoomName;

    fn passing(secret: &str) -> Passing {
        let key = BillingKey::of_secret(&Secret::new(secret));
        let (_, followed) = watch::channel(0);
        Passing::new(key, Control::unplugged(), followed)
    }

    fn passed(number: u64, at_ms: u64) -> String {
        let wish = Wish::Webhook { room: RoomName::parse("show").unwrap(), url: None, by: None };
        serde_json::to_string(&Passed { at_ms, number, wish }).unwrap()
    }

    #[tokio::test]
    async fn a_wish_is_taken_once_in_time_and_from_who_knows_the_secret() {
        let (keeper, stranger) = (passing("the secret of all nodes"), passing("another one"));
        let code = |text: &str, by: &Passing, now_ms| {
            let signature = by.key.sign("wish", text);
            keeper.check(text, &signature, now_ms).map(|passed| passed.number).map_err(|refusal| refusal.code)
        };
        let now_ms = 10_000_000;
        assert_eq!(code(&passed(1, now_ms), &keeper, now_ms), Ok(1));
        assert_eq!(code(&passed(1, now_ms), &keeper, now_ms), Err(Code::Unauthorized), "played again");
        assert_eq!(code(&passed(2, now_ms), &stranger, now_ms), Err(Code::Unauthorized));
        assert_eq!(code(&passed(3, now_ms), &keeper, now_ms + 60_001), Err(Code::Unauthorized), "too late");
        assert_eq!(code(&passed(4, now_ms + 60_001), &keeper, now_ms), Err(Code::Unauthorized), "too early");
        assert_eq!(code("{}", &keeper, now_ms), Err(Code::Malformed));
        let text = passed(5, now_ms);
        let other = text.replace("show", "shop");
        assert_ne!(text, other);
        let signature = keeper.key.sign("wish", &text);
        assert!(keeper.check(&other, &signature, now_ms).is_err(), "another wish by the same signature");
        assert!(keeper.check(&text, &signature, now_ms).is_ok());
    }

    #[tokio::test]
    async fn an_answer_is_signed_and_says_what_was_declined() {
        let keeper = passing("the secret of all nodes");
        let text = passed(7, unix_ms());
        let signature = keeper.key.sign("wish", &text);
        let (answer, signed) =
            keeper.take(&text, &signature, async |_| Err(Declined::NotHere)).await.unwrap();
        assert!(keeper.key.is_signed("answer", &answer, &signed));
        let answered: Answered = serde_json::from_str(&answer).unwrap();
        assert_eq!(answered.number, 7);
        assert!(matches!(answered.answer, Err(Declined::NotHere)));
    }
}
