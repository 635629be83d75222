//! Forms of commands (XEP-0004): fields, options, and the limit on values in a reply.

use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType, Option_};

use crate::xmpp::stanza::forms;
use gjallar_pubsub::{op::discover::NodeSummary, written_len};

/// Returns a form to fill in.
pub(super) fn asking(title: &str, fields: Vec<Field>) -> DataForm {
    untyped(DataFormType::Form, title, fields)
}

pub(super) fn result(title: &str, fields: Vec<Field>) -> DataForm {
    untyped(DataFormType::Result_, title, fields)
}

fn untyped(type_: DataFormType, title: &str, fields: Vec<Field>) -> DataForm {
    DataForm { type_, title: Some(title.to_owned()), instructions: None, fields }
}

/// Returns a text field with several lines.
pub(super) fn lines(var: &str, label: &str, lines: impl IntoIterator<Item = String>) -> Field {
    let mut field = Field::new(var, FieldType::TextMulti);
    field.label = Some(label.to_owned());
    field.values = lines.into_iter().collect();
    field
}

/// Remaining bytes for the values of a reply.
pub(super) struct Room(pub(super) usize);

impl Room {
    /// Subtracts the bytes of a value. Returns `false` if the value does not fit.
    pub(super) fn takes(&mut self, value: &str) -> bool {
        let left = self.0.checked_sub(forms::value_len(value));
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// Splits off half of the remaining bytes.
    pub(super) fn half(&mut self) -> Self {
        let half = self.0 / 2;
        self.0 -= half;
        Self(half)
    }

    /// Adds the unused bytes of a half ([`half`](Self::half)).
    pub(super) fn add(&mut self, other: &Self) {
        self.0 += other.0;
    }

    /// Returns a field with the lines that fit, and a last line with the number of lines left out, if any.
    pub(super) fn lines(&mut self, var: &str, label: &str, all: Vec<String>) -> Field {
        let number = all.len();
        let mut shown: Vec<_> = all.into_iter().take_while(|line| self.takes(line)).collect();
        shown.extend(more(number - shown.len()));
        lines(var, label, shown)
    }
}

/// Returns the line that states the number of elements left out of a list; `None` for 0.
pub(super) fn more(number: usize) -> Option<String> {
    (number > 0).then(|| format!("… and {number} more"))
}

/// Returns a read-only field with several lines of text.
pub(super) fn fixed(lines: &[String]) -> Field {
    let field = Field::new("", FieldType::Fixed).with_value(&lines.join("\n"));
    Field { var: None, ..field }
}

/// Returns a required field for one or more JIDs.
pub(super) fn jids_field(var: &str, label: &str) -> Field {
    let mut field = Field::new(var, FieldType::JidMulti);
    field.label = Some(label.to_owned());
    required(field)
}

/// Returns a required field for one JID.
pub(super) fn jid_field(var: &str) -> Field {
    required(forms::field(var, FieldType::JidSingle, "JID", ""))
}

/// Makes a field required.
pub(super) fn required(field: Field) -> Field {
    Field { required: true, ..field }
}

/// Returns the maximum number of bytes of an option in a form.
pub(super) fn option_len(option: &Option_) -> usize {
    let label = option.label.as_deref().map_or(0, written_len);
    "<option label=''></option>".len() + label + forms::value_len(&option.value)
}

pub(super) fn option(node: &NodeSummary) -> Option_ {
    let label = match node.title.as_str() {
        "" => node.node.to_string(),
        title => format!("{} ({title})", node.node),
    };
    forms::option(node.node.as_str(), &label)
}
