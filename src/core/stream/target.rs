//! Where a room is pushed to: an RTMP address, read and taken apart.
//!
//! Its last part is the stream's key, a secret: it is kept apart, and shown nowhere.

use crate::core::refusal::{Code, Refusal};

/// Longer than any service's.
const URL_BYTES_MAX: usize = 2_048;
const PORT: u16 = 1935;
const TLS_PORT: u16 = 443;

/// A server and a publication on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub app: String,
    /// The stream's key, with its query.
    key: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Target {
    /// Reads `rtmp://host[:port]/app/key` or `rtmps://…`.
    ///
    /// # Errors
    /// `malformed`; the words repeat nothing of it.
    pub fn parse(url: &str) -> Result<Self, Refusal> {
        let malformed = |words: &str| Refusal::new(Code::Malformed, words.to_owned());
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if url.len() > URL_BYTES_MAX || !is_plain {
            return Err(malformed("the URL is too long, or has characters that belong in no URL"));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(malformed("accepted are URLs that begin with rtmp:// or rtmps://")),
        };
        let wanted = "accepted is rtmp://host/app/key: a host, an application and a stream key";
        let (authority, path) = rest.split_once('/').ok_or_else(|| malformed(wanted))?;
        if authority.contains('@') {
            return Err(malformed("a user name in the URL is not supported"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| malformed(wanted))?;
        let port = match port {
            None => {
                if tls {
                    TLS_PORT
                } else {
                    PORT
                }
            }
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(malformed("the URL's port is none")),
            },
        };
        // A key's query may have slashes of its own.
        let path_end = path.find('?').unwrap_or(path.len());
        let split = path.get(..path_end).and_then(|path| path.rfind('/')).ok_or_else(|| malformed(wanted))?;
        let (app, key) = (&path[..split], &path[split + 1..]);
        if app.is_empty() || key.is_empty() || key.starts_with('?') {
            return Err(malformed(wanted));
        }
        Ok(Self { tls, host: host.to_owned(), port, app: app.to_owned(), key: key.to_owned() })
    }

    /// The stream's key, for the server alone.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the server is told that it was called by: without the key.
    pub fn tc_url(&self) -> String {
        let scheme = if self.tls { "rtmps" } else { "rtmp" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = match (self.tls, self.port) {
            (true, TLS_PORT) | (false, PORT) => String::new(),
            (_, port) => format!(":{port}"),
        };
        format!("{scheme}://{host}{port}/{}", self.app)
    }

    /// With the key: as it was read, for another node alone.
    pub fn whole(&self) -> String {
        format!("{}/{}", self.tc_url(), self.key)
    }

    /// For people: the key is left out.
    pub fn shown(&self) -> String {
        format!("{}/…", self.tc_url())
    }
}

/// The host, without brackets, and the port.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            let is_address =
                host.contains(':') && host.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b));
            (
                Some(host).filter(|_| is_address)?,
                if after.is_empty() { None } else { Some(after.strip_prefix(':')?) },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    is_name.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let parse = |url| Target::parse(url).unwrap();
        let target = parse("rtmp://live.example.org/app/key?a=b/c");
        assert_eq!((target.tls, target.host.as_str(), target.port), (false, "live.example.org", 1935));
        assert_eq!((target.app.as_str(), target.key()), ("app", "key?a=b/c"));
        assert_eq!(target.tc_url(), "rtmp://live.example.org/app");
        let whole = target.whole();
        assert_eq!(parse(&whole), target);
        let target = parse("RTMPS://h:8443/a/b/key");
        assert_eq!((target.tls, target.port, target.app.as_str(), target.key()), (true, 8443, "a/b", "key"));
        assert_eq!(target.tc_url(), "rtmps://h:8443/a/b");
        let target = parse("rtmp://[2001:db8::1]:9/a/k");
        assert_eq!(
            (target.host.as_str(), target.tc_url().as_str()),
            ("2001:db8::1", "rtmp://[2001:db8::1]:9/a")
        );
    }

    #[test]
    fn the_key_is_shown_nowhere() {
        let target = Target::parse("rtmps://h/app/secret?token=secret").unwrap();
        assert_eq!(target.shown(), "rtmps://h/app/…");
        assert!(!format!("{target:?} {}", target.tc_url()).contains("secret"));
    }

    #[test]
    fn what_is_no_target_is_refused_without_repeating_it() {
        let long = format!("rtmp://h/a/{}", "secret".repeat(500));
        for url in [
            "",
            "secret",
            "http://h/a/secret",
            "rtmp://h",
            "rtmp://h/secret",
            "rtmp:///a/secret",
            "rtmp://h//secret",
            "rtmp://h/a/",
            "rtmp://h/a/?secret",
            "rtmp://u:secret@h/a/b",
            "rtmp://h:0/a/secret",
            "rtmp://h:99999/a/secret",
            "rtmp://h/a/sec ret",
            "rtmp://h\r\n/a/secret",
            "rtmp://[::1/a/secret",
            "rtmp://[h]/a/secret",
            "rtmp://h:1:2/a/secret",
            &long,
        ] {
            let refusal = Target::parse(url).unwrap_err();
            assert_eq!(refusal.code, Code::Malformed, "{url}");
            assert!(!refusal.message.contains("secret"), "{url}: {refusal}");
        }
    }
}
