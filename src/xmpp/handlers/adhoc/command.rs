//! Trait of ad-hoc commands: a sequence of forms, and an outcome that depends on the submitted values.

use async_trait::async_trait;
use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType, Option_};

use crate::{
    service::{Error, ManagedNodes, NamePattern, Service},
    xmpp::{
        error::service_error,
        stanza::{envelope::StanzaError, forms::value_len, ns},
    },
};
use gjallar_pubsub::{Actor, byte_budget, written_len};

use super::{
    form_values::FormValues,
    forms::{Room, asking, fixed, more, option, option_len, required, result},
};

/// Maximum number of nodes in a choice of a form. If there are more nodes, the requester has to type the name.
const MAX_OFFERED: usize = 500;
/// Maximum number of entries of a list in a form. Fewer entries are shown if they are long.
pub(super) const MAX_SHOWN: usize = 200;

/// Ad-hoc command. Commands have no state: each step depends on the submitted forms only.
#[async_trait]
pub(super) trait AdHocCommand: Send + Sync {
    /// Returns node, name and access of the command.
    fn info(&self) -> CommandInfo;

    /// Returns the step that follows the submitted forms. `submitted` has one entry for each form that was shown.
    async fn step(
        &self,
        context: &CommandContext<'_>,
        submitted: &[FormValues],
    ) -> Result<CommandStep, CommandError>;
}

/// Node, name and access of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandInfo {
    /// Node of the command.
    pub(super) node: &'static str,
    /// Name for display.
    pub(super) name: &'static str,
    pub(super) audience: CommandAccess,
}

/// Entities that may use a command. The command is hidden from all other entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandAccess {
    /// Administrators of the service.
    Administrators,
    /// Administrators, and entities that may create nodes.
    Creators,
    /// Administrators, and owners of a node.
    Owners,
}

/// Next step of a command.
#[derive(Debug)]
pub(super) enum CommandStep {
    /// A form to fill in.
    Ask(DataForm, NextActions),
    /// The end of the command.
    Done(CommandOutcome),
}

/// Continuation of a command after a form is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextActions {
    /// The command completes.
    Last,
    /// Another form follows.
    Next,
    /// A list follows: all its pages or, if the requester chooses `complete`, only the first page.
    List,
    /// The form is a page of a list, and the next page follows. If the requester chooses `complete`, the command ends
    /// without a change.
    Page,
}

/// Outcome of a command.
#[derive(Debug, Default)]
pub(super) struct CommandOutcome {
    pub(super) note: Option<CommandNote>,
    pub(super) form: Option<DataForm>,
}

/// Note for display (XEP-0050 §4.3).
#[derive(Debug)]
pub(super) struct CommandNote {
    /// `true` if the request was not fulfilled completely.
    pub(super) is_warning: bool,
    pub(super) text: String,
}

impl CommandNote {
    /// Returns the note with at most `bytes` bytes of its text, followed by an ellipsis.
    pub(super) fn shortened(&self, mut bytes: usize) -> Self {
        let fits = |c: &char| {
            let left = bytes.checked_sub(written_len(c.encode_utf8(&mut [0; 4])));
            bytes = left.unwrap_or_default();
            left.is_some()
        };
        let text = self.text.chars().take_while(fits).chain(['…']).collect();
        Self { is_warning: self.is_warning, text }
    }
}

/// Error of a step. The requester may submit a corrected form.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The form lacks a required value or has an invalid one.
    Payload(String),
    /// The service rejects the operation.
    Service(Error),
}

impl<E: Into<Error>> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::Service(error.into())
    }
}

impl CommandStep {
    /// Returns the step that completes the command and shows a note.
    pub(super) fn done(text: impl Into<String>) -> Self {
        let note = CommandNote { is_warning: false, text: text.into() };
        Self::Done(CommandOutcome { note: Some(note), form: None })
    }

    /// Returns the step that completes the command and shows a warning: the request was not fulfilled completely.
    pub(super) fn partly(text: impl Into<String>) -> Self {
        let note = CommandNote { is_warning: true, text: text.into() };
        Self::Done(CommandOutcome { note: Some(note), form: None })
    }

    /// Returns the step that completes the command and shows a form of results.
    pub(super) fn shown(title: &str, fields: Vec<Field>) -> Self {
        Self::Done(CommandOutcome { note: None, form: Some(result(title, fields)) })
    }

    /// Returns the step that completes the command and shows the first page of a list, with a warning that more entries
    /// follow.
    pub(super) fn only_page(page: DataForm) -> Self {
        let mut page = DataForm { type_: DataFormType::Result_, ..page };
        page.fields.retain(|field| field.type_ != FieldType::Hidden);
        let note =
            CommandNote { is_warning: true, text: "More entries follow on the next page.".into() };
        Self::Done(CommandOutcome { note: Some(note), form: Some(page) })
    }

