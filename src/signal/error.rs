//! Refusals as `application/problem+json` (RFC 9457), each with a stable `code`.
//!
//! `title` is the status phrase, as §4.2.1 wants it where there is no `type`; `code` is for programs and
//! `detail` for people. A detail never repeats a token, an address or a message's text.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::core::ids::NameError;
use crate::core::protocol::{Code, Refusal};

/// Seconds after which a client may try again, where waiting can help.
const RETRY_SECONDS: u16 = 2;

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// As in [`Code`], or `method_not_allowed`.
    pub code: &'static str,
    pub detail: String,
    challenge: Option<&'static str>,
}

/// The body of every error answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemBody<'a> {
    /// The status phrase.
    #[schema(value_type = String, example = "Not Found")]
    title: &'a str,
    #[schema(example = 404)]
    status: u16,
    /// Stable, for programs.
    #[schema(value_type = String, example = "not_found")]
    code: &'a str,
    /// What happened and what to do, for people.
    #[schema(value_type = String)]
    detail: &'a str,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let challenge = (code == Code::Unauthorized).then_some(r#"Bearer realm="antiphon""#);
        Self { status: status_of(code), code: code.as_str(), detail: detail.into(), challenge }
    }

    /// 401 for a token that was shown and is no good (RFC 6750 §3.1).
    pub fn invalid_token(detail: impl Into<String>) -> Self {
        let challenge = Some(r#"Bearer realm="antiphon", error="invalid_token""#);
        Self { challenge, ..Self::new(Code::Unauthorized, detail) }
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "method_not_allowed",
            detail: "this path does not take this method; `Allow` lists those it takes".into(),
            challenge: None,
        }
    }
}

/// The HTTP status under which each refusal goes out.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Malformed | Code::UnknownType => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
        Code::Forbidden | Code::RoomPrivate => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::RoomExists
        | Code::RoomFull
        | Code::WrongOffset
        | Code::EndToEndEncrypted
        | Code::AlreadyRecording
        | Code::ConsentNeeded
        | Code::PayoutMissing => StatusCode::CONFLICT,
        Code::Gone => StatusCode::GONE,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge | Code::QuotaExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::BadOffer => StatusCode::UNPROCESSABLE_ENTITY,
        Code::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::RoomLocked | Code::UploadBusy => StatusCode::LOCKED,
        Code::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        // As the checksum extension of tus has it.
        Code::ChecksumMismatch => StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::NodeFull | Code::Draining | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::new(Code::Malformed, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = (self.status, axum::Json(&body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(problem: Problem) -> serde_json::Value {
        let bytes = problem.into_response().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code_and_words() {
        let problem = Problem::from(Refusal::new(Code::RoomFull, "the room has 2 people already"));
        let json = body(problem).await;
        assert_eq!(json["code"], "room_full");
        assert_eq!(json["detail"], "the room has 2 people already");
        assert_eq!(json["status"], 409);
        assert_eq!(json["title"], "Conflict");
    }

    #[test]
    fn a_refusal_says_how_to_go_on_in_its_headers() {
        let response = Problem::new(Code::Draining, "").into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let response = Problem::new(Code::Unauthorized, "").into_response();
        assert_eq!(response.headers()[WWW_AUTHENTICATE], r#"Bearer realm="antiphon""#);
        let response = Problem::invalid_token("").into_response();
        assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().contains("invalid_token"));
    }
}
