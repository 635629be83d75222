//! Data forms (XEP-0004): one mapping per form.
//!
//! Forms are built with `xmpp_parsers` and written by [`render`]. Submitted ones are read from the
//! tree, so that a field that the library does not expect is no failure.

pub mod meta_data;
pub mod node_config;

use minidom::Element;
use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType, Option_};

use crate::{
    pubsub::Refusal,
    wire::{ns, xml},
};

/// A form as text.
#[must_use]
pub fn render(form: DataForm) -> String {
    xml::stand_alone(&Element::from(form))
}

/// A field with its label and value.
#[must_use]
pub fn field(var: &str, kind: FieldType, label: &str, value: &str) -> Field {
    let mut field = Field::new(var, kind).with_value(value);
    field.label = Some(label.to_owned());
    field
}

/// A field with a choice among named values.
#[must_use]
pub fn choice(var: &str, label: &str, options: &[(&str, &str)], value: &str) -> Field {
    let mut field = field(var, FieldType::ListSingle, label, value);
    let option = |(value, label): &(&str, &str)| Option_ {
        label: Some((*label).to_owned()),
        value: (*value).to_owned(),
    };
    field.options = options.iter().map(option).collect();
    field
}

/// A form of a registered type (XEP-0068).
#[must_use]
pub fn form_of_type(kind: DataFormType, form_type: &str, fields: Vec<Field>) -> DataForm {
    DataForm::new(kind, form_type, fields)
}

/// Fields and values of a submitted form together; our forms have far fewer.
const MAX_PARTS: usize = 256;

/// The fields of a submitted form, each with its values.
///
/// # Errors
/// [`Refusal::FormTooLarge`].
pub fn fields(form: &Element) -> Result<impl Iterator<Item = (&str, Vec<String>)>, Refusal> {
    let parts = form.children().map(|field| 1 + field.children().count()).sum::<usize>();
    if parts > MAX_PARTS {
        return Err(Refusal::FormTooLarge { max: MAX_PARTS });
    }
    let values = |field: &Element| {
        let values = field.children().filter(|child| child.is("value", ns::DATA_FORMS));
        values.map(Element::text).collect()
    };
    Ok(form
        .children()
        .filter(|child| child.is("field", ns::DATA_FORMS))
        .filter_map(move |field| Some((field.attr("var")?, values(field)))))
}
