//! `docs/PROTOCOL.md` against the code: every example is one of the messages, whole and nothing more, and
//! every message and code has its place in the document.

use std::collections::BTreeSet;

use antiphon::core::protocol::{Request, ServerMessage};
use serde_json::{Deserializer, Value};

const DOCUMENT: &str = include_str!("../docs/PROTOCOL.md");
const TYPES: &str = include_str!("../src/core/protocol.rs");
const CODES: &str = include_str!("../src/core/refusal.rs");

/// The JSON objects in all blocks fenced with these words.
fn examples(fence: &str) -> Vec<Value> {
    let opening = format!("```{fence}\n");
    let blocks = DOCUMENT.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks
        .flat_map(|block| Deserializer::from_str(block).into_iter::<Value>())
        .map(|value| value.unwrap_or_else(|error| panic!("not JSON in a {fence} block: {error}")))
        .collect()
}

/// The `type` of every example.
fn shown(examples: &[Value]) -> BTreeSet<&str> {
    examples.iter().filter_map(|example| example["type"].as_str()).collect()
}

/// The names that an enum of messages gives its variants.
fn named(declaration: &str) -> BTreeSet<&'static str> {
    let body =
        TYPES.split(declaration).nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap_or_default();
    let names = body.split("#[serde(rename = \"").skip(1).filter_map(|rest| rest.split('"').next());
    names.collect()
}

#[test]
fn every_example_of_a_client_is_a_message_and_nothing_more() {
    let examples = examples("json client");
    for example in &examples {
        let message: Request =
            serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{example}: {error}"));
        let written = serde_json::to_value(&message).expect("a message is JSON");
        assert_eq!(without_defaults(&written), without_defaults(example));
    }
    assert_eq!(shown(&examples), named("pub enum ClientMessage {"));
}

#[test]
fn every_example_of_the_server_is_a_message_and_nothing_more() {
    let examples = examples("json server");
    for example in &examples {
        let message: ServerMessage =
            serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(&serde_json::to_value(&message).expect("a message is JSON"), example);
    }
    assert_eq!(shown(&examples), named("pub enum ServerMessage {"));
}

/// Leaves out what is written as null where it was not given.
fn without_defaults(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name.clone(), without_defaults(field)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn every_code_is_explained() {
    let written: BTreeSet<&str> =
        CODES.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let section = DOCUMENT.split("### Codes").nth(1).unwrap_or_default();
    let table = section.split("\n#").next().unwrap_or_default();
    let explained: BTreeSet<&str> =
        table.split("\n| `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(written.len() > 10, "the codes were not found in the source");
    assert_eq!(explained, written);
}
