//! The configuration of files: where they are kept, how much of them, and for how long.

use serde::{Deserialize, Serialize};

use super::Secret;

/// Files that people send into rooms. Sizes in bytes; 0 is no bound.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// Off, nothing new is taken; what is there can be fetched.
    pub enabled: bool,
    pub file_bytes_max: u64,
    /// All files of one room.
    pub room_bytes_max: u64,
    /// All files of one identity, in all rooms.
    pub identity_bytes_max: u64,
    /// All files of the node; the same contents count once.
    pub node_bytes_max: u64,
    /// What the disk under `node.data_dir` keeps free: an upload that would take more is refused.
    pub disk_reserve_bytes: u64,
    /// Unfinished uploads of one identity, and of the node.
    pub uploads_per_identity_max: u32,
    pub uploads_max: u32,
    /// Hours after which an upload that does not go on is forgotten.
    pub upload_hours: u64,
    /// Days after which a file is removed; 0 keeps all until they are deleted.
    pub retention_days: u64,
    /// Look into pictures, sound and video for their measures and a thumbnail.
    pub previews: bool,
    /// Keep files in an S3-compatible store; absent, in `node.data_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            enabled: true,
            file_bytes_max: 4 << 30,
            room_bytes_max: 20 << 30,
            identity_bytes_max: 20 << 30,
            node_bytes_max: 100 << 30,
            disk_reserve_bytes: 512 << 20,
            uploads_per_identity_max: 64,
            uploads_max: 1_000,
            upload_hours: 24,
            retention_days: 30,
            previews: true,
            s3: None,
        }
    }
}

/// A bucket. Without keys, those of the environment or the machine's role are taken, as AWS's own tools do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    pub bucket: String,
    /// Such as `https://minio.example.org:9000`; absent, AWS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default = "default_region")]
    pub region: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// In front of every key, such as `antiphon/`.
    #[serde(default)]
    pub prefix: String,
    /// Speak to the endpoint without TLS.
    #[serde(default)]
    pub allow_http: bool,
}

fn default_region() -> String {
    "us-east-1".into()
}

impl Files {
    /// Adds what cannot be used.
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        for (key, count) in [
            ("uploads_per_identity_max", u64::from(self.uploads_per_identity_max)),
            ("uploads_max", u64::from(self.uploads_max)),
            ("upload_hours", self.upload_hours),
        ] {
            if count == 0 {
                wrong.push(format!("`files.{key}`: accepted is 1 or more"));
            }
        }
        let Some(s3) = &self.s3 else { return };
        if s3.bucket.is_empty() {
            wrong.push("`files.s3.bucket`: the name of a bucket is needed".into());
        }
        if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
            let words = "`files.s3.access_key_id` and `files.s3.secret_access_key`: give both, or neither";
            wrong.push(words.into());
        }
        if s3.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http:")) && !s3.allow_http {
            wrong
                .push("`files.s3.endpoint` is without TLS: set files.s3.allow_http = true to mean it".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_needs_a_name_both_keys_and_tls() {
        let words = |text: &str| {
            let files: Files = toml::from_str(text).expect("of the right form");
            let mut wrong = Vec::new();
            files.check(&mut wrong);
            wrong.join("\n")
        };
        assert_eq!(words("[s3]\nbucket = \"b\""), "");
        assert!(words("[s3]\nbucket = \"\"").contains("files.s3.bucket"));
        assert!(words("[s3]\nbucket = \"b\"\naccess_key_id = \"a\"").contains("secret_access_key"));
        assert!(words("[s3]\nbucket = \"b\"\nendpoint = \"http://x\"").contains("allow_http"));
        assert!(words("uploads_max = 0").contains("files.uploads_max"));
    }

    #[test]
    fn a_secret_key_is_not_printed() {
        let text = "[s3]\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_access_key = \"tell-nobody\"";
        let files: Files = toml::from_str(text).expect("of the right form");
        assert!(!toml::to_string(&files).expect("TOML").contains("tell-nobody"));
    }
}
