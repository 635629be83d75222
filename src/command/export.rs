//! Everything that the service has of an entity, page by page.

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::{
    pubsub::{Item, NodeId},
    service::Reached,
    wire::notification::date_time,
};

use super::{
    entity,
    stage::{
        About, Answers, Asker, Audience, Command, More, Step, Trouble, asking, jid_field, lines,
    },
};

/// Where the page before ended.
const AFTER: &str = "after";

pub(super) struct Export;

#[async_trait]
impl Command for Export {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:export", "Export everything of a JID");
        About { node, name, audience: Audience::Administrators }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [wanted, ..] = answers else {
            return Ok(Step::last(self.about().name, vec![jid_field("jid")]));
        };
        let entity = wanted.entity("jid")?;
        let after = answers.last().and_then(|answer| answer.one(AFTER)).and_then(Reached::parse);
        let mut fields = match after {
            None => entity::memberships(asker, &entity).await?,
            Some(_) => Vec::new(),
        };
        let (items, further) = asker.service.items_of(asker.actor, &entity, after).await?;
        let line = |(node, item): (NodeId, Item)| {
            let xml = item.payload.as_ref().map_or("", |payload| payload.xml());
            format!("{node}: {} {} {xml}", item.id, date_time(item.published))
        };
        fields.push(lines("items", "Items", items.into_iter().map(line)));
        let title = format!("Everything of {entity}");
        Ok(match further {
            None => Step::shown(&title, fields),
            Some(reached) => {
                let after = Field::new(AFTER, FieldType::Hidden).with_value(&reached.to_string());
                fields.push(after);
                Step::Ask(asking(&title, fields), More::Page)
            }
        })
    }
}
