//! Creation of a node with a configuration (§8.1.3).

use async_trait::async_trait;
use xmpp_parsers::data_forms::{DataFormType, FieldType};

use crate::xmpp::stanza::forms::{field, node_config};
use gjallar_pubsub::{NodeId, op::create::Create};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        NextActions,
    },
    form_values::FormValues,
};

pub(super) struct CreateNodeCommand;

#[async_trait]
impl AdHocCommand for CreateNodeCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:create-node", "Create a node");
        CommandInfo { node, name, audience: CommandAccess::Creators }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [name, rest @ ..] = submitted else {
            let label = "Name of the node (empty: chosen by the service)";
            return Ok(CommandStep::next(
                "Create a node",
                vec![field("node", FieldType::TextSingle, label, "")],
            ));
        };
        let node = name.one("node").map(NodeId::parse).transpose()?;
        let [config] = rest else {
            let policies = context.service.policies();
            let policy = node
                .as_ref()
                .map_or_else(|| policies.default_policy(), |node| policies.for_node(node));
            let groups = context.service.offered_groups(context.actor);
            let initial = policy.initial();
            let mut form = node_config::data_form(DataFormType::Form, &initial, groups.as_deref());
            form.title = Some("Configuration of the new node".into());
            return Ok(CommandStep::Ask(form, NextActions::Last));
        };
        let settings = node_config::answered(config.fields())?.settings;
        let request = Create { node, settings };
        let created = context.service.execute(context.actor, &request).await?;
        Ok(CommandStep::done(format!("The node {} is created.", created.node)))
    }
}
