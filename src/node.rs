//! Wires the shells together, runs the node, and drains it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::billing::Desk;
use crate::cluster::relay::Links;
use crate::cluster::{Cluster, LeaseNotice, incarnation};
use crate::config::Config;
use crate::control::{self, Around, Control, IncomingFile, Node, Placement};
use crate::core::ids::{NodeId, RoomName, ShardId};
use crate::events::kafka::{KafkaLog, KafkaSettings};
use crate::events::sqlite::SqliteLog;
use crate::events::writer::EventWriter;
use crate::files::{self, Files};
use crate::mailbox::{self, ControlSender};
use crate::mcu::{self, Mixers};
use crate::media::negotiate::{Identity, Reach};
use crate::media::shard::Surroundings;
use crate::media::{self, Inbox, ShardHandle, Siblings, bind, tcp};
use crate::record::Recordings;
use crate::{signal as http, telemetry};

/// Connections get this long to take their last words when the node goes down.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Rooms that the log says others have, which wait to be let go. Full: their leases tell it.
const OVERTAKINGS_MAX: usize = 1_024;

/// Runs the node until it is told to stop.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn run(config: Config) -> anyhow::Result<()> {
    // What waits to leave is sent when this is over.
    let _traces = telemetry::start(&config.log, &config.telemetry, name(&config));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

/// By which it is told from others.
fn name(config: &Config) -> &str {
    if config.cluster.node_id.is_empty() { &config.node.name } else { &config.cluster.node_id }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let metrics = telemetry::start_metrics().context("metrics cannot be recorded")?;
    tokio::spawn(telemetry::keep_up(metrics.clone()));
    std::fs::create_dir_all(&config.node.data_dir)
        .with_context(|| format!("the data directory {} cannot be made", config.node.data_dir.display()))?;
    let incarnation = incarnation(&config.node.data_dir, control::unix_ms());
    let (overtaken, overtakings) = mailbox::control(OVERTAKINGS_MAX);
    let events = open_log(&config, incarnation, overtaken).context("the event log cannot be opened")?;
    let crypto = Arc::new(str0m_aws_lc_rs::default_provider());
    let certificate = crypto.dtls_provider.generate_certificate();
    let certificate = certificate.context("no DTLS certificate can be made")?;
    let media = Identity { certificate, crypto, initial_estimate_bps: config.media.initial_estimate_bps };
    let (small_files, incoming) = mailbox::control(files::INCOMING_MAX);
    let program = std::env::current_exe().context("the program does not find itself")?;
    let bucket = config.files.s3.as_ref().map(files::bucket).transpose()?;
    let recordings = Recordings::open(&config, program, bucket).context("recordings cannot be kept")?;
    let (cluster, leases) =
        Cluster::start(&config, incarnation).context("cluster.redis_url cannot be used")?;
    tokio::spawn(heed(cluster.clone(), overtakings));
    let among = (cluster, leases);
    let (control, handles) =
        start_shards(&config, events.clone(), media, &recordings, small_files, among).await?;
    let tcp_tasks = serve_tcp(&config, handles).await?;
    let files = Files::open(&config, control.clone(), events.clone(), incoming)?;
    let billing = Desk::spawn(&config, control.clone(), events.clone()).await?;
    let server = http::Server::bind(&config, control.clone(), (files, recordings.clone()), billing, metrics)?;
    let address = server.address();
    tracing::info!(http = %address, shards = shard_count(&config), "serving");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut serving = tokio::spawn(server.run(async move {
        // Dropped or sent, either way it is time.
        let _ = stopped.await;
    }));
    let drained = drain_on_signal(&control, Duration::from_secs(config.node.drain_seconds));
    tokio::select! {
        drained = drained => drained?,
        // It ends by itself only when something is wrong.
        ended = &mut serving => ended.context("the HTTP server's task failed")??,
    }
    let _ = stop.send(());
    if !serving.is_finished() {
        serving.await.context("the HTTP server's task failed")??;
    }
    tcp_tasks.iter().for_each(JoinHandle::abort);
    recordings.leave().await;
    events.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// The log of this node, or where one is configured that which the nodes share.
fn open_log(
    config: &Config,
    incarnation: u64,
    overtaken: ControlSender<(RoomName, u64)>,
) -> anyhow::Result<EventWriter> {
    let settings = &config.cluster;
    if settings.kafka_brokers.is_empty() {
        let log = SqliteLog::open(&config.node.data_dir.join("events.sqlite"))?;
        return Ok(EventWriter::spawn(Box::new(log))?);
    }
    let node = NodeId::parse(&settings.node_id)?;
    let kafka = KafkaSettings {
        // A ledger is the fold of all that was ever said about money, be it pretended (`--dev`, with a key).
        begins_with_snapshots: !config.payments.are_real() && config.payments.key.is_none(),
        ..KafkaSettings::of(settings)?
    };
    let log = KafkaLog::open(&config.node.data_dir, kafka, node, incarnation)?;
    Ok(EventWriter::spawn_shared(log, move |room, epoch| {
        // Full: the next renewal or append tells the same.
        let _ = overtaken.send((room, epoch));
    })?)
}

/// Lets go of rooms that the log says others have.
async fn heed(cluster: Cluster, mut overtakings: mpsc::Receiver<(RoomName, u64)>) {
    while let Some((room, epoch)) = overtakings.recv().await {
        cluster.overtaken(&room, epoch);
    }
}

fn shard_count(config: &Config) -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    match config.media.shards {
        0 => u8::try_from(cores).unwrap_or(u8::MAX),
        shards => shards,
    }
}

