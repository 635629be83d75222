//! The limits of the service; what policies say of nodes with some names is not among them.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::wire::form::field;

use super::stage::{About, Answers, Asker, Audience, Command, Step, Trouble};

pub(super) struct Limits;

#[async_trait]
impl Command for Limits {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:limits", "Show limits");
        About { node, name, audience: Audience::Owners }
    }

    async fn step(&self, asker: &Asker<'_>, _: &[Answers]) -> Result<Step, Trouble> {
        let shown = |(name, value): (&str, u64)| {
            field(name, FieldType::TextSingle, name, &value.to_string())
        };
        let fields = asker.service.policies().limits().named().into_iter().map(shown).collect();
        Ok(Step::shown("Limits of the service", fields))
    }
}
