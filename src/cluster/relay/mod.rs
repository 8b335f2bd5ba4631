//! Links between nodes: a room's viewers on other nodes are served there, by a branch that is sent one copy
//! of what is watched; and its members, of whose media the home is sent one copy.
//!
//! A node dials the home of each room of which it has a branch, and keeps at it: a link that is lost is made
//! anew, and a room that moved is followed, while the branch and its viewers stay. Only the room's home
//! gives branches, and only under the epoch that the registry has, so there is no branch of a branch, and
//! none of an owner that has lost its room.
//!
//! No thread of media waits for any of this. What is on the wire is in `core::relay::wire`.

mod branch;
mod frames;
mod home;
mod keys;
mod link;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use quinn::congestion::BbrConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use tokio::sync::{mpsc, oneshot};

use super::{Cluster, LeaseError};
use crate::config::Config;
use crate::core::ids::{FarId, NodeId, RoomName};
use crate::core::placement::NodeRecord;
use crate::core::protocol::RoomState;
use crate::core::relay::Cargo;
use crate::core::relay::wire::Reason;
use crate::mailbox::{self, ControlSender, Inlet};
use keys::{KeyError, Keys};
use link::Link;

pub use branch::Far;

/// A link is given up after so long without a word.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// For a node to take a link, and for it to answer on it.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// For the others to hear that a node ends.
const CLOSE_WITHIN: Duration = Duration::from_millis(200);
/// Packets that are handed on together.
const BATCH_MAX: usize = 64;
/// Branches of one link, at each end.
const BRANCHES_MAX: u32 = 10_000;
/// Branches that wait for the control loop. Full: they are refused as busy.
const ASKS_MAX: usize = 1_024;
/// No name is looked at: who has the key is one of us.
const SERVER_NAME: &str = "relay.antiphon.invalid";

/// Links cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot listen for links between nodes on {0} (UDP): set cluster.relay.listen: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
}

/// There is no branch to be had now.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    #[error(transparent)]
    Leases(#[from] LeaseError),
    #[error("the room's node has no links")]
    NoLinks,
    #[error("the room's node cannot be reached by a link")]
    Unreachable,
    #[error("the room's node gives no branch: {0}")]
    Refused(Reason),
}

/// Another node wants a branch of a room.
pub struct BranchAsk {
    pub room: RoomName,
    /// Under which the other believes us to hold it.
    pub epoch: u64,
    /// By which this node calls the branch.
    pub id: FarId,
    /// The way to the branch.
    pub queue: Inlet<Cargo>,
    pub reply: oneshot::Sender<Result<BranchGiven, Reason>>,
}

/// A branch of a room is given.
pub struct BranchGiven {
    pub state: RoomState,
    /// The way from the branch.
    pub inlet: Inlet<Cargo>,
}

/// The node's handle on its links; cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    endpoint: Endpoint,
    client: ClientConfig,
    asks: ControlSender<BranchAsk>,
    /// Links that this node has dialled. A node's own lock is held while it is dialled.
    dialled: Mutex<BTreeMap<NodeId, Dialled>>,
    /// Rooms of which this node has branches.
    fars: Mutex<BTreeMap<RoomName, Far>>,
    last_id: AtomicU32,
}

type Dialled = Arc<tokio::sync::Mutex<Option<Arc<Link>>>>;

