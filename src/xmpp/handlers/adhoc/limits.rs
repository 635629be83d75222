//! Display of the limits of the service, without the limits of policies.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::xmpp::stanza::forms::field;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
};

pub(super) struct LimitsCommand;

#[async_trait]
impl AdHocCommand for LimitsCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:limits", "Show limits");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        _: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let shown = |(name, value): (&str, u64)| {
            field(name, FieldType::TextSingle, name, &value.to_string())
        };
        let fields = context.service.policies().limits().named().into_iter().map(shown).collect();
        Ok(CommandStep::shown("Limits of the service", fields))
    }
}
