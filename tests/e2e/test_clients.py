"""Third-party clients: all of slixmpp's plugin for XEP-0060; libstrophe and @xmpp/client for the main use cases."""

import asyncio
import inspect
import pathlib
import subprocess

import pytest
from slixmpp.plugins.xep_0059.stanza import Set
from slixmpp.plugins.xep_0060.pubsub import XEP_0060
from slixmpp.plugins.xep_0060.stanza import Pubsub
from slixmpp.xmlstream import register_stanza_plugin

from clients import RSM, TIMEOUT, clients, entry, form, publish_batch, retract_batch
from conftest import with_loop
from servers import PASSWORD, SERVICE

HERE = pathlib.Path(__file__).resolve().parent
NODE = "princely_musings"
FORM = "{jabber:x:data}"


class Used:
    """Wraps the plugin, and records which of its operations are used."""

    def __init__(self, plugin, used):
        self.plugin, self.used = plugin, used

    def __getattr__(self, name):
        self.used.add(name)
        return getattr(self.plugin, name)


def operations():
    """Returns the public operations of the plugin."""
    public = inspect.getmembers(XEP_0060, inspect.isfunction)
    return {name for name, function in public
            if function.__module__ == XEP_0060.__module__ and name[0] != "_"
            and name not in ("plugin_init", "plugin_end")}


@with_loop
async def test_slixmpp_performs_all_its_pubsub_operations(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        used = set()
        mine, hers = Used(owner.pubsub, used), Used(alice.pubsub, used)
        came = {name: asyncio.Event() for name in (
            "publish", "retract", "purge", "delete", "config", "subscription")}
        hers.map_node_event(NODE, "musings")
        for name, event in came.items():
            alice.xmpp.add_event_handler(f"musings_{name}", lambda _, event=event: event.set())

        async def until(*names):
            async with asyncio.timeout(30):
                for name in names:
                    await came[name].wait()

        made = await mine.create_node(SERVICE, NODE, config=form(owner, notify_config="1", notify_delete="1"))
        assert made["pubsub"]["create"]["node"] == NODE
        nodes = await mine.get_nodes(SERVICE)
        assert NODE in [node for _, node, _ in nodes["disco_items"]["items"]]

        await hers.subscribe(SERVICE, NODE)
        subscriptions = (await hers.get_subscriptions(SERVICE))["pubsub"]["subscriptions"]
        assert [(s["node"], s["subscription"]) for s in subscriptions] == [(NODE, "subscribed")]
        affiliations = (await mine.get_affiliations(SERVICE))["pubsub"]["affiliations"]
        assert [(a["node"], a["affiliation"]) for a in affiliations] == [(NODE, "owner")]

        options = alice.xmpp.plugin["xep_0004"].make_form(ftype="submit")
        options.add_field(var="FORM_TYPE", ftype="hidden",
                          value="http://jabber.org/protocol/pubsub#subscribe_options")
        options.add_field(var="pubsub#include_body", value="1")
        # slixmpp sends an IQ of type get with a submitted form.
        await hers.set_subscription_options(SERVICE, NODE, alice.jid, options)
        shown = await hers.get_subscription_options(SERVICE, NODE, user_jid=alice.jid)
        body = [field for field in shown.xml.iter(f"{FORM}field") if field.get("var") == "pubsub#include_body"]
        assert [value.text for value in body[0].iter(f"{FORM}value")] == ["true"]

        await mine.modify_affiliations(SERVICE, NODE, affiliations=[(alice.jid, "publisher")])
        affiliations = (await mine.get_node_affiliations(SERVICE, NODE))["pubsub_owner"]["affiliations"]
        assert {(a["jid"].bare, a["affiliation"]) for a in affiliations} == {
            (owner.jid, "owner"), (alice.jid, "publisher")}
        await mine.modify_subscriptions(SERVICE, NODE, subscriptions=[(owner.jid, "subscribed")])
        subscriptions = (await mine.get_node_subscriptions(SERVICE, NODE))["pubsub_owner"]["subscriptions"]
        assert {(s["jid"].bare, s["subscription"]) for s in subscriptions} == {
            (owner.jid, "subscribed"), (alice.jid, "subscribed")}

        config = await mine.get_node_config(SERVICE, NODE)
        assert config["pubsub_owner"]["configure"].xml.find(f"{FORM}x") is not None
        await mine.set_node_config(SERVICE, NODE, form(owner, title="Musings"))

        for id in ("one", "two"):
            await hers.publish(SERVICE, NODE, id=id, payload=entry(id))
        items = await hers.get_items(SERVICE, NODE)
        assert [item["id"] for item in items["pubsub"]["items"]] == ["one", "two"]
        item = await hers.get_item(SERVICE, NODE, "one")
        assert [item["id"] for item in item["pubsub"]["items"]] == ["one"]
        ids = await hers.get_item_ids(SERVICE, NODE)
        assert {name for _, _, name in ids["disco_items"]["items"]} == {"one", "two"}
        # Otherwise slixmpp's iterator does not find the result set.
        register_stanza_plugin(Pubsub, Set)
        pages = [page async for page in hers.get_items(SERVICE, NODE, iterator=True)]
        assert [i["id"] for page in pages for i in page["pubsub"]["items"]] == ["one", "two"]

        await hers.retract(SERVICE, NODE, "one", notify=True)
        await mine.purge(SERVICE, NODE)
        # A lost subscription drops notifications that are not sent yet.
        await until("publish", "retract", "purge", "config")
        await mine.modify_subscriptions(SERVICE, NODE, subscriptions=[(alice.jid, "none")])
        await hers.subscribe(SERVICE, NODE)
        await hers.unsubscribe(SERVICE, NODE)
        await hers.subscribe(SERVICE, NODE)
        await mine.delete_node(SERVICE, NODE)
        await until(*came)
        assert used == operations()


@with_loop
async def test_slixmpp_receives_every_item_of_a_batch(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        heard, ended = [], asyncio.Event()

        def on_event(kind):
            def hear(message):
                heard.append((kind, message["pubsub_event"]["items"][kind]["id"]))
                if heard[-1] == ("item", "end"):
                    ended.set()
            return hear
        alice.xmpp.add_event_handler("pubsub_publish", on_event("item"))
        alice.xmpp.add_event_handler("pubsub_retract", on_event("retract"))
        await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, max_items="10"))
        await alice.pubsub.subscribe(SERVICE, NODE)
        await publish_batch(owner, NODE, ["one", "two", "three"])
        await retract_batch(owner, NODE, ["one", "two"])
        await owner.pubsub.publish(SERVICE, NODE, id="end", payload=entry("end"))
        async with asyncio.timeout(TIMEOUT):
            await ended.wait()
        assert heard == [*(("item", id) for id in ("one", "two", "three")), ("retract", "one"), ("retract", "two"), ("item", "end")]


