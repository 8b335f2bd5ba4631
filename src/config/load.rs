//! Reads the configuration from its places: preset, file, environment, flags; the later wins.
//!
//! Takes the environment as a value, so that a test needs none of its own. An error names the key, where it
//! was read and what would be accepted there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, DEV_KEY_ID, DEV_KEY_SECRET, Problems, Secret};

const ENV_PREFIX: &str = "ANTIPHON_";

/// Keys that hold lists: in the environment, a comma parts their values.
const LISTS: [&str; 6] = [
    "http.cors_origins",
    "http.trusted_proxies",
    "media.listen",
    "node.public_ip",
    "rtmp.listen",
    "turn.urls",
];

/// What `--dev` changes; the file and the environment may change it again, but HTTP not away from loopback.
/// Media listens on the machine's own addresses too: Firefox never sends media to a loopback address, and
/// without a join over HTTP nothing answers there.
const DEV_PRESET: &str = r#"
http.listen = "127.0.0.1:7880"
auth.guests = true
streams.private_targets = true
"#;

/// Settings given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub dev: bool,
    pub listen: Option<SocketAddr>,
    /// Empty: not given.
    pub public_ip: Vec<IpAddr>,
    pub data_dir: Option<PathBuf>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Names and values as the process got them; those without our prefix are passed over.
    pub env: Vec<(String, String)>,
    pub flags: Flags,
}

/// The configuration cannot be used; the words say which key, where, and what is accepted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: std::io::Error },
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
    #[error(transparent)]
    Refused(#[from] Problems),
}

impl Config {
    /// # Errors
    /// [`LoadError`], with every wrong key that could be found at once.
    pub fn load(sources: &Sources) -> Result<Self, LoadError> {
        let flags = &sources.flags;
        let mut figment = Figment::new();
        if flags.dev {
            figment = figment.merge(Toml::string(DEV_PRESET));
        }
        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path)
                .map_err(|reason| LoadError::Unreadable { path: path.clone(), reason })?;
            figment = figment.merge(FileText { path, text });
        }
        let mut config: Self = figment
            .merge(Environment(&sources.env))
            .extract()
            .map_err(|error| LoadError::Wrong(explain(error)))?;
        config.dev = flags.dev;
        if flags.dev {
            config.auth.keys.entry(DEV_KEY_ID.into()).or_insert_with(|| Secret::new(DEV_KEY_SECRET));
        }
        if let Some(listen) = flags.listen {
            config.http.listen = listen;
        }
        if !flags.public_ip.is_empty() {
            config.node.public_ip.clone_from(&flags.public_ip);
        }
        if let Some(data_dir) = &flags.data_dir {
            config.node.data_dir.clone_from(data_dir);
        }
        config.validate()?;
        Ok(config)
    }
}

/// The file, already read, so that a file that is absent is never taken for one that is empty.
struct FileText<'a> {
    path: &'a Path,
    text: String,
}

impl Provider for FileText<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::from("file", self.path)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Toml::string(&self.text).data()
    }
}

/// `ANTIPHON_SECTION__KEY` variables. A name without `__` is not ours to judge: orchestrators make their own,
/// such as `ANTIPHON_PORT`. An empty value is as good as none.
struct Environment<'a>(&'a [(String, String)]);

impl Provider for Environment<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment").interpolater(|_, keys| {
            let keys: Vec<_> = keys.iter().map(|key| key.to_uppercase()).collect();
            format!("{ENV_PREFIX}{}", keys.join("__"))
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (name, text) in self.0 {
            let Some(path) = name.strip_prefix(ENV_PREFIX).filter(|path| path.contains("__")) else {
                continue;
            };
            if text.is_empty() {
                continue;
            }
            let path = path.to_lowercase().replace("__", ".");
            let nested = figment::util::nest(&path, env_value(&path, text));
            if let Some(dict) = nested.into_dict() {
                merge(&mut root, dict);
            }
        }
        Ok(Profile::Default.collect(root))
    }
}

fn env_value(path: &str, text: &str) -> Value {
    if LISTS.contains(&path) {
        return Value::from(text.split(',').map(str::trim).collect::<Vec<_>>());
    }
    // A secret may look like a number and must stay as it is.
    let is_text = ["cluster.redis_url", "cluster.node_id", "cluster.region", "cluster.kafka_brokers"]
        .contains(&path)
        || ["cluster.relay.key", "payments.key", "cluster.kafka.user", "cluster.kafka.password"]
            .contains(&path);
    if is_text
        || path.starts_with("auth.keys.")
        || path.starts_with("files.s3.") && path != "files.s3.allow_http"
    {
        return Value::from(text);
    }
    match (text.parse::<bool>(), text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(value), _, _) => Value::from(value),
        (_, Ok(value), _) => Value::from(value),
        (_, _, Ok(value)) => Value::from(value),
        _ => Value::from(text),
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, old)), Value::Dict(_, new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// One line for each thing that is wrong.
fn explain(errors: figment::Error) -> Vec<String> {
    errors.into_iter().map(|error| format!("{}{}", Place(&error), Reason(&error.kind))).collect()
}

/// The key, as it is written where it was read, and that place.
struct Place<'a>(&'a figment::Error);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let mut path = error.path.clone();
        if let Kind::UnknownField(name, _) = &error.kind
            && path.last() != Some(name)
        {
            path.push(name.clone());
        }
        let metadata = error.metadata.as_ref();
        match metadata.and_then(|metadata| metadata.source.as_ref()) {
            Some(source) if path.is_empty() => write!(f, "{source}: "),
            Some(source) => write!(f, "`{}` in {source}: ", path.join(".")),
            None => match metadata {
                Some(metadata) => {
                    write!(f, "`{}` in the environment: ", metadata.interpolate(&Profile::Default, &path))
                }
                None => write!(f, "`{}`: ", path.join(".")),
            },
        }
    }
}

