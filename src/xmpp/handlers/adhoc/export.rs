//! Export of all data of an entity, in pages.

use async_trait::async_trait;
use xmpp_parsers::data_forms::{Field, FieldType};

use crate::{
    service::{OwnItem, PageToken},
    xmpp::stanza::notification::date_time,
};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
        NextActions,
    },
    entity,
    form_values::FormValues,
    forms::{Room, asking, jid_field, lines},
};

/// Name of the hidden field with the position at which the previous page ended.
const AFTER: &str = "after";

pub(super) struct ExportCommand;

#[async_trait]
impl AdHocCommand for ExportCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:export", "Export all data of a JID");
        CommandInfo { node, name, audience: CommandAccess::Administrators }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [wanted, ..] = submitted else {
            return Ok(CommandStep::last(self.info().name, vec![jid_field("jid")]));
        };
        let entity = wanted.entity("jid")?;
        let after =
            submitted.last().and_then(|answer| answer.one(AFTER)).and_then(PageToken::parse);
        let mut room = context.room();
        let mut fields = match after {
            None => entity::memberships(context, &entity, &mut room).await?,
            Some(_) => Vec::new(),
        };
        let (items, further) =
            context.service.items_published_by(context.actor, &entity, after).await?;
        let (items, cut) = fitting(items, &mut room, after);
        let further = cut.or(further);
        fields.push(lines("items", "Items", items));
        let title = format!("Data of {entity}");
        Ok(match further {
            None => CommandStep::shown(&title, fields),
            Some(reached) => {
                let after = Field::new(AFTER, FieldType::Hidden).with_value(&reached.to_string());
                fields.push(after);
                CommandStep::Ask(asking(&title, fields), NextActions::Page)
            }
        })
    }
}

/// Returns the lines of the items that fit in a page. If items remain, also returns the position at which the page
/// ends. An item that does not fit in a page of its own is shown without its payload.
fn fitting(
    items: Vec<OwnItem>,
    room: &mut Room,
    after: Option<PageToken>,
) -> (Vec<String>, Option<PageToken>) {
    let (mut shown, mut reached) = (Vec::new(), after);
    for OwnItem { node, item, reached: next } in items {
        let head = format!("{node}: {} {}", item.id, date_time(item.published));
        let xml = item.payload.as_ref().map_or("", |payload| payload.xml());
        let mut line = format!("{head} {xml}");
        if !room.takes(&line) {
            // Affiliations and subscriptions fill the first page.
            if reached.is_none() || !shown.is_empty() {
                return (shown, Some(reached.unwrap_or(PageToken::START)));
            }
            line = format!("{head} ({} bytes: too many for a form)", xml.len());
            room.takes(&line);
        }
        shown.push(line);
        reached = Some(next);
    }
    (shown, None)
}
