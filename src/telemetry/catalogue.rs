//! Every metric that a node has: its name, its kind and what it says.
//!
//! A counter is there from the start, at nought, with each value of its label: what first appears when
//! something goes wrong has no rate at that moment, and an alarm that waits for it stays silent.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// How a metric comes to be there from the start.
#[derive(Debug, Clone, Copy)]
enum Start {
    AtNought,
    /// With each of these values of a label.
    Labelled(&'static str, &'static [&'static str]),
    /// Whoever counts it starts it, as only it knows its labels.
    ByOwner,
}

use Start::{AtNought, ByOwner, Labelled};

/// One metric; its names and units are Prometheus's: <https://prometheus.io/docs/practices/naming/>.
#[derive(Debug)]
struct Metric(Kind, &'static str, Start, &'static str);

const CATALOGUE: &[Metric] = &[
    Metric(Gauge, "antiphon_rooms", AtNought, "Open rooms"),
    Metric(Gauge, "antiphon_participants", AtNought, "Participants, viewers not counted"),
    Metric(Counter, "antiphon_rtp_packets_received_total", AtNought, "RTP packets taken from publishers"),
    Metric(Counter, "antiphon_rtp_packets_forwarded_total", AtNought, "RTP packets handed to receivers"),
    Metric(Counter, "antiphon_rtp_bytes_forwarded_total", AtNought, "Payload of forwarded packets"),
    Metric(
        Counter,
        "antiphon_rtp_packets_relayed_total",
        AtNought,
        "Copies of RTP packets sent to other shards",
    ),
    Metric(Counter, "antiphon_rtp_packets_dropped_total", ByOwner, "Packets not taken or not sent"),
    Metric(Gauge, "antiphon_shard_busy_ratio", ByOwner, "Share of the last second that the shard worked"),
    Metric(Histogram, "antiphon_join_seconds", ByOwner, "Join request to connected transport"),
    Metric(
        Counter,
        "antiphon_chat_messages_total",
        AtNought,
        "Chat messages shown: new, edited or reacted to",
    ),
    Metric(Counter, "antiphon_events_appended_total", AtNought, "Events made durable"),
    Metric(Histogram, "antiphon_events_append_seconds", ByOwner, "A commit of the event log"),
    Metric(Gauge, "antiphon_log_connected", AtNought, "1 while the shared log can be written and read"),
    Metric(Gauge, "antiphon_log_outbox", AtNought, "Records that wait to be read back from the shared log"),
    Metric(Counter, "antiphon_log_fenced_total", AtNought, "Records of writers who had lost their room"),
    Metric(
        Counter,
        "antiphon_log_checkpoints_total",
        AtNought,
        "Checkpoints of the shared log that this node wrote",
    ),
    Metric(Counter, "antiphon_log_buried_total", AtNought, "Records put aside, as nobody can read them"),
    Metric(Gauge, "antiphon_log_behind", AtNought, "Records of the shared log that were not read here yet"),
    Metric(
        Counter,
        "antiphon_log_stuck_total",
        AtNought,
        "Connections to the shared log that brought nothing, and were replaced",
    ),
    Metric(
        Gauge,
        "antiphon_breaker_state",
        Labelled("dependency", &["redis", "kafka"]),
        "0 closed; 1 half-open: one call tries; 2 open: calls are refused at once",
    ),
    Metric(
        Counter,
        "antiphon_breaker_refused_total",
        Labelled("dependency", &["redis", "kafka"]),
        "Calls refused at once, as they would only have waited",
    ),
    Metric(
        Counter,
        "antiphon_placement_retries_total",
        Labelled("result", &["made", "withheld"]),
        "Calls to the registry of rooms tried again, or not for want of a budget",
    ),
    Metric(Gauge, "antiphon_placement_nodes", AtNought, "Nodes of the cluster that are alive"),
    Metric(Gauge, "antiphon_placement_leases", AtNought, "Rooms that this node holds for the cluster"),
    Metric(Gauge, "antiphon_placement_leases_uncertain", AtNought, "Leases that were not renewed in time"),
    Metric(Gauge, "antiphon_placement_reachable", AtNought, "1 while the registry of rooms answers"),
    Metric(Gauge, "antiphon_placement_score", AtNought, "Load: no new rooms from 0.8, no joins from 0.95"),
    Metric(
        Counter,
        "antiphon_placement_claims_total",
        Labelled("result", &["here", "elsewhere"]),
        "Rooms that were given a node",
    ),
    Metric(Counter, "antiphon_placement_lost_total", AtNought, "Rooms that another node took over"),
    Metric(
        Counter,
        "antiphon_placement_requests_total",
        Labelled("sent", &["redirected", "proxied"]),
        "Requests about rooms of other nodes",
    ),
    Metric(Gauge, "antiphon_relay_lodgers", ByOwner, "People connected here whose room is at another node"),
    Metric(Gauge, "antiphon_relay_links", AtNought, "Links to other nodes, either way"),
    Metric(
        Gauge,
        "antiphon_relay_branches",
        Labelled("side", &["home", "branch"]),
        "Branches given to other nodes, and those here of their rooms",
    ),
    Metric(
        Gauge,
        "antiphon_relay_encodings",
        Labelled("state", &["carried", "withheld"]),
        "Encodings of video that branches at other nodes take, each counted once for each node",
    ),
    Metric(
        Counter,
        "antiphon_relay_packets_total",
        Labelled("way", &["sent", "received", "resent"]),
        "Packets that crossed links to other nodes: one copy for each node and encoding",
    ),
    Metric(
        Counter,
        "antiphon_relay_bytes_total",
        Labelled("way", &["sent", "received"]),
        "Datagrams of those packets, without QUIC's own",
    ),
    Metric(
        Counter,
        "antiphon_relay_dropped_total",
        Labelled("reason", &["lost", "full", "withheld"]),
        "Packets that did not cross: lost for good, no room in a queue, more than the link carries",
    ),
    Metric(
        Counter,
        "antiphon_relay_failures_total",
        Labelled("what", &["connect", "accept", "refused", "lost"]),
        "Links that were not to be had, peers with a wrong key, branches that were refused or lost",
    ),
    Metric(Histogram, "antiphon_relay_reopen_seconds", ByOwner, "A lost branch, until a home gave it again"),
    Metric(Gauge, "antiphon_files_uploads", AtNought, "Uploads that are not complete"),
    Metric(Counter, "antiphon_files_received_bytes_total", AtNought, "What came of uploads"),
    Metric(Counter, "antiphon_files_sent_bytes_total", AtNought, "What was fetched of files"),
    Metric(Counter, "antiphon_files_finished_total", AtNought, "Uploads that became files"),
    Metric(
        Counter,
        "antiphon_files_probes_total",
        Labelled("result", &["seen", "not_seen"]),
        "Files that were looked into",
    ),
    Metric(Gauge, "antiphon_hls_streams", AtNought, "Rooms streamed by HLS, those that ended just now too"),
    Metric(Gauge, "antiphon_hls_waiting", AtNought, "Requests that wait for the next part"),
    Metric(
        Counter,
        "antiphon_hls_parts_total",
        Labelled("track", &["high", "low", "sound"]),
        "Parts made for players",
    ),
    Metric(Histogram, "antiphon_hls_part_delay_seconds", ByOwner, "From a part's last frame to the part"),
    Metric(
        Counter,
        "antiphon_hls_requests_total",
        Labelled("kind", &["multivariant", "playlist", "init", "part", "segment"]),
        "Requests of players",
    ),
    Metric(Counter, "antiphon_hls_sent_bytes_total", AtNought, "What players were sent"),
    Metric(Counter, "antiphon_hls_failures_total", AtNought, "Streaming processes that failed"),
    Metric(Gauge, "antiphon_restreams", ByOwner, "Pushes to other services"),
    Metric(
        Counter,
        "antiphon_restreams_failures_total",
        AtNought,
        "Pushes that ended without being asked to",
    ),
    Metric(Counter, "antiphon_restreams_sent_bytes_total", AtNought, "Sent by pushes that are over"),
    Metric(Gauge, "antiphon_feeds", AtNought, "Files that are played and streams that are pushed"),
    Metric(Gauge, "antiphon_feeds_resident_memory_bytes", AtNought, "Memory of their processes"),
    Metric(Counter, "antiphon_feeds_starts_total", AtNought, "Feeds started"),
    Metric(Counter, "antiphon_feeds_failures_total", AtNought, "Feeds that ended without being asked to"),
    Metric(Counter, "antiphon_feeds_cpu_milliseconds_total", AtNought, "CPU time of all feeds"),
    Metric(
        Counter,
        "antiphon_feeds_frames_left_out_total",
        AtNought,
        "Pictures of feeds that would have been coded too late",
    ),
    Metric(
        Counter,
        "antiphon_rtmp_connections_total",
        Labelled("result", &["published", "refused", "broken"]),
        "Encoders that came by RTMP",
    ),
    Metric(Gauge, "antiphon_mixers", AtNought, "Running mixers"),
    Metric(Gauge, "antiphon_mixer_resident_memory_bytes", AtNought, "Memory of all mixers"),
    Metric(Counter, "antiphon_mixer_starts_total", AtNought, "Mixers started"),
    Metric(Counter, "antiphon_mixer_failures_total", AtNought, "Mixers that ended without being asked to"),
    Metric(Counter, "antiphon_mixer_cpu_milliseconds_total", AtNought, "CPU time of all mixers"),
    Metric(Counter, "antiphon_mixer_frames_total", AtNought, "Pictures mixed"),
    Metric(Counter, "antiphon_mixer_frames_late_total", AtNought, "Pictures mixed too late"),
    Metric(
        Counter,
        "antiphon_mixer_frames_left_out_total",
        AtNought,
        "Pictures left out of an encoding to keep its bitrate",
    ),
    Metric(Counter, "antiphon_mixer_sound_ticks_total", AtNought, "Sound mixed, 20 ms each"),
    Metric(
        Counter,
        "antiphon_mixer_packets_undecodable_total",
        AtNought,
        "Packets that no decoder could use",
    ),
    Metric(Gauge, "antiphon_recordings_running", AtNought, "Running recorders"),
    Metric(Gauge, "antiphon_recordings_resident_memory_bytes", AtNought, "Memory of all recorders"),
    Metric(Gauge, "antiphon_recordings_disk_bytes", AtNought, "What all recordings take"),
    Metric(Counter, "antiphon_recordings_recorder_starts_total", AtNought, "Recorders started"),
    Metric(
        Counter,
        "antiphon_recordings_recorder_failures_total",
        AtNought,
        "Recorders that ended without being asked to",
    ),
    Metric(Counter, "antiphon_recordings_cpu_milliseconds_total", AtNought, "CPU time of all recorders"),
    Metric(Counter, "antiphon_recordings_packets_total", AtNought, "Packets that recorders took"),
    Metric(Counter, "antiphon_recordings_packets_lost_total", AtNought, "Packets that never came"),
    Metric(Counter, "antiphon_recordings_units_total", AtNought, "Pictures and packets of sound recorded"),
    Metric(
        Counter,
        "antiphon_recordings_keyframes_asked_total",
        AtNought,
        "Key frames that recorders asked for",
    ),
    Metric(Counter, "antiphon_recordings_written_bytes_total", AtNought, "What recorders wrote"),
    Metric(Counter, "antiphon_recordings_sent_bytes_total", AtNought, "What was fetched of recordings"),
    Metric(
        Counter,
        "antiphon_recordings_repaired_total",
        AtNought,
        "Recordings that were cut and finished later",
    ),
    Metric(Counter, "antiphon_recordings_expired_total", AtNought, "Recordings whose time was over"),
    Metric(Counter, "antiphon_recordings_archived_total", AtNought, "Recordings moved to the bucket"),
    Metric(
        Counter,
        "antiphon_invoices_total",
        Labelled("state", &["new", "processing", "settled", "expired", "invalid", "reversed"]),
        "Invoices that came to a state",
    ),
    Metric(
        Counter,
        "antiphon_invoices_refused_total",
        AtNought,
        "Invoices not made: one address asked too often",
    ),
    Metric(
        Counter,
        "antiphon_payments_refused_total",
        Labelled("reason", &["claim", "l402", "bolt11", "webhook", "descriptor"]),
        "What was forged or unfit, and turned away",
    ),
    Metric(Counter, "antiphon_wallet_errors_total", AtNought, "Looks at wallets that failed"),
    Metric(Gauge, "antiphon_ledger_keeper", AtNought, "1 where this node keeps the ledger"),
    Metric(Gauge, "antiphon_ledger_facts", AtNought, "Facts about money that this node has read"),
    Metric(Counter, "antiphon_ledger_takeovers_total", AtNought, "Times this node came to keep the ledger"),
    Metric(
        Counter,
        "antiphon_ledger_wishes_total",
        Labelled("outcome", &["done", "refused", "again", "lost"]),
        "Wishes about money passed on to the node that keeps the ledger",
    ),
    Metric(
        Counter,
        "antiphon_ledger_wishes_refused_total",
        AtNought,
        "Wishes said to be another node's: forged, late or heard before",
    ),
    Metric(
        Counter,
        "antiphon_webhooks_total",
        Labelled("outcome", &["taken", "refused", "failed"]),
        "Tries to tell an owner's server",
    ),
];

/// Tells the recorder of all of them, and starts what counts.
pub(super) fn describe() {
    for Metric(kind, name, start, help) in CATALOGUE {
        let unit = if name.contains("_bytes") { Unit::Bytes } else { Unit::Count };
        match kind {
            Counter => describe_counter!(*name, unit, *help),
            Gauge => describe_gauge!(*name, unit, *help),
            Histogram => describe_histogram!(*name, Unit::Seconds, *help),
        }
        match (kind, start) {
            (Counter, AtNought) => counter!(*name).absolute(0),
            (Counter, Labelled(label, values)) => {
                values.iter().for_each(|value| counter!(*name, *label => *value).absolute(0));
            }
            (Gauge, AtNought) => gauge!(*name).set(0.0),
            (Gauge, Labelled(label, values)) => {
                values.iter().for_each(|value| gauge!(*name, *label => *value).set(0.0));
            }
            (_, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Names that follow `before` in the sources below `folder`.
    fn names(folder: &Path, before: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                names(&path, before, found);
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            found.extend(text.split(before).skip(1).filter_map(|rest| {
                let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
                name.starts_with("antiphon_").then(|| name.to_owned())
            }));
        }
    }

    #[test]
    fn what_is_counted_is_in_the_catalogue_and_nothing_else() {
        let mut counted = BTreeSet::new();
        for before in ["counter!(", "gauge!(", "histogram!("] {
            names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), before, &mut counted);
        }
        let listed: BTreeSet<_> = CATALOGUE.iter().map(|metric| metric.1.to_owned()).collect();
        assert_eq!(listed.len(), CATALOGUE.len(), "one entry for each name");
        assert_eq!(counted, listed);
    }

    #[test]
    fn counters_end_in_total_and_times_are_in_seconds() {
        for Metric(kind, name, _, help) in CATALOGUE {
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
            assert_eq!(*kind == Histogram, name.ends_with("_seconds"), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}");
        }
    }
}
