//! Asking for the requests that wait at a node, each in a message of its own (§8.7).

use async_trait::async_trait;
use xmpp_parsers::data_forms::DataFormType;

use crate::wire::{form, ns};

use super::stage::{About, Answers, Asker, Audience, Command, More, Step, Trouble};

pub(super) struct GetPending;

#[async_trait]
impl Command for GetPending {
    fn about(&self) -> About {
        let (node, name) = (ns::GET_PENDING, "Show requests for subscriptions");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [chosen, ..] = answers else {
            let node = asker.node_field("pubsub#node").await?;
            let form =
                form::form_of_type(DataFormType::Form, ns::SUBSCRIBE_AUTHORIZATION, vec![node]);
            return Ok(Step::Ask(form, More::Last));
        };
        let node = chosen.node("pubsub#node")?;
        asker.service.pending(asker.actor, &node, |outcome| outcome).await.await?;
        Ok(Step::done("The requests are on their way."))
    }
}