impl Links {
    /// Listens for links, where some are wanted. Within a runtime.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn start(
        config: &Config,
        cluster: Cluster,
    ) -> Result<(Option<Self>, mpsc::Receiver<BranchAsk>), LinkError> {
        let (asks, receiver) = mailbox::control(ASKS_MAX);
        let settings = &config.cluster.relay;
        let Some(secret) = settings.key.as_ref().filter(|_| !cluster.is_alone()) else {
            return Ok((None, receiver));
        };
        let keys = Keys::of(secret.reveal())?;
        let transport = Arc::new(transport());
        let mut server = ServerConfig::with_crypto(Arc::new(keys.server));
        server.transport_config(Arc::clone(&transport));
        let mut client = ClientConfig::new(keys.client);
        client.transport_config(transport);
        let listened = UdpSocket::bind(settings.listen).and_then(|socket| {
            let runtime = Arc::new(TokioRuntime);
            Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)
        });
        let endpoint = listened.map_err(|error| LinkError::Listen(settings.listen, error))?;
        let links = Self(Arc::new(Inner {
            cluster,
            endpoint,
            client,
            asks,
            dialled: Mutex::default(),
            fars: Mutex::default(),
            last_id: AtomicU32::new(0),
        }));
        tokio::spawn(home::serve(links.clone()));
        Ok((Some(links), receiver))
    }

    /// The branch of a room that this node has already.
    pub fn far(&self, room: &RoomName) -> Option<Far> {
        locked(&self.0.fars).get(room).filter(|far| !far.is_over()).cloned()
    }

    /// Opens a branch of a room that another node holds. Hold [`Cluster::claiming`] meanwhile: of one room
    /// there is one.
    ///
    /// # Errors
    /// [`BranchError`].
    pub async fn open(&self, room: &RoomName, home: &NodeRecord, epoch: u64) -> Result<Far, BranchError> {
        if let Some(far) = self.far(room) {
            return Ok(far);
        }
        let session = branch::Session::open(self, room, home, epoch).await?;
        let far = branch::follow(self.clone(), room.clone(), session, self.next_id());
        locked(&self.0.fars).insert(room.clone(), far.clone());
        Ok(far)
    }

    /// Ends all links, as the node ends: the others need not wait for its silence.
    pub async fn close(&self) {
        self.0.endpoint.close(VarInt::from_u32(0), b"");
        // Whoever does not take the last word finds out by itself.
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.0.endpoint.wait_idle()).await;
    }

    fn next_id(&self) -> FarId {
        FarId(self.0.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    fn forget(&self, room: &RoomName, id: FarId) {
        let mut fars = locked(&self.0.fars);
        if fars.get(room).is_some_and(|far| far.id == id) {
            fars.remove(room);
        }
    }

    /// The link to a node, made if there is none.
    async fn dial(&self, node: &NodeRecord) -> Result<Arc<Link>, BranchError> {
        let address = node.relay.as_ref().ok_or(BranchError::NoLinks)?;
        let place = Arc::clone(locked(&self.0.dialled).entry(node.id.clone()).or_default());
        let mut place = place.lock().await;
        if let Some(link) = place.as_ref().filter(|link| link.is_open()) {
            return Ok(Arc::clone(link));
        }
        let (endpoint, client) = (self.0.endpoint.clone(), self.0.client.clone());
        let address = address.clone();
        let connecting = async move {
            let mut addresses = tokio::net::lookup_host(address).await.ok()?;
            let is_v4 = endpoint.local_addr().is_ok_and(|own| own.is_ipv4());
            let address = addresses.find(|address| address.is_ipv4() == is_v4)?;
            endpoint.connect_with(client, address, SERVER_NAME).ok()?.await.ok()
        };
        // A connection holds on to the span that it is made in, and this one outlives the request.
        let connecting = tokio::spawn(tokio::time::timeout(CONNECT_WITHIN, connecting));
        let connected = connecting.await.ok().and_then(Result::ok).flatten();
        let Some(connection) = connected else {
            counter!("antiphon_relay_failures_total", "what" => "connect").increment(1);
            return Err(BranchError::Unreachable);
        };
        tracing::info!(node = %node.id, "a link to another node stands");
        let link = Link::start(connection);
        *place = Some(Arc::clone(&link));
        Ok(link)
    }
}

/// As both ends have it.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let silence = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(VarInt::from_u32(silence).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(BRANCHES_MAX))
        .datagram_send_buffer_size(link::SEND_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(link::SEND_BUFFER_BYTES * 4))
        // A path between regions loses packets without being full, which would starve one that takes every
        // loss for congestion.
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    transport
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before the lock is left.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
