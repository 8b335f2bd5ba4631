//! The registry in Redis: one server, one behind Sentinel, or a Cluster.
//!
//! Each change is a Lua script on one key, which Redis runs as one step and times by its own clock. A room's
//! key carries a hash tag, so that in a Cluster rooms are spread and each is whole. A room's epoch stays when
//! its lease runs out; what a crash or a failover of Redis loses is made good by the epoch floor of the log,
//! and by holders who say again what they hold.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::cluster::{ClusterClient, TlsMode};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{
    SentinelClient, SentinelClientBuilder, SentinelNodeConnectionInfo, SentinelServerType,
};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    Script, TlsCertificates,
};
use tokio::sync::{Mutex, OnceCell};
use tracing::{Instrument as _, Span};

use super::{Answer, Bid, Claim, Known, Lease, LeaseError, Leases, Pulse};
use crate::config::Secret;
use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{NodeRecord, Owner, Renewal};

const CONNECT_WITHIN: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A whole call, with a connection made anew.
const CALL_WITHIN: Duration = Duration::from_millis(1_200);
/// For replicas to have a claim.
const REPLICATE_WITHIN: Duration = Duration::from_millis(300);
/// How long an epoch is remembered here after its last renewal; later the log alone knows it.
const EPOCH_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Beyond a lease's time, for holders to say again what they hold after the registry was emptied.
const SETTLE_MARGIN: Duration = Duration::from_millis(500);
const NODES: &str = "an:nodes";

/// A script and its name, which spans have.
struct Named {
    name: &'static str,
    script: Script,
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        static $name: LazyLock<Named> =
            LazyLock::new(|| Named { name: $file, script: Script::new(include_str!($file)) });
    };
}

script!(AGE, "scripts/age.lua");
script!(CLAIM, "scripts/claim.lua");
script!(HAND_OVER, "scripts/hand_over.lua");
script!(HEARTBEAT, "scripts/heartbeat.lua");
script!(LOOK_UP, "scripts/look_up.lua");
script!(RELEASE, "scripts/release.lua");
script!(RENEW, "scripts/renew.lua");
script!(SIGN_OFF, "scripts/sign_off.lua");

/// An address of Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "accepted is redis://HOST:PORT, redis-sentinel://HOST:PORT,HOST:PORT/MASTER or \
         redis-cluster://HOST:PORT,HOST:PORT, with rediss in place of redis by TLS, and with USER:PASSWORD@ \
         before the first host if needed"
    )]
    Form,
    #[error("`cluster.redis_ca_file`: {0}")]
    Authorities(String),
    #[error("the client refuses it: {0}")]
    Refused(String),
}

impl From<RedisError> for AddressError {
    fn from(error: RedisError) -> Self {
        Self::Refused(error.category().to_owned())
    }
}

/// [`Leases`] in Redis.
pub struct RedisLeases {
    link: Link,
    ttl: Duration,
    /// How long a room whose holder is gone waits for the next.
    orphan_kept: Duration,
    /// A claim counts once so many replicas have it.
    replicas: u32,
}

enum Link {
    Single(ConnectionManager),
    Sentinel(Box<Mutex<Master>>),
    Cluster(Box<ClusterClient>, OnceCell<ClusterConnection>),
}

/// The master that Sentinel named last.
struct Master {
    client: SentinelClient,
    connection: Option<MultiplexedConnection>,
}

