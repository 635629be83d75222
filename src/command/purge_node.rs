//! Removing all items of a node (§8.5).

use async_trait::async_trait;

use crate::pubsub::op::purge::Purge;

use super::stage::{About, Answers, Asker, Audience, Command, Step, Trouble};

pub(super) struct PurgeNode;

#[async_trait]
impl Command for PurgeNode {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:purge-node", "Remove all items of a node");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [chosen, ..] = answers else {
            let node = asker.node_field("node").await?;
            return Ok(Step::last("Remove all items of a node", vec![node]));
        };
        let request = Purge { node: chosen.node("node")? };
        asker.service.purge(asker.actor, &request, |outcome| outcome).await.await?;
        Ok(Step::done("The items are removed."))
    }
}
