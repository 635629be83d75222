"""Other services with data created by themselves: the pubsub modules of Prosody and ejabberd at own.localhost, with
each kind of storage that they support. Idavoll runs on no current Debian, so its tables are filled by SQL."""

import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import tempfile

import servers
from clients import clients, entry, form
from servers import DOMAIN, free_ports

OWN = "own.localhost"
PUBSUB = "http://jabber.org/protocol/pubsub"
PEOPLE = ["owner", "bot", "alice", "bob", "mallory"]
ODD = "ä/b_c.d%2f 'e' \"<&>"


class Postgres:
    """Private PostgreSQL on loopback; a context manager."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gjallar-postgres-"))
        (self.port,) = free_ports(1)
        binaries = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
        # PostgreSQL does not run as root.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self.initdb, self.control, self.psql = (binaries / name for name in ("initdb", "pg_ctl", "psql"))
        self.run(self.initdb, "-D", self.folder / "data", "-U", "gjallar", "-A", "trust", "-E", "UTF8", "--no-sync",
                 "--locale=C.UTF-8")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        self.run(self.control, "-D", self.folder / "data", "-w", "-l", self.folder / "log", "-o", options, "start")
        return self

    def __exit__(self, *_):
        self.run(self.control, "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *arguments, **more):
        done = subprocess.run([str(part) for part in arguments], user=self.user, cwd="/", capture_output=True,
                              text=True, check=False, **more)
        assert done.returncode == 0, done.stdout + done.stderr

    def create(self, name, schema=""):
        """Creates a database; returns its URL."""
        self.sql(f"CREATE DATABASE {name}", "postgres")
        self.sql(schema, name)
        return f"postgres://gjallar@127.0.0.1:{self.port}/{name}"

    def sql(self, text, database):
        self.run(self.psql, "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "gjallar", "-d", database,
                 "-v", "ON_ERROR_STOP=1", "-f", "-", input=text)


class Prosody(servers.Prosody):
    """Prosody with its own pubsub service, which stores data as `storage` says."""

    def __init__(self, storage):
        super().__init__(PEOPLE)
        self.storage = storage

    def prepare(self):
        super().prepare()
        with open(self.folder / "prosody.cfg.lua", "a") as config:
            config.write(f'\nComponent "{OWN}" "pubsub"\nadmins = {{ "owner@{DOMAIN}" }}\n{self.storage(self)}\n')


class Ejabberd(servers.Ejabberd):
    def __init__(self, storage):
        super().__init__(PEOPLE)
        self.storage = storage

    def prepare(self):
        super().prepare()
        path = self.folder / "ejabberd.yml"
        options, database = self.storage(self)
        own = (f"\n{options}\nmodules:\n  mod_pubsub:\n    host: {OWN}\n    access_createnode: all\n"
               f"    plugins: [flat, pep]\n    db_type: {database}\n  mod_caps: {{}}")
        path.write_text(path.read_text().replace("\nmodules:", own, 1))


class Exporting(Ejabberd):
    """ejabberd that stores its data in Mnesia, and writes it as SQL at its second start (export2sql)."""

    START = servers.Ejabberd.START.replace(
        "file:write_file",
        'case filelib:is_file("{folder}/export") of true -> ejd2sql:export(<<"{domain}">>, <<"{folder}/export.sql">>, mod_pubsub);'
        " false -> ok end, file:write_file")


def prosody_sql(driver, database, more=""):
    return lambda server: (f'storage = "sql"\nsql = {{ driver = "{driver}", '
                           f'database = "{database(server)}"{more} }}')


def ejabberd_sql(kind, database, more=""):
    return lambda server: (f'sql_type: {kind}\nsql_database: "{database(server)}"\n{more}', "sql")


async def fill(server):
    """Creates every kind of data that both modules have."""
    async with clients(server.client_port, *PEOPLE) as (owner, bot, alice, bob, mallory):
        pubsub = owner.pubsub
        await pubsub.create_node(OWN, "news/a", config=form(
            owner, title="Titles & 'more' \"<b>\" ä", access_model="open", publish_model="publishers", max_items="4"))
        await pubsub.create_node(OWN, ODD, config=form(owner, access_model="open", publish_model="open"))
        await pubsub.create_node(OWN, "closed", config=form(owner, access_model="whitelist", persist_items="0"))
        await pubsub.modify_affiliations(OWN, "news/a", [
            (f"bot@{DOMAIN}", "publisher"), (f"mallory@{DOMAIN}", "outcast"), (f"bob@{DOMAIN}", "member")])
        await pubsub.modify_affiliations(OWN, "closed", [(f"alice@{DOMAIN}", "member")])
        await alice.pubsub.subscribe(OWN, "news/a")
        await bob.pubsub.subscribe(OWN, "news/a", bare=False)
        await alice.pubsub.subscribe(OWN, "closed")
        await mallory.pubsub.subscribe(OWN, ODD)
        for number in range(6):
            payload = entry(f"item {number} <&> 'ä' \"\n")
            payload.set("{http://www.w3.org/XML/1998/namespace}lang", "en")
            payload.set("{urn:other}attribute", "<'\">")
            await bot.pubsub.publish(OWN, "news/a", id=f"id {number}", payload=payload)
        await bot.pubsub.publish(OWN, "news/a", id="id 3", payload=entry("again"))
        await owner.pubsub.retract(OWN, "news/a", "id 4")
        await mallory.pubsub.publish(OWN, ODD, id="odd", payload=entry("odd"))
        await owner.pubsub.publish(OWN, "closed", id="gone", payload=entry("gone"))


async def fill_more(server):
    """Creates data that only ejabberd has: approval, and nodes of an account."""
    async with clients(server.client_port, *PEOPLE) as (owner, _, alice, bob, _):
        await owner.pubsub.create_node(OWN, "asks", config=form(owner, access_model="authorize", max_items="max"))
        await alice.pubsub.subscribe(OWN, "asks")
        await owner.pubsub.modify_subscriptions(OWN, "asks", [(alice.jid, "subscribed")])
        await bob.pubsub.subscribe(OWN, "asks")
        # The node of the account itself.
        await owner.pubsub.publish(None, "urn:pep", id="1", payload=entry("of an account"))


# The tables of Idavoll 0.9, as in its db/pubsub.sql.
IDAVOLL = """
CREATE TABLE entities (entity_id serial PRIMARY KEY, jid text NOT NULL UNIQUE);
CREATE TABLE nodes (
    node_id serial PRIMARY KEY, node text NOT NULL UNIQUE, node_type text NOT NULL DEFAULT 'leaf',
    persist_items boolean, deliver_payloads boolean NOT NULL DEFAULT TRUE,
    send_last_published_item text NOT NULL DEFAULT 'on_sub');
