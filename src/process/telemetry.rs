//! Logs: to standard error, for people or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use super::{Config, ConfigError, LogFormat};

/// Starts logging.
///
/// # Errors
/// If the filter is not understood.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let logs = fmt().with_env_filter(filter(&config.log)?).with_writer(std::io::stderr);
    // In tests of one process a second start keeps the first.
    let _ = match config.log_format {
        LogFormat::Human => {
            // Colours are for eyes, not for files.
            logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
        }
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Understands what shall be logged.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(directives)
        .map_err(|error| ConfigError::Value { key: "log", reason: error.to_string() })
}
