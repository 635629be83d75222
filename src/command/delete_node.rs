//! Deleting a node (§8.4), whose name has to be typed.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::{
    pubsub::{Page, op::delete::Delete},
    wire::form::field,
};

use super::stage::{About, Answers, Asker, Audience, Command, Step, Trouble, fixed, required};

pub(super) struct DeleteNode;

#[async_trait]
impl Command for DeleteNode {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:delete-node", "Delete a node");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [chosen, rest @ ..] = answers else {
            return Ok(Step::next("Delete a node", vec![asker.node_field("node").await?]));
        };
        let node = chosen.node("node")?;
        let [confirmed] = rest else {
            let (service, none) = (asker.service, Page::first(0));
            let there = service.subscriptions(asker.actor, &node, &none, |_| true).await?;
            let subscribed = there.total.unwrap_or_default();
            let lost = format!("{node} goes with all its items and {subscribed} subscriptions.");
            let uri = "URI of the node to turn to instead, if any";
            let fields = vec![
                fixed(&[lost]),
                required(field("name", FieldType::TextSingle, "Type the name of the node", "")),
                field("redirect", FieldType::TextSingle, uri, ""),
            ];
            return Ok(Step::last("Delete a node", fields));
        };
        if confirmed.text("name") != node.as_str() {
            return Err(Trouble::Payload("that is not the name of the node".into()));
        }
        let redirect = confirmed.one("redirect").map(str::to_owned);
        let request = Delete { node, redirect };
        asker.service.delete(asker.actor, &request, |outcome| outcome).await.await?;
        Ok(Step::done("The node is deleted."))
    }
}