CREATE TABLE affiliations (
    affiliation_id serial PRIMARY KEY, entity_id integer NOT NULL REFERENCES entities,
    node_id integer NOT NULL REFERENCES nodes, affiliation text NOT NULL, UNIQUE (entity_id, node_id));
CREATE TABLE subscriptions (
    subscription_id serial PRIMARY KEY, entity_id integer NOT NULL REFERENCES entities, resource text,
    node_id integer NOT NULL REFERENCES nodes, state text NOT NULL DEFAULT 'subscribed',
    subscription_type text, subscription_depth text, UNIQUE (entity_id, resource, node_id));
CREATE TABLE items (
    item_id serial PRIMARY KEY, node_id integer NOT NULL REFERENCES nodes, item text NOT NULL, publisher text NOT NULL,
    data text, date timestamp with time zone NOT NULL DEFAULT now(), UNIQUE (node_id, item));

INSERT INTO nodes (node, node_type) VALUES ('', 'collection'), ('of others', 'collection');
INSERT INTO nodes (node, persist_items, deliver_payloads, send_last_published_item)
    VALUES ('news/a', TRUE, FALSE, 'never'), ('fleeting', FALSE, TRUE, 'on_sub'), ('lost', TRUE, TRUE, 'on_sub');
INSERT INTO entities (jid) VALUES ('owner@localhost'), ('bot@localhost'), ('mallory@localhost'), ('alice@localhost');
INSERT INTO affiliations (node_id, entity_id, affiliation) SELECT node_id, entity_id, affiliation
    FROM nodes, entities, (VALUES ('news/a', 'owner@localhost', 'owner'), ('news/a', 'bot@localhost', 'publisher'),
        ('news/a', 'mallory@localhost', 'outcast'), ('fleeting', 'owner@localhost', 'owner'))
        AS wanted (of_node, of_jid, affiliation)
    WHERE node = of_node AND jid = of_jid;
INSERT INTO subscriptions (node_id, entity_id, resource, state) SELECT node_id, entity_id, resource, state
    FROM nodes, entities, (VALUES ('news/a', 'alice@localhost', '', 'subscribed'),
        ('news/a', 'alice@localhost', 'desk', 'subscribed'), ('news/a', 'bot@localhost', '', 'unconfigured'),
        ('news/a', 'mallory@localhost', '', 'subscribed'))
        AS wanted (of_node, of_jid, resource, state)
    WHERE node = of_node AND jid = of_jid;
INSERT INTO items (node_id, item, publisher, data, date) SELECT node_id, item, publisher, data, date::timestamptz
    FROM nodes, (VALUES
        ('2', 'bot@localhost/x', '<item id="2" publisher="bot@localhost/x"><entry xmlns="http://www.w3.org/2005/Atom"><title>two &amp; ä</title></entry></item>', '2011-01-02 03:04:05.678+00'),
        ('1', 'owner@localhost', '<item xmlns="http://jabber.org/protocol/pubsub" id="1"><entry xmlns="http://www.w3.org/2005/Atom"/></item>', '2010-01-02 03:04:05+00'),
        ('3', 'bot@localhost/x', '<item id="3"/>', '2012-01-02 03:04:05+00'),
        ('broken', 'bot@localhost/x', '<item', '2013-01-02 03:04:05+00'))
        AS wanted (item, publisher, data, date)
    WHERE node = 'news/a';
"""


# ejabberd has a table for the options of subscriptions, but its module does not write it.
OPTIONS = f"""
INSERT INTO pubsub_subscription_opt (subid, opt_name, opt_value) SELECT substr(subscriptions, 3), name, value
    FROM pubsub_state, (SELECT 'DELIVER' AS name, '0' AS value UNION SELECT 'EXPIRE', '2096-10-02T07:06:40Z') AS wanted
    WHERE jid = 'alice@{DOMAIN}' AND nodeid = (SELECT nodeid FROM pubsub_node WHERE node = 'asks');
"""


def with_options(database):
    """Returns the SQLite file, with options of a subscription in it."""
    connection = sqlite3.connect(database)
    connection.executescript(OPTIONS)
    connection.close()
    return database


def from_dump(dump, database):
    """Returns a SQLite file with the SQL that ejabberd wrote."""
    schema = (servers.ROOT / "usr/share/ejabberd/sql/lite.sql").read_text()
    connection = sqlite3.connect(database)
    connection.executescript(schema)
    connection.executescript(dump.read_text())
    connection.close()
