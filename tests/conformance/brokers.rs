//! Kafka as operators run it: with a controller of its own, with TLS, and with passwords.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use antiphon::config::{FileError, Kafka as Security, Mechanism, Protocol, Secret};
use antiphon::core::chat::HistoryRange;
use antiphon::core::event::{Event, EventBody, EventIds};
use antiphon::core::ids::NodeId;
use antiphon::core::protocol::{Access, Mode};
use antiphon::events::EventLog as _;
use antiphon::events::kafka::{KafkaLog, KafkaSettings, Voice};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;

use super::broker::Kafka as Broker;
use super::network::Place;
use super::{room, sent};

/// For whatever must happen, a broker's start included.
const LONG: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(20);
/// Beyond `broker.session.timeout.ms`: the controller takes the broker's partitions from it.
const FROZEN: Duration = Duration::from_secs(4);
/// For chat to go on once a partition has a leader again.
const GOES_ON_WITHIN: Duration = Duration::from_secs(20);
const ROOMS: usize = 12;

fn log(settings: KafkaSettings, directory: &Path, node: &str) -> KafkaLog {
    KafkaLog::open(directory, settings, NodeId::parse(node).expect("a plain name"), 1).expect("a copy")
}

fn settings(broker: &Broker, node: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: broker.brokers(),
        topic: "rooms".into(),
        partitions: 6,
        replication: 1,
        client: format!("antiphon-{node}"),
        security: Security::default(),
        password: None,
        begins_with_snapshots: false,
        voice: Voice::default(),
    }
}

fn opened(name: &str) -> Event {
    let body = EventBody::RoomOpened { mode: Mode::Sfu, access: Access::Open, by: None };
    Event { id: EventIds::new("room", 1).next_id(), room: room(name), at_ms: 1, body }
}

fn names() -> impl Iterator<Item = String> {
    (0..ROOMS).map(|number| format!("room-{number}"))
}

fn until(logs: &mut [&mut KafkaLog], what: &str, mut is_so: impl FnMut(&mut [&mut KafkaLog], usize) -> bool) {
    let deadline = Instant::now() + LONG;
    let mut done = 0;
    while !is_so(logs, done) {
        assert!(Instant::now() < deadline, "not so after {LONG:?}: {what}, {done} done");
        for log in logs.iter_mut() {
            done += log.poll(TURN).into_iter().filter(|(_, result)| result.is_ok()).count();
        }
    }
}

fn has_all(log: &mut KafkaLog, seq: u64) -> bool {
    names().all(|name| {
        let page = log.messages(&room(&name), HistoryRange::Newest, 1).expect("readable");
        page.messages.first().is_some_and(|message| message.seq == seq)
    })
}

/// A broker that freezes for longer than its controller waits has no partitions for a moment: what was sent
/// meanwhile comes, and others read it.
#[test]
fn partitions_without_a_leader_for_a_moment_go_on() {
    let broker = Broker::with(Place::HERE, vec![("KAFKA_CONTROLLER", "apart".into())]);
    let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut a = log(settings(&broker, "a"), one.path(), "a");
    let mut b = log(settings(&broker, "b"), other.path(), "b");
    let openings: Vec<Vec<Event>> = names().map(|name| vec![opened(&name)]).collect();
    assert!(a.submit(&openings).iter().all(Result::is_ok));
    until(&mut [&mut a, &mut b], "rooms are open", |_, done| done == ROOMS);
    for seq in 1..=3 {
        broker.act("freeze");
        let frozen_at = Instant::now();
        let said: Vec<Vec<Event>> = names().map(|name| vec![sent(&name, seq)]).collect();
        assert!(a.submit(&said).iter().all(Result::is_ok));
        until(&mut [&mut a, &mut b], "its session is over", |_, _| frozen_at.elapsed() > FROZEN);
        broker.act("thaw");
        let thawed_at = Instant::now();
        until(&mut [&mut a], "what was sent came back", |_, done| done == ROOMS);
        let written = thawed_at.elapsed();
        until(&mut [&mut a, &mut b], "the other has read it", |logs, _| has_all(logs[1], seq));
        let read = thawed_at.elapsed();
        println!(
            "{}",
            json!({"what": "partitions without a leader", "written_ms": written.as_millis(),
                "read_ms": read.as_millis()})
        );
        assert!(read < GOES_ON_WITHIN, "{read:?}");
    }
    a_client_that_sees_nothing_is_replaced(&mut a, &mut b);
}

/// Whoever waits for what it wrote is answered, and who only reads goes on reading.
fn a_client_that_sees_nothing_is_replaced(a: &mut KafkaLog, b: &mut KafkaLog) {
    for (seq, blind) in [(4, 0), (5, 1)] {
        if blind == 0 {
            a.go_blind()
        } else {
            b.go_blind()
        }
        let asked_at = Instant::now();
        let said: Vec<Vec<Event>> = names().map(|name| vec![sent(&name, seq)]).collect();
        assert!(a.submit(&said).iter().all(Result::is_ok));
        until(&mut [a], "what was sent came back", |_, done| done == ROOMS);
        let written = asked_at.elapsed();
        until(&mut [a, b], "both have read it", |logs, _| logs.iter_mut().all(|log| has_all(log, seq)));
        let read = asked_at.elapsed();
        println!(
            "{}",
            json!({"what": "a client that sees nothing", "writes": blind == 0,
                "written_ms": written.as_millis(), "read_ms": read.as_millis()})
        );
        assert!(read < GOES_ON_WITHIN, "{read:?}");
    }
}

