//! Renders the control protocol's types as TypeScript, and holds the committed file to them.
//!
//! `UPDATE=1 cargo test --lib protocol_export` rewrites `web/src/client/protocol.ts`.

use std::fmt::Write as _;
use std::path::Path;

use ts_rs::{Config, TS};

use super::mix::Fit;
use super::mix::colour::Colour;
use super::mix::layout::{Layout, LayoutBox};
use super::protocol::*;

const HEADER: &str = "/**
 * The messages of the `control` data channel, protocol `antiphon.v1`.
 *
 * Generated from `src/core/protocol.rs`; do not edit. Rewrite it with
 * `UPDATE=1 cargo test --lib protocol_export`.
 */
";

fn declare<T: TS>(file: &mut String, config: &Config) {
    let _ = writeln!(file);
    if let Some(docs) = T::docs() {
        file.push_str(docs.trim_end());
        file.push('\n');
    }
    let _ = writeln!(file, "export {}", T::decl(config).trim_end());
}

fn rendered() -> String {
    let config = Config::new();
    let mut file = HEADER.to_owned();
    let _ = writeln!(file, "\nexport const PROTOCOL = '{PROTOCOL}';");
    let _ = writeln!(file, "export const CONTROL_LABEL = '{CONTROL_LABEL}';");
    let _ = writeln!(file, "export const LOSSY_LABEL = '{LOSSY_LABEL}';");
    let _ = writeln!(file, "export const MESSAGE_BYTES_MAX = {MESSAGE_BYTES_MAX};");
    declare::<crate::core::ids::RoomName>(&mut file, &config);
    declare::<crate::core::ids::Identity>(&mut file, &config);
    declare::<crate::core::ids::MessageId>(&mut file, &config);
    declare::<Mode>(&mut file, &config);
    declare::<Access>(&mut file, &config);
    declare::<Kind>(&mut file, &config);
    declare::<Source>(&mut file, &config);
    declare::<Fit>(&mut file, &config);
    declare::<Colour>(&mut file, &config);
    declare::<LayoutBox>(&mut file, &config);
    declare::<Layout>(&mut file, &config);
    declare::<ConsentRule>(&mut file, &config);
    declare::<EndReason>(&mut file, &config);
    declare::<RecordingId>(&mut file, &config);
    declare::<RecordingState>(&mut file, &config);
    declare::<RoomState>(&mut file, &config);
    declare::<RoomChange>(&mut file, &config);
    declare::<Grant>(&mut file, &config);
    declare::<TrackState>(&mut file, &config);
    declare::<crate::core::feed::Playing>(&mut file, &config);
    declare::<ParticipantState>(&mut file, &config);
    declare::<SlotState>(&mut file, &config);
    declare::<SlotWish>(&mut file, &config);
    declare::<PublishedTrack>(&mut file, &config);
    declare::<crate::core::files::FileState>(&mut file, &config);
    declare::<ChatMessage>(&mut file, &config);
    declare::<SlotStats>(&mut file, &config);
    declare::<ModeReason>(&mut file, &config);
    declare::<LeaveReason>(&mut file, &config);
    declare::<Code>(&mut file, &config);
    declare::<ClientMessage>(&mut file, &config);
    declare::<ServerMessage>(&mut file, &config);
    file
}

#[test]
fn the_clients_protocol_is_generated_from_these_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/src/client/protocol.ts");
    let expected = rendered();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expected).expect("web/src/client can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("web/src/client/protocol.ts is committed");
    assert!(
        committed == expected,
        "web/src/client/protocol.ts is older than src/core/protocol.rs: \
         run UPDATE=1 cargo test --lib protocol_export"
    );
}
