//! Everything that the service has of an entity, as far as an answer holds it.

use std::ops::ControlFlow;

use async_trait::async_trait;

use crate::{
    pubsub::{Item, NodeId, written_len},
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
        let mut bytes = 0;
        let (mut items, mut is_cut) = (Vec::new(), false);
        let show = |node: &NodeId, item: Item| {
            let xml = item.payload.as_ref().map_or("", |payload| payload.xml());
            let line = format!("{node}: {} {} {xml}", item.id, date_time(item.published));
            bytes += written_len(&line);
            is_cut = bytes > asker.service.limits().max_reply_bytes;
            if is_cut {
                return ControlFlow::Break(());
            }
            items.push(line);
            ControlFlow::Continue(())
        };
        asker.service.items_of(asker.actor, &entity, show).await?;
        fields.push(lines("items", "Items", items));
        let form = Some(result(&format!("Everything of {entity}"), fields));
        let text = "There is more than an answer holds. The command line shows all of it.";
        let note = is_cut.then(|| Note { is_warning: true, text: text.to_owned() });
        Ok(Step::Done(Done { note, form }))
    }
}
