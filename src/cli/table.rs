//! Tables and values for a terminal.

use comfy_table::{Table, presets};
use serde_json::Value;

/// Returns the value of the member `name` of an object. Returns null if the object does not have this member.
pub(super) fn value<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Makes a table with these columns.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = plain();
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    table
}

/// Formats a table with two spaces between the columns.
pub(super) fn shown(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// Makes a table with one row for each member of an object: its name and its value.
pub(super) fn details(object: &Value) -> Table {
    let mut table = plain();
    rows(&mut table, "", object);
    table
}

/// Adds the members of an object: first plain values, then nested ones.
fn rows(table: &mut Table, prefix: &str, thing: &Value) {
    let (nested, plain): (Vec<_>, Vec<_>) =
        thing.as_object().into_iter().flatten().partition(|(_, of)| is_nested(of));
    for (name, of) in plain.into_iter().chain(nested) {
        let name = name.strip_prefix("pubsub#").unwrap_or(name);
        let name = format!("{prefix}{name}");
        match of {
            Value::Object(_) => rows(table, &format!("{name} "), of),
            Value::Array(entries) if is_nested(of) => {
                for entry in entries {
                    let values = entry.as_object().into_iter().flatten().map(|(_, of)| text(of));
                    table.add_row([name.clone(), values.collect::<Vec<_>>().join(" ")]);
                }
            }
            of => {
                table.add_row([name, text(of)]);
            }
        }
    }
}

fn is_nested(of: &Value) -> bool {
    match of {
        Value::Array(entries) => entries.iter().any(Value::is_object),
        of => of.is_object(),
    }
}

/// Formats a value for people.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => readable(text),
        Value::Array(entries) => entries.iter().map(text).collect::<Vec<_>>().join(", "),
        other => readable(&other.to_string()),
    }
}

/// Replaces the control characters of a text, which could change the state of a terminal.
pub(super) fn readable(text: &str) -> String {
    let is_control = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if is_control(c) { '\u{fffd}' } else { c }).collect()
}