@with_loop
async def test_slixmpp_submits_a_form_twice(server, gjallar):
    async with clients(server.client_port, "owner") as (owner,):
        await owner.pubsub.create_node(SERVICE, NODE)
        answer = await owner.pubsub.get_node_config(SERVICE, NODE)
        # With everything that the service included, hidden fields too.
        changed = answer["pubsub_owner"]["configure"]["form"]
        changed["type"] = "submit"
        for title in ("First", "Second"):
            changed.set_values({"pubsub#title": title})
            await owner.pubsub.set_node_config(SERVICE, NODE, changed)
        answer = await owner.pubsub.get_node_config(SERVICE, NODE)
        assert answer["pubsub_owner"]["configure"]["form"].get_values()["pubsub#title"] == "Second"


@with_loop
async def test_slixmpp_pages_past_an_item_that_is_published_again(server, gjallar):
    register_stanza_plugin(Pubsub, Set)
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        ids = [f"i{number:02}" for number in range(25)]
        await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, max_items="max"))
        await publish_batch(owner, NODE, ids)
        pages = alice.pubsub.get_items(SERVICE, NODE, iterator=True)
        seen = []
        async for page in pages:
            found = [item["id"] for item in page["pubsub"]["items"]]
            if not seen:
                await owner.pubsub.publish(SERVICE, NODE, id=found[-1], payload=entry("again"))
            seen += found
        assert seen == [*ids, ids[9]]


@with_loop
async def test_newest_items_have_their_index_and_count(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        ids = [f"i{number:02}" for number in range(32)]
        await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, max_items="max"))
        await publish_batch(owner, NODE, ids)
        newest = await alice.pubsub.get_items(SERVICE, NODE, max_items=10)
        assert [item["id"] for item in newest["pubsub"]["items"]] == ids[22:]
        place = newest.xml.find(f".//{RSM}set")
        assert place.find(f"{RSM}count").text == "32"
        assert place.find(f"{RSM}first").get("index") == "22"


def lines(command, **more):
    """Returns the output lines of a client that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def node(server, gjallar):
    """Creates a node to which all entities may publish."""
    @with_loop
    async def make():
        async with clients(server.client_port, "owner") as (owner,):
            await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, publish_model="open"))
    make()
    return NODE


def test_libstrophe_subscribes_and_publishes(server, node, tmp_path):
    program = tmp_path / "strophe"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "clients" / "strophe.c", "-lstrophe"], check=True)
    said = lines([program, str(server.client_port), "alice@localhost", PASSWORD, SERVICE, node])
    assert sorted(said) == ["event from-strophe", "published from-strophe", "subscription subscribed"]


def test_xmpp_js_subscribes_and_publishes(server, node):
    said = lines(["node", HERE / "xmppjs/client.mjs", str(server.client_port), "alice", PASSWORD, SERVICE, node])
    assert said == ["subscription subscribed", "published from-xmppjs", "event from-xmppjs",
                    "refused item-not-found cancel"]
