//! The home's end of links: who proves to be one of us is given branches of the rooms that this node holds.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use quinn::{Incoming, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use super::frames;
use super::link::{Carried, Link};
use super::{BATCH_MAX, BranchAsk, BranchGiven, CONNECT_WITHIN, Links};
use crate::core::event::CloseReason;
use crate::core::ids::NodeId;
use crate::core::relay::wire::{Frame, Reason};
use crate::core::relay::{Cargo, Downstream, Upstream};
use crate::mailbox::{self, Inlet};
use crate::telemetry::traces;

/// Batches of packets and news that wait for one branch's link. Full: packets are dropped, news waits at the
/// shard.
const QUEUE_DEPTH: usize = 1_024;
/// Between two tries to give a shard news that found no room.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Takes links until the node ends.
pub(super) async fn serve(links: Links) {
    while let Some(incoming) = links.0.endpoint.accept().await {
        tokio::spawn(take(links.clone(), incoming));
    }
}

async fn take(links: Links, incoming: Incoming) {
    let connected = tokio::time::timeout(CONNECT_WITHIN, async { incoming.await.ok() }).await.ok().flatten();
    let Some(connection) = connected else {
        // A wrong key, or whatever else speaks to this port.
        counter!("antiphon_relay_failures_total", "what" => "accept").increment(1);
        tracing::debug!("a link was refused: whoever came has not the cluster's relay key");
        return;
    };
    let link = Link::start(connection.clone());
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(give(links.clone(), Arc::clone(&link), send, recv));
    }
}

/// Gives a branch and serves it until it ends, on either side.
async fn give(links: Links, link: Arc<Link>, mut send: SendStream, recv: RecvStream) {
    let mut frames = frames::reading(recv);
    let first = tokio::time::timeout(CONNECT_WITHIN, frames.recv()).await.ok().flatten();
    let Some(Frame::Open { room, epoch, branch, node, trace }) = first else { return };
    let (sender, mut cargo) = mailbox::control(QUEUE_DEPTH);
    let queue = Inlet::new(move |cargo| sender.offer(cargo));
    let (reply, given) = oneshot::channel();
    let ask = BranchAsk { room: room.clone(), epoch, id: links.next_id(), queue, reply };
    let span = tracing::info_span!("give branch", otel.kind = "server", room = %room, node = %node);
    traces::go_on(&span, trace.as_deref());
    let given = async {
        match links.0.asks.offer(ask) {
            Ok(()) => given.await.unwrap_or(Err(Reason::Busy)),
            Err(_) => Err(Reason::Busy),
        }
    };
    let given = given.instrument(span).await;
    let BranchGiven { state, inlet } = match given {
        Ok(given) => given,
        Err(reason) => {
            counter!("antiphon_relay_failures_total", "what" => "refused").increment(1);
            tracing::info!(room = %room, node = %node, epoch, %reason, "a branch was refused");
            // Whoever asked is answered, or is gone.
            let _ = frames::write(&mut send, &Frame::Refused(reason)).await;
            let _ = send.finish();
            let _ = send.stopped().await;
            return;
        }
    };
    tracing::info!(room = %room, node = %node, "another node has a branch");
    let served = gauge!("antiphon_relay_branches", "side" => "home");
    served.increment(1.0);
    let mut route = link.route_of(branch);
    let mut accepted = frames::write(&mut send, &Frame::Accepted { state: Box::new(state), epoch }).await;
    while accepted.is_ok() {
        tokio::select! {
            cargo = cargo.recv() => match cargo {
                Some(Cargo::Packets(packets)) => route.send(&packets),
                Some(Cargo::Data(data)) => route.send_data(data),
                Some(Cargo::Down(news)) => {
                    let is_last = matches!(news, Downstream::Ended(_));
                    accepted = frames::write(&mut send, &Frame::Down(news)).await;
                    if is_last {
                        break;
                    }
                }
                Some(Cargo::Up(_)) => {}
                None => break,
            },
            frame = frames.recv() => match frame {
                Some(Frame::Up(Upstream::Closed)) | None => break,
                Some(Frame::Up(news)) => insist(&inlet, signed(news, &node)).await,
                Some(_) => {}
            },
            Some(carried) = route.carried.recv() => take_in(&inlet, carried, &mut route.carried),
        }
    }
    drop(route);
    // Whatever it ended by: the room counts nobody there any more.
    insist(&inlet, Upstream::Closed).await;
    let _ = send.finish();
    let _ = send.stopped().await;
    served.decrement(1.0);
    tracing::info!(room = %room, node = %node, "another node's branch is no more");
}

/// Gives a shard what lodgers have sent, this and what waits behind it.
fn take_in(inlet: &Inlet<Cargo>, first: Carried, more: &mut mpsc::Receiver<Carried>) {
    let waiting = std::iter::from_fn(|| more.try_recv().ok());
    let mut batch = Vec::new();
    for carried in std::iter::once(first).chain(waiting.take(BATCH_MAX)) {
        match carried {
            Carried::Packet(packet) => batch.push(packet),
            Carried::Data(data) => offer(inlet, Cargo::Data(data), 1),
        }
    }
    let count = batch.len() as u64;
    if count > 0 {
        offer(inlet, Cargo::Packets(batch), count);
    }
}

fn offer(inlet: &Inlet<Cargo>, cargo: Cargo, count: u64) {
    if inlet.offer(cargo).is_err() {
        counter!("antiphon_relay_dropped_total", "reason" => "full").increment(count);
    }
}

/// Figures bear the name of the node that they are of.
fn signed(news: Upstream, node: &NodeId) -> Upstream {
    let Upstream::Figures(mut figures) = news else { return news };
    figures.iter_mut().for_each(|one| one.connection.node = Some(node.clone()));
    Upstream::Figures(figures)
}

/// Gives a shard news, as soon as it takes it.
async fn insist(inlet: &Inlet<Cargo>, news: Upstream) {
    let mut cargo = Cargo::Up(news);
    while let Err(refused) = inlet.offer(cargo) {
        cargo = refused;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Why a room goes on elsewhere, and its branches with it.
pub(super) fn goes_on(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Moved | CloseReason::Draining)
}