/// An authority, and a server's key with its certificate in one PEM file.
pub struct Identity {
    pub ca_file: PathBuf,
    pub keystore: PathBuf,
}

impl Identity {
    pub fn make(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {name}"));
        let authority_key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&authority_key).expect("an authority");
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let (ca_file, keystore) =
            (directory.join(format!("{name}-ca.pem")), directory.join(format!("{name}.pem")));
        std::fs::write(&ca_file, authority.pem()).expect("a file");
        std::fs::write(&keystore, key.serialize_pem() + &certificate.pem()).expect("a file");
        Self { ca_file, keystore }
    }
}

const USER: &str = "nodes";
const PASSWORD: &str = "what-only-nodes-know";

/// What an operator reads who asks for the log with this configuration.
fn complaint(broker: &Broker, security: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_antiphon"))
        .args(["events", "verify", "--dev"])
        .env("ANTIPHON_CLUSTER__KAFKA_BROKERS", broker.brokers())
        .env("ANTIPHON_CLUSTER__KAFKA_TOPIC", "rooms")
        .env("ANTIPHON_CLUSTER__REDIS_URL", "redis://127.0.0.1:1")
        .env("ANTIPHON_CLUSTER__NODE_ID", "operator")
        .env("ANTIPHON_CLUSTER__URL", "http://127.0.0.1:1")
        .envs(security.iter().copied())
        .output()
        .expect("the product");
    let words = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(!words.contains(PASSWORD), "a password is told: {words}");
    if output.status.success() { String::new() } else { words.into_owned() }
}

#[test]
fn a_broker_with_tls_and_passwords_is_spoken_to_and_what_is_wrong_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (good, other) = (Identity::make(directory.path(), "good"), Identity::make(directory.path(), "other"));
    let broker = Broker::with(
        Place::HERE,
        vec![
            ("KAFKA_PROTOCOL", "SASL_SSL".into()),
            ("KAFKA_KEYSTORE", good.keystore.display().to_string()),
            ("KAFKA_CA", good.ca_file.display().to_string()),
            ("KAFKA_USER", USER.into()),
            ("KAFKA_PASSWORD", PASSWORD.into()),
        ],
    );
    for (number, mechanism) in
        [Mechanism::ScramSha256, Mechanism::ScramSha512, Mechanism::Plain].into_iter().enumerate()
    {
        let copy = tempfile::tempdir().expect("a directory");
        let node = format!("node-{number}");
        let security = Security {
            protocol: Protocol::SaslSsl,
            ca_file: Some(good.ca_file.clone()),
            mechanism,
            user: Some(USER.into()),
            password: Some(Secret::new(PASSWORD)),
            ..Security::default()
        };
        let password = security.password().expect("it is there");
        let mut log =
            log(KafkaSettings { security, password, ..settings(&broker, &node) }, copy.path(), &node);
        log.submit(&[vec![opened(&node)]]).remove(0).expect("taken");
        until(&mut [&mut log], &format!("{mechanism:?}"), |_, done| done == 1);
    }
    let (good_ca, other_ca) = (good.ca_file.display().to_string(), other.ca_file.display().to_string());
    let right = [
        ("ANTIPHON_CLUSTER__KAFKA__PROTOCOL", "sasl_ssl"),
        ("ANTIPHON_CLUSTER__KAFKA__CA_FILE", good_ca.as_str()),
        ("ANTIPHON_CLUSTER__KAFKA__USER", USER),
        ("ANTIPHON_CLUSTER__KAFKA__PASSWORD", PASSWORD),
    ];
    assert_eq!(complaint(&broker, &right), "");
    let with = |key: &'static str, value: &str| {
        let changed: Vec<(&str, String)> = right
            .iter()
            .map(|(name, old)| (*name, if *name == key { value.to_owned() } else { (*old).to_owned() }))
            .collect();
        let borrowed: Vec<(&str, &str)> =
            changed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        complaint(&broker, &borrowed)
    };
    let words = with("ANTIPHON_CLUSTER__KAFKA__PASSWORD", "a-wrong-one");
    assert!(words.contains("cluster.kafka.mechanism, user and password"), "{words}");
    let words = with("ANTIPHON_CLUSTER__KAFKA__CA_FILE", &other_ca);
    assert!(words.contains("cluster.kafka.ca_file"), "{words}");
    let words = with("ANTIPHON_CLUSTER__KAFKA__CA_FILE", "/nowhere/ca.pem");
    assert!(words.contains("`cluster.kafka.ca_file`: /nowhere/ca.pem cannot be read"), "{words}");
    let missing = Security { ca_file: Some("/nowhere".into()), ..Security::default() };
    assert!(matches!(missing.check_files().as_slice(), [FileError { .. }]));
}
