//! Self-test for `gjallar doctor`. If the service runs, the service tests its own connection. Otherwise the command
//! tests a new connection to the server.

use std::{io, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    admin::{AdminClient, AdminRequest, ControlError, Examine, Finding},
    xmpp::{self, ComponentConfig, Doctor, Verdict, XmppFrontEnd},
};
use gjallar_pubsub::IdGenerator;

use crate::config::{Config, ConfigError};

use super::{RandomIds, RunError, component_config};

/// Makes the running service test its dependencies, and returns the findings. Returns `None` if no service listens at
/// the control socket of the configuration.
///
/// # Errors
/// If the configuration is invalid, or the running service does not answer.
pub fn running(config: &Config) -> Result<Option<Vec<Finding>>, RunError> {
    let Some(path) = config.control_path()? else { return Ok(None) };
    let mut client = match AdminClient::connect(&path) {
        Ok(client) => client,
        Err(ControlError::Unreachable { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let mut findings = Vec::new();
    client.ask(None, AdminRequest::Doctor, |line| {
        findings.extend(Finding::of(line));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(Some(findings))
}

/// Tests the dependencies of a service on a new connection.
///
/// # Errors
/// If the configuration is invalid.
pub async fn connect(config: &Config) -> Result<Vec<Finding>, RunError> {
    // The limits are unused: no requests are processed on the connection.
    let (_rates, metered) = watch::channel(config.limits.rates());
    let (_queues, queued) = watch::channel(config.limits.queues());
    let link = component_config(config, metered, queued)?;
    let doctor = doctor(config, &link, Arc::new(RandomIds::default()))?;
    Ok(doctor.connect(&link).await.into_iter().map(shown).collect())
}

pub(super) fn doctor(
    config: &Config,
    link: &ComponentConfig,
    fresh: Arc<dyn IdGenerator>,
) -> Result<Doctor, ConfigError> {
    let domain = config.server_domain()?;
    let is_theirs = |admin: &&String| {
        admin.split_once('@').is_some_and(|(_, host)| Some(host) == domain.as_deref())
    };
    let user = config.admins.iter().find(is_theirs).cloned();
    Ok(Doctor::new(link, user, fresh))
}

/// Self-test on the connection of the running service.
pub(super) struct Examiner {
    pub(super) doctor: Doctor,
    pub(super) front_end: Arc<XmppFrontEnd>,
}

#[async_trait]
impl Examine for Examiner {
    async fn examine(&self) -> Vec<Finding> {
        let found = self.doctor.examine_running(&self.front_end).await;
        found.into_iter().map(shown).collect()
    }
}

fn shown(finding: xmpp::Finding) -> Finding {
    let xmpp::Finding { check, verdict, text, took } = finding;
    let verdict = match verdict {
        Verdict::Ok => "ok",
        Verdict::Degraded => "degraded",
        Verdict::Failed => "failed",
    };
    let millis = took.map(|took| (took.as_secs_f64() * 10_000.0).round() / 10.0);
    Finding { check: check.into(), verdict: verdict.into(), text, millis }
}