impl RedisLeases {
    /// Connects when first used. Within a runtime only.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(
        url: &Secret,
        ca_file: Option<&Path>,
        ttl: Duration,
        orphan_kept: Duration,
        replicas: u32,
    ) -> Result<Self, AddressError> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| AddressError::Authorities(format!("{}: {error}", path.display())))
        };
        let authorities = ca_file.map(read).transpose()?;
        Ok(Self { link: Link::new(url.reveal(), authorities)?, ttl, orphan_kept, replicas })
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Named,
        key: &str,
        args: &[&str],
    ) -> Result<T, LeaseError> {
        // What is asked for nobody's request, such as each second's renewals, is in no trace.
        let span = if Span::current().is_none() {
            Span::none()
        } else {
            tracing::info_span!("redis", otel.kind = "client", db.system.name = "redis", script = script.name)
        };
        self.ask(script, key, args).instrument(span).await
    }

    async fn ask<T: FromRedisValue>(
        &self,
        script: &Named,
        key: &str,
        args: &[&str],
    ) -> Result<T, LeaseError> {
        let mut call = script.script.prepare_invoke();
        call.key(key);
        for arg in args {
            call.arg(*arg);
        }
        let asked = async {
            match &self.link {
                Link::Single(connection) => call.invoke_async(&mut connection.clone()).await,
                Link::Sentinel(master) => call.invoke_async(&mut connect_to(master).await?).await,
                Link::Cluster(client, connection) => {
                    let connection = connection.get_or_try_init(|| client.get_async_connection()).await?;
                    call.invoke_async(&mut connection.clone()).await
                }
            }
        };
        let result = match tokio::time::timeout(CALL_WITHIN, asked).await {
            Ok(result) => result.map_err(|error| explain(&error)),
            Err(_) => Err(LeaseError::Unreachable("no answer in time".into())),
        };
        if result.is_err()
            && let Link::Sentinel(master) = &self.link
        {
            // It may be no master any more; Sentinel is asked again.
            master.lock().await.connection = None;
        }
        result
    }

    /// Waits until enough replicas have what was written last.
    async fn replicate(&self) -> Result<(), LeaseError> {
        if self.replicas == 0 {
            return Ok(());
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.replicas).arg(REPLICATE_WITHIN.as_millis() as u64);
        let asked = async {
            match &self.link {
                Link::Single(connection) => wait.query_async::<u32>(&mut connection.clone()).await,
                Link::Sentinel(master) => wait.query_async(&mut connect_to(master).await?).await,
                // Which of its servers would wait is not ours to say: the epoch floor has to do.
                Link::Cluster(..) => Ok(self.replicas),
            }
        };
        match tokio::time::timeout(CALL_WITHIN, asked).await {
            Ok(Ok(count)) if count >= self.replicas => Ok(()),
            Ok(Ok(_)) => Err(LeaseError::Unreachable("too few replicas have the claim".into())),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(LeaseError::Unreachable("no answer in time".into())),
        }
    }

    /// How long those who hold rooms have yet to say so, after the registry was emptied.
    async fn settling(&self) -> Result<Duration, LeaseError> {
        let age: u64 = self.run(&AGE, NODES, &[]).await?;
        Ok((self.ttl + SETTLE_MARGIN).saturating_sub(Duration::from_millis(age)))
    }

    async fn take(&self, bid: &Bid) -> Result<Claim, LeaseError> {
        let settling = if bid.may_be_held { self.settling().await? } else { Duration::ZERO };
        let on_behalf = if bid.on_behalf { "1" } else { "0" };
        let args = [
            bid.node.as_str(),
            &bid.incarnation.to_string(),
            &bid.floor.to_string(),
            &millis(self.ttl),
            on_behalf,
            &millis(settling),
            &millis(self.orphan_kept),
            &millis(EPOCH_KEPT),
        ];
        let answer: Vec<String> = self.run(&CLAIM, &key(&bid.room), &args).await?;
        let words: Vec<&str> = answer.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["won", epoch, settings] => {
                self.replicate().await?;
                let settings = Some((*settings).to_owned()).filter(|settings| !settings.is_empty());
                Ok(Claim::Won { epoch: number(epoch)?, settings })
            }
            ["held", owner @ ..] => Ok(Claim::Held(read_owner(owner)?)),
            ["settling", ms] => Ok(Claim::Settling(Duration::from_millis(number(ms)?))),
            _ => Err(unreadable("a claim")),
        }
    }
}

impl Link {
    /// `authorities`, as PEM, are those by which a certificate is checked; absent, the system's.
    fn new(url: &str, authorities: Option<Vec<u8>>) -> Result<Self, AddressError> {
        let has_tls = url.starts_with("rediss");
        let scheme = if has_tls { "rediss" } else { "redis" };
        let certificates = TlsCertificates { client_tls: None, root_cert: authorities };
        let rest = url.strip_prefix(scheme).ok_or(AddressError::Form)?;
        if let Some(rest) = rest.strip_prefix("-sentinel://") {
            let (hosts, master) = rest.rsplit_once('/').ok_or(AddressError::Form)?;
            let client = if has_tls {
                secure_sentinel(hosts, master, certificates)?
            } else {
                let node = Some(SentinelNodeConnectionInfo::default());
                SentinelClient::build(each(hosts, scheme)?, master, node, SentinelServerType::Master)?
            };
            return Ok(Self::Sentinel(Box::new(Mutex::new(Master { client, connection: None }))));
        }
        if let Some(hosts) = rest.strip_prefix("-cluster://") {
            let builder = ClusterClient::builder(each(hosts, scheme)?)
                .connection_timeout(CONNECT_WITHIN)
                .response_timeout(ANSWER_WITHIN)
                .retries(2);
            let builder = if has_tls { builder.certs(certificates) } else { builder };
            return Ok(Self::Cluster(Box::new(builder.build()?), OnceCell::new()));
        }
        if !rest.starts_with("://") {
            return Err(AddressError::Form);
        }
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(200));
        let client = if has_tls { Client::build_with_tls(url, certificates)? } else { Client::open(url)? };
        Ok(Self::Single(ConnectionManager::new_lazy_with_config(client, settings)?))
    }
}

