//! Listing nodes: those of a name, page by page.

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::{
    pubsub::{op::discover::NodeSummary, within},
    service::{ManagedNodes, NamePattern},
    wire::form::{field, value_len},
};

use super::stage::{About, Answers, Asker, Audience, Command, More, Step, Trouble, asking, lines};

/// The nodes on a page if nothing is said, and at the most.
const PAGE: u64 = 100;
const MAX_PAGE: u64 = 1000;

/// The UID of the last node of the previous page.
const AFTER: &str = "after";

pub(super) struct ListNodes;

#[async_trait]
impl Command for ListNodes {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:list-nodes", "List nodes");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let Some(first) = answers.first() else {
            let fields = vec![
                field(
                    "pattern",
                    FieldType::TextSingle,
                    "Part of the name, or a pattern with * and ?",
                    "",
                ),
                field("max", FieldType::TextSingle, "Nodes on a page", &PAGE.to_string()),
            ];
            return Ok(Step::Ask(asking("List nodes", fields), More::List));
        };
        let max = first.number("max")?.unwrap_or(PAGE).clamp(1, MAX_PAGE) as usize;
        let after = answers.last().and_then(|answer| answer.one(AFTER)).map(str::to_owned);
        let pattern = NamePattern::parse(first.one("pattern").unwrap_or_default());
        let pattern = pattern.map_err(|refusal| Trouble::Payload(refusal.to_string()))?;
        let request = ManagedNodes { pattern, after, max };
        let (mut nodes, has_more) = asker.service.managed_nodes(asker.actor, &request).await?;
        let max_bytes = asker.service.policies().limits().max_reply_bytes;
        let fits = within(max_bytes, 1, |node: &&NodeSummary| value_len(node.node.as_str()));
        let fitting = nodes.iter().take_while(fits).count();
        let has_more = has_more || fitting < nodes.len();
        nodes.truncate(fitting);
        let last = nodes.last().map(NodeSummary::uid);
        let names =
            lines("nodes", "Nodes", nodes.into_iter().map(|summary| summary.node.to_string()));
        Ok(match last.filter(|_| has_more) {
            None => Step::shown("Nodes", vec![names]),
            Some(last) => {
                let after = Field::new(AFTER, FieldType::Hidden).with_value(&last);
                Step::Ask(asking("Nodes", vec![names, after]), More::Page)
            }
        })
    }
}
