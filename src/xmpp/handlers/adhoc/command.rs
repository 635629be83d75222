//! What a command is: forms, one after the other, and what is done with what they say.

use async_trait::async_trait;
use jid::{BareJid, Jid};
use minidom::Element;
use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType, Option_};

use crate::{
    service::{Error, ManagedNodes, NamePattern, Service},
    xmpp::stanza::forms,
};
use gjallar_pubsub::{Actor, NodeId, byte_budget, op::discover::NodeSummary, written_len};

/// Nodes that a form offers for choice; where there are more, the name is typed.
const MAX_OFFERED: usize = 500;
/// Maximum number of entries of a list in a form; fewer are shown if they are long.
pub(super) const MAX_SHOWN: usize = 200;

/// Types of fields without options, whose number of values is limited by the stanza only.
const LISTS: [FieldType; 2] = [FieldType::JidMulti, FieldType::TextMulti];

/// A command. What it does depends on what its forms were answered, and on nothing that it keeps.
#[async_trait]
pub(super) trait AdHocCommand: Send + Sync {
    /// What it is called, and who has it.
    fn info(&self) -> CommandInfo;

    /// What comes after these answers, of which there is one for each form that was shown.
    async fn step(
        &self,
        asker: &CommandContext<'_>,
        answers: &[FormValues],
    ) -> Result<CommandStep, CommandError>;
}

/// What a command is called, and who has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandInfo {
    /// The node that names it.
    pub(super) node: &'static str,
    /// Its name for people.
    pub(super) name: &'static str,
    pub(super) audience: CommandAccess,
}

/// Who has a command; nobody else sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandAccess {
    /// Administrators of the service.
    Administrators,
    /// They, and whoever may create nodes.
    Creators,
    /// Administrators, and whoever owns a node.
    Owners,
}

/// What a command does next.
#[derive(Debug)]
pub(super) enum CommandStep {
    /// It asks.
    Ask(DataForm, NextActions),
    /// It has done its work.
    Done(CommandOutcome),
}

/// What may come after a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextActions {
    /// The work.
    Last,
    /// A further form.
    Next,
    /// The pages of a list, or its first one alone.
    List,
    /// A further part of what is shown; or the end, for there is nothing to do.
    Page,
}

/// What came of a command.
#[derive(Debug, Default)]
pub(super) struct CommandOutcome {
    pub(super) note: Option<CommandNote>,
    pub(super) form: Option<DataForm>,
}

/// What is said to people (XEP-0050 §4.3).
#[derive(Debug)]
pub(super) struct CommandNote {
    /// Whether not all was done that was asked for.
    pub(super) is_warning: bool,
    pub(super) text: String,
}

impl CommandNote {
    /// The note with so many bytes of its text at the most.
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

/// Why a command does not go on. The asker may send a better form.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The form does not say what is needed.
    Payload(String),
    /// The service does not do it.
    Service(Error),
}

impl<E: Into<Error>> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::Service(error.into())
    }
}

impl CommandStep {
    /// It is done, and this is said.
    pub(super) fn done(text: impl Into<String>) -> Self {
        let note = CommandNote { is_warning: false, text: text.into() };
        Self::Done(CommandOutcome { note: Some(note), form: None })
    }

    /// Not all of it is done.
    pub(super) fn partly(text: impl Into<String>) -> Self {
        let note = CommandNote { is_warning: true, text: text.into() };
        Self::Done(CommandOutcome { note: Some(note), form: None })
    }

    /// It is done, and this is shown.
    pub(super) fn shown(title: &str, fields: Vec<Field>) -> Self {
        Self::Done(CommandOutcome { note: None, form: Some(result(title, fields)) })
    }

    /// Completes with the first page of a longer list.
    pub(super) fn only_page(page: DataForm) -> Self {
        let mut page = DataForm { type_: DataFormType::Result_, ..page };
        page.fields.retain(|field| field.type_ != FieldType::Hidden);
        let note =
            CommandNote { is_warning: true, text: "The list goes on after this page.".into() };
        Self::Done(CommandOutcome { note: Some(note), form: Some(page) })
    }

    /// The last form before the work.
    pub(super) fn last(title: &str, fields: Vec<Field>) -> Self {
        Self::Ask(asking(title, fields), NextActions::Last)
    }

    /// A form before another one.
    pub(super) fn next(title: &str, fields: Vec<Field>) -> Self {
        Self::Ask(asking(title, fields), NextActions::Next)
    }
}

/// A form to fill in.
pub(super) fn asking(title: &str, fields: Vec<Field>) -> DataForm {
    untyped(DataFormType::Form, title, fields)
}

pub(super) fn result(title: &str, fields: Vec<Field>) -> DataForm {
    untyped(DataFormType::Result_, title, fields)
}

fn untyped(type_: DataFormType, title: &str, fields: Vec<Field>) -> DataForm {
    DataForm { type_, title: Some(title.to_owned()), instructions: None, fields }
}

