//! Publication of an item (§7.1).

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::xmpp::stanza::{forms::field, payload};
use gjallar_pubsub::{
    ItemId,
    op::publish::{NewItem, Publish},
};

use super::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandError, CommandInfo, CommandStep,
    },
    form_values::FormValues,
    forms::lines,
};

pub(super) struct PublishItemCommand;

#[async_trait]
impl AdHocCommand for PublishItemCommand {
    fn info(&self) -> CommandInfo {
        let (node, name) = ("urn:gjallar:command:publish-item", "Publish an item");
        CommandInfo { node, name, audience: CommandAccess::Owners }
    }

    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError> {
        let [written, ..] = submitted else {
            let id = "Id of the item (empty: chosen by the service)";
            let fields = vec![
                context.node_field("node").await?,
                field("id", FieldType::TextSingle, id, ""),
                lines("payload", "Payload, an XML element with a namespace", []),
            ];
            return Ok(CommandStep::last("Publish an item", fields));
        };
        let text = written.text("payload");
        let payload = match text.trim() {
            "" => None,
            text => Some(payload::parse(text)?),
        };
        let id = written.one("id").map(ItemId::parse).transpose()?;
        let items = vec![NewItem { id, payload }];
        let node = written.node("node")?;
        let request = Publish { node, items, options: Vec::new(), expected_newest: None };
        let published = context.service.submit(context.actor, &request, |outcome| outcome);
        let ids: Vec<_> = published.await.await?.items.iter().map(ToString::to_string).collect();
        Ok(CommandStep::done(format!("Published: {}.", ids.join(", "))))
    }
}
