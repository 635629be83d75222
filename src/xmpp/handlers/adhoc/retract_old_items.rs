//! Retraction of items that are older than a number of days.

use std::time::Duration;

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::xmpp::stanza::forms::field;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::required,
};

pub(super) struct RetractOldItemsCommand;

#[async_trait]
impl AdHocCommand for RetractOldItemsCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:retract-old-items", "Retract old items");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [wanted, ..] = submitted else {
            let days = field("days", FieldType::TextSingle, "Minimum age in days", "");
            let fields = vec![context.node_field("node").await?, required(days)];
            return Ok(CommandStep::last("Retract old items", fields));
        };
        let node = wanted.node("node")?;
        wanted.needed("days")?;
        let days = wanted.number("days")?.unwrap_or_default();
        let age = Duration::from_secs(days.saturating_mul(86_400));
        let number = context.service.retract_older(context.actor, &node, age).await?;
        Ok(CommandStep::done(format!("Retracted: {number}.")))
    }
}
