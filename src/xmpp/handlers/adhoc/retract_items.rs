//! Retraction of selected items (§7.2).

use std::sync::Arc;

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::xmpp::stanza::forms::{self, field};
use gjallar_pubsub::{
    Item, ItemId, ItemOrder, PageRequest,
    op::{
        retract::Retract,
        retrieve::{Retrieve, Selection},
    },
};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        MAX_SHOWN,
    },
    form_values::FormValues,
    forms::lines,
};

pub(super) struct RetractItemsCommand;

#[async_trait]
impl AdHocCommand for RetractItemsCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:retract-items", "Retract items");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [chosen, rest @ ..] = submitted else {
            return Ok(CommandStep::next("Retract items", vec![context.node_field("node").await?]));
        };
        let node = chosen.node("node")?;
        let [wanted] = rest else {
            let request = Retrieve {
                node: node.clone(),
                selection: Selection::Page(PageRequest::last(MAX_SHOWN)),
                order: ItemOrder::default(),
                subid: None,
            };
            let retrieved = context.service.retrieve(context.actor, &request).await?;
            // Owners see publishers that the node hides from others.
            let owns = context.service.configuration(context.actor, &node).await.is_ok();
            let mut items = Field::new("items", FieldType::ListMulti);
            items.label = Some("Newest items".into());
            let option = |item: &Arc<Item>| {
                let shown = retrieved.attribution.publisher_of(item);
                let publisher = if owns { Some(&item.publisher) } else { shown };
                let label = match publisher {
                    Some(publisher) => format!("{} ({publisher})", item.id),
                    None => item.id.to_string(),
                };
                forms::option(item.id.as_str(), &label)
            };
            let number = retrieved.part.total.unwrap_or_default();
            let options = retrieved.part.entries.iter().rev().map(option);
            let mut fields = context.offered(items, number, options);
            fields.extend([
                lines("others", "Ids of other items, one per line", []),
                field(
                    "notify",
                    FieldType::Boolean,
                    "Whether to notify subscribers in any case",
                    "false",
                ),
            ]);
            return Ok(CommandStep::last(&format!("Items of {node}"), fields));
        };
        let names = wanted.all("items").chain(wanted.all("others"));
        let items = names.map(ItemId::parse).collect::<Result<Vec<_>, _>>()?;
        let number = items.len();
        let request = Retract { node, items, notify: wanted.flag("notify")? };
        context.service.execute(context.actor, &request).await?;
        Ok(CommandStep::done(format!("Retracted: {number}.")))
    }
}
