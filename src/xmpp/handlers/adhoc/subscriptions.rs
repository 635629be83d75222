//! Display and change of the subscriptions of a node (§8.8).

use async_trait::async_trait;

use crate::xmpp::stanza::forms;
use gjallar_pubsub::{
    PageRequest, SubscriptionState,
    op::subscriptions::{SetSubscriptions, SetSubscriptionsReply},
};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        MAX_SHOWN,
    },
    form_values::FormValues,
    forms::jids_field,
};

pub(super) struct SubscriptionsCommand;

#[async_trait]
impl AdHocCommand for SubscriptionsCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:subscriptions", "Show and set subscriptions");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, rest @ ..] = submitted else {
            let node = context.node_field("node").await?;
            return Ok(CommandStep::next("Show and set subscriptions", vec![node]));
        };
        let node = chosen.node("node")?;
        let [wanted] = rest else {
            let (service, shown) = (context.service, PageRequest::first(MAX_SHOWN));
            let current = service.subscriptions(context.actor, &node, &shown, |_| true).await?;
            let jids = current.entries.iter().map(|own| own.jid.to_string());
            let states = [SubscriptionState::Subscribed, SubscriptionState::None]
                .map(SubscriptionState::as_str);
            let options = [(states[0], "Subscribed"), (states[1], "Not subscribed")];
            let fields = vec![
                context.shown_list(current.total.unwrap_or_default(), jids),
                jids_field("jids", "JIDs with the new subscription state"),
                forms::choice("subscription", "New subscription state", &options, states[0]),
            ];
            return Ok(CommandStep::last(&format!("Subscriptions of {node}"), fields));
        };
        let state = SubscriptionState::parse(wanted.needed("subscription")?);
        let entries: Vec<_> =
            wanted.jids("jids")?.into_iter().map(|jid| (jid, None, state)).collect();
        let number = entries.len();
        let request = SetSubscriptions { node, entries, invalid: Vec::new() };
        let set = context.service.submit(context.actor, &request, |outcome| outcome);
        let set = set.await.await?;
        let not_ended = set.not_ended();
        let SetSubscriptionsReply { failed, reason, .. } = set;
        let failed: Vec<_> = failed.into_iter().map(|(jid, ..)| jid).collect();
        Ok(match (failed.is_empty(), not_ended.is_empty()) {
            (true, true) => CommandStep::done(format!("Set: {number}.")),
            (true, false) => CommandStep::partly(format!(
                "Not unsubscribed: {}.",
                context.enumeration(not_ended)
            )),
            (false, _) => {
                CommandStep::partly(format!("Not set: {} ({reason}).", context.enumeration(failed)))
            }
        })
    }
}
