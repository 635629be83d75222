//! Saying something to all subscribers of a node.

use async_trait::async_trait;

use crate::pubsub::op::announce;

use super::stage::{About, Answers, Asker, Audience, Command, Step, Trouble, lines, required};

pub(super) struct Announce;

#[async_trait]
impl Command for Announce {
    fn about(&self) -> About {
        let (node, name) =
            ("urn:gjallar:command:announce", "Announce to the subscribers of a node");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [written, ..] = answers else {
            let text = required(lines("text", "What to say", []));
            let fields = vec![asker.node_field("node").await?, text];
            return Ok(Step::last("Announce", fields));
        };
        let (node, text) = (written.node("node")?, written.text("text"));
        let request = announce::Announce { node, text };
        let told = asker.service.announce(asker.actor, &request, |outcome| outcome);
        Ok(Step::done(format!("Subscribers who are told: {}.", told.await.await?)))
    }
}
