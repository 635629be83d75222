//! Logs: to standard error, for people or as JSON.

use tracing_subscriber::{EnvFilter, fmt};

use super::{Config, ConfigError, LogFormat};

/// Starts logging.
///
/// # Errors
/// If the filter is not understood.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| ConfigError::Value { key: "log", reason: error.to_string() })?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // In tests of one process a second start keeps the first.
    let _ = match config.log_format {
        LogFormat::Human => logs.with_target(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}
