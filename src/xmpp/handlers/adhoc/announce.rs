//! Message to all subscribers of a node.

use async_trait::async_trait;

use gjallar_pubsub::op::announce;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::{lines, required},
};

pub(super) struct AnnounceCommand;

#[async_trait]
impl AdHocCommand for AnnounceCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) =
            ("urn:gjallar:command:announce", "Announce to the subscribers of a node");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [written, ..] = submitted else {
            let text = required(lines("text", "Text of the message", []));
            let fields = vec![context.node_field("node").await?, text];
            return Ok(CommandStep::last("Announce to the subscribers of a node", fields));
        };
        let (node, text) = (written.node("node")?, written.text("text"));
        let request = announce::Announce { node, text };
        let announced = context.service.submit(context.actor, &request, |outcome| outcome);
        Ok(CommandStep::done(format!("Notified subscribers: {}.", announced.await.await?)))
    }
}
