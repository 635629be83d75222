//! What the service counts.

use async_trait::async_trait;
use xmpp_parsers::data_forms::FieldType;

use crate::wire::form::field;

use super::stage::{About, Answers, Asker, Audience, Command, Step, Trouble};

pub(super) struct Statistics;

#[async_trait]
impl Command for Statistics {
    fn about(&self) -> About {
        let (node, name) = ("urn:gjallar:command:statistics", "Show statistics");
        About { node, name, audience: Audience::Administrators }
    }

    async fn step(&self, asker: &Asker<'_>, _: &[Answers]) -> Result<Step, Trouble> {
        let figures = asker.service.figures();
        let shown = |(var, label, value): (&str, &str, u64)| {
            field(var, FieldType::TextSingle, label, &value.to_string())
        };
        Ok(Step::shown("Statistics", figures.into_iter().map(shown).collect()))
    }
}
