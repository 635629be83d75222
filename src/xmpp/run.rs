//! External component (XEP-0114): the connection to the server, and the tasks that send the requests of the service.

use std::sync::Arc;

use tokio::sync::watch;

use crate::service::{Service, TaskSet};

use super::{
    outbound::{multicast::MulticastDiscovery, reply_queue::ReplyQueue, writer::OutboundWriter},
    router::Router,
    session::{ComponentConfig, ComponentSession},
};

/// External component of a server that serves the nodes of a service.
pub struct XmppFrontEnd {
    service: Arc<Service>,
    config: ComponentConfig,
    pub(super) replies: Arc<ReplyQueue>,
    router: Arc<Router>,
}

impl XmppFrontEnd {
    /// Returns a component that is not connected yet.
    #[must_use]
    pub fn new(service: Arc<Service>, config: ComponentConfig) -> Self {
        let multicast = MulticastDiscovery::new(config.multicast.clone(), config.jid.to_string());
        let log_window = Arc::clone(service.log_window());
        let replies = Arc::new(ReplyQueue::new(log_window, multicast, config.domain.clone()));
        let router = Arc::new(Router::new(
            Arc::clone(&service),
            Arc::clone(&replies),
            config.jid.clone(),
            config.domain.clone(),
            config.limits.max_bytes,
        ));
        Self { service, config, replies, router }
    }

    /// Serves until `stop` is set, on one connection after the other. Then completes the queued requests and closes the
    /// stream.
    pub async fn run(&self, stop: watch::Receiver<bool>) {
        let mut tasks = TaskSet::default();
        let router = || Arc::clone(&self.router);
        let (request, silence, domains) = (router(), router(), router());
        tasks.spawn("presence_requests", async move { request.request_presence().await });
        tasks.spawn("presence_pings", async move { silence.ask_for_silent().await });
        tasks.spawn("domain_pings", async move { domains.ping_unreachable().await });
        let (caps, unconfirmed, resources) = (router(), router(), router());
        tasks.spawn("caps_queries", async move { caps.requery_caps().await });
        tasks.spawn("unconfirmed_pings", async move { unconfirmed.check_unconfirmed().await });
        tasks.spawn("resource_pings", async move { resources.check_resources().await });
        let rosters = router();
        tasks.spawn("roster_requests", async move { rosters.request_rosters().await });
        let writer = OutboundWriter::new(
            Arc::clone(&self.replies),
            Arc::clone(self.service.presence_tracker()),
            self.config.jid.to_string(),
            (self.config.limits.max_bytes, self.config.relay_limit.clone()),
            (self.config.ping_after, self.config.ping_deadline),
        );
        let session =
            ComponentSession::new(self.config.clone(), router(), Arc::clone(&self.replies), writer);
        tasks.run(session.run(stop)).await;
    }

    /// Returns `true` while the component is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.service.metrics().connected.get() == 1
    }

    /// Returns `true` if the server has granted the service the permission to read rosters.
    pub(super) fn is_granted(&self) -> bool {
        self.service.rosters().has_privilege()
    }
}