/// `USER:PASSWORD@HOST:PORT,HOST:PORT` as one URL for each host.
fn each(hosts: &str, scheme: &str) -> Result<Vec<String>, AddressError> {
    let (who, hosts) = hosts.rsplit_once('@').map_or(("", hosts), |(who, hosts)| (who, hosts));
    let at = if who.is_empty() { String::new() } else { format!("{who}@") };
    let urls: Vec<_> = hosts
        .trim_end_matches('/')
        .split(',')
        .filter(|host| !host.is_empty())
        .map(|host| format!("{scheme}://{at}{host}"))
        .collect();
    if urls.is_empty() { Err(AddressError::Form) } else { Ok(urls) }
}

/// Speaks to all of them by TLS, with the same user and password.
fn secure_sentinel(
    hosts: &str,
    master: &str,
    certificates: TlsCertificates,
) -> Result<SentinelClient, AddressError> {
    let infos: Vec<ConnectionInfo> = each(hosts, "rediss")?
        .into_iter()
        .map(IntoConnectionInfo::into_connection_info)
        .collect::<Result<_, _>>()?;
    let addresses = infos.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_sentinel_tls_mode(TlsMode::Secure)
        .set_client_to_redis_tls_mode(TlsMode::Secure)
        .set_client_to_sentinel_certificates(certificates.clone())
        .set_client_to_redis_certificates(certificates);
    let who = infos.first().map(ConnectionInfo::redis_settings);
    if let Some(user) = who.and_then(|who| who.username()) {
        builder = builder.set_client_to_sentinel_username(user).set_client_to_redis_username(user);
    }
    if let Some(password) = who.and_then(|who| who.password()) {
        builder = builder.set_client_to_sentinel_password(password).set_client_to_redis_password(password);
    }
    Ok(builder.build()?)
}

async fn connect_to(master: &Mutex<Master>) -> Result<MultiplexedConnection, RedisError> {
    let mut master = master.lock().await;
    if let Some(connection) = &master.connection {
        return Ok(connection.clone());
    }
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(ANSWER_WITHIN));
    let connection = master.client.get_async_connection_with_config(&settings).await?;
    master.connection = Some(connection.clone());
    Ok(connection)
}

/// What went wrong, without an address.
fn explain(error: &RedisError) -> LeaseError {
    let words = error.category().to_owned();
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => LeaseError::Unreadable(words),
        _ => LeaseError::Unreachable(error.code().map_or(words, str::to_owned)),
    }
}

