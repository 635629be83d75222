//! List of nodes by name, in pages.

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::{
    service::{ManagedNodes, NamePattern},
    xmpp::stanza::forms::{field, value_len},
};
use gjallar_pubsub::{byte_budget, op::discover::NodeSummary};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        NextActions,
    },
    form_values::FormValues,
    forms::{asking, lines},
};

/// Default number of nodes on a page.
const PAGE: u64 = 100;
/// Maximum number of nodes on a page.
const MAX_PAGE: u64 = 1000;

/// Name of the hidden field with the UID of the last node of the previous page.
const AFTER: &str = "after";

pub(super) struct ListNodesCommand;

#[async_trait]
impl AdHocCommand for ListNodesCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:list-nodes", "List nodes");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let Some(first) = submitted.first() else {
            let fields = vec![
                field(
                    "pattern",
                    FieldType::TextSingle,
                    "Part of the name, or a pattern with * and ?",
                    "",
                ),
                field("max", FieldType::TextSingle, "Nodes per page", &PAGE.to_string()),
            ];
            return Ok(CommandStep::Ask(asking("List nodes", fields), NextActions::List));
        };
        let max = first.number("max")?.unwrap_or(PAGE).clamp(1, MAX_PAGE) as usize;
        let after = submitted.last().and_then(|answer| answer.one(AFTER)).map(str::to_owned);
        let pattern = NamePattern::parse(first.one("pattern").unwrap_or_default());
        let pattern = pattern.map_err(|refusal| CommandError::Payload(refusal.to_string()))?;
        let request = ManagedNodes { pattern, after, max };
        let (mut nodes, has_more) = context.service.managed_nodes(context.actor, &request).await?;
        let max_bytes = context.service.policies().max_reply_bytes(&context.actor.jid);
        let fits = byte_budget(max_bytes, 1, |node: &&NodeSummary| value_len(node.node.as_str()));
        let fitting = nodes.iter().take_while(fits).count();
        let has_more = has_more || fitting < nodes.len();
        nodes.truncate(fitting);
        let last = nodes.last().map(NodeSummary::uid);
        let names =
            lines("nodes", "Nodes", nodes.into_iter().map(|summary| summary.node.to_string()));
        Ok(match last.filter(|_| has_more) {
            None => CommandStep::shown("Nodes", vec![names]),
            Some(last) => {
                let after = Field::new(AFTER, FieldType::Hidden).with_value(&last);
                CommandStep::Ask(asking("Nodes", vec![names, after]), NextActions::Page)
            }
        })
    }
}
