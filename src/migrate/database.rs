//! Read access to a PostgreSQL or SQLite database, with every value as text.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params_from_iter, types::ValueRef};
use tokio_postgres::{Client, NoTls, config::Host, types::ToSql};

use super::MigrationError;

/// Row of text values; `None` for NULL.
pub(super) type TextRow = Vec<Option<String>>;

/// Returns the two values of a row; `None` if one is missing.
pub(super) fn pair(row: TextRow) -> Option<(String, String)> {
    let mut values = row.into_iter();
    Some((values.next()??, values.next()??))
}

/// Database, read as of the time it was opened.
pub(super) enum Database {
    Postgres(Client),
    Sqlite(Connection),
}

impl Database {
    /// Opens the database at a URL or path, with a snapshot of its current content.
    pub(super) async fn open(source: &str) -> Result<Self, MigrationError> {
        let is_url =
            ["postgres://", "postgresql://"].iter().any(|scheme| source.starts_with(scheme));
        // The source is not shown in the error, because it may contain a password.
        let is_other = source.contains("://") || source.contains("password=");
        match (is_url, is_other) {
            (true, _) => Self::connect(source).await,
            (false, true) => {
                Err(MigrationError::Source("only URLs that begin with postgres:// are supported"))
            }
            (false, false) => Self::file(Path::new(source)),
        }
    }

    async fn connect(url: &str) -> Result<Self, MigrationError> {
        let config: tokio_postgres::Config = url.parse()?;
        let names = config.get_hosts().iter().filter_map(|host| match host {
            Host::Tcp(name) => Some(name.clone()),
            Host::Unix(_) => None,
        });
        let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
        if let Some(name) = names.chain(addresses).find(|name| !is_local(name)) {
            return Err(MigrationError::NotLocal(name));
        }
        let (client, connection) = config.connect(NoTls).await?;
        // The task ends with the client, which reports errors of the connection.
        tokio::spawn(connection);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await?;
        Ok(Self::Postgres(client))
    }

    fn file(path: &Path) -> Result<Self, MigrationError> {
        // The error of SQLite for a missing file does not name the reason.
        std::fs::metadata(path)
            .map_err(|source| MigrationError::File { path: path.display().to_string(), source })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(path, flags)?;
        // The snapshot of SQLite begins with the first read.
        connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master")?;
        Ok(Self::Sqlite(connection))
    }

    /// Returns the rows of a query. All columns of the query are text; its parameters are `$1`, `$2` …
    pub(super) async fn rows(
        &self,
        sql: &str,
        values: &[&str],
    ) -> Result<Vec<TextRow>, MigrationError> {
        match self {
            Self::Postgres(client) => {
                let values: Vec<&(dyn ToSql + Sync)> =
                    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
                let rows = client.query(sql, &values).await?;
                let row = |row: &tokio_postgres::Row| {
                    (0..row.len()).map(|column| row.try_get(column)).collect::<Result<TextRow, _>>()
                };
                Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
            }
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare(sql)?;
                let columns = statement.column_count();
                let row = |row: &rusqlite::Row<'_>| {
                    (0..columns).map(|column| Ok(text(row.get_ref(column)?))).collect()
                };
                let rows = statement.query_map(params_from_iter(values), row)?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
        }
    }
}

/// Converts a value of SQLite to text. A column of SQLite may have values of any type.
fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn is_local(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

impl From<tokio_postgres::Error> for MigrationError {
    fn from(error: tokio_postgres::Error) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let why = error.as_db_error().map(|error| error.message().to_owned());
        Self::Database(why.unwrap_or_else(|| format!("{error}{}", cause.unwrap_or_default())))
    }
}

impl From<rusqlite::Error> for MigrationError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}
