//! Display and change of the affiliations of a node (§8.9).

use async_trait::async_trait;
use jid::{BareJid, Jid};
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::xmpp::stanza::forms;
use gjallar_pubsub::{
    Affiliation,
    op::affiliations::{SetAffiliations, SetAffiliationsReply},
};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::jids_field,
};

pub(super) struct AffiliationsCommand;

#[async_trait]
impl AdHocCommand for AffiliationsCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:affiliations", "Show and set affiliations");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, rest @ ..] = submitted else {
            let node = context.node_field("node").await?;
            return Ok(CommandStep::next("Show and set affiliations", vec![node]));
        };
        let node = chosen.node("node")?;
        let [wanted] = rest else {
            let current = context.service.affiliations(context.actor, &node).await?;
            let line = |(jid, affiliation): (BareJid, Affiliation)| {
                format!("{jid}: {}", affiliation.as_str())
            };
            let title = format!("Affiliations of {node}");
            let fields = vec![
                context.shown_list(current.len(), current.into_iter().map(line)),
                jids_field("jids", "JIDs with the new affiliation"),
                choice(),
            ];
            return Ok(CommandStep::last(&title, fields));
        };
        let affiliation = Affiliation::parse(wanted.needed("affiliation")?)
            .ok_or_else(|| CommandError::Payload("unknown affiliation".into()))?;
        let entities = forms::distinct(wanted.jids("jids")?.into_iter().map(Jid::into_bare));
        let entries: Vec<_> = entities.into_iter().map(|entity| (entity, affiliation)).collect();
        let number = entries.len();
        let request = SetAffiliations { node, entries, invalid: Vec::new() };
        let set = context.service.submit(context.actor, &request, |outcome| outcome);
        let SetAffiliationsReply { failed, reason, .. } = set.await.await?;
        if failed.is_empty() {
            return Ok(CommandStep::done(format!("Set: {number}.")));
        }
        let line = |(jid, affiliation): (String, Affiliation)| {
            format!("{jid} is still {}", affiliation.as_str())
        };
        let failed: Vec<_> = failed.into_iter().map(line).collect();
        Ok(CommandStep::partly(format!("Not set: {} ({reason}).", context.enumeration(failed))))
    }
}

fn choice() -> Field {
    let label = |affiliation| match affiliation {
        Affiliation::Owner => "Owner (full control)",
        Affiliation::Publisher => "Publisher (publishes, subscribes and retrieves)",
        Affiliation::PublishOnly => "Publish-only (publishes)",
        Affiliation::Member => "Member (subscribes and retrieves)",
        Affiliation::None => "None (access by the access model)",
        Affiliation::Outcast => "Outcast (no access)",
    };
    let options = Affiliation::ALL.map(|one| (one.as_str(), label(one)));
    let field = forms::choice("affiliation", "New affiliation", &options, "member");
    Field { type_: FieldType::ListSingle, ..field }
}
