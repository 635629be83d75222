//! What an entity is in the service: its affiliations and subscriptions.

use async_trait::async_trait;
use jid::BareJid;
use xmpp_parsers::data_forms::Field;

use crate::{
    service::Memberships,
    xmpp::stanza::name::{affiliation_name, state_name},
};
use gjallar_pubsub::{Affiliation, NodeId, Subscription};

use super::command::{
    AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    FormValues, Room, jid_field,
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
        asker: &CommandContext<'_>,
        answers: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [wanted, ..] = answers else {
            return Ok(CommandStep::last(self.info().name, vec![jid_field("jid")]));
        };
        let entity = wanted.entity("jid")?;
        let fields = memberships(asker, &entity, &mut asker.room()).await?;
        Ok(CommandStep::shown(&format!("{entity} in the service"), fields))
    }
}

/// The affiliations and subscriptions of an entity, as fields. Each list may use half of the room.
pub(super) async fn memberships(
    asker: &CommandContext<'_>,
    entity: &BareJid,
    room: &mut Room,
) -> Result<Vec<Field>, CommandError> {
    let Memberships { affiliations, subscriptions } =
        asker.service.memberships(asker.actor, entity).await?;
    let affiliation = |(node, affiliation): (NodeId, Affiliation)| {
        format!("{node}: {}", affiliation_name(affiliation))
    };
    let subscription = |(node, own): (NodeId, Subscription)| {
        format!("{node}: {} {}", own.jid, state_name(own.state))
    };
    let affiliations = affiliations.into_iter().map(affiliation).collect();
    let subscriptions = subscriptions.into_iter().map(subscription).collect();
    let mut half = room.half();
    let fields = vec![
        half.lines("affiliations", "Affiliations", affiliations),
        room.lines("subscriptions", "Subscriptions", subscriptions),
    ];
    room.add(&half);
    Ok(fields)
}
