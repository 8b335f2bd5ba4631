//! WHIP (RFC 9725), WHEP and this server's own joins, which are of the same form, with the identity in
//! the query as this server's open rooms take it.

use reqwest::{Client, Url, header};

use super::{ANSWER_WITHIN, Join, Line, Role, reason};

/// Joins, stays, and ends the session when the run is over.
pub(super) async fn join(http: &Client, base: &Url, mut join: Join, line: &Line) -> Result<(), String> {
    let path = match join.role {
        Role::Publisher(_) => "whip",
        Role::Viewer(_) => "whep",
        Role::Person(_) => "participants",
    };
    let path = format!("/v1/rooms/{}/{path}?identity={}", join.room_name(), join.identity());
    let url = base.join(&path).map_err(|error| error.to_string())?;
    let (answer, session) = exchange(http, url, join.offer()?).await?;
    line.answer(answer);
    line.over().await;
    if let Some(session) = session {
        http.delete(session).send().await.map_err(reason)?;
    }
    Ok(())
}

/// Posts an offer. Returns the answer and the session's URL.
async fn exchange(http: &Client, url: Url, offer: String) -> Result<(String, Option<Url>), String> {
    let request = http.post(url).header(header::CONTENT_TYPE, "application/sdp").body(offer);
    let response = request.timeout(ANSWER_WITHIN).send().await.map_err(reason)?;
    let status = response.status();
    let session = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let session = session.and_then(|location| response.url().join(location).ok());
    let body = response.text().await.map_err(reason)?;
    if !status.is_success() {
        return Err(format!("{status}: {}", body.chars().take(200).collect::<String>()));
    }
    Ok((body, session))
}
