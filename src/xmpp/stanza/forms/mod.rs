//! Data forms (XEP-0004): one module for each form.
//!
//! Forms are built with `xmpp_parsers` and written by [`render`]. Submitted forms are read from the element, so that
//! fields unknown to the library are no errors.

pub mod authorization;
pub mod enum_fields;
pub mod meta_data;
pub mod node_config;
pub mod subscribe_options;

use std::{collections::HashSet, hash::Hash};

use minidom::Element;
use xmpp_parsers::{
    data_forms::{DataForm, DataFormType, Field, FieldType, Option_},
    data_forms_validate::{Datatype, Method, Validate},
};

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};
use gjallar_pubsub::written_len;

/// Renders a form. The library's conversion to an element takes ten times as long.
#[must_use]
pub fn render(form: &DataForm) -> ElementWriter {
    let text = |name, text: &Option<String>| {
        text.as_deref().map(|text| ElementWriter::new(name).text(text))
    };
    let kind = match form.type_ {
        DataFormType::Cancel => "cancel",
        DataFormType::Form => "form",
        DataFormType::Result_ => "result",
        DataFormType::Submit => "submit",
    };
    let head = ElementWriter::ns("x", ns::DATA_FORMS)
        .attr("type", kind)
        .children(text("title", &form.title))
        .children(text("instructions", &form.instructions));
    let is_asked = form.type_ == DataFormType::Form;
    let fields = form.fields.iter();
    fields.fold(head, |form, field| form.with("field", |tag| fill(tag, field, is_asked)))
}

/// Writes a field. In a form to fill in, a list that has no options or has open validation accepts any value. The
/// current values of such a list are added to its options. COMPAT: clients such as Movim and Psi keep a value of a list
/// only if it is an option.
fn fill(tag: ElementWriter, field: &Field, is_asked: bool) -> ElementWriter {
    let kind = match field.type_ {
        FieldType::Boolean => "boolean",
        FieldType::Fixed => "fixed",
        FieldType::Hidden => "hidden",
        FieldType::JidMulti => "jid-multi",
        FieldType::JidSingle => "jid-single",
        FieldType::ListMulti => "list-multi",
        FieldType::ListSingle => "list-single",
        FieldType::TextMulti => "text-multi",
        FieldType::TextPrivate => "text-private",
        FieldType::TextSingle => "text-single",
    };
    let render_option = |tag: ElementWriter, option: &Option_| {
        let tag = tag.attr_if("label", option.label.as_deref());
        tag.with("value", |value| value.text(&option.value))
    };
    let head = tag
        .attr_if("var", field.var.as_deref())
        .attr("type", kind)
        .attr_if("label", field.label.as_deref())
        .children(field.desc.as_deref().map(|desc| ElementWriter::new("desc").text(desc)))
        .children(field.required.then(|| ElementWriter::new("required")));
    let is_list = matches!(field.type_, FieldType::ListMulti | FieldType::ListSingle);
    let is_open = is_asked && is_list && (field.options.is_empty() || field.validate.is_some());
    let is_option = |value: &&String| field.options.iter().any(|option| option.value == **value);
    let present = field.values.iter().filter(|value| is_open && !is_option(value));
    let present: Vec<_> = present.map(|value| option(value, value)).collect();
    let options = field.options.iter().chain(&present);
    let tag =
        options.fold(head, |tag, option| tag.with("option", |tag| render_option(tag, option)));
    let tag = field.values.iter().fold(tag, |tag, value| tag.with("value", |tag| tag.text(value)));
    tag.children(is_open.then(open_validation))
}

/// Returns the validation of a list that accepts any value, with or without options (XEP-0122 §3.2.2).
fn open_validation() -> ElementWriter {
    ElementWriter::ns("validate", ns::VALIDATE)
        .attr("datatype", "xs:string")
        .child(ElementWriter::new("open"))
}

/// Returns an upper bound of the bytes that `value` takes as a `<value/>` element in a form that servers relay. Servers
/// may escape more characters than the service does.
pub(crate) fn value_len(value: &str) -> usize {
    "<value></value>".len() + written_len(value)
}

/// Returns a field with its label and value. An empty value is left out, because an empty `<value/>` is no JID, time or
/// number.
#[must_use]
pub fn field(var: &str, kind: FieldType, label: &str, value: &str) -> Field {
    let mut field = Field::new(var, kind);
    field.label = Some(label.to_owned());
    field.values.extend((!value.is_empty()).then(|| value.to_owned()));
    field
}

/// Returns a field with several JIDs.
#[must_use]
pub fn jids<J: ToString>(var: &str, label: &str, jids: &[J]) -> Field {
    let mut field = Field::new(var, FieldType::JidMulti);
    field.label = Some(label.to_owned());
    field.values = jids.iter().map(ToString::to_string).collect();
    field
}

