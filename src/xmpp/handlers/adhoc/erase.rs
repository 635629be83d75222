//! Erasure of all data of an entity. The JID has to be typed twice for confirmation.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::{
    service::{ErasureReport, Memberships},
    xmpp::stanza::forms::field,
};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::{fixed, jid_field, required},
};

pub(super) struct EraseCommand;

#[async_trait]
impl AdHocCommand for EraseCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:erase", "Erase all data of a JID");
        CommandInfo { node, name, audience: CommandAccess::Administrators }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [wanted, rest @ ..] = submitted else {
            return Ok(CommandStep::next(self.info().name, vec![jid_field("jid")]));
        };
        let entity = wanted.entity("jid")?;
        let [confirmed] = rest else {
            let Memberships { affiliations, subscriptions, .. } =
                context.service.memberships(context.actor, &entity).await?;
            let goes = format!(
                "{entity} loses {} affiliations and {} subscriptions. Nodes that it owns alone are deleted, and \
                 items that it published are retracted.",
                affiliations.len(),
                subscriptions.len(),
            );
            let again = field("again", FieldType::JidSingle, "JID again, as confirmation", "");
            return Ok(CommandStep::last(self.info().name, vec![fixed(&[goes]), required(again)]));
        };
        if confirmed.entity("again")? != entity {
            return Err(CommandError::Payload(
                "the second JID does not match the JID to erase".into(),
            ));
        }
        let ErasureReport { nodes, affiliations, subscriptions, items } =
            context.service.erase(context.actor, &entity).await?;
        Ok(CommandStep::done(format!(
            "Erased: {nodes} nodes, {affiliations} affiliations, {subscriptions} subscriptions, {items} items."
        )))
    }
}