/// A field of lines.
pub(super) fn lines(var: &str, label: &str, lines: impl IntoIterator<Item = String>) -> Field {
    let mut field = Field::new(var, FieldType::TextMulti);
    field.label = Some(label.to_owned());
    field.values = lines.into_iter().collect();
    field
}

/// Bytes left for the values of a reply.
pub(super) struct Room(usize);

impl Room {
    /// Subtracts the bytes of a value. Returns `false` if it does not fit.
    pub(super) fn takes(&mut self, value: &str) -> bool {
        let left = self.0.checked_sub(forms::value_len(value));
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// Splits off half of the room.
    pub(super) fn half(&mut self) -> Self {
        let half = self.0 / 2;
        self.0 -= half;
        Self(half)
    }

    /// Adds the unused bytes of another room.
    pub(super) fn add(&mut self, other: &Self) {
        self.0 += other.0;
    }

    /// A field with the lines that fit, and the number of the others.
    pub(super) fn lines(&mut self, var: &str, label: &str, all: Vec<String>) -> Field {
        let number = all.len();
        let mut shown: Vec<_> = all.into_iter().take_while(|line| self.takes(line)).collect();
        shown.extend(more(number - shown.len()));
        lines(var, label, shown)
    }
}

/// The line that says how many entries of a list are left out.
fn more(number: usize) -> Option<String> {
    (number > 0).then(|| format!("… and {number} more"))
}

/// Lines to read.
pub(super) fn fixed(lines: &[String]) -> Field {
    let field = Field::new("", FieldType::Fixed).with_value(&lines.join("\n"));
    Field { var: None, ..field }
}

/// A field for JIDs.
pub(super) fn jids_field(var: &str, label: &str) -> Field {
    let mut field = Field::new(var, FieldType::JidMulti);
    field.label = Some(label.to_owned());
    required(field)
}

/// A field for the JID of an entity.
pub(super) fn jid_field(var: &str) -> Field {
    required(forms::field(var, FieldType::JidSingle, "JID", ""))
}

/// A field that must have a value.
pub(super) fn required(field: Field) -> Field {
    Field { required: true, ..field }
}

/// Who asks, and of what.
pub(super) struct CommandContext<'a> {
    pub(super) service: &'a Service,
    pub(super) actor: &'a Actor,
}

