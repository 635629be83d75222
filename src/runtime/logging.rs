//! Logging to standard error, as text or JSON.

use std::{error::Error, io::IsTerminal, iter, sync::OnceLock};

use tracing::{Level, subscriber};
use tracing_subscriber::{
    EnvFilter, Registry, fmt,
    layer::SubscriberExt,
    reload::{self, Handle},
    util::SubscriberInitExt,
};

use crate::config::{Config, ConfigError, LogFormat};

/// Handle of the log filter, for a reload.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging.
///
/// # Errors
/// If the filter is invalid.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let (filter, handle) = reload::Layer::new(filter(&config.log)?);
    let logs = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Human => {
            // Colours are for terminals, not for files.
            let lines = lines.with_target(false).with_ansi(std::io::stderr().is_terminal());
            logs.with(lines).try_init()
        }
        LogFormat::Json => logs.with(lines.json().flatten_event(true)).try_init(),
    };
    // Fails in tests that start logging twice in one process; the first subscriber stays.
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// Starts to print warnings to standard error, in a process that is not a service. Records of the crate `log`, such as
/// those of tokio-xmpp, are left out.
pub fn print_warnings() {
    let lines = fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(Level::WARN);
    // Fails in tests that start logging twice in one process; the first subscriber stays.
    let _ = subscriber::set_global_default(lines.finish());
}

/// Returns the texts of an error and of its causes, separated by colons.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Replaces the log filter by that of `config`. An invalid filter is ignored.
pub(crate) fn follow(config: &Config) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), filter(&config.log)) {
        // Fails only if the subscriber no longer exists.
        let _ = handle.reload(filter);
    }
}

/// Parses a log filter.
pub(crate) fn filter(directives: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(directives)
        .map_err(|error| ConfigError::Value { key: "log", reason: error.to_string() })
}