async fn start_shards(
    config: &Config,
    events: EventWriter,
    identity: Identity,
    recordings: &Recordings,
    small_files: ControlSender<IncomingFile>,
    (cluster, leases): (Cluster, mpsc::Receiver<LeaseNotice>),
) -> anyhow::Result<(Control, Arc<[ShardHandle]>)> {
    let (notices, reports) = control::notices();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut nodes = Vec::new();
    let (handles, inboxes): (Vec<_>, Vec<_>) = (0..shard_count(config)).map(|_| Inbox::new()).unzip();
    for ((index, inbox), handle) in (0..).zip(inboxes).zip(&handles) {
        let port = config.media.udp_port + u16::from(index);
        let sockets = bind(&config.media.listen, port)?;
        let reach = reach(config, port);
        let around = Surroundings {
            id: ShardId(index),
            reach: reach.clone(),
            notices: notices.clone(),
            unix_ms_at_start: control::unix_ms(),
            start: Instant::now(),
        };
        let core = cores.get(usize::from(index)).copied().filter(|_| shard_count(config) > 1);
        let siblings = Siblings::new(handles.iter().map(ShardHandle::relays));
        media::spawn(around, sockets, core, inbox, siblings).context("a shard cannot be started")?;
        nodes.push(Node { handle: handle.clone(), reach });
    }
    let recordings = Some(recordings.clone()).filter(Recordings::is_enabled);
    let workers = (mixers(config).await, recordings);
    let config = config.clone();
    let (links, branch_asks) = Links::start(&config, cluster.clone())?;
    let around =
        Around { events, media: identity, workers, small_files, cluster, leases, links, branch_asks };
    let control = Placement::spawn(config, nodes, reports, around);
    Ok((control, handles.into()))
}

/// Mixers, where they are wanted and this machine has all that they need.
async fn mixers(config: &Config) -> Option<Mixers> {
    if !config.mcu.enabled {
        return None;
    }
    let program = std::env::current_exe().map_err(|error| error.to_string());
    let checked = tokio::task::spawn_blocking(|| program.and_then(|program| mcu::check(&program)));
    match checked.await.map_err(|error| error.to_string()).and_then(|checked| checked) {
        Ok(program) => Some(Mixers::new(program, config.mcu.cores_needed)),
        Err(reason) => {
            tracing::warn!(reason, "no room can be mixed");
            None
        }
    }
}

async fn serve_tcp(config: &Config, handles: Arc<[ShardHandle]>) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut tasks = Vec::new();
    if config.media.tcp_port == 0 {
        return Ok(tasks);
    }
    for &ip in &config.media.listen {
        let address = SocketAddr::new(ip, config.media.tcp_port);
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        let bound = socket.bind(&address.into()).and_then(|()| socket.listen(1024));
        bound.with_context(|| format!("cannot listen for ICE-TCP on {address}: set media.tcp_port"))?;
        let listener = TcpListener::from_std(socket.into())?;
        tasks.push(tokio::spawn(tcp::serve(listener, Arc::clone(&handles))));
    }
    Ok(tasks)
}

/// The addresses that clients are told: the public ones if there are any, else this machine's own.
fn reach(config: &Config, udp_port: u16) -> Reach {
    let mut local_ips = local_ips(&config.media.listen);
    if config.dev {
        // A join from this machine keeps its media when the machine changes networks.
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        local_ips.extend(loopback.iter().filter(|ip| is_listened_on(&config.media.listen, ip)));
        local_ips.sort_unstable();
        local_ips.dedup();
    }
    let told = if config.node.public_ip.is_empty() { &local_ips } else { &config.node.public_ip };
    let with_port = |port: u16| told.iter().map(|&ip| SocketAddr::new(ip, port)).collect::<Vec<_>>();
    Reach {
        udp: if config.media.udp { with_port(udp_port) } else { Vec::new() },
        tcp: if config.media.tcp_port == 0 { Vec::new() } else { with_port(config.media.tcp_port) },
        local_ips,
    }
}

fn is_listened_on(listen: &[IpAddr], ip: &IpAddr) -> bool {
    listen.iter().any(|own| own.is_unspecified() && own.is_ipv4() == ip.is_ipv4())
}

/// What the sockets can be reached at: the addresses listened on, or all of the machine where that is "any".
fn local_ips(listen: &[IpAddr]) -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let mut ips = Vec::new();
    for ip in listen {
        if !ip.is_unspecified() {
            ips.push(*ip);
            continue;
        }
        let family =
            interfaces.iter().map(|interface| interface.ip()).filter(|own| own.is_ipv4() == ip.is_ipv4());
        ips.extend(family.filter(usable));
    }
    if ips.is_empty() {
        // No network but the loopback: better that than nothing.
        ips.push(IpAddr::from([127, 0, 0, 1]));
    }
    ips.dedup();
    ips
}

/// Waits for SIGTERM or SIGINT, then until everyone has left, the deadline has passed, or a second signal
/// came.
async fn drain_on_signal(control: &Control, within: Duration) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(within_s = within.as_secs(), "draining: no new joins; a second signal ends it at once");
    let emptied = async {
        while !control.drain().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = emptied => {}
        () = tokio::time::sleep(within) => tracing::info!("drain time is over: closing what is left"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if tokio::time::timeout(CLOSE_WITHIN, control.close_all()).await.is_err() {
        tracing::warn!("some connections did not close in time: leaving them");
    }
    Ok(())
}