impl CommandContext<'_> {
    /// Returns `true` if the asker has the commands of an audience.
    pub(super) async fn has_access(&self, audience: CommandAccess) -> Result<bool, Error> {
        Ok(self.actor.is_administrator
            || match audience {
                CommandAccess::Administrators => false,
                CommandAccess::Creators => self.service.policies().may_create(self.actor),
                CommandAccess::Owners => self.service.owns_a_node(self.actor).await?,
            })
    }

    /// The room for the values of a form.
    pub(super) fn room(&self) -> Room {
        Room(self.max_bytes())
    }

    fn max_bytes(&self) -> usize {
        self.service.policies().limits().max_reply_bytes
    }

    /// The options of a list that fit in a reply, at least one.
    pub(super) fn offered(&self, options: impl Iterator<Item = Option_>) -> Vec<Option_> {
        options.take(MAX_SHOWN).take_while(byte_budget(self.max_bytes(), 1, option_len)).collect()
    }

    /// The first of so many entries at a node, as lines to read; if entries are left out, with the number of these.
    pub(super) fn shown_list(&self, number: usize, first: impl Iterator<Item = String>) -> Field {
        let mut room = self.room();
        let mut shown: Vec<_> = first.take(MAX_SHOWN).take_while(|line| room.takes(line)).collect();
        shown.extend(more(number - shown.len()));
        if shown.is_empty() {
            shown.push("(none)".into());
        }
        fixed(&shown)
    }

    /// Entries as text: those that fit in a reply, and the number of the others.
    pub(super) fn enumeration(&self, entries: Vec<String>) -> String {
        let (number, mut room) = (entries.len(), self.room());
        let fitting = entries.into_iter().take_while(|entry| room.takes(entry));
        let mut shown: Vec<_> = fitting.collect();
        shown.extend(more(number - shown.len()));
        shown.join(", ")
    }

    /// A field with a choice among the nodes that the asker manages.
    pub(super) async fn node_field(&self, var: &str) -> Result<Field, Error> {
        let pattern = NamePattern::default();
        let all = ManagedNodes { pattern, after: None, max: MAX_OFFERED };
        let (nodes, has_more) = self.service.managed_nodes(self.actor, &all).await?;
        let options: Vec<_> = nodes.iter().map(option).collect();
        let fit = options.iter().map(option_len).sum::<usize>() <= self.max_bytes();
        let is_list = !has_more && !nodes.is_empty() && fit;
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

/// Maximum number of bytes of an option in a form.
fn option_len(option: &Option_) -> usize {
    let label = option.label.as_deref().map_or(0, written_len);
    "<option label=''></option>".len() + label + forms::value_len(&option.value)
}

fn option(node: &NodeSummary) -> Option_ {
    // Some clients show no option that has no label.
    let label = match node.title.as_str() {
        "" => node.node.to_string(),
        title => format!("{} ({title})", node.node),
    };
    Option_ { label: Some(label), value: node.node.to_string() }
}

/// What a form was answered. A field that the answer leaves out has the value that was shown.
#[derive(Clone, Debug, Default)]
pub(super) struct FormValues(Vec<(String, Vec<String>)>);

impl FormValues {
    /// What a form says that was shown so.
    pub(super) fn of(
        shown: &DataForm,
        submitted: Option<&Element>,
    ) -> Result<Self, gjallar_pubsub::Error> {
        let is_list = |var: &str| {
            let field = shown.fields.iter().find(|field| field.var.as_deref() == Some(var));
            field.is_some_and(|field| LISTS.contains(&field.type_))
        };
        let mut answers = Vec::new();
        if let Some(submitted) = submitted {
            for (var, values) in forms::fields_and_lists(submitted, is_list)? {
                answers.push((var.to_owned(), values));
            }
        }
        for field in &shown.fields {
            if let Some(var) = &field.var
                && answers.iter().all(|(answered, _)| answered != var)
            {
                answers.push((var.clone(), field.values.clone()));
            }
        }
        Ok(Self(answers))
    }

    /// The answer to a page: the page's end, whichever values the requester sends back.
    pub(super) fn of_page(shown: &DataForm) -> Self {
        let hidden = shown.fields.iter().filter(|field| field.type_ == FieldType::Hidden);
        let answer = |field: &Field| Some((field.var.clone()?, field.values.clone()));
        Self(hidden.filter_map(answer).collect())
    }

    /// The same form with these values in it.
    pub(super) fn refill(&self, mut form: DataForm) -> DataForm {
        for field in &mut form.fields {
            let answer = self.0.iter().find(|(var, _)| Some(var) == field.var.as_ref());
            if let Some((_, values)) = answer.filter(|_| field.type_ != FieldType::Hidden) {
                field.values.clone_from(values);
            }
        }
        form
    }

    /// Approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let value = |value: &String| 30 + value.len();
        let field = |(var, values): &(String, Vec<String>)| {
            60 + var.len() + values.iter().map(value).sum::<usize>()
        };
        self.0.iter().map(field).sum()
    }

    /// Every field and its values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.0.iter().map(|(var, values)| (var.as_str(), values.clone()))
    }

    /// The values of a field but for empty ones.
    pub(super) fn all(&self, var: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(answered, _)| answered == var);
        let values = found.flat_map(|(_, values)| values).flat_map(|value| value.lines());
        values.map(str::trim).filter(|value| !value.is_empty())
    }

    /// The first of them.
    pub(super) fn one(&self, var: &str) -> Option<&str> {
        self.all(var).next()
    }

    /// The values of a field of lines as one text.
    pub(super) fn text(&self, var: &str) -> String {
        let found = self.0.iter().find(|(answered, _)| answered == var);
        found.map(|(_, values)| values.join("\n")).unwrap_or_default()
    }

    /// A boolean; `false` if the field is empty.
    pub(super) fn flag(&self, var: &str) -> Result<bool, CommandError> {
        match self.one(var) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(CommandError::Payload(format!("{var} is neither true nor false"))),
        }
    }

    /// The value of a field that must have one.
    pub(super) fn needed(&self, var: &str) -> Result<&str, CommandError> {
        self.one(var).ok_or_else(|| CommandError::Payload(format!("{var} is required")))
    }

    /// A number; nothing if the field is empty.
    pub(super) fn number(&self, var: &str) -> Result<Option<u64>, CommandError> {
        let bad = |_| CommandError::Payload(format!("{var} is not a number"));
        self.one(var).map(str::parse).transpose().map_err(bad)
    }

    pub(super) fn node(&self, var: &str) -> Result<NodeId, CommandError> {
        // Names may begin or end with spaces, and a form is to give them back as they are.
        let whole = self.0.iter().find(|(answered, _)| answered == var);
        let name = whole.and_then(|(_, values)| values.first()).map(String::as_str);
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Ok(NodeId::parse(name)?),
            None => Err(CommandError::Payload("a node is required".into())),
        }
    }

    /// The JIDs in a field; at least one.
    pub(super) fn jids(&self, var: &str) -> Result<Vec<Jid>, CommandError> {
        let jid = |text: &str| {
            Jid::prepare(text).map_err(|error| {
                CommandError::Payload(format!("{:?} is not a JID: {error}", forms::shortened(text)))
            })
        };
        let jids = self.all(var).map(jid).collect::<Result<Vec<_>, _>>()?;
        let jids = forms::distinct(jids.into_iter());
        if jids.is_empty() {
            return Err(CommandError::Payload(format!("{var} is required")));
        }
        Ok(jids)
    }

    /// An entity.
    pub(super) fn entity(&self, var: &str) -> Result<BareJid, CommandError> {
        let jids = self.jids(var)?;
        match jids.as_slice() {
            [jid] => Ok(jid.to_bare()),
            _ => Err(CommandError::Payload(format!("{var} is one JID"))),
        }
    }
}
