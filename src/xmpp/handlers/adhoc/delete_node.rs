//! Deletion of a node (§8.4). The name of the node has to be typed for confirmation.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::xmpp::stanza::forms::field;
use gjallar_pubsub::{PageRequest, op::delete::Delete};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::{fixed, required},
};

pub(super) struct DeleteNodeCommand;

#[async_trait]
impl AdHocCommand for DeleteNodeCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:delete-node", "Delete a node");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, rest @ ..] = submitted else {
            return Ok(CommandStep::next("Delete a node", vec![context.node_field("node").await?]));
        };
        let node = chosen.node("node")?;
        let [confirmed] = rest else {
            let (service, none) = (context.service, PageRequest::first(0));
            let current = service.subscriptions(context.actor, &node, &none, |_| true).await?;
            let subscribed = current.total.unwrap_or_default();
            let lost =
                format!("This deletes {node} with all its items and {subscribed} subscriptions.");
            let uri = "URI for the redirection of later requests (optional)";
            let fields = vec![
                fixed(&[lost]),
                required(field(
                    "name",
                    FieldType::TextSingle,
                    "Name of the node, as confirmation",
                    "",
                )),
                field("redirect", FieldType::TextSingle, uri, ""),
            ];
            return Ok(CommandStep::last("Delete a node", fields));
        };
        if confirmed.text("name") != node.as_str() {
            return Err(CommandError::Payload("name: does not match the name of the node".into()));
        }
        let redirect = confirmed.one("redirect").map(str::to_owned);
        let request = Delete { node, redirect };
        context.service.execute(context.actor, &request).await?;
        Ok(CommandStep::done("The node is deleted."))
    }
}