/// Returns a field with a choice among named values.
#[must_use]
pub fn choice(var: &str, label: &str, options: &[(&str, &str)], value: &str) -> Field {
    let mut field = field(var, FieldType::ListSingle, label, value);
    field.options = options.iter().map(|(value, label)| option(value, label)).collect();
    field
}

/// Returns a list field with options. The field also accepts values that are not options (XEP-0122).
#[must_use]
pub fn open_choices(var: &str, label: &str, options: &[String], values: &[String]) -> Field {
    let mut field = Field::new(var, FieldType::ListMulti);
    field.label = Some(label.to_owned());
    field.options = options.iter().map(|value| option(value, value)).collect();
    field.values = values.to_vec();
    field.validate = Some(Validate {
        datatype: Some(Datatype::String),
        method: Some(Method::Open),
        list_range: None,
    });
    field
}

/// Returns an option of a list. COMPAT: clients such as Converse show an option without a label as an empty line.
#[must_use]
pub fn option(value: &str, label: &str) -> Option_ {
    Option_ { label: Some(label.to_owned()), value: value.to_owned() }
}

/// Returns a form of a registered type (XEP-0068).
#[must_use]
pub fn form_of_type(kind: DataFormType, form_type: &str, fields: Vec<Field>) -> DataForm {
    DataForm::new(kind, form_type, fields)
}

/// Shortens the name or value of a field for an error text.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Returns the text of the error for an invalid value of a field.
fn invalid(var: &str, value: &str) -> String {
    format!("{}: {:?} is not a valid value", shortened(var), shortened(value))
}

/// Checks the value of `FORM_TYPE` (XEP-0068).
///
/// # Errors
/// The text of an error that names both types.
pub(super) fn check_type(found: &[String], expected: &str) -> Result<(), String> {
    match found {
        [found] if found == expected => Ok(()),
        found => {
            let found = shortened(&found.join(", "));
            Err(format!("FORM_TYPE: {expected} is expected here, not {found:?}"))
        }
    }
}

/// Returns the distinct values of a field, in their order (XEP-0004 §3.3: "duplicate JIDs MUST be ignored").
pub(crate) fn distinct<T: Clone + Eq + Hash>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    values.filter(|value| seen.insert(value.clone())).collect()
}

/// Returns a value of an XML Schema type without surrounding white space (XML Schema 2, §4.3.6, `collapse`). Texts and
/// names of choices are compared with their white space.
pub(super) fn collapsed(value: &str) -> &str {
    value.trim_matches([' ', '\t', '\n', '\r'])
}

/// Parses a value of type `xs:boolean`.
pub(super) fn flag(value: &str) -> Option<bool> {
    match collapsed(value) {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Parses a value of type `xs:unsignedInt`. The type allows leading zeros and a plus sign.
pub(super) fn number(value: &str) -> Option<u32> {
    collapsed(value).parse().ok()
}

/// Maximum number of fields and values of a submitted form. The service's own forms have far fewer. Options, which some
/// clients send back, do not count; the limit of stanza sizes bounds them.
const MAX_PARTS: usize = 256;

/// Returns the fields of a submitted form, each with its values.
///
/// # Errors
/// [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge).
pub fn fields(
    form: &Element,
) -> Result<impl Iterator<Item = (&str, Vec<String>)>, gjallar_pubsub::Error> {
    fields_and_lists(form, |_| false)
}

/// Returns the fields of a submitted form, each with its values. If `is_list` returns `true` for a field, its values do
/// not count in the limit of values; the limit of stanza sizes bounds them.
///
/// # Errors
/// [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge).
pub fn fields_and_lists(
    form: &Element,
    is_list: impl Fn(&str) -> bool,
) -> Result<impl Iterator<Item = (&str, Vec<String>)>, gjallar_pubsub::Error> {
    let fields = || children(form, "field");
    let counted = |field: &Element| match field.attr("var").is_some_and(&is_list) {
        true => 1,
        false => 1 + children(field, "value").count(),
    };
    if fields().map(counted).sum::<usize>() > MAX_PARTS {
        return Err(gjallar_pubsub::Error::FormTooLarge { max: MAX_PARTS });
    }
    let values = |field| children(field, "value").map(Element::text).collect();
    Ok(fields().filter_map(move |field| Some((field.attr("var")?, values(field)))))
}

fn children<'a>(parent: &'a Element, name: &'static str) -> impl Iterator<Item = &'a Element> {
    parent.children().filter(move |child| child.is(name, ns::DATA_FORMS))
}
