//! Affiliations and subscriptions of an entity.

use async_trait::async_trait;
use jid::BareJid;
use xmpp_parsers::data_forms::Field;

use crate::{service::Memberships, xmpp::stanza::forms::subscribe_options::changed_values};
use gjallar_pubsub::{Affiliation, NodeId, Subscription};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::{Room, jid_field},
};

pub(super) struct EntityCommand;

#[async_trait]
impl AdHocCommand for EntityCommand {
    fn info(&self) -> CommandInfo {
        let node = "urn:gjallar:command:entity";
        let name = "Show subscriptions and affiliations of a JID";
        CommandInfo { node, name, audience: CommandAccess::Administrators }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [wanted, ..] = submitted else {
            return Ok(CommandStep::last(self.info().name, vec![jid_field("jid")]));
        };
        let entity = wanted.entity("jid")?;
        let fields = memberships(context, &entity, &mut context.room()).await?;
        Ok(CommandStep::shown(&format!("{entity} in the service"), fields))
    }
}

/// Returns the affiliations and subscriptions of an entity as fields. The list of affiliations and the list of
/// subscriptions may each use half of the bytes in `room`.
pub(super) async fn memberships(
    context: &CommandContext<'_>,
    entity: &BareJid,
    room: &mut Room,
) -> Result<Vec<Field>, CommandError> {
    let Memberships { affiliations, subscriptions, refuses_presence } =
        context.service.memberships(context.actor, entity).await?;
    let affiliation =
        |(node, affiliation): (NodeId, Affiliation)| format!("{node}: {}", affiliation.as_str());
    let affiliations = affiliations.into_iter().map(affiliation).collect();
    let mut shown = Vec::new();
    for (node, own) in subscriptions {
        shown.push(subscription(context, &node, &own).await?);
    }
    let mut half = room.half();
    let mut fields = vec![
        half.lines("affiliations", "Affiliations", affiliations),
        room.lines("subscriptions", "Subscriptions", shown),
    ];
    room.add(&half);
    if refuses_presence {
        fields.push(room.lines("presence", "Presence", vec!["refused to the service".into()]));
    }
    Ok(fields)
}

/// Returns a line with a subscription, its SubID and the options that differ from the defaults.
async fn subscription(
    context: &CommandContext<'_>,
    node: &NodeId,
    own: &Subscription,
) -> Result<String, CommandError> {
    let mut line = format!("{node}: {} {}", own.jid, own.state.as_str());
    if let Some(subid) = &own.subid {
        line.push_str(&format!(" {subid}"));
    }
    let options = context.service.options_of(context.actor, node, own).await?;
    for (var, value) in options.as_ref().map(changed_values).unwrap_or_default() {
        line.push_str(&format!(" {var}={}", value.replace('\n', ",")));
    }
    Ok(line)
}
