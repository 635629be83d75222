//! Configuring a node (§8.2).

use async_trait::async_trait;

use crate::{
    pubsub::op::configure::Configure,
    wire::form::node_config::{self, Submitted},
};

use super::stage::{About, Answers, Asker, Audience, Command, More, Step, Trouble};

pub(super) struct ConfigureNode;

#[async_trait]
impl Command for ConfigureNode {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:configure-node", "Configure a node");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [chosen, rest @ ..] = answers else {
            return Ok(Step::next("Configure a node", vec![asker.node_field("node").await?]));
        };
        let node = chosen.node("node")?;
        let [config] = rest else {
            let shown = asker.service.configuration(asker.actor, &node).await?;
            let mut form = node_config::form_of(&shown, asker.service.reads_rosters());
            form.title = Some(format!("Configuration of {node}"));
            return Ok(Step::Ask(form, More::Last));
        };
        let Submitted { settings, seen, .. } = node_config::answered(config.fields())?;
        let request = Configure { node, settings, seen };
        asker.service.configure(asker.actor, &request, |outcome| outcome).await.await?;
        Ok(Step::done("The node is configured."))
    }
}
