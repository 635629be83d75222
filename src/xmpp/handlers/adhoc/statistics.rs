//! Statistics of the service.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::xmpp::stanza::forms::field;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
};

pub(super) struct StatisticsCommand;

#[async_trait]
impl AdHocCommand for StatisticsCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:statistics", "Show statistics");
        CommandInfo { node, name, audience: CommandAccess::Administrators }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        _: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let figures = context.service.values();
        let shown = |(var, label, value): (&str, &str, u64)| {
            field(var, FieldType::TextSingle, label, &value.to_string())
        };
        Ok(CommandStep::shown("Statistics", figures.into_iter().map(shown).collect()))
    }
}
