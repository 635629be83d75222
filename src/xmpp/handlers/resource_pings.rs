//! Pings that test whether subscribed resources are available. With each ping, a second one is sent to a resource of
//! the same account that cannot exist, to compare the replies.

use std::time::Duration;

use jid::Jid;
use minidom::Element;
use tokio::time::sleep;

use crate::{
    service::{CheckResult, PingAnswer},
    xmpp::stanza::{notification, ns},
};

use crate::xmpp::router::Router;

/// Maximum number of bytes of an error reply to a ping; larger error replies are not compared.
const MAX_ERROR_BYTES: usize = 4096;

/// Prefix of the id of a ping to a resource.
const RESOURCE: &str = "resource-";
/// Prefix of the id of the ping to a nonexistent resource, for comparison.
const CONTROL: &str = "beside-";
/// Interval at which the service reads the setting `dead_resource_seconds` again while checks are disabled.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

impl Router {
    /// Checks all subscribed resources, round after round. Runs until dropped.
    pub(in crate::xmpp) async fn check_resources(&self) {
        let mut is_first = true;
        loop {
            let Some(pause) = self.service().next_round(is_first) else {
                sleep(IDLE_INTERVAL).await;
                continue;
            };
            is_first = false;
            sleep(pause).await;
            let mut after = None;
            while let Some((resources, cursor)) = self.service().resources_of_next(after).await {
                after = Some(cursor);
                for resource in resources {
                    self.next_question().await;
                    self.check(&resource).await;
                }
            }
        }
    }

    /// Checks the resources whose availability is unconfirmed. After a reconnection, these are the resources that were
    /// available on an earlier connection and whose entities do not share their presence with the service. Resources
    /// whose servers were unreachable are checked too. If an earlier presence stanza of a resource announced
    /// capabilities, the service queries the capabilities instead of pinging the resource. Runs until dropped.
    pub(in crate::xmpp) async fn check_unconfirmed(&self) {
        loop {
            self.next_question().await;
            let resource = self.service().presence_tracker().unconfirmed().await;
            if !self.service().interests().query_again(&resource) {
                self.check(&resource).await;
            }
        }
    }

    async fn check(&self, resource: &Jid) {
        let number = self.service().next_u64();
        let control = format!("{}/{number:016x}", resource.to_bare());
        self.service().resources().begin(number, resource.clone()).await;
        for (prefix, to) in [(RESOURCE, resource.as_str()), (CONTROL, &control)] {
            self.send_ping(&format!("{prefix}{number:016x}"), to);
        }
    }

    /// Handles the reply to a ping of a check. Returns the result of the check once it is complete.
    pub(in crate::xmpp) fn take_ping_answer(&self, stanza: &Element) -> Option<CheckResult> {
        let id = stanza.attr("id")?;
        let (is_of_resource, number) = match (id.strip_prefix(RESOURCE), id.strip_prefix(CONTROL)) {
            (Some(number), _) => (true, number),
            (None, Some(number)) => (false, number),
            (None, None) => return None,
        };
        let number = u64::from_str_radix(number, 16).ok()?;
        let from = Jid::stamped(stanza.attr("from")?).ok()?;
        let error = stanza.children().find(|child| child.name() == "error");
        let is_absent = |error: &Element| {
            notification::ABSENT.iter().any(|condition| error.has_child(condition, ns::STANZAS))
        };
        let is_reachable = !notification::is_unreachable(stanza);
        let answer = match error.filter(|error| is_reachable && is_absent(error)) {
            Some(_) => {
                let content: String = stanza.children().map(String::from).collect();
                if content.len() > MAX_ERROR_BYTES {
                    PingAnswer::Other
                } else {
                    PingAnswer::NotThere(content)
                }
            }
            None if !is_reachable => PingAnswer::Unreachable,
            None if stanza.attr("type") == Some("result") => PingAnswer::There,
            None => PingAnswer::Other,
        };
        self.service().resources().answered(number, &from, is_of_resource, answer)
    }
}
