//! Recordings of a room: start, stop, list, fetch, delete. For the room's owner and admins, and what is sold
//! for its buyers.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{self, InRoom, OfName, OfRecording};
use super::files::{Asker, Link, Shown, Signature};
use super::member::member;
use super::paywall::{PaymentRequired, may_fetch_sold, still_bought};
use super::ranges::{self, Served};
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::Resource;
use crate::core::protocol::Code;
use crate::core::recording::manifest::{Manifest, RecordedFile};
use crate::core::recording::{RecordingId, RecordingState, RecordingWish};

/// What to record.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordingBody {
    /// Each track as it comes, in a file of its own. True where neither is said.
    tracks: Option<bool>,
    /// The mix, in one MP4. The node must be able to mix.
    mix: Option<bool>,
}

/// A recording, and where its files are.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ListedRecording {
    #[serde(flatten)]
    manifest: Manifest,
    bytes: u64,
    /// Its path in this API. A file is at `{url}/files/{name}`.
    url: String,
}

/// Recordings of a room, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RecordingList {
    recordings: Vec<ListedRecording>,
}

fn listed(manifest: Manifest) -> ListedRecording {
    let url = path(&manifest.room, &manifest.id);
    ListedRecording { bytes: manifest.bytes(), manifest, url }
}

/// What runs in the room, as it is before its recorder has made its folder.
async fn starting(signal: &Signal, room: &RoomName) -> Option<Manifest> {
    let state = signal.control.room(room).await.ok()?.state.recording?;
    Some(Manifest::new(room.clone(), state))
}

fn path(room: &RoomName, id: &RecordingId) -> String {
    format!("/v1/rooms/{room}/recordings/{id}")
}

pub fn path_of_file(room: &RoomName, id: &RecordingId, name: &str) -> String {
    // Names of a recording's files are plain.
    format!("{}/files/{name}", path(room, id))
}

/// Whose hand records: an admin's, by a token or by the session of a connection.
async fn admin(signal: &Signal, headers: &HeaderMap, room: &RoomName) -> Result<Option<Identity>, Problem> {
    match member(signal, headers, room).await? {
        Some(member) if member.grant.admin => Ok(Some(member.identity)),
        Some(_) => {
            Err(Problem::new(Code::Forbidden, "only the room's owner and admins have to do with recordings"))
        }
        None => {
            let caller = signal.authority.caller(headers)?;
            signal.authority.may_administer(&caller, room)
        }
    }
}

/// Record a room
///
/// One recording at a time. All in the room are told. Needs the room's `admin` grant.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/recordings", tag = "recordings",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body = Option<RecordingBody>,
    responses(
        (status = 201, body = RecordingState, headers(("Location", description = "The recording"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, \
                409 already_recording, consent_needed or end_to_end_encrypted, 413 quota_exceeded"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json",
            description = "503 unavailable: this node does not record, or not the mix; 507 storage_full"),
    )
)]
pub async fn start(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
    extract::Json(body): extract::Json<RecordingBody>,
) -> Result<Response, Problem> {
    let by = admin(&signal, &headers, &room).await?;
    let (tracks, mix) = match (body.tracks, body.mix) {
        (None, None) => (true, false),
        (tracks, mix) => (tracks.unwrap_or(false), mix.unwrap_or(false)),
    };
    let id = signal.recordings.admit(&room).await?;
    let state = signal.control.start_recording(&room, RecordingWish { id, tracks, mix }, by).await?;
    let location = [(LOCATION, path(&room, &state.id))];
    Ok((StatusCode::CREATED, location, Json(state)).into_response())
}

