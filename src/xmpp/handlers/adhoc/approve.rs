//! Approval or denial of pending subscriptions (§8.6).

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::xmpp::stanza::forms;
use gjallar_pubsub::op::authorize::Authorize;

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::lines,
};

pub(super) struct ApproveCommand;

#[async_trait]
impl AdHocCommand for ApproveCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:approve", "Approve or refuse subscriptions");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, rest @ ..] = submitted else {
            let node = context.node_field("node").await?;
            return Ok(CommandStep::next("Approve or refuse subscriptions", vec![node]));
        };
        let node = chosen.node("node")?;
        let [decided] = rest else {
            let waiting = context.service.requests(context.actor, &node).await?;
            if waiting.is_empty() {
                return Ok(CommandStep::done("No pending requests."));
            }
            let mut jids = Field::new("jids", FieldType::ListMulti);
            jids.label = Some("Pending subscribers".into());
            let options = waiting.iter().map(|jid| forms::option(jid.as_str(), jid.as_str()));
            let mut fields = context.offered(jids, waiting.len(), options);
            let options = [("approve", "Approve"), ("refuse", "Refuse")];
            fields.push(lines("others", "Other pending subscribers, one per line", []));
            fields.push(forms::choice("decision", "Decision", &options, "approve"));
            return Ok(CommandStep::last(&format!("Pending subscriptions of {node}"), fields));
        };
        let allow = match decided.needed("decision")? {
            "approve" => true,
            "refuse" => false,
            _ => return Err(CommandError::Payload("unknown decision".into())),
        };
        let jids = decided.jids_of(&["jids", "others"])?;
        let (mut decided, mut not_pending) = (0_usize, Vec::new());
        for jid in jids {
            let request = Authorize { node: node.clone(), jid, allow };
            match context.service.execute(context.actor, &request).await? {
                true => decided += 1,
                false => not_pending.push(request.jid.to_string()),
            }
        }
        let done = format!("{}: {decided}.", if allow { "Approved" } else { "Refused" });
        if not_pending.is_empty() {
            return Ok(CommandStep::done(done));
        }
        let others = context.enumeration(not_pending);
        Ok(CommandStep::partly(format!("{done} Not pending any more: {others}.")))
    }
}
