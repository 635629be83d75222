//! Startup and shutdown of the service: from a configuration to a running process.

mod audit_log;
mod clock;
pub mod doctor;
pub(crate) mod logging;
mod random;
pub mod store_tools;
mod systemd;

pub use clock::now;
pub use logging::{print_warnings, start as start_telemetry, with_causes};
pub use random::RandomIds;

use std::sync::Arc;

use jid::Jid;
use thiserror::Error;
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use crate::{
    admin::{ControlError, ControlSocket},
    config::{self, Config, ConfigError, StorePath},
    migrate::{MigrationError, archive::ArchiveError},
    service::{Service, TaskSet, admission::RateLimits},
    store::{MemoryStore, SledStore, Store, StoreError},
    xmpp::{self, XmppFrontEnd},
};
use gjallar_pubsub::{Creators, IdGenerator};

/// Error that prevents a process from serving.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error("failed to use the store {path}")]
    Store {
        /// Path of the store.
        path: String,
        /// Cause.
        source: StoreError,
    },
    /// The running service rejected a request or did not answer.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A store cannot be exported or imported.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The data of another service cannot be read or imported.
    #[error(transparent)]
    Foreign(#[from] MigrationError),
}

/// Opens the store of a configuration, and serves until the process is asked to stop. A later configuration in
/// `configs` is applied, except for changes that need a restart.
///
/// # Errors
/// If the configuration is invalid or the store cannot be opened. An unreachable server is no error: the connection is
/// retried.
pub async fn run(
    mut configs: watch::Receiver<Config>,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    // Opening the store may take a while; a configuration received meanwhile is reloaded afterwards.
    let config = configs.borrow_and_update().clone();
    config.check()?;
    let began = Instant::now();
    let store = open(&config.store_path()?, config.store_cache_mib)?;
    Box::pin(serve_as(config, configs, store, began, stop)).await
}

/// Serves the nodes of a store until the process is asked to stop, and closes the store.
///
/// # Errors
/// If the configuration is invalid or the store cannot be read.
pub async fn serve(
    mut configs: watch::Receiver<Config>,
    store: Arc<dyn Store>,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let config = configs.borrow_and_update().clone();
    Box::pin(serve_as(config, configs, store, Instant::now(), stop)).await
}

/// Serves the nodes of a store. `began` is the time at which opening the store began. The log message `service started`
/// has the time since `began` as `recovery_ms`.
async fn serve_as(
    config: Config,
    configs: watch::Receiver<Config>,
    store: Arc<dyn Store>,
    began: Instant,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let jid = config.component()?;
    let policies = config.policies()?;
    let path = config.store_path()?;
    if *policies.creators() == Creators::Administrators && config.creators != ["admins"] {
        warn!(
            event = "creators_restricted",
            creators = ?config.creators,
            "only administrators may create nodes"
        );
    }
    let fresh: Arc<dyn IdGenerator> = Arc::new(RandomIds::default());
    let service =
        Service::open(store, policies.limits().clone(), Arc::clone(&fresh), Arc::new(now)).await;
    let service = service.map_err(|source| RunError::Store { path: shown(&path), source })?;
    let governed = service.set_policies(policies).await;
    governed.map_err(|source| RunError::Store { path: shown(&path), source })?;
    let service = Arc::new(service.with_auditor(Arc::new(audit_log::log)));
    info!(
        event = "service_started",
        version = env!("CARGO_PKG_VERSION"),
        %jid,
        store = shown(&path),
        nodes = service.node_count(),
        pending_entries = service.log_window().size().0,
        recovery_ms = began.elapsed().as_millis() as u64,
        "service started"
    );

    let (rates, metered) = watch::channel(config.limits.rates());
    let (queue_limits, queued) = watch::channel(config.limits.queues());
    let link = component_config(&config, metered, queued)?;
    let doctor = doctor::doctor(&config, &link, fresh)?;
    let front_end = Arc::new(XmppFrontEnd::new(Arc::clone(&service), link));
    let examiner = Arc::new(doctor::Examiner { doctor, front_end: Arc::clone(&front_end) });
    let control = control(&config, &path, &jid)?;
    let monitoring = match config.monitoring()? {
        Some(address) => Some(crate::http::listen(address).await.map_err(|error| {
            config::invalid("monitoring.listen", format!("{address}: {error}"))
        })?),
        None => None,
    };
    let mut tasks = TaskSet::default();
    service.spawn_workers(&mut tasks);
    if let Some(control) = control {
        let service = Arc::clone(&service);
        tasks.spawn("control_socket", async move { control.serve(&service, examiner).await });
    }
    if let Some(listener) = monitoring {
        tasks.spawn("monitoring", crate::http::serve(listener, Arc::clone(&service)));
    }
    let (administrators, changed) = watch::channel(config.admins.clone());
    let folder = match &path {
        StorePath::Sled(folder) => Some(folder.clone()),
        StorePath::Memory => None,
    };
    let ending_access = config::administrators::follow(changed, Arc::clone(&service), folder);
    tasks.spawn("former_administrators", ending_access);
    let reloading = Arc::clone(&service);
    tasks.spawn("reload", async move {
        let (rates, queues) = (&rates, &queue_limits);
        config::reload::follow(config, configs, &reloading, rates, queues, &administrators).await;
    });
    // The watchdog has to notice if the task of the connection stalls, so this task notifies systemd.
    let serving = async {
        tokio::select! {
            () = front_end.run(stop) => {}
            () = systemd::run_notifier() => {}
        }
    };
    Box::pin(tasks.run(serving)).await;
    systemd::ends();
    service.close().await;
    info!(event = "service_stopped", "service stopped");
    Ok(())
}

