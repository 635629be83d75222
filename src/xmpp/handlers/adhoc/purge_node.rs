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
        asker: &CommandContext<'_>,
        answers: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, ..] = answers else {
            let node = asker.node_field("node").await?;
            return Ok(CommandStep::last("Delete all items of a node", vec![node]));
        };
        let request = Purge { node: chosen.node("node")? };
        asker.service.purge(asker.actor, &request, |outcome| outcome).await.await?;
        Ok(CommandStep::done("The items are deleted."))
    }
}
