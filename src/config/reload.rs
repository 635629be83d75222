//! Reload of the configuration while serving: policies, administrators, limits and the log filter. Other changes need a
//! restart.

use std::{collections::BTreeMap, error::Error};

use tokio::sync::watch;
use toml::{Table, Value};
use tracing::{error, info, warn};

use crate::{
    service::{Service, admission::RateLimits},
    xmpp::QueueLimits,
};

use crate::{
    config::Config,
    runtime::logging::{self, with_causes},
};

/// Keys that a reload applies in addition to all keys of `[limits]`.
const RELOADABLE_KEYS: [&str; 5] = ["admins", "compare_and_publish", "creators", "log", "policies"];

/// Applies each new configuration that `configs` receives. Runs until dropped.
pub(crate) async fn follow(
    mut current: Config,
    mut configs: watch::Receiver<Config>,
    service: &Service,
    rates: &watch::Sender<RateLimits>,
    queue_limits: &watch::Sender<QueueLimits>,
    administrators: &watch::Sender<Vec<String>>,
) {
    while configs.changed().await.is_ok() {
        let requested = configs.borrow_and_update().clone();
        let next = Config {
            admins: requested.admins.clone(),
            compare_and_publish: requested.compare_and_publish,
            creators: requested.creators.clone(),
            limits: requested.limits.clone(),
            log: requested.log.clone(),
            policies: requested.policies.clone(),
            ..current.clone()
        };
        if let Err(error) = requested.check() {
            log_failed_reload(&error);
            continue;
        }
        let policies = match next.check().and_then(|()| next.policies()) {
            Ok(policies) => policies,
            Err(error) => {
                error!(
                    event = "config_reload_needs_restart",
                    %error,
                    "configuration needs a restart; keeping the current configuration"
                );
                continue;
            }
        };
        if let Err(error) = service.set_policies(policies).await {
            log_failed_reload(&error);
            continue;
        }
        rates.send_replace(next.limits.rates());
        queue_limits.send_replace(next.limits.queues());
        logging::follow(&next);
        if current.admins != next.admins {
            let (before, after) = (current.admins.join(" "), next.admins.join(" "));
            info!(
                target: "gjallar::audit",
                event = "administrators_changed",
                what = "administrators",
                before,
                after,
                "administrators changed"
            );
            administrators.send_replace(next.admins.clone());
        }
        log_changed_keys(&current, &requested);
        info!(event = "config_reloaded", "configuration reloaded");
        current = next;
    }
    std::future::pending().await
}

/// Logs that the configuration cannot be reloaded.
pub fn log_failed_reload(error: &dyn Error) {
    error!(
        event = "config_reload_failed",
        error = %with_causes(error),
        "configuration reload failed; keeping the current configuration"
    );
}

/// Logs the keys that have changed. The values of numbers and booleans are logged too; other values may contain JIDs.
fn log_changed_keys(current: &Config, requested: &Config) {
    let (current, requested) = (keys(current), keys(requested));
    let all = current.keys().chain(requested.keys().filter(|key| !current.contains_key(*key)));
    for key in all.filter(|key| current.get(*key) != requested.get(*key)) {
        let is_reloadable = key.starts_with("limits.") || RELOADABLE_KEYS.contains(&key.as_str());
        match (is_reloadable, shown(current.get(key)), shown(requested.get(key))) {
            (false, ..) => warn!(
                event = "config_key_needs_restart",
                key, "configuration key changed; needs a restart"
            ),
            (true, before, after) => {
                info!(event = "config_key_changed", key, before, after, "configuration key changed")
            }
        }
    }
}

fn shown(value: Option<&Value>) -> Option<String> {
    value.filter(|value| value.is_integer() || value.is_bool()).map(Value::to_string)
}

/// Returns the values of all keys.
fn keys(config: &Config) -> BTreeMap<String, Value> {
    fn walk(table: Table, prefix: &str, keys: &mut BTreeMap<String, Value>) {
        for (name, value) in table {
            match value {
                Value::Table(inner) => walk(inner, &format!("{prefix}{name}."), keys),
                value => drop(keys.insert(format!("{prefix}{name}"), value)),
            }
        }
    }
    let mut all = BTreeMap::new();
    // A configuration that was read from TOML can be serialized as TOML.
    walk(Table::try_from(config).unwrap_or_default(), "", &mut all);
    all
}
