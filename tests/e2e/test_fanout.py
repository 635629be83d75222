"""Prosody with mod_gjallar_fanout: one stanza for many users; otherwise the same behaviour as without it."""

import asyncio

import pytest
from slixmpp import ET

from clients import Callback, StanzaPath, clients, entry, form, item_ids
from conftest import USERS, with_loop
from servers import SERVICE, Fanout, Gjallar, logged_as

NODE = "princely_musings"
FANOUT = "urn:x-gjallar:fanout:0"
USED = logged_as("multicast_enabled")


@pytest.fixture(scope="module")
def fanout():
    with Fanout(USERS) as running:
        yield running


@pytest.fixture
def gjallar(fanout, tmp_path):
    with Gjallar(fanout.component_port, tmp_path, admins="admin@localhost") as running:
        running.wait_for_log(USED)
        yield running
        assert "panicked" not in running.logged()
        assert logged_as("multicast_failed") not in running.logged()
    assert "Traceback" not in (fanout.folder / "prosody.log").read_text()


@with_loop
async def test_users_get_every_event_once_and_in_order(fanout, gjallar):
    async with clients(fanout.client_port, "owner", "alice", "bob", "u1", "u2") as everybody:
        owner, *readers = everybody
        await owner.pubsub.create_node(SERVICE, NODE)
        for reader in readers:
            await reader.pubsub.subscribe(SERVICE, NODE)
        for number in range(20):
            await owner.pubsub.publish(SERVICE, NODE, id=str(number), payload=entry("x"))
        ids = set()
        for reader in readers:
            events = await reader.until(20)
            assert [item_ids(event) for event in events] == [[str(number)] for number in range(20)]
            for event in events:
                assert event.get("from") == SERVICE
                place = event.find("{urn:xmpp:sid:0}stanza-id").get("id")
                own, _, suffix = event.get("id").partition(f"{place}-")
                assert not own and len(suffix) == 11, event.get("id")
                ids.add(event.get("id"))
                assert event.find(f"{{{FANOUT}}}recipients") is None, "others can be seen"
        assert len(ids) == 20 * len(readers), "each message has an id of its own"
        await owner.pubsub.delete_node(SERVICE, NODE)


@with_loop
async def test_ban_holds_and_bounces_return(fanout, gjallar):
    async with clients(fanout.client_port, "owner", "alice", "bob") as (owner, alice, bob):
        await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, notification_type="normal"))
        for reader in (alice, bob):
            await reader.pubsub.subscribe(SERVICE, NODE)
        # A JID without an account, which cannot receive anything.
        await owner.pubsub.modify_subscriptions(SERVICE, NODE, [("nobody@localhost", "subscribed")])
        await owner.pubsub.publish(SERVICE, NODE, id="1", payload=entry("x"))
        await alice.until(1)
        await bob.until(1)
        await owner.pubsub.modify_affiliations(SERVICE, NODE, [(bob.jid, "outcast")])
        before = len(bob.events)
        for number in range(2, 12):
            await owner.pubsub.publish(SERVICE, NODE, id=str(number), payload=entry("x"))
        await alice.until(11)
        told = [item_ids(event) for event in bob.events[before:]]
        assert not any(told), told
        async with asyncio.timeout(30):
            while gjallar.stat("notification_bounces_total") < 1:
                await asyncio.sleep(0.02)
        await owner.pubsub.delete_node(SERVICE, NODE)


@with_loop
async def test_module_refuses_other_senders(fanout, gjallar):
    async with clients(fanout.client_port, "mallory", "bob") as (mallory, bob):
        came = []
        bob.xmpp.register_handler(Callback("any", StanzaPath("message"), lambda message: came.append(message)))
        refused = asyncio.get_running_loop().create_future()
        mallory.xmpp.register_handler(
            Callback("refused", StanzaPath("message@type=error"),
                     lambda message: refused.done() or refused.set_result(message)))
        message = mallory.xmpp.make_message(mto="localhost", mbody="forged", mtype="headline")
        recipients = ET.SubElement(message.xml, f"{{{FANOUT}}}recipients")
        recipients.text = f" {bob.jid}\n"
        message.send()
        error = await asyncio.wait_for(refused, 30)
        assert error["error"]["condition"] == "forbidden"
        await bob.xmpp.plugin["xep_0199"].send_ping("localhost", timeout=30)
        assert not [message for message in came if message["body"]]


@with_loop
async def test_module_is_visible_only_to_allowed_components(fanout, tmp_path):
    async with clients(fanout.client_port, "mallory") as (mallory,):
        info = await mallory.xmpp.plugin["xep_0030"].get_info("localhost", timeout=30)
        assert FANOUT not in info["disco_info"]["features"]
        assert "http://jabber.org/protocol/disco#info" in info["disco_info"]["features"]
    config = fanout.folder / "prosody.cfg.lua"
    text = config.read_text()
    other = text.replace('gjallar_fanout_components = { "pubsub.localhost" }', "gjallar_fanout_components = {}")
    assert other != text
    fanout.halt()
    config.write_text(other)
    fanout.launch()
    try:
        with Gjallar(fanout.component_port, tmp_path) as gjallar:
            async with clients(fanout.client_port, "owner", "alice", "bob") as (owner, *readers):
                await owner.pubsub.create_node(SERVICE, NODE)
                for reader in readers:
                    await reader.pubsub.subscribe(SERVICE, NODE)
                await owner.pubsub.publish(SERVICE, NODE, id="1", payload=entry("x"))
                for reader in readers:
                    assert item_ids((await reader.until(1))[0]) == ["1"]
            assert USED not in gjallar.logged()
    finally:
        fanout.halt()
        config.write_text(text)
        fanout.launch()


@with_loop
async def test_rosters_are_read_beside_the_module(fanout, gjallar):
    async with clients(fanout.client_port, "owner") as (owner,):
        await owner.pubsub.create_node(SERVICE, "near", config=form(owner, access_model="presence"))
        await owner.pubsub.delete_node(SERVICE, "near")