    /// Returns the step that shows the last form of the command.
    pub(super) fn last(title: &str, fields: Vec<Field>) -> Self {
        Self::Ask(asking(title, fields), NextActions::Last)
    }

    /// Returns the step that shows a form after which another form follows.
    pub(super) fn next(title: &str, fields: Vec<Field>) -> Self {
        Self::Ask(asking(title, fields), NextActions::Next)
    }
}

/// Service and requester of a command.
pub(super) struct CommandContext<'a> {
    pub(super) service: &'a Service,
    pub(super) actor: &'a Actor,
}

impl CommandContext<'_> {
    /// Returns `true` if the requester may use commands with this access.
    pub(super) async fn has_access(&self, audience: CommandAccess) -> Result<bool, Error> {
        Ok(self.actor.is_administrator
            || match audience {
                CommandAccess::Administrators => false,
                CommandAccess::Creators => self.service.policies().may_create(self.actor),
                CommandAccess::Owners => self.service.owns_a_node(self.actor).await?,
            })
    }

    /// Returns the maximum total number of bytes of the values of a form in a reply.
    pub(super) fn room(&self) -> Room {
        Room(self.max_bytes())
    }

    fn max_bytes(&self) -> usize {
        self.service.policies().max_reply_bytes(&self.actor.jid)
    }

    /// Returns two fields: read-only text with a line for each option that fits in a reply (at least one, at most 200),
    /// and the field `list` with these options. There are `number` options in total; if some are left out, the last
    /// line of the text states how many.
    ///
    /// COMPAT: profanity does not show the options of a `list-multi` field in which no option is selected, and Movim
    /// leaves out such fields.
    pub(super) fn offered(
        &self,
        mut list: Field,
        number: usize,
        options: impl Iterator<Item = Option_>,
    ) -> Vec<Field> {
        let line = |option: &Option_| option.label.clone().unwrap_or_default();
        let len = |option: &Option_| option_len(option) + value_len(&line(option));
        let options = options.take(MAX_SHOWN);
        list.options = options.take_while(byte_budget(self.max_bytes(), 1, len)).collect();
        let number = number.max(list.options.len());
        vec![self.shown_list(number, list.options.iter().map(line)), list]
    }

    /// Returns a field with a line for each entry that fits in a reply (at most 200). If entries are left out, a last
    /// line has their number. The list has `number` entries in total; `first` yields its first entries.
    pub(super) fn shown_list(&self, number: usize, first: impl Iterator<Item = String>) -> Field {
        let mut room = self.room();
        let mut shown: Vec<_> = first.take(MAX_SHOWN).take_while(|line| room.takes(line)).collect();
        shown.extend(more(number - shown.len()));
        if shown.is_empty() {
            shown.push("(none)".into());
        }
        fixed(&shown)
    }

    /// Returns a text with the entries that fit in a reply, separated by commas. If entries are left out, the end of
    /// the text states their number.
    pub(super) fn enumeration(&self, entries: Vec<String>) -> String {
        let (number, mut room) = (entries.len(), self.room());
        let fitting = entries.into_iter().take_while(|entry| room.takes(entry));
        let mut shown: Vec<_> = fitting.collect();
        shown.extend(more(number - shown.len()));
        shown.join(", ")
    }

    /// Returns a field for the name of a node. The field offers a choice among the nodes that the requester manages, if
    /// there are at most 500 such nodes and their names fit in a reply.
    pub(super) async fn node_field(&self, var: &str) -> Result<Field, Error> {
        let pattern = NamePattern::default();
        let all = ManagedNodes { pattern, after: None, max: MAX_OFFERED };
        let (nodes, has_more) = self.service.managed_nodes(self.actor, &all).await?;
        let options: Vec<_> = nodes.iter().map(option).collect();
        let options_fit = options.iter().map(option_len).sum::<usize>() <= self.max_bytes();
        let is_list = !has_more && !nodes.is_empty() && options_fit;
        let kind = if is_list { FieldType::ListSingle } else { FieldType::TextSingle };
        let mut field = Field::new(var, kind);
        field.label = Some("Node".into());
        if is_list {
            field.options = options;
            if let [only] = field.options.as_slice() {
                field.values = vec![only.value.clone()];
            }
        }
        Ok(required(field))
    }
}

/// Returns the stanza error of a command that failed.
///
/// SPEC: `forbidden` is of type `cancel` in §8.7.3.3, and of type `auth` everywhere else.
pub(super) fn stanza_error(
    service: &Service,
    info: CommandInfo,
    error: CommandError,
) -> StanzaError {
    match error {
        CommandError::Payload(text) => {
            StanzaError::new("modify", "bad-request").command("bad-payload").text(text)
        }
        CommandError::Service(error) => {
            let error = service_error(service, &error);
            let is_get_pending = info.node == ns::GET_PENDING && error.condition == "forbidden";
            if is_get_pending { StanzaError { kind: "cancel", ..error } } else { error }
        }
    }
}
