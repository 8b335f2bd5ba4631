//! How nodes speak to Kafka: in clear or by TLS, and as whom.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// By what a connection to a broker is carried, by Kafka's own names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How a node says who it is. SCRAM (RFC 5802) shows a broker that it knows the password, PLAIN (RFC 4616)
/// shows it the password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[default]
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The connection to the brokers of `cluster.kafka_brokers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    pub protocol: Protocol,
    /// PEM file with the authorities that brokers' certificates are checked against; absent, the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM files with which a node shows who it is, where brokers ask for that by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    pub mechanism: Mechanism,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// In place of `password`: the file's first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// A file that the configuration names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {} {why}", path.display())]
pub struct FileError {
    pub key: &'static str,
    pub path: PathBuf,
    pub why: String,
}

impl Kafka {
    /// Pure; what files hold, [`Self::check_files`] says.
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        if self.protocol.has_sasl() {
            if self.user.as_ref().is_none_or(String::is_empty) {
                wrong.push(format!(
                    "`cluster.kafka.user`: with protocol {} it is needed, as is password or password_file",
                    self.protocol.as_str()
                ));
            }
            if self.password.is_some() == self.password_file.is_some() {
                wrong
                    .push("`cluster.kafka.password`, `cluster.kafka.password_file`: give one of them".into());
            }
        } else if self.user.is_some() || self.password.is_some() || self.password_file.is_some() {
            wrong.push(format!(
                "`cluster.kafka.user`: protocol {} shows nobody who a node is; accepted with sasl_ssl and \
                 sasl_plaintext",
                self.protocol.as_str()
            ));
        }
        if !self.protocol.has_tls()
            && (self.ca_file.is_some() || self.cert_file.is_some() || self.key_file.is_some())
        {
            wrong.push(format!(
                "`cluster.kafka.ca_file`, `cert_file`, `key_file`: protocol {} has no TLS; accepted with ssl \
                 and sasl_ssl",
                self.protocol.as_str()
            ));
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            wrong.push("`cluster.kafka.cert_file`, `cluster.kafka.key_file`: give both, or neither".into());
        }
    }

    /// Reads what is named, and says of each file that cannot be used why.
    pub fn check_files(&self) -> Vec<FileError> {
        let pem = [
            ("cluster.kafka.ca_file", &self.ca_file, "CERTIFICATE"),
            ("cluster.kafka.cert_file", &self.cert_file, "CERTIFICATE"),
            ("cluster.kafka.key_file", &self.key_file, "PRIVATE KEY"),
        ];
        let pem = pem.into_iter().filter_map(|(key, path, kind)| check_pem(key, path.as_ref()?, kind).err());
        pem.chain(self.password().err()).collect()
    }

    /// The password, from wherever it is.
    ///
    /// # Errors
    /// The file cannot be read, or has none in its first line.
    pub fn password(&self) -> Result<Option<Secret>, FileError> {
        let Some(path) = &self.password_file else { return Ok(self.password.clone()) };
        let failed = |why: String| FileError { key: "cluster.kafka.password_file", path: path.clone(), why };
        let text =
            std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            Err(failed("has no password in its first line".into()))
        } else {
            Ok(Some(Secret::new(line)))
        }
    }
}

/// A PEM file with something of this kind in it.
pub(super) fn check_pem(key: &'static str, path: &PathBuf, kind: &str) -> Result<(), FileError> {
    let failed = |why: String| FileError { key, path: path.clone(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let has_it = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind));
    if has_it { Ok(()) } else { Err(failed(format!("is no PEM file with a {kind} in it"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(kafka: &Kafka) -> Vec<String> {
        let mut wrong = Vec::new();
        kafka.check(&mut wrong);
        wrong
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        assert_eq!(wrong(&Kafka::default()), Vec::<String>::new());
        let sasl = Kafka {
            protocol: Protocol::SaslSsl,
            user: Some("node".into()),
            password: Some(Secret::new("s")),
            ..Kafka::default()
        };
        assert_eq!(wrong(&sasl), Vec::<String>::new());
        let cases = [
            (Kafka { user: None, ..sasl.clone() }, "kafka.user"),
            (Kafka { password: None, ..sasl.clone() }, "give one of them"),
            (Kafka { password_file: Some("p".into()), ..sasl.clone() }, "give one of them"),
            (Kafka { protocol: Protocol::Ssl, ..sasl.clone() }, "shows nobody"),
            (Kafka { ca_file: Some("ca".into()), ..Kafka::default() }, "has no TLS"),
            (Kafka { cert_file: Some("c".into()), ..sasl.clone() }, "both, or neither"),
        ];
        for (kafka, words) in cases {
            assert!(wrong(&kafka).iter().any(|line| line.contains(words)), "{words}: {:?}", wrong(&kafka));
        }
    }

    #[test]
    fn files_say_what_is_wrong_with_them_and_never_what_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let kafka = Kafka {
            protocol: Protocol::SaslSsl,
            ca_file: Some(directory.path().join("missing.pem")),
            key_file: Some(file("key.pem", "top secret, and no key")),
            password_file: Some(file("password", "\ntop secret")),
            ..Kafka::default()
        };
        let told: Vec<String> = kafka.check_files().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("`cluster.kafka.ca_file`") && told[0].contains("cannot be read"),
            "{told:?}"
        );
        assert!(told[1].contains("PRIVATE KEY") && told[2].contains("first line"), "{told:?}");
        assert!(told.iter().all(|line| !line.contains("top secret")), "{told:?}");
        let good = Kafka { password_file: Some(file("good", "p w\n")), ..Kafka::default() };
        assert_eq!(good.password().unwrap(), Some(Secret::new("p w")));
    }
}
