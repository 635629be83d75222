//! Configuration sources: a file, and an environment variable for every key.
//!
//! The variable of the key `a` is `GJALLAR_A`, that of the key `b` of the table `[a]` is `GJALLAR_A_B`. A variable
//! overrides the file.

#![allow(clippy::disallowed_methods)] // the one place where the environment is read

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Config, ConfigError, invalid};

/// Prefix of the names of all variables.
const PREFIX: &str = "GJALLAR_";
/// Names, and prefixes of names, of the variables that commands read in place of command-line arguments. These
/// variables are not configuration keys.
const ARGUMENTS: [&str; 3] = ["GJALLAR_CONFIG", "GJALLAR_CLIENT_", "GJALLAR_IMPORT_SOURCE"];

impl Config {
    /// Reads the environment, and a file if one is given.
    ///
    /// # Errors
    /// If the file cannot be read, or if a key or value is invalid.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => fs::read_to_string(path)
                .map_err(|source| ConfigError::File { path: path.to_owned(), source })?,
            None => String::new(),
        };
        let variables = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let origin = file.map(|path| format!("{}: ", path.display())).unwrap_or_default();
        Self::from_parts(&text, variables)
            .map_err(|reason| ConfigError::Form(format!("{origin}{reason}")))
    }

    /// Reads the configuration from the text of a file and from variables.
    pub(crate) fn from_parts(
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let mut table: Table = text.parse().map_err(|error| without_values(text, &error))?;
        let known = Table::try_from(Self::default()).map_err(|error| format!("{error}"))?;
        let is_argument = |name: &str| ARGUMENTS.iter().any(|prefix| name.starts_with(prefix));
        let is_ours = |name: &str| !is_argument(name) && !is_kubernetes(name);
        for (name, value) in variables.filter(|(name, _)| is_ours(name)) {
            if let Some(key) = name.strip_prefix(PREFIX) {
                set(&mut table, &known, key, &value)
                    .map_err(|reason| format!("{name}: {reason}"))?;
            }
        }
        let has_reply_limit =
            table.get("limits").is_some_and(|limits| limits.get("max_reply_bytes").is_some());
        let mut config: Self = table.try_into().map_err(|error| without_values("", &error))?;
        if !has_reply_limit {
            config.limits.fit_replies(config.link.max_stanza_bytes);
        }
        Ok(config)
    }
}

/// Returns the message of a TOML error without the text of the file around the error. The message has no values,
/// because a value may be the secret.
fn without_values(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).filter(|_| !text.is_empty());
    let line = line.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
    let shown = error.to_string();
    let key = shown.lines().rev().find(|line| line.starts_with("in `"));
    let message = match error.message() {
        message
            if ["invalid ", "unknown variant "].iter().any(|kind| message.starts_with(kind)) =>
        {
            let expected = message.rsplit_once(", expected ").map_or("something else", |(_, e)| e);
            format!("invalid value; expected {expected}")
        }
        message => message.to_owned(),
    };
    let key = key.map(|key| format!(", {key}")).unwrap_or_default();
    format!("{}{message}{key}", line.unwrap_or_default())
}

/// Returns `true` if a variable has the name of one that Kubernetes sets for a service.
///
/// COMPAT: Kubernetes sets such variables in every container of a cluster with a service called gjallar.
fn is_kubernetes(name: &str) -> bool {
    name.starts_with("GJALLAR_SERVICE_") || name.starts_with("GJALLAR_PORT")
}

/// Returns the state directory: `$STATE_DIRECTORY`, which systemd sets; otherwise `$XDG_STATE_HOME/gjallar`; otherwise
/// `$HOME/.local/state/gjallar`.
pub(crate) fn state_directory() -> Result<PathBuf, ConfigError> {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("STATE_DIRECTORY")
        .or_else(|| of("XDG_STATE_HOME").map(|home| home.join("gjallar")))
        .or_else(|| of("HOME").map(|home| home.join(".local/state/gjallar")))
        .ok_or_else(|| invalid("store", "not set, and no home directory found"))
}

/// Sets the key in `table` that belongs to an environment variable. `key` is the name of the variable without its
/// prefix. The value is converted to the type of the key's default value in `known`.
fn set(table: &mut Table, known: &Table, key: &str, value: &str) -> Result<(), String> {
    for (name, default) in known {
        let upper = name.to_uppercase();
        if let Value::Table(inner) = default {
            if let Some(rest) = key.strip_prefix(&format!("{upper}_")) {
                let inner_table = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
                let no_table = || format!("`{name}` in the file must be a table");
                let inner_table = inner_table.as_table_mut().ok_or_else(no_table)?;
                return set(inner_table, inner, rest, value);
            }
        } else if upper == key {
            let parsed = match default {
                Value::Integer(_) => Value::Integer(value.parse().map_err(|_| "must be a number")?),
                Value::Boolean(_) => Value::Boolean(match value {
                    "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err("must be true or false".into()),
                }),
                Value::Array(_) => {
                    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                    Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
                }
                _ => Value::String(value.to_owned()),
            };
            table.insert(name.clone(), parsed);
            return Ok(());
        }
    }
    Err("unknown key".into())
}