/// Stop a recording
///
/// Its files are put in order after that: it is `finished` soon. Needs the room's `admin` grant.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/recordings/{recording}/stop", tag = "recordings",
    params(
        ("room" = RoomName, Path), ("recording" = RecordingId, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = RecordingState, description = "As it was when it ended"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn stop(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    headers: HeaderMap,
) -> Result<Json<RecordingState>, Problem> {
    let by = admin(&signal, &headers, &room).await?;
    Ok(Json(signal.control.stop_recording(&room, id, by).await?))
}

/// List the recordings of a room
///
/// Newest first. They outlive their room. Needs the room's `admin` grant.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/recordings", tag = "recordings",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = RecordingList),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Json<RecordingList>, Problem> {
    admin(&signal, &headers, &room).await?;
    let mut manifests = signal.recordings.list(&room).await?;
    if let Some(starting) = starting(&signal, &room).await
        && manifests.iter().all(|manifest| manifest.id != starting.id)
    {
        manifests.insert(0, starting);
    }
    Ok(Json(RecordingList { recordings: manifests.into_iter().map(listed).collect() }))
}

/// Look at a recording
#[utoipa::path(
    get, path = "/v1/rooms/{room}/recordings/{recording}", tag = "recordings",
    params(
        ("room" = RoomName, Path), ("recording" = RecordingId, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = ListedRecording),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn show(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    headers: HeaderMap,
) -> Result<Json<ListedRecording>, Problem> {
    admin(&signal, &headers, &room).await?;
    let manifest = match signal.recordings.show(&room, &id).await {
        Err(refusal) if refusal.code == Code::NotFound => {
            starting(&signal, &room).await.filter(|manifest| manifest.id == id).ok_or(refusal)?
        }
        shown => shown?,
    };
    Ok(Json(listed(manifest)))
}

/// Delete a recording
///
/// With all its files. One that runs has to be stopped first.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/recordings/{recording}", tag = "recordings",
    params(
        ("room" = RoomName, Path), ("recording" = RecordingId, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 204, description = "It is no more"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found, 409 already_recording"),
    )
)]
pub async fn delete(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let by = admin(&signal, &headers, &room).await?;
    signal.recordings.delete(&room, &id).await?;
    signal.control.note_deleted_recording(room, id, by);
    Ok(StatusCode::NO_CONTENT)
}

/// Fetch a file of a recording
///
/// In whole or in part (`Range`), also while it is written. Also by the address that a `link` gives.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/recordings/{recording}/files/{name}", tag = "recordings",
    params(
        ("room" = RoomName, Path), ("recording" = RecordingId, Path), ("name" = String, Path), Signature,
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "It is as the entity tag says"),
        (status = 402, body = PaymentRequired, content_type = "application/problem+json",
            description = "payment_required: the recording is sold; with an invoice, and L402 for programs"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found, 416 range_not_satisfiable"),
    )
)]
pub async fn contents(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    OfName(name): OfName,
    Asker { signature, from }: Asker,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let of = Resource::recording(&room, &id);
    let shown = signal.links.admits(&path_of_file(&room, &id, &name), &signature)?;
    if shown == Shown::Nothing && !signal.billing.is_sold(&of) {
        admin(&signal, &headers, &room).await?;
    }
    let open = signal.recordings.file(&room, &id, &name).await?;
    match shown {
        Shown::Buyer(viewer) => still_bought(&signal, &of, viewer).await?,
        // Nobody is asked to pay for what is not there.
        Shown::Nothing if signal.billing.is_sold(&of) => {
            if let Some(asked) = may_fetch_sold(&signal, &headers, &of, from).await? {
                return Ok(asked);
            }
        }
        Shown::Nothing | Shown::Anyone => {}
    }
    let etag = open.etag.clone();
    let served =
        Served { size: open.size, etag: &etag, media_type: Manifest::media_type(&name), name: &name };
    ranges::serve(&method, &headers, served, async |range| {
        let sent = metrics::counter!("antiphon_recordings_sent_bytes_total");
        let chunks = open.stream(range).await?;
        Ok(Body::from_stream(chunks.inspect_ok(move |chunk| sent.increment(chunk.len() as u64))))
    })
    .await
}

/// Make an address of a recording's file that needs no header
///
/// For a download or a player. It holds for ten minutes, and for this file.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/recordings/{recording}/files/{name}/link", tag = "recordings",
    params(
        ("room" = RoomName, Path), ("recording" = RecordingId, Path), ("name" = String, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Link),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn link(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    OfName(name): OfName,
    headers: HeaderMap,
) -> Result<Json<Link>, Problem> {
    admin(&signal, &headers, &room).await?;
    let manifest = signal.recordings.show(&room, &id).await?;
    let is_there = |file: &RecordedFile| file.name == name;
    if !manifest.files.iter().any(is_there) {
        return Err(Problem::new(Code::NotFound, "the recording has no such file"));
    }
    Ok(Json(signal.links.link(&path_of_file(&room, &id, &name))))
}
