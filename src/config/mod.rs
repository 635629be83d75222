//! Configuration: all keys with their defaults and their validation. `docs/CONFIGURATION.md` explains the keys;
//! `load.rs` reads them.

pub(crate) mod administrators;
mod limits;
mod load;
mod policies;
pub(crate) mod reload;
#[cfg(test)]
mod tests;

pub use self::{
    limits::LimitsConfig,
    policies::{FieldValue, NodeLimits, NoticeConfig, PolicyConfig},
    reload::log_failed_reload,
};

use std::{fmt, fs, net::SocketAddr, path::PathBuf, time::Duration};

use jid::Jid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    store::CACHE_MIB,
    xmpp::{MulticastConfig, StanzaLimits, Transport},
};

/// Complete configuration. The default values are those in `config/gjallar.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// JID of the component, as configured at the server.
    pub jid: String,
    /// Component port of the server, `host:port`.
    pub server: String,
    /// Shared secret of the component.
    pub secret: Secret,
    /// File with the secret, as an alternative to `secret`.
    pub secret_file: String,
    /// `sled:PATH` or `memory:`; empty for sled in the state directory.
    pub store: String,
    /// Size of the store's page cache in MiB.
    pub store_cache_mib: u16,
    /// Unix socket of the command line; empty for `control` in the store's folder.
    pub control: String,
    /// JIDs of the service's administrators.
    pub admins: Vec<String>,
    /// Entities that may create nodes: `server`, `anyone`, `admins`, or domains.
    pub creators: Vec<String>,
    /// `true` if replies contain hashes of item contents (XEP-0395).
    pub compare_and_publish: bool,
    /// Log filter: a level, or directives of tracing's `EnvFilter`.
    pub log: String,
    /// `human` or `json`.
    pub log_format: LogFormat,
    /// Monitoring.
    pub monitoring: MonitoringConfig,
    /// Connection to the server.
    pub link: LinkConfig,
    /// Limits of the service.
    pub limits: LimitsConfig,
    /// Policies of nodes by name pattern. No environment variable can set them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyConfig>,
}

/// Text that does not appear in logs or debug output.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Connection to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// Seconds without input after which the server is pinged.
    pub ping_after_seconds: u64,
    /// Maximum time in seconds until the server answers a ping.
    pub ping_deadline_seconds: u64,
    /// Maximum bytes of a stanza; larger stanzas are rejected. Must not exceed the server's own limit.
    pub max_stanza_bytes: usize,
    /// Maximum bytes of a stanza to a user of another server; must not exceed the limits of server-to-server streams.
    pub max_remote_stanza_bytes: usize,
    /// PEM file with the certificate authorities for the server's certificate; empty for no TLS.
    pub tls_ca: String,
    /// `true` if the service may connect without TLS to a server on another machine.
    pub allow_plain_tcp: bool,
    /// Multicast service (XEP-0033): `auto`, `off`, or its JID.
    pub multicast: String,
    /// Maximum nesting depth of a stanza, which bounds stack use. Not configurable.
    #[serde(skip)]
    pub max_depth: usize,
}

/// Maximum nesting depth of a stanza: far above the depth of real payloads, and far below what a stack holds.
const MAX_DEPTH: usize = 128;

impl Default for Config {
    fn default() -> Self {
        Self {
            jid: String::new(),
            server: "localhost:5347".into(),
            secret: Secret::default(),
            secret_file: String::new(),
            store: String::new(),
            store_cache_mib: CACHE_MIB,
            control: String::new(),
            admins: Vec::new(),
            creators: vec!["server".into()],
            compare_and_publish: false,
            log: "info".into(),
            log_format: LogFormat::Human,
            monitoring: MonitoringConfig::default(),
            link: LinkConfig::default(),
            limits: LimitsConfig::default(),
            policies: Vec::new(),
        }
    }
}

/// Section `[monitoring]`: metrics and health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitoringConfig {
    /// Address and port of the HTTP endpoints for metrics and health; empty for none.
    pub listen: String,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            ping_after_seconds: 30,
            ping_deadline_seconds: 15,
            max_stanza_bytes: 524_288,
            max_remote_stanza_bytes: 524_288,
            tls_ca: String::new(),
            allow_plain_tcp: false,
            multicast: "auto".into(),
            max_depth: MAX_DEPTH,
        }
    }
}

