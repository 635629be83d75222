//! Everything that the service has of an entity, as far as an answer holds it.

use async_trait::async_trait;

use crate::{
    pubsub::{Item, NodeId},
    wire::notification::date_time,
};

use super::{
    entity,
    stage::{
        About, Answers, Asker, Audience, Command, Done, Note, Step, Trouble, jid_field, lines,
        result,
    },
};

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
        let mut fields = entity::memberships(asker, &entity).await?;
        let (items, more) = asker.service.items_of(asker.actor, &entity, None).await?;
        let line = |(node, item): (NodeId, Item)| {
            let xml = item.payload.as_ref().map_or("", |payload| payload.xml());
            format!("{node}: {} {} {xml}", item.id, date_time(item.published))
        };
        let items = items.into_iter().map(line);
        fields.push(lines("items", "Items", items));
        let form = Some(result(&format!("Everything of {entity}"), fields));
        let text = "There is more than an answer holds. The command line shows all of it.";
        let note = more.map(|_| Note { is_warning: true, text: text.to_owned() });
        Ok(Step::Done(Done { note, form }))
    }
}
