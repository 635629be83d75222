//! Delivery of the pending subscription requests of a node, each in its own message (§8.7).

use async_trait::async_trait;
use xmpp_parsers::data_forms::{DataFormType, Field, FieldType};

use crate::xmpp::stanza::{forms, ns};
use gjallar_pubsub::op::authorize::GetPending;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        NextActions,
    },
    form_values::FormValues,
    forms::fixed,
};

pub(super) struct GetPendingCommand;

#[async_trait]
impl AdHocCommand for GetPendingCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = (ns::GET_PENDING, "Show requests for subscriptions");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, ..] = submitted else {
            // SPEC: `pubsub#node` is of type list-single in §8.7's example, and of type text-single in the registry
            // (§16.4.1) and in §8.6. One field has one type here, or Smack closes the connection.
            let field = context.node_field("pubsub#node").await?;
            let nodes = field.options.iter().map(|option| option.value.clone()).collect::<Vec<_>>();
            let label = Some(forms::authorization::NODE_LABEL.to_owned());
            let node = Field { type_: FieldType::TextSingle, options: Vec::new(), label, ..field };
            let fields = match nodes.is_empty() {
                true => vec![node],
                false => vec![fixed(&nodes), node],
            };
            let form = forms::form_of_type(DataFormType::Form, ns::SUBSCRIBE_AUTHORIZATION, fields);
            return Ok(CommandStep::Ask(form, NextActions::Last));
        };
        let node = chosen.node("pubsub#node")?;
        context.service.execute(context.actor, &GetPending { node }).await?;
        Ok(CommandStep::done("The requests follow in messages."))
    }
}
