//! Removal of all items of a node (§8.5).

use async_trait::async_trait;

use gjallar_pubsub::op::purge::Purge;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
};

pub(super) struct PurgeNodeCommand;

#[async_trait]
impl AdHocCommand for PurgeNodeCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:purge-node", "Delete all items of a node");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, ..] = submitted else {
            let node = context.node_field("node").await?;
            return Ok(CommandStep::last("Delete all items of a node", vec![node]));
        };
        let request = Purge { node: chosen.node("node")? };
        context.service.execute(context.actor, &request).await?;
        Ok(CommandStep::done("The items are deleted."))
    }
}
