//! Configuration of a node (§8.2).

use async_trait::async_trait;

use crate::xmpp::stanza::forms::node_config::{self, NodeConfigForm};
use gjallar_pubsub::op::configure::Configure;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        NextActions,
    },
    form_values::FormValues,
};

pub(super) struct ConfigureNodeCommand;

#[async_trait]
impl AdHocCommand for ConfigureNodeCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:configure-node", "Configure a node");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, rest @ ..] = submitted else {
            return Ok(CommandStep::next(
                "Configure a node",
                vec![context.node_field("node").await?],
            ));
        };
        let node = chosen.node("node")?;
        let [config] = rest else {
            let shown = context.service.configuration(context.actor, &node).await?;
            let groups = context.service.offered_groups(context.actor);
            let mut form = node_config::form_of(&shown, groups.as_deref());
            form.title = Some(format!("Configuration of {node}"));
            return Ok(CommandStep::Ask(form, NextActions::Last));
        };
        let NodeConfigForm { settings, seen, .. } = node_config::answered(config.fields())?;
        let request = Configure { node, settings, seen };
        let configured = context.service.submit(context.actor, &request, |outcome| outcome).await;
        Ok(CommandStep::done(match configured.await? {
            true => "The node is configured.",
            false => "The configuration is unchanged.",
        }))
    }
}