fn key(room: &RoomName) -> String {
    format!("an:{{r:{room}}}:own")
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn unreadable(what: &str) -> LeaseError {
    LeaseError::Unreadable(format!("{what} of another form"))
}

fn number(text: &str) -> Result<u64, LeaseError> {
    text.parse().map_err(|_| unreadable("a number"))
}

fn read_owner(words: &[&str]) -> Result<Owner, LeaseError> {
    let &[node, incarnation, epoch] = words else { return Err(unreadable("an owner")) };
    let node = NodeId::parse(node).map_err(|_| unreadable("a node's id"))?;
    Ok(Owner { node, incarnation: number(incarnation)?, epoch: number(epoch)? })
}

impl Leases for RedisLeases {
    fn heartbeat<'a>(&'a self, node: &'a NodeRecord) -> Answer<'a, Pulse> {
        async move {
            let record = serde_json::to_string(node).map_err(|_| unreadable("our own record"))?;
            let args = [node.id.as_str(), &node.incarnation.to_string(), &record, &millis(self.ttl)];
            let mut answer: Vec<String> = self.run(&HEARTBEAT, NODES, &args).await?;
            if answer.first().is_some_and(|kind| kind == "superseded") {
                return Ok(Pulse::Superseded);
            }
            // A record that cannot be read is of a version too far away to send anybody there.
            let nodes = answer.drain(..).skip(1).filter_map(|record| serde_json::from_str(&record).ok());
            let mut nodes: Vec<NodeRecord> = nodes.collect();
            nodes.sort_by(|one, other| one.id.cmp(&other.id));
            Ok(Pulse::Nodes(nodes))
        }
        .boxed()
    }

    fn sign_off<'a>(&'a self, node: &'a NodeId, incarnation: u64) -> Answer<'a, ()> {
        async move {
            let args = [node.as_str(), &incarnation.to_string()];
            self.run::<u8>(&SIGN_OFF, NODES, &args).await.map(drop)
        }
        .boxed()
    }

    fn look_up<'a>(&'a self, room: &'a RoomName) -> Answer<'a, Known> {
        async move {
            let answer: Vec<String> = self.run(&LOOK_UP, &key(room), &[&millis(self.orphan_kept)]).await?;
            let words: Vec<&str> = answer.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["free"] => Ok(Known::Free),
                ["orphaned"] => Ok(Known::Orphaned),
                ["held", owner @ ..] => Ok(Known::Held(read_owner(owner)?)),
                _ => Err(unreadable("a room")),
            }
        }
        .boxed()
    }

    fn claim<'a>(&'a self, bid: &'a Bid) -> Answer<'a, Claim> {
        self.take(bid).boxed()
    }

    fn renew<'a>(&'a self, lease: &'a Lease, settings: &'a str) -> Answer<'a, Renewal> {
        async move {
            let Lease { room, node, incarnation, epoch } = lease;
            let args = [
                node.as_str(),
                &incarnation.to_string(),
                &epoch.to_string(),
                &millis(self.ttl),
                settings,
                &millis(EPOCH_KEPT),
            ];
            let answer: String = self.run(&RENEW, &key(room), &args).await?;
            match answer.as_str() {
                "renewed" => Ok(Renewal::Renewed),
                "reasserted" => Ok(Renewal::Reasserted),
                "lost" => Ok(Renewal::Lost),
                _ => Err(unreadable("a renewal")),
            }
        }
        .boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease, ended: bool) -> Answer<'a, bool> {
        async move {
            let Lease { room, node, incarnation, epoch } = lease;
            let ended = if ended { "1" } else { "0" };
            let args =
                [node.as_str(), &incarnation.to_string(), &epoch.to_string(), ended, &millis(EPOCH_KEPT)];
            Ok(self.run::<u8>(&RELEASE, &key(room), &args).await? == 1)
        }
        .boxed()
    }

    fn hand_over<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a NodeId,
        incarnation: u64,
    ) -> Answer<'a, Option<u64>> {
        async move {
            let Lease { room, node, incarnation: own, epoch } = lease;
            let args = [
                node.as_str(),
                &own.to_string(),
                &epoch.to_string(),
                &millis(self.ttl),
                to.as_str(),
                &incarnation.to_string(),
            ];
            let answer: String = self.run(&HAND_OVER, &key(room), &args).await?;
            if answer.is_empty() { Ok(None) } else { number(&answer).map(Some) }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_names_one_server_sentinels_or_a_cluster() {
        for good in [
            "redis://127.0.0.1:6379",
            "redis://:secret@10.0.0.1/0",
            "redis-sentinel://10.0.0.1:26379,10.0.0.2:26379/main",
            "redis-cluster://u:p@10.0.0.1:7000,10.0.0.2:7000/",
            "rediss://10.0.0.1:6380",
            "rediss-sentinel://u:p@10.0.0.1:26379,10.0.0.2:26379/main",
            "rediss-cluster://10.0.0.1:7000",
        ] {
            assert!(Link::new(good, None).is_ok(), "{good}");
        }
        for bad in ["", "http://10.0.0.1", "redis-cluster://", "redis-sentinel://10.0.0.1:1", "10.0.0.1:6379"]
        {
            assert_eq!(Link::new(bad, None).err(), Some(AddressError::Form), "{bad}");
        }
        let hosts = each("u:p@a:1,b:2/", "redis").unwrap();
        assert_eq!(hosts, ["redis://u:p@a:1", "redis://u:p@b:2"]);
    }
}
