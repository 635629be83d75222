//! Retracting items by hand (§7.2).

use std::sync::Arc;

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType, Option_};

use crate::{
    pubsub::{
        Item, ItemId, Order, Page,
        op::{
            retract::Retract,
            retrieve::{Retrieve, Selection},
        },
    },
    wire::form::field,
};

use super::stage::{About, Answers, Asker, Audience, Command, MAX_SHOWN, Step, Trouble, lines};

pub(super) struct RetractItems;

#[async_trait]
impl Command for RetractItems {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:retract-items", "Retract items");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [chosen, rest @ ..] = answers else {
            return Ok(Step::next("Retract items", vec![asker.node_field("node").await?]));
        };
        let node = chosen.node("node")?;
        let [wanted] = rest else {
            let request = Retrieve {
                node: node.clone(),
                selection: Selection::Page(Page::last(MAX_SHOWN)),
                order: Order::default(),
                subid: None,
            };
            let newest = asker.service.retrieve(asker.actor, &request).await?.part;
            let mut items = Field::new("items", FieldType::ListMulti);
            items.label = Some("The newest items".into());
            let option = |item: &Arc<Item>| Option_ {
                label: Some(format!("{} ({})", item.id, item.publisher)),
                value: item.id.to_string(),
            };
            items.options = newest.entries.iter().rev().map(option).collect();
            let fields = vec![
                items,
                lines("others", "Others, each in a line", []),
                field("notify", FieldType::Boolean, "Tell subscribers in any case", "false"),
            ];
            return Ok(Step::last(&format!("Items of {node}"), fields));
        };
        let names = wanted.all("items").chain(wanted.all("others"));
        let items = names.map(ItemId::parse).collect::<Result<Vec<_>, _>>()?;
        let number = items.len();
        let request = Retract { node, items, notify: wanted.is_set("notify") };
        asker.service.retract(asker.actor, &request, |outcome| outcome).await.await?;
        Ok(Step::done(format!("Retracted: {number}.")))
    }
}
