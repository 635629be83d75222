//! Values of the submitted forms of commands.

use jid::{BareJid, Jid};
use minidom::Element;
use xmpp_parsers::data_forms::{DataForm, Field, FieldType};

use crate::xmpp::stanza::forms;
use gjallar_pubsub::NodeId;

use super::command::CommandError;

/// Types of fields without options. Only the size of the stanza limits the number of values of such a field.
const LISTS: [FieldType; 2] = [FieldType::JidMulti, FieldType::TextMulti];

/// Values of a submitted form. A field that was not submitted has the value that the form showed.
#[derive(Clone, Debug, Default)]
pub(super) struct FormValues(Vec<(String, Vec<String>)>);

impl FormValues {
    /// Returns the values with which the form `shown` was submitted.
    pub(super) fn of(
        shown: &DataForm,
        submitted: Option<&Element>,
    ) -> Result<Self, gjallar_pubsub::Error> {
        let is_list = |var: &str| {
            let field = shown.fields.iter().find(|field| field.var.as_deref() == Some(var));
            field.is_some_and(|field| LISTS.contains(&field.type_))
        };
        let mut fields = Vec::new();
        if let Some(submitted) = submitted {
            for (var, values) in forms::fields_and_lists(submitted, is_list)? {
                fields.push((var.to_owned(), values));
            }
        }
        for field in &shown.fields {
            if let Some(var) = &field.var
                && fields.iter().all(|(submitted_var, _)| submitted_var != var)
            {
                fields.push((var.clone(), field.values.clone()));
            }
        }
        Ok(Self(fields))
    }

    /// Returns the values for the next step after a page of a list: the hidden fields of the page `shown`. Values that
    /// the requester sends back are ignored.
    pub(super) fn of_page(shown: &DataForm) -> Self {
        let hidden = shown.fields.iter().filter(|field| field.type_ == FieldType::Hidden);
        let answer = |field: &Field| Some((field.var.clone()?, field.values.clone()));
        Self(hidden.filter_map(answer).collect())
    }

    /// Returns the form with these values filled in.
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

    /// Returns every field with its values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.0.iter().map(|(var, values)| (var.as_str(), values.clone()))
    }

    /// Returns the non-empty lines of the values of a field, trimmed.
    pub(super) fn all(&self, var: &str) -> impl Iterator<Item = &str> {
        let matching = self.0.iter().filter(move |(submitted_var, _)| submitted_var == var);
        let values = matching.flat_map(|(_, values)| values).flat_map(|value| value.lines());
        values.map(str::trim).filter(|value| !value.is_empty())
    }

    /// Returns the first non-empty line of the values of a field, trimmed.
    pub(super) fn one(&self, var: &str) -> Option<&str> {
        self.all(var).next()
    }

    /// Returns the values of a multi-line field as one text.
    pub(super) fn text(&self, var: &str) -> String {
        let matching = self.0.iter().find(|(submitted_var, _)| submitted_var == var);
        matching.map(|(_, values)| values.join("\n")).unwrap_or_default()
    }

    /// Returns the value of a boolean field; `false` if the field is empty.
    pub(super) fn flag(&self, var: &str) -> Result<bool, CommandError> {
        match self.one(var) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(CommandError::Payload(format!("{var} must be true or false"))),
        }
    }

    /// Returns the value of a required field.
    pub(super) fn needed(&self, var: &str) -> Result<&str, CommandError> {
        self.one(var).ok_or_else(|| CommandError::Payload(format!("{var} is required")))
    }

    /// Returns the value of a number field; `None` if the field is empty.
    pub(super) fn number(&self, var: &str) -> Result<Option<u64>, CommandError> {
        let bad = |_| CommandError::Payload(format!("{var} must be a number"));
        self.one(var).map(str::parse).transpose().map_err(bad)
    }

    pub(super) fn node(&self, var: &str) -> Result<NodeId, CommandError> {
        // Names may begin or end with spaces; the value is not trimmed.
        let whole = self.0.iter().find(|(submitted_var, _)| submitted_var == var);
        let name = whole.and_then(|(_, values)| values.first()).map(String::as_str);
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Ok(NodeId::parse(name)?),
            None => Err(CommandError::Payload("a node is required".into())),
        }
    }

    /// Returns the distinct JIDs of a field. A field without a JID is an error.
    pub(super) fn jids(&self, var: &str) -> Result<Vec<Jid>, CommandError> {
        self.jids_of(&[var])
    }

    /// Returns the distinct JIDs of several fields. If the fields have no JID, this is an error.
    pub(super) fn jids_of(&self, vars: &[&str]) -> Result<Vec<Jid>, CommandError> {
        let jid = |text: &str| {
            Jid::prepare(text).map_err(|error| {
                CommandError::Payload(format!("{:?} is not a JID: {error}", forms::shortened(text)))
            })
        };
        let texts = vars.iter().flat_map(|var| self.all(var));
        let jids = texts.map(jid).collect::<Result<Vec<_>, _>>()?;
        let jids = forms::distinct(jids.into_iter());
        if jids.is_empty() {
            return Err(CommandError::Payload(format!("{} is required", vars.join(" or "))));
        }
        Ok(jids)
    }

    /// Returns the bare JID in a field. A field with several JIDs is an error.
    pub(super) fn entity(&self, var: &str) -> Result<BareJid, CommandError> {
        let jids = self.jids(var)?;
        match jids.as_slice() {
            [jid] => Ok(jid.to_bare()),
            _ => Err(CommandError::Payload(format!("{var} must be one JID"))),
        }
    }
}