/// Returns the configuration of the connection to the server.
fn component_config(
    config: &Config,
    rates: watch::Receiver<RateLimits>,
    queue_limits: watch::Receiver<xmpp::QueueLimits>,
) -> Result<xmpp::ComponentConfig, ConfigError> {
    let (ping_after, ping_deadline) = config.keepalive_timeouts();
    Ok(xmpp::ComponentConfig {
        jid: config.component()?,
        domain: config.server_domain()?,
        server: config.server.clone(),
        secret: config.secret()?,
        transport: config.transport()?,
        limits: config.stanza_limits(),
        rates,
        queue_limits,
        relay_limit: config.relay_limit(),
        multicast: config.multicast()?,
        ping_after,
        ping_deadline,
    })
}

/// Opens the control socket. Returns `None` if the store is in memory, or if the socket cannot be created: the service
/// runs without the socket.
fn control(
    config: &Config,
    store: &StorePath,
    jid: &Jid,
) -> Result<Option<ControlSocket>, ConfigError> {
    let (Some(path), StorePath::Sled(folder)) = (config.control_path()?, store) else {
        return Ok(None);
    };
    match ControlSocket::listen(&path, folder, jid.clone()) {
        Ok(control) => Ok(Some(control)),
        Err(error) => {
            warn!(
                event = "control_socket_unavailable",
                %error,
                path = %path.display(),
                "failed to create the control socket; commands cannot reach the service"
            );
            Ok(None)
        }
    }
}

fn open(path: &StorePath, cache_mib: u16) -> Result<Arc<dyn Store>, RunError> {
    match path {
        StorePath::Memory => {
            warn!(
                event = "store_in_memory",
                "nodes and items are in memory only; they are lost when the process ends"
            );
            Ok(Arc::new(MemoryStore::new()))
        }
        StorePath::Sled(directory) => {
            let opened = store_tools::refuse_root(directory)
                .and_then(|()| SledStore::open_with_cache(directory, cache_mib));
            match opened {
                Ok(store) => Ok(Arc::new(store)),
                Err(source) => Err(RunError::Store { path: shown(path), source }),
            }
        }
    }
}

fn shown(path: &StorePath) -> String {
    match path {
        StorePath::Memory => "memory:".into(),
        StorePath::Sled(directory) => format!("sled:{}", directory.display()),
    }
}
