//! tus 1.0.0: creation, creation-with-upload, checksum, termination, expiration.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::access::{FileParams, author};
use crate::core::files::metadata;
use crate::core::ids::{MessageId, RoomName};
use crate::core::protocol::Code;
use crate::files::{Arriving, Checksum, NewUpload, Progress};
use crate::signal::Signal;
use crate::signal::error::{Problem, ProblemBody};
use crate::signal::extract::{InRoom, OfFile, Params};

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,checksum,termination,expiration";
const ALGORITHMS: &str = "sha256,sha1";
/// Media type of bytes that are added to an upload.
const OFFSET_OCTET_STREAM: &str = "application/offset+octet-stream";

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// What pages of other origins may send and read.
pub const TUS_HEADERS: [HeaderName; 11] = [
    TUS_RESUMABLE,
    TUS_VERSION,
    TUS_EXTENSION,
    TUS_MAX_SIZE,
    TUS_CHECKSUM_ALGORITHM,
    UPLOAD_OFFSET,
    UPLOAD_LENGTH,
    UPLOAD_METADATA,
    UPLOAD_CHECKSUM,
    UPLOAD_EXPIRES,
    METHOD_OVERRIDE,
];

/// Speaks the protocol's version on every answer, says what is spoken to `OPTIONS`, and holds requests to the
/// version where they must name it.
pub async fn speak(State(signal): State<Arc<Signal>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let named = request.headers().get(TUS_RESUMABLE).map(|version| version == VERSION);
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let must_name = match method {
        Method::POST if path.ends_with("/files") => true,
        Method::POST => request.headers().contains_key(METHOD_OVERRIDE),
        Method::PATCH => path.ends_with("/{file}"),
        _ => false,
    };
    let asks = method == Method::OPTIONS;
    let mut response = if !asks && (named == Some(false) || must_name && named.is_none()) {
        let words = "`Tus-Resumable` must be 1.0.0, the version that is spoken here";
        Problem::new(Code::PreconditionFailed, words).into_response()
    } else {
        next.run(request).await
    };
    let refused = response.status() == StatusCode::PRECONDITION_FAILED;
    let headers = response.headers_mut();
    headers.insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    if asks || refused {
        headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    }
    if asks {
        headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
        headers.insert(TUS_CHECKSUM_ALGORITHM, HeaderValue::from_static(ALGORITHMS));
        if let Some(max) = signal.files.file_bytes_max() {
            headers.insert(TUS_MAX_SIZE, max.into());
        }
    }
    response
}

/// `POST` that stands for another method, from where only `POST` gets through (`X-HTTP-Method-Override`).
pub async fn overridden(
    signal: State<Arc<Signal>>,
    room: InRoom,
    id: OfFile,
    params: Params<FileParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    match text(&headers, &METHOD_OVERRIDE)? {
        Some("PATCH") => receive(signal, room, id, params, headers, body).await,
        Some("DELETE") => Ok(cancel(signal, room, id, params, headers).await?.into_response()),
        _ => Ok(([(ALLOW, "GET,HEAD,PATCH,DELETE")], Problem::method_not_allowed()).into_response()),
    }
}

