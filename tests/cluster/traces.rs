//! One trace over two nodes, as a collector sees it: by HTTP, through Redis, over a link and in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock};

use antiphon::bench::person::Person;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use serde_json::json;

use crate::nodes::{Links, RELAY_KEY, Setup, World};
use crate::stage::Stage;
use crate::until;

/// What a collector was told of one span.
#[derive(Debug, Clone)]
struct Told {
    trace: String,
    /// Its own id, and that of the span in which it began.
    span: String,
    parent: String,
    node: String,
    name: String,
    attributes: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Told>>>);

/// Where nodes find the collector: their environment is made by a plain function.
static ENDPOINT: OnceLock<String> = OnceLock::new();

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

impl Collector {
    /// The one of all tests here.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Collector> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it is taken");
        let address = listener.local_addr().expect("its address");
        ENDPOINT.set(format!("http://{address}")).expect("there is one");
        let taker = collector.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let take = post(move |body: Bytes| async move { taker.take(body) });
                let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
                let router = axum::Router::new().route("/v1/traces", take);
                let service = router.into_make_service();
                axum_server::from_tcp(listener.into_std().expect("a listener"))
                    .expect("it listens")
                    .serve(service)
                    .await
                    .expect("it serves");
            });
        });
        collector
    }

    fn take(&self, body: Bytes) -> StatusCode {
        let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
        let mut told = self.0.lock().expect("no panic");
        for from in request.resource_spans {
            let about = from.resource.map(|resource| resource.attributes).unwrap_or_default();
            let node = about.into_iter().find(|about| about.key == "service.instance.id");
            let node = text(node.and_then(|node| node.value?.value));
            for span in from.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let attributes = span.attributes.into_iter();
                told.push(Told {
                    trace: hex(&span.trace_id),
                    span: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    node: node.clone(),
                    name: span.name,
                    attributes: attributes
                        .map(|pair| (pair.key, text(pair.value.and_then(|value| value.value))))
                        .collect(),
                });
            }
        }
        StatusCode::OK
    }

    /// What it was told of a trace: node and name of each span.
    fn trace(&self, id: &str) -> BTreeSet<(String, String)> {
        let told = self.0.lock().expect("no panic");
        let of_it = told.iter().filter(|span| span.trace == id);
        of_it.map(|span| (span.node.clone(), span.name.clone())).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-b7ad6b7169203331-01")
}

#[test]
fn a_trace_goes_on_at_the_other_node() {
    let collector = Collector::shared();
    let extra = |_| {
        let endpoint = ENDPOINT.get().cloned().unwrap_or_default();
        vec![("ANTIPHON_TELEMETRY__OTLP__ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "200".into())]
    };
    let world = World::of(Setup { nodes: 2, kafka: true, links: Links::Far, extra, ..Setup::default() });
    let mut stage = Stage::new();

    // A room is made, whose opening both nodes read; a viewer comes to the other node, which asks for a
    // branch.
    let made = "0af7651916cd43dd8448eb211c80319c";
    let rooms = format!("{}/v1/rooms", world.nodes[0].url);
    let reply = world.ask_within(&traceparent(made), "POST", &rooms, Some(json!({"name": "traced"})));
    assert_eq!(reply.expect("an answer").status, 201);
    let home = world.home_of("traced").expect("a home");
    let other = 1 - home;
    stage.publish(&world, home, "traced", 1);
    let watched = "1bf7651916cd43dd8448eb211c80319d";
    let (seat, sdp) = stage.offer();
    let url = format!("{}/whep", world.url_of(other, "traced"));
    let (status, _, answer) = world.join_within(&traceparent(watched), &url, sdp);
    assert_eq!(status, 201, "{answer}");
    stage.engine.answer(seat, &answer);
    let person = Person::start("traced", "ann", 7, world.urls()).expect("a thread");
    until("she is in", || person.story().welcomes == 1);
    assert!(person.say("m-1", "words that nobody else may read"));
    until("it is acknowledged", || person.story().acknowledged.len() == 1);
    // Sent on by a 307 to the home, with the same header.
    let looked = "2cf7651916cd43dd8448eb211c80319e";
    for node in [other, home] {
        let messages = format!("{}/messages", world.url_of(node, "traced"));
        world.ask_within(&traceparent(looked), "GET", &messages, None).expect("an answer");
    }

    let id = |node: usize| format!("node-{node}");
    let has = |trace: &str, node: usize, name: &str| {
        collector.trace(trace).iter().any(|(at, of)| *at == id(node) && of.contains(name))
    };
    until("the collector has the room's making", || {
        has(made, 0, "POST")
            && has(made, 0, "redis")
            && has(made, 0, "append")
            && (0..2).all(|n| has(made, n, "read"))
    });
    until("the collector has the viewer's coming", || {
        has(watched, other, "whep") && has(watched, other, "redis") && has(watched, home, "give branch")
    });
    until("the collector has both ends of the 307", || {
        has(looked, other, "messages") && has(looked, home, "messages")
    });
    println!("{}", json!({"what": "one trace over two nodes", "spans": collector.trace(watched)}));
    let told = collector.0.lock().expect("no panic").clone();
    let secrets = ["127.0.0.1", "words that nobody", RELAY_KEY, "antiphon-seat", "a=candidate"];
    for span in &told {
        let all = format!("{span:?}");
        assert!(secrets.iter().all(|secret| !all.contains(secret)), "{all}");
    }
    assert!(told.iter().any(|span| span.attributes.contains_key("room")));
}

/// A node that answers for another sends the trace with the request.
#[test]
fn a_trace_goes_on_where_a_request_is_passed_on() {
    let collector = Collector::shared();
    let extra = |_| {
        let endpoint = ENDPOINT.get().cloned().unwrap_or_default();
        vec![
            ("ANTIPHON_TELEMETRY__OTLP__ENDPOINT", endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".into()),
            ("ANTIPHON_CLUSTER__PROXY", "true".into()),
        ]
    };
    let world = World::of(Setup { nodes: 2, extra, ..Setup::default() });
    world.make(0, "passed");
    // Every node answers for it now; the registry says whose it is.
    let home = world.owner_of("passed").expect("an owner");
    let other = 1 - home;
    let looked = "3df7651916cd43dd8448eb211c80319f";
    let messages = format!("{}/messages", world.url_of(other, "passed"));
    let reply = world.ask_within(&traceparent(looked), "GET", &messages, None).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let find = |node: usize, name: &str| {
        let told = collector.0.lock().expect("no panic");
        let id = format!("node-{node}");
        told.iter().find(|span| span.trace == looked && span.node == id && span.name.contains(name)).cloned()
    };
    until("the collector has both ends", || {
        find(other, "pass on").is_some() && find(home, "messages").is_some()
    });
    let (passed_on, answered) =
        (find(other, "pass on").expect("told"), find(home, "messages").expect("told"));
    assert_eq!(answered.parent, passed_on.span, "it goes on where it was passed on");
    let asked = find(other, "messages").expect("told");
    assert_eq!((passed_on.parent, asked.parent.as_str()), (asked.span, "b7ad6b7169203331"));
}