struct Reason<'a>(&'a Kind);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::UnknownField(name, accepted) => {
                write!(f, "no such key")?;
                let near = accepted.iter().min_by_key(|key| strsim::damerau_levenshtein(key, name));
                if let Some(near) = near.filter(|key| strsim::damerau_levenshtein(key, name) <= 3) {
                    write!(f, "; did you mean `{near}`?")?;
                }
                write!(f, " Accepted here: {}", accepted.join(", "))
            }
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                write!(f, "found {found}, accepted is {expected}")
            }
            Kind::Message(message) => write!(f, "{message}"),
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn load(file: &str, pairs: &[(&str, &str)], flags: Flags) -> Result<Config, String> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("antiphon-config-{}-{count}.toml", std::process::id()));
        std::fs::write(&path, file).map_err(|error| error.to_string())?;
        let loaded = Config::load(&Sources { file: Some(path.clone()), env: env(pairs), flags });
        std::fs::remove_file(&path).map_err(|error| error.to_string())?;
        loaded.map_err(|error| error.to_string())
    }

    const KEYS: &str = "[auth.keys]\nk1 = \"0123456789abcdef0123456789abcdef\"\n";

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = format!("[http]\nlisten = \"127.0.0.1:1\"\n[rooms]\nempty_seconds = 1\n{KEYS}");
        let set = [("ANTIPHON_HTTP__LISTEN", "127.0.0.1:2"), ("ANTIPHON_ROOMS__EMPTY_SECONDS", "2")];
        let flags = Flags { listen: Some(([127, 0, 0, 1], 3).into()), ..Flags::default() };
        let config = load(&file, &set, flags).unwrap();
        assert_eq!(config.http.listen.port(), 3);
        assert_eq!(config.rooms.empty_seconds, 2);
        assert_eq!(config.rooms.resume_seconds, 15, "what nobody names keeps its default");
    }

    #[test]
    fn the_environment_alone_is_enough() {
        let config = load(
            "",
            &[
                ("ANTIPHON_AUTH__KEYS__K1", "01234567890123456789012345678901"),
                ("ANTIPHON_NODE__PUBLIC_IP", "203.0.113.7, 2001:db8::7"),
                ("ANTIPHON_HTTP__LISTEN", "[::1]:7880"),
                ("ANTIPHON_LIMITS__JOINS_PER_SECOND", "2.5"),
                ("ANTIPHON_MEDIA__UDP", "false"),
                ("ANTIPHON_TLS__CERT", ""),
                ("ANTIPHON_PORT", "tcp://10.0.0.1:7880"),
                ("HOME", "/root"),
            ],
            Flags::default(),
        )
        .unwrap();
        assert_eq!(config.auth.keys["k1"].reveal(), "01234567890123456789012345678901");
        assert_eq!(config.node.public_ip.len(), 2);
        assert!(config.http.listen.is_ipv6());
        assert!(!config.media.udp);
        assert_eq!(config.tls.cert, None);
    }

    #[test]
    fn an_unknown_key_names_itself_its_place_and_its_neighbours() {
        let error = load(&format!("[http]\nlisen = \"x\"\n{KEYS}"), &[], Flags::default()).unwrap_err();
        assert!(error.contains("`http.lisen` in"), "{error}");
        assert!(error.contains("antiphon-config-"), "{error}");
        assert!(error.contains("did you mean `listen`?"), "{error}");
        assert!(error.contains("public_url"), "{error}");
        let error = load(KEYS, &[("ANTIPHON_ROOMS__EMTY_SECONDS", "1")], Flags::default()).unwrap_err();
        assert!(error.contains("`ANTIPHON_ROOMS__EMTY_SECONDS` in the environment"), "{error}");
        assert!(error.contains("`empty_seconds`"), "{error}");
    }

    #[test]
    fn a_wrong_value_says_what_is_accepted() {
        let error = load(&format!("[media]\nudp_port = \"x\"\n{KEYS}"), &[], Flags::default()).unwrap_err();
        assert!(error.contains("`media.udp_port` in") && error.contains("u16"), "{error}");
        let error = load(KEYS, &[("ANTIPHON_HTTP__LISTEN", "here")], Flags::default()).unwrap_err();
        assert!(error.contains("ANTIPHON_HTTP__LISTEN") && error.contains("socket address"), "{error}");
        let error = load("[http\n", &[], Flags::default()).unwrap_err();
        assert!(error.contains("antiphon-config-") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let sources = Sources { file: Some("/nonexistent/antiphon.toml".into()), ..Sources::default() };
        let error = Config::load(&sources).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/antiphon.toml"), "{error}");
    }

    #[test]
    fn dev_is_open_on_loopback_and_nowhere_else() {
        let dev = Flags { dev: true, ..Flags::default() };
        let config = load("", &[], dev.clone()).unwrap();
        assert!(config.dev && config.auth.guests && config.http.listen.ip().is_loopback());
        assert_eq!(config.auth.keys[DEV_KEY_ID].reveal(), DEV_KEY_SECRET);
        let error = load("[http]\nlisten = \"0.0.0.0:7880\"\n", &[], dev).unwrap_err();
        assert!(error.contains("http.listen") && error.contains("loopback"), "{error}");
    }

    #[test]
    fn without_a_key_the_error_says_how_to_make_one() {
        let error = load("", &[], Flags::default()).unwrap_err();
        assert!(error.contains("antiphon keys") && error.contains("auth.keys"), "{error}");
        assert!(load("[auth]\nguests = true\n", &[], Flags::default()).is_ok());
    }
}