/// Error of a configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read {path}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or the file or a variable has an unknown key or a value of a wrong type.
    #[error("{0}")]
    Form(String),
    /// The value of a key is invalid.
    #[error("{key}: {reason}")]
    Value {
        /// Key.
        key: &'static str,
        /// Reason.
        reason: String,
    },
}

/// Location of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePath {
    /// In memory; the data is lost when the process ends.
    Memory,
    /// In this folder.
    Sled(PathBuf),
}

impl Config {
    /// Validates the configuration before anything is started.
    ///
    /// # Errors
    /// The first invalid value.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.component()?;
        self.policies()?;
        self.store_path()?;
        self.secret()?;
        self.transport()?;
        self.multicast()?;
        let has_port = self
            .server
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !has_port {
            return Err(invalid("server", format!("{:?} is not host:port", self.server)));
        }
        crate::runtime::logging::filter(&self.log)?;
        self.monitoring()?;
        if self.store_cache_mib == 0 {
            return Err(invalid("store_cache_mib", "at least 1"));
        }
        // Stanzas above the maximum would not fit into a sender queue.
        if !(StanzaLimits::MIN_BYTES..=4_000_000).contains(&self.link.max_stanza_bytes) {
            return Err(invalid("link.max_stanza_bytes", "from 10000 to 4000000"));
        }
        // Lists for users of other servers have this limit less the size of an envelope.
        if !(2 * limits::ENVELOPE_BYTES..=4_000_000).contains(&self.link.max_remote_stanza_bytes) {
            return Err(invalid("link.max_remote_stanza_bytes", "from 40000 to 4000000"));
        }
        for (key, seconds) in [
            ("link.ping_after_seconds", self.link.ping_after_seconds),
            ("link.ping_deadline_seconds", self.link.ping_deadline_seconds),
        ] {
            if !(1..=86_400).contains(&seconds) {
                return Err(invalid(key, "from 1 to 86400"));
            }
        }
        self.limits.check(&self.link)
    }

    /// Returns the component's JID.
    ///
    /// # Errors
    /// If the JID is not a domain.
    pub fn component(&self) -> Result<Jid, ConfigError> {
        if self.jid.is_empty() {
            return Err(invalid("jid", "not set: the component's JID, such as pubsub.example.org"));
        }
        // A-labels stay: the server addresses the component as its own configuration writes it.
        match Jid::new(&self.jid.to_lowercase()) {
            Ok(jid) if jid.node().is_none() && jid.resource().is_none() => Ok(jid),
            Ok(_) => Err(invalid("jid", format!("{:?} is not a domain", self.jid))),
            Err(error) => Err(invalid("jid", format!("{:?}: {error}", self.jid))),
        }
    }

    /// Returns the domain of the server's users, which is derived from the domain of the service: `example.org` for
    /// `pubsub.example.org`. Returns `None` if the derived domain would have no dot, except for `localhost`.
    pub(crate) fn server_domain(&self) -> Result<Option<String>, ConfigError> {
        Ok(host_of(self.component()?.domain().as_str()))
    }

    /// Returns the location of the store.
    ///
    /// # Errors
    /// If the kind of store is unknown.
    pub fn store_path(&self) -> Result<StorePath, ConfigError> {
        match self.store.split_once(':') {
            None if self.store.is_empty() => {
                Ok(StorePath::Sled(load::state_directory()?.join("store")))
            }
            Some(("memory", "")) => Ok(StorePath::Memory),
            Some(("sled", path)) if !path.is_empty() => Ok(StorePath::Sled(path.into())),
            _ => {
                Err(invalid("store", format!("{:?} is neither sled:PATH nor memory:", self.store)))
            }
        }
    }

    /// Returns the path of the control socket; `None` if the store is in memory and no path is configured.
    ///
    /// # Errors
    /// As [`store_path`](Self::store_path).
    pub fn control_path(&self) -> Result<Option<PathBuf>, ConfigError> {
        Ok(match (self.control.as_str(), self.store_path()?) {
            ("", StorePath::Memory) => None,
            ("", StorePath::Sled(directory)) => Some(directory.join("control")),
            (path, _) => Some(path.into()),
        })
    }

    /// Returns the address of the monitoring endpoints, if one is configured.
    ///
    /// # Errors
    /// If the value is not a loopback address with a port.
    pub fn monitoring(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let listen = self.monitoring.listen.as_str();
        match listen.parse::<SocketAddr>() {
            _ if listen.is_empty() => Ok(None),
            Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
            _ => Err(invalid(
                "monitoring.listen",
                format!("{listen:?} is not a loopback address with a port"),
            )),
        }
    }

    /// Returns the secret, from its file if one is configured.
    ///
    /// # Errors
    /// If neither or both of `secret` and `secret_file` are set, or if the file cannot be read or is empty.
    pub fn secret(&self) -> Result<String, ConfigError> {
        let secret = match (self.secret.0.is_empty(), self.secret_file.is_empty()) {
            (false, false) => return Err(invalid("secret_file", "secret is also set")),
            (false, true) => return Ok(self.secret.0.clone()),
            (true, true) => return Err(invalid("secret", "not set: set secret or secret_file")),
            (true, false) => fs::read_to_string(&self.secret_file).map_err(|error| {
                invalid("secret_file", format!("{}: {error}", self.secret_file))
            })?,
        };
        match secret.trim_end_matches(['\r', '\n']) {
            "" => Err(invalid("secret_file", format!("{} is empty", self.secret_file))),
            secret => Ok(secret.to_owned()),
        }
    }

    /// Returns the transport between the stream and the network: TCP or TLS.
    ///
    /// # Errors
    /// If the file with the certificate authorities cannot be read.
    pub fn transport(&self) -> Result<Transport, ConfigError> {
        match self.link.tls_ca.as_str() {
            "" if self.link.allow_plain_tcp => Ok(Transport::Plain),
            "" => Ok(Transport::Loopback),
            path => Transport::tls(path.as_ref())
                .map_err(|error| invalid("link.tls_ca", format!("{path}: {error}"))),
        }
    }

    /// Returns the setting of the discovery of a multicast service.
    ///
    /// # Errors
    /// If the value is not `auto`, `off` or a domain.
    pub fn multicast(&self) -> Result<MulticastConfig, ConfigError> {
        match self.link.multicast.as_str() {
            "off" => Ok(MulticastConfig::None),
            "auto" => Ok(self.server_domain()?.map_or(MulticastConfig::None, MulticastConfig::Of)),
            jid => match Jid::new(jid) {
                Ok(jid) if jid.node().is_none() && jid.resource().is_none() => {
                    let jid = jid.to_string();
                    let host = host_of(&jid).unwrap_or_else(|| jid.clone());
                    Ok(MulticastConfig::At { jid, host })
                }
                _ => {
                    Err(invalid("link.multicast", format!("{jid:?} is not auto, off or a domain")))
                }
            },
        }
    }

    /// Returns the limits of stanzas.
    #[must_use]
    pub fn stanza_limits(&self) -> StanzaLimits {
        StanzaLimits { max_bytes: self.link.max_stanza_bytes, max_depth: self.link.max_depth }
    }

    /// Returns the keepalive timeouts: the time until a ping, and the time to wait for its reply.
    #[must_use]
    pub fn keepalive_timeouts(&self) -> (Duration, Duration) {
        let LinkConfig { ping_after_seconds, ping_deadline_seconds, .. } = self.link;
        (Duration::from_secs(ping_after_seconds), Duration::from_secs(ping_deadline_seconds))
    }
}

pub(crate) fn invalid(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, reason: reason.into() }
}

/// Returns the domain of a service's server: the service's domain without its first label. Returns `None` if this
/// domain would be a top-level domain, because it would include too many users. Exception: `localhost` is allowed.
fn host_of(service: &str) -> Option<String> {
    let (_, host) = service.split_once('.')?;
    (host.contains('.') || host == "localhost").then(|| host.to_owned())
}
