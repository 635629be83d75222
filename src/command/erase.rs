//! Erasing everything that the service has of an entity, whose JID has to be typed twice.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::{
    service::{Erased, Memberships},
    wire::form::field,
};

use super::stage::{
    About, Answers, Asker, Audience, Command, Step, Trouble, fixed, jid_field, required,
};

pub(super) struct Erase;

#[async_trait]
impl Command for Erase {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:erase", "Erase everything of a JID");
        About { node, name, audience: Audience::Administrators }
    }

    async fn step(&self, asker: &Asker<'_>, answers: &[Answers]) -> Result<Step, Trouble> {
        let [wanted, rest @ ..] = answers else {
            return Ok(Step::next(self.about().name, vec![jid_field("jid")]));
        };
        let entity = wanted.entity("jid")?;
        let [confirmed] = rest else {
            let Memberships { affiliations, subscriptions } =
                asker.service.memberships(asker.actor, &entity).await?;
            let goes = format!(
                "{entity} loses {} affiliations and {} subscriptions. Nodes that it owns alone are deleted, and \
                 items that it published are retracted.",
                affiliations.len(),
                subscriptions.len(),
            );
            let again = field("again", FieldType::JidSingle, "Type the JID again", "");
            return Ok(Step::last(self.about().name, vec![fixed(&[goes]), required(again)]));
        };
        if confirmed.entity("again")? != entity {
            return Err(Trouble::Payload("that is not the JID".into()));
        }
        let Erased { nodes, affiliations, subscriptions, items } =
            asker.service.erase(asker.actor, &entity).await?;
        Ok(Step::done(format!(
            "Erased: {nodes} nodes, {affiliations} affiliations, {subscriptions} subscriptions, {items} items."
        )))
    }
}
