"""Migration: data of Prosody, ejabberd and Idavoll is imported, and gjallar then shows the same data to clients."""

import json
import sqlite3
import subprocess
import time

import pytest

from clients import clients, entry, item_ids
from conftest import with_loop
from container import Container
from foreign import (IDAVOLL, ODD, OPTIONS, OWN, PEOPLE, Ejabberd, Exporting, Postgres, Prosody, ejabberd_sql, fill, fill_more,
                     from_dump, prosody_sql, with_options)
from servers import DOMAIN, PASSWORD, RELEASE, ROOT, SERVICE, Gjallar, binaries

SCHEMAS = ROOT / "usr/share/ejabberd/sql"


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as running:
        yield running


def imported(tmp_path, kind, source, *more):
    """Returns the output of `gjallar import`."""
    done = subprocess.run(
        [binaries() / "gjallar", "import", "--from", kind, "--store", f"sled:{tmp_path}/store", "--service", OWN,
         "--json", *more],
        env={"GJALLAR_IMPORT_SOURCE": str(source)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    return report, {remark["what"]: remark for remark in report["left"]}


def described(element):
    """Converts an element for comparison."""
    if element is None:
        return None
    text = (element.text or "").strip() if len(element) else element.text
    return element.tag, sorted(element.items()), text, [described(child) for child in element]


async def seen(port, service, nodes, fields):
    """Returns the data of some nodes of a service that clients see."""
    found = {}
    async with clients(port, *PEOPLE) as people:
        owner = people[0]
        for node in nodes:
            shown = await owner.pubsub.get_node_config(service, node)
            values = shown["pubsub_owner"]["configure"]["form"].get_values()
            # ejabberd omits fields that were never set.
            config = {name: values.get(f"pubsub#{name}") or "" for name in fields}
            affiliations = await owner.pubsub.get_node_affiliations(service, node)
            affiliations = {(each["jid"].bare, each["affiliation"])
                            for each in affiliations["pubsub_owner"]["affiliations"]}
            subscriptions = await owner.pubsub.get_node_subscriptions(service, node)
            subscriptions = {(str(each["jid"]), each["subscription"])
                             for each in subscriptions["pubsub_owner"]["subscriptions"]}
            items = {}
            # A node without persistence has no items to show.
            if values["pubsub#persist_items"]:
                items = await owner.pubsub.get_items(service, node)
                items = {each["id"]: described(each["payload"]) for each in items["pubsub"]["items"]}
            found[node] = config, affiliations, subscriptions, items
    return found


def storages(postgres, name):
    """Yields the server, and the data to import after it was filled and stopped."""
    if name == "prosody-files":
        return Prosody(lambda _: ""), lambda server: server.folder / "data"
    if name == "prosody-sqlite":
        return Prosody(prosody_sql("SQLite3", lambda server: server.folder / "own.sqlite")), lambda server: server.folder / "own.sqlite"
    if name == "prosody-postgres":
        url = postgres.create("prosody")
        more = f', username = "gjallar", password = "", host = "127.0.0.1", port = {postgres.port}'
        return Prosody(prosody_sql("PostgreSQL", lambda _: "prosody", more)), lambda _: url
    if name == "ejabberd-sqlite":
        return Ejabberd(ejabberd_sql("sqlite", lambda server: server.folder / "own.sqlite")), lambda server: with_options(
            server.folder / "own.sqlite")
    if name == "ejabberd-postgres":
        url = postgres.create("ejabberd", (SCHEMAS / "pg.sql").read_text())
        more = f'sql_server: "127.0.0.1"\nsql_port: {postgres.port}\nsql_username: gjallar\nsql_password: "x"'

        def options_in_postgres(_):
            postgres.sql(OPTIONS, "ejabberd")
            return url
        return Ejabberd(ejabberd_sql("pgsql", lambda _: "ejabberd", more)), options_in_postgres

    def exported(server):
        (server.folder / "export").touch()
        server.launch()
        server.halt()
        from_dump(server.folder / "export.sql", server.folder / "own.sqlite")
        return with_options(server.folder / "own.sqlite")
    return Exporting(lambda _: ("sql_type: sqlite", "mnesia")), exported


def lines(tmp_path):
    """Returns the data in the store."""
    text = subprocess.run([binaries() / "gjallar", "export", "--store", f"sled:{tmp_path}/store"], env={},
                          capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def compare_export(tmp_path, kind, began):
    """Compares data that clients do not see: publishers, times, and order."""
    kept = lines(tmp_path)
    nodes = [line["node"] for line in kept if line["kind"] == "node"]
    # Nodes are listed by their age. In Prosody `closed` keeps no item that shows its age.
    assert nodes.index("news/a") < nodes.index("closed")
    begin = next(n for n, line in enumerate(kept) if line["kind"] == "node" and line["node"] == "news/a")
    news = [kept[begin]]
    for line in kept[begin + 1:]:
        if line["kind"] in ("node", "end"):
            break
        news.append(line)
    items = [line for line in news if line["kind"] == "item" and line["id"] != "new"]
    assert [item["id"] for item in items] == ["id 2", "id 5", "id 3"]
    assert {item["publisher"] for item in items} == {f"bot@{DOMAIN}"}
    # Prosody stores times in seconds.
    assert all((began - 1) * 1000 <= item["published"] <= time.time() * 1000 for item in items)
    # ejabberd stores both modification and creation times.
    assert ("created" in items[2]) == (kind == "ejabberd")
    if kind == "ejabberd":
        (asks,) = [line for line in kept if line["kind"] == "subscription" and "special" in line]
        assert asks["jid"] == f"alice@{DOMAIN}"
        options = asks["special"]["terms"][0]["options"]
        assert (options["pubsub#deliver"], options["pubsub#expire"]) == ("false", "2096-10-02T07:06:40.000Z")
        assert items[0]["seq"] < items[2]["created"][0] < items[1]["seq"] < items[2]["seq"]


@pytest.mark.parametrize("name", ["prosody-files", "prosody-sqlite", "prosody-postgres", "ejabberd-sqlite",
                                  "ejabberd-postgres", "ejabberd-mnesia"])
@with_loop
async def test_store_of_a_server_is_imported(postgres, tmp_path, name):
    server, source = storages(postgres, name)
    kind = name.split("-")[0]
    nodes = ["news/a", "closed", ODD]
    fields = ["title", "access_model", "publish_model", "persist_items", "max_items", "notification_type",
              "send_last_published_item", "deliver_payloads", "notify_retract"]
    with server:
        began = time.time()
        await fill(server)
        if kind == "ejabberd":
            await fill_more(server)
            nodes.append("asks")
            fields += ["notify_config", "notify_delete", "deliver_notifications", "itemreply"]
        there = await seen(server.client_port, OWN, nodes, fields)
        assert list(there["news/a"][3]) and there[ODD][3], there
        server.halt()
        read = source(server)

        report, left = imported(tmp_path, kind, read, "--dry-run")
        assert not (tmp_path / "store").exists()
        assert imported(tmp_path, kind, read)[0] == report
        assert report["nodes"] == len(nodes)
        assert report["items"] == len(there["news/a"][3]) + 1
        # ejabberd keeps the last item even of nodes without persistence.
        expected = {"a node of an account (PEP): not imported": "owner@localhost",
                    "an item beyond pubsub#max_items": "closed: gone"}
        assert {what: remark["places"][0] for what, remark in left.items()} == (
            expected if kind == "ejabberd" else {})

        server.launch()
        with Gjallar(server.component_port, tmp_path, admins="admin@localhost"):
            here = await seen(server.client_port, SERVICE, nodes, fields)
            for node in nodes:
                for mine, theirs in zip(here[node], there[node], strict=True):
                    assert mine == theirs, node
            async with clients(server.client_port, "alice", "mallory", "bot", "bob") as (alice, mallory, bot, bob):
                # Subscribers are notified of new items, and outcasts are refused.
                await bot.pubsub.publish(SERVICE, "news/a", id="new", payload=entry("new"))
                for subscriber in (alice, bob):
                    while not (events := [event for event in subscriber.events if event.get("from") == SERVICE]):
                        # The event of the old service, which runs too.
                        await subscriber.until(len(subscriber.events) + 1)
                    assert item_ids(events[0]) == ["new"]
                with pytest.raises(Exception, match="forbidden"):
                    await mallory.pubsub.get_items(SERVICE, "news/a")
                with pytest.raises(Exception, match="closed-node|not-allowed"):
                    await bob.pubsub.get_items(SERVICE, "closed")
        compare_export(tmp_path, kind, began)
        check = subprocess.run([binaries() / "gjallar", "check", "--store", f"sled:{tmp_path}/store"], env={},
                               capture_output=True, text=True, check=False)
        assert check.returncode == 0, check.stderr


@pytest.mark.one_release
def test_database_of_idavoll_is_imported(postgres, tmp_path):
    url = postgres.create("idavoll", IDAVOLL)
    report, left = imported(tmp_path, "idavoll", url, "--dry-run")
    assert (report["nodes"], report["subscriptions"], report["items"]) == (3, 2, 3)
    assert left == {
        "a collection": {"what": "a collection", "times": 1, "places": ["of others"]},
        "a node without owner: only administrators can change it": {
            "what": "a node without owner: only administrators can change it", "times": 1, "places": ["lost"]},
        "a subscription with missing data": {
            "what": "a subscription with missing data", "times": 1, "places": [f"news/a: bot@{DOMAIN}"]},
        "a subscription of an entity that has no access to the node": {
            "what": "a subscription of an entity that has no access to the node", "times": 1,
            "places": [f"news/a: mallory@{DOMAIN}"]},
        "an item that cannot be read": {
            "what": "an item that cannot be read", "times": 1, "places": ["news/a"]},
    }
    assert imported(tmp_path, "idavoll", url)[0] == report
    kept = lines(tmp_path)
    nodes = {line["node"]: line for line in kept if line["kind"] == "node"}
    assert set(nodes) == {"news/a", "fleeting", "lost"}
    assert (nodes["news/a"]["creator"], nodes["lost"]["creator"]) == (f"owner@{DOMAIN}", OWN)
    assert nodes["news/a"]["created"] == 1262401445000
    config = nodes["news/a"]["config"]
    assert [config[f"pubsub#{name}"] for name in
            ("persist_items", "deliver_payloads", "send_last_published_item", "max_items")] == ["true", "false", "never", "max"]
    assert nodes["fleeting"]["config"]["pubsub#persist_items"] == "false"
    items = [line for line in kept if line["kind"] == "item"]
    assert [(item["id"], item["publisher"], item["published"]) for item in items] == [
        ("1", f"owner@{DOMAIN}", 1262401445000), ("2", f"bot@{DOMAIN}", 1293937445678),
        ("3", f"bot@{DOMAIN}", 1325473445000)]
    assert items[1]["payload"]["xml"] == "<entry xmlns='http://www.w3.org/2005/Atom'><title>two &amp; ä</title></entry>"
    assert "payload" not in items[2]
    assert {line["jid"] for line in kept if line["kind"] == "subscription"} == {
        f"alice@{DOMAIN}", f"alice@{DOMAIN}/desk"}


def test_unreadable_source_is_reported_and_no_store_created(postgres, tmp_path):
    empty, other = postgres.create("empty", "CREATE TABLE nodes (node_id serial, node text, node_type text)"), postgres.create(
        "began_as_idavoll", IDAVOLL + "ALTER TABLE nodes ADD COLUMN access_model text;")
    lite = tmp_path / "own.sqlite"
    connection = sqlite3.connect(lite)
    connection.executescript((SCHEMAS / "lite.sql").read_text() + """
        INSERT INTO pubsub_node (host, node, plugin) VALUES ('other.localhost', 'n', 'flat');""")
    connection.close()
    (tmp_path / "data" / "other%2elocalhost" / "pubsub_nodes").mkdir(parents=True)
    for kind, source, reason in [
        ("idavoll", empty, "the source has no nodes"),
        ("idavoll", other, "not the tables of Idavoll 0.9"),
        ("ejabberd", empty, 'database error: relation "pubsub_node" does not exist'),
        ("ejabberd", lite, f"no nodes of {OWN}; the source has nodes of: other.localhost"),
        ("prosody", tmp_path / "data", f"no nodes of {OWN}; the source has nodes of: other.localhost"),
        ("prosody", "/", "the folder has no nodes of Prosody"),
        ("prosody", "/nowhere", "failed to read /nowhere: No such file or directory (os error 2)"),
        ("prosody", "/etc/passwd", "database error: file is not a database"),
        ("prosody", "mysql://u:secret@localhost/x", "only URLs that begin with postgres:// are supported"),
        ("prosody", "postgres://u@db.example.org/x",
         "db.example.org is not on this machine: only local databases are read, or those behind a tunnel"),
        ("prosody", "postgres://u@localhost/x?hostaddr=192.0.2.7",
         "192.0.2.7 is not on this machine: only local databases are read, or those behind a tunnel"),
        ("prosody", "postgres://u@127.0.0.1:1/x",
         "database error: error connecting to server: Connection refused (os error 111)"),
    ]:
        done = subprocess.run(
            [binaries() / "gjallar", "import", "--from", kind, "--store", f"sled:{tmp_path}/store", "--service", OWN],
            env={"GJALLAR_IMPORT_SOURCE": str(source)}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"gjallar: {reason}\n")
    assert not list((tmp_path / "store").glob("importing"))


@pytest.fixture
def debian():
    with Container(RELEASE, "systemd", "systemd-sysv", "ejabberd", "sqlite3") as container:
        yield container


@pytest.mark.one_release
def test_mnesia_of_the_ejabberd_of_debian_is_imported(debian):
    """With the commands of docs/OPERATING.md and the configuration of the package."""
    def sh(*lines):
        return "".join(debian.run("sh", "-c", line) for line in lines)

    debian.copy(binaries() / "gjallar", "/usr/bin/gjallar")
    # The client logs in without TLS.
    sh("sed -i 's/starttls_required: true/starttls_required: false/' /etc/ejabberd/ejabberd.yml",
       "systemctl restart ejabberd",
       "ejabberdctl started",
       f"ejabberdctl register owner {DOMAIN} {PASSWORD}",
       "gjallar client publish news --id 1 --payload \"<x xmlns='urn:x'>one</x>\""
       f" --jid owner@{DOMAIN} --password {PASSWORD} --service {SERVICE} --server 127.0.0.1:5222")

    sh("echo 'sql_type: sqlite' >> /etc/ejabberd/ejabberd.yml",
       "systemctl restart ejabberd",
       "ejabberdctl started",
       f"ejabberdctl export2sql {DOMAIN} /var/lib/ejabberd/dump.sql",
       "systemctl stop ejabberd",
       "sqlite3 /root/own.sqlite < /usr/share/ejabberd/sql/lite.sql",
       "sqlite3 /root/own.sqlite < /var/lib/ejabberd/dump.sql",
       f"gjallar import --from ejabberd --source /root/own.sqlite --service {SERVICE} --store sled:/root/moved",
       "sed -i '/^sql_type: sqlite$/d' /etc/ejabberd/ejabberd.yml",
       "systemctl start ejabberd")

    exported = [json.loads(line) for line in sh("gjallar export --store sled:/root/moved").splitlines()]
    assert [line["creator"] for line in exported if line["kind"] == "node"] == [f"owner@{DOMAIN}"]
    assert [line["payload"]["xml"] for line in exported if line["kind"] == "item"] == ["<x xmlns='urn:x'>one</x>"]