/// Begin an upload
///
/// tus 1.0.0, creation and creation-with-upload. What it will take is reserved. `Location` is where its bytes
/// go, and where the file is once they have all come. Then it is in the room's chat.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/files", tag = "files",
    params(
        ("room" = RoomName, Path), FileParams,
        ("Upload-Length" = u64, Header, description = "Bytes of the file"),
        ("Upload-Metadata" = Option<String>, Header, description = "`filename` and its value in base64"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body(content = Option<Vec<u8>>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 201, headers(
            ("Location", description = "The upload, and then the file"),
            ("Upload-Offset", description = "Bytes that have come"),
            ("Upload-Expires", description = "When it is forgotten unless it goes on"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, \
            412 precondition_failed, 413 too_large or quota_exceeded, 429 rate_limited"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json",
            description = "503 unavailable, 507 storage_full"),
    )
)]
pub async fn create(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<FileParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let author = author(&signal, &headers, &room, params).await?;
    let size_bytes = number(&headers, &UPLOAD_LENGTH)?.ok_or_else(|| {
        Problem::new(Code::Malformed, "`Upload-Length` must say how many bytes the file has")
    })?;
    let said = text(&headers, &UPLOAD_METADATA)?.unwrap_or_default();
    let file_name = metadata(said)?.name;
    let sent = body_length(&headers)?;
    let brings_bytes = has_type(&headers, OFFSET_OCTET_STREAM);
    if !brings_bytes && sent.is_some_and(|length| length > 0) {
        return Err(wrong_type());
    }
    let checksum = checksum(&headers)?;
    let (identity, name, metadata) = (author.identity, author.name, said.to_owned());
    let new = NewUpload { room: room.clone(), identity, name, file_name, size_bytes, metadata };
    let upload = signal.files.create(new).await?;
    // Of this very node: bytes that are sent to another would be on their way when that sends them here.
    let node = signal.control.own_url();
    let location = [(LOCATION, format!("{node}/v1/rooms/{room}/files/{}", upload.id))];
    let progress = if brings_bytes || size_bytes == 0 {
        let body = body.into_data_stream();
        let arriving = Arriving { offset: 0, length: sent.filter(|_| brings_bytes), checksum, body };
        // The upload is there, whatever became of its first bytes: HEAD says.
        match signal.files.receive(&room, &upload.id, arriving).await {
            Ok(progress) => progress,
            Err(refusal) => return Ok((location, Problem::from(refusal)).into_response()),
        }
    } else {
        signal.files.progress(&room, &upload.id).await?
    };
    Ok((StatusCode::CREATED, location, progress_headers(&progress)).into_response())
}

/// How far an upload is
///
/// With `Tus-Resumable`; without it, the head of the file. Here for who calls it: axum answers `HEAD` by
/// `GET`.
pub async fn progress(
    signal: &Signal,
    room: &RoomName,
    id: &MessageId,
    headers: &HeaderMap,
    params: FileParams,
) -> Result<Response, Problem> {
    author(signal, headers, room, params).await?;
    let progress = signal.files.progress(room, id).await?;
    let mut response = (StatusCode::OK, progress_headers(&progress)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(UPLOAD_LENGTH, progress.size_bytes.into());
    if let Ok(value) = HeaderValue::from_str(&progress.metadata)
        && !progress.metadata.is_empty()
    {
        headers.insert(UPLOAD_METADATA, value);
    }
    Ok(response)
}

/// True where a request speaks of an upload rather than of a file.
pub fn speaks_of_upload(headers: &HeaderMap) -> bool {
    headers.contains_key(TUS_RESUMABLE)
}

/// Go on with an upload
///
/// tus 1.0.0: bytes from `Upload-Offset` on. What came before a connection was cut is kept. After the last
/// byte the file is stored, and the answer comes when it is in its room.
#[utoipa::path(
    patch, path = "/v1/rooms/{room}/files/{file}", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path), FileParams,
        ("Upload-Offset" = u64, Header, description = "Where the bytes go on"),
        ("Upload-Checksum" = Option<String>, Header, description = "`sha256` or `sha1`, and base64"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, headers(
            ("Upload-Offset", description = "Bytes that have come"),
            ("Upload-Expires", description = "When it is forgotten unless it goes on"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, 409 wrong_offset, \
            410 gone, 412 precondition_failed, 413 too_large, 415 unsupported_media_type, 423 upload_busy, \
            460 checksum_mismatch"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json",
            description = "503 unavailable, 507 storage_full"),
    )
)]
pub async fn receive(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    Params(params): Params<FileParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    author(&signal, &headers, &room, params).await?;
    if !has_type(&headers, OFFSET_OCTET_STREAM) {
        return Err(wrong_type());
    }
    let offset = number(&headers, &UPLOAD_OFFSET)?
        .ok_or_else(|| Problem::new(Code::Malformed, "`Upload-Offset` must say where the bytes go on"))?;
    let (length, checksum) = (body_length(&headers)?, checksum(&headers)?);
    let arriving = Arriving { offset, length, checksum, body: body.into_data_stream() };
    let progress = signal.files.receive(&room, &id, arriving).await?;
    Ok((StatusCode::NO_CONTENT, progress_headers(&progress)).into_response())
}

/// Delete a file, or give an upload up
///
/// A file is deleted with its message, by its author or an admin. An unfinished upload ends (tus 1.0.0,
/// termination).
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/files/{file}", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path), FileParams,
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found, 410 gone, 423 upload_busy"),
    )
)]
pub async fn cancel(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    Params(params): Params<FileParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let author = author(&signal, &headers, &room, params).await?;
    match signal.files.cancel(&room, &id).await {
        Err(refusal) if refusal.code == Code::NotFound => {
            signal.files.kept(&room, &id).await?;
            signal.files.delete(&room, id, author).await?;
        }
        ended => ended?,
    }
    Ok(StatusCode::NO_CONTENT)
}

fn progress_headers(progress: &Progress) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(UPLOAD_OFFSET, progress.offset.into());
    let expires = progress.expires_at_ms.map(|at_ms| UNIX_EPOCH + Duration::from_millis(at_ms));
    if let Some(date) = expires.map(httpdate::fmt_http_date)
        && let Ok(date) = HeaderValue::from_str(&date)
    {
        headers.insert(UPLOAD_EXPIRES, date);
    }
    headers
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let wrong = |_| Problem::new(Code::Malformed, format!("`{name}` is no plain ASCII"));
    headers.get(name).map(|value| value.to_str().map_err(wrong)).transpose()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    let wrong = || Problem::new(Code::Malformed, format!("`{name}` is a number of bytes, from 0"));
    number.map(Some).ok_or_else(wrong)
}

fn body_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    number(headers, &CONTENT_LENGTH)
}

fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    let Some(text) = text(headers, &UPLOAD_CHECKSUM)? else { return Ok(None) };
    let wrong = |words: &str| Problem::new(Code::Malformed, format!("`Upload-Checksum` {words}"));
    let (name, sum) = text.split_once(' ').ok_or_else(|| wrong("is an algorithm and base64"))?;
    let algorithm = match name {
        "sha256" => &digest::SHA256,
        "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        _ => return Err(wrong("takes the algorithms sha256 and sha1")),
    };
    let digest = STANDARD.decode(sum.trim()).map_err(|_| wrong("is an algorithm and base64"))?;
    Ok(Some(Checksum { algorithm, digest }))
}

fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
}

fn wrong_type() -> Problem {
    let words = format!("the body's `Content-Type` must be `{OFFSET_OCTET_STREAM}`");
    Problem::new(Code::UnsupportedMediaType, words)
}
