"""Main use cases through real servers, driven by slixmpp's plugin for XEP-0060."""

import asyncio
import os
import xml.etree.ElementTree as ET

import pytest

from clients import EVENT, IqError, IqTimeout, clients, entry, form, item_ids, place
from conftest import with_loop
from servers import CONNECTED, SERVICE, logged_as

NODE = "princely_musings"


async def refused(coroutine):
    """Returns the conditions of the error for a request: the general one, and that of XEP-0060."""
    with pytest.raises(IqError) as caught:
        await coroutine
    pubsub = caught.value.iq["error"]["pubsub"]["condition"]
    return caught.value.condition, pubsub or None


@with_loop
async def test_node_is_created_used_and_deleted(server, gjallar):
    async with clients(server.client_port, "owner", "bot", "alice", "mallory") as (
            owner, bot, alice, mallory):
        made = await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, title="Musings"))
        assert made["pubsub"]["create"]["node"] == NODE
        assert await refused(owner.pubsub.create_node(SERVICE, NODE)) == ("conflict", None)

        subscribed = await alice.pubsub.subscribe(SERVICE, NODE)
        assert subscribed["pubsub"]["subscription"]["subscription"] == "subscribed"

        assert await refused(bot.pubsub.publish(SERVICE, NODE, payload=entry("no"))) == (
            "forbidden", None)
        await owner.pubsub.modify_affiliations(
            SERVICE, NODE, affiliations=[(bot.jid, "publisher"), (mallory.jid, "outcast")])
        published = await bot.pubsub.publish(SERVICE, NODE, id="one", payload=entry("Soliloquy"))
        assert published["pubsub"]["publish"]["item"]["id"] == "one"
        generated = await bot.pubsub.publish(SERVICE, NODE, payload=entry("again"))
        generated = generated["pubsub"]["publish"]["item"]["id"]
        events = await alice.until(2)
        assert [item_ids(event) for event in events] == [["one"], [generated]]
        assert [place(event)[1] for event in events] == [1, 2]
        assert events[0].get("type") == "headline"
        assert events[0].find("{urn:xmpp:hints}no-store") is not None

        items = await alice.pubsub.get_items(SERVICE, NODE)
        assert [item["id"] for item in items["pubsub"]["items"]] == ["one", generated]
        first = next(iter(items["pubsub"]["items"]))
        assert first["payload"][0].text == "Soliloquy"
        assert first.xml.get("publisher") is None
        newest = await alice.pubsub.get_items(SERVICE, NODE, max_items=1)
        assert [item["id"] for item in newest["pubsub"]["items"]] == [generated]
        one = await alice.pubsub.get_item(SERVICE, NODE, "one")
        assert [item["id"] for item in one["pubsub"]["items"]] == ["one"]

        assert await refused(mallory.pubsub.subscribe(SERVICE, NODE)) == ("forbidden", None)
        await bot.pubsub.retract(SERVICE, NODE, "one")
        retract = (await alice.until(3))[2].find(f".//{EVENT}retract")
        assert retract.get("id") == "one"

        config = await owner.pubsub.get_node_config(SERVICE, NODE)
        values = config["pubsub_owner"]["configure"]["form"].get_values()
        assert (values["pubsub#title"], values["pubsub#max_items"]) == ("Musings", "max")
        await owner.pubsub.set_node_config(
            SERVICE, NODE, form(owner, notify_config="1", description="Of a prince"))
        assert (await alice.until(4))[3].find(f".//{EVENT}configuration") is not None

        await owner.pubsub.purge(SERVICE, NODE)
        assert (await alice.until(5))[4].find(f".//{EVENT}purge") is not None
        await owner.pubsub.delete_node(SERVICE, NODE)
        assert (await alice.until(6))[5].find(f".//{EVENT}delete") is not None
        assert await refused(alice.pubsub.get_items(SERVICE, NODE)) == ("item-not-found", None)
        assert not mallory.events and not bot.events and not owner.events


@with_loop
async def test_service_and_nodes_are_discovered(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        disco = alice.xmpp.plugin["xep_0030"]
        info = (await disco.get_info(SERVICE))["disco_info"]
        assert ("pubsub", "service", None, "gjallar") in info["identities"]
        features = info["features"]
        assert "http://jabber.org/protocol/pubsub#publish" in features
        assert "http://jabber.org/protocol/pubsub#publish-options" in features
        assert "http://jabber.org/protocol/pubsub#subscription-options" in features
        assert "http://jabber.org/protocol/pubsub#multi-subscribe" not in features
        await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, title="Musings"))
        await owner.pubsub.publish(SERVICE, NODE, id="one", payload=entry("x"))
        nodes = (await alice.pubsub.get_nodes(SERVICE))["disco_items"]["items"]
        assert (SERVICE, NODE, "Musings") in nodes
        about = (await disco.get_info(SERVICE, node=NODE))["disco_info"]
        assert ("pubsub", "leaf", None, "Musings") in about["identities"]
        ids = (await alice.pubsub.get_item_ids(SERVICE, NODE))["disco_items"]["items"]
        assert [name for _, _, name in ids] == ["one"]
        with pytest.raises(IqError) as caught:
            await disco.get_info(SERVICE, node="nowhere")
        assert caught.value.condition == "item-not-found"
        version = await alice.xmpp.plugin["xep_0092"].get_version(SERVICE)
        assert version["software_version"]["name"] == "gjallar"
        await alice.xmpp.plugin["xep_0199"].send_ping(SERVICE)


@with_loop
async def test_owner_manages_affiliations_and_subscriptions(server, gjallar):
    async with clients(server.client_port, "owner", "alice", "bob") as (owner, alice, bob):
        await owner.pubsub.create_node(SERVICE, NODE)
        await owner.pubsub.modify_affiliations(
            SERVICE, NODE, affiliations=[(alice.jid, "member"), (bob.jid, "publisher")])
        listed = await owner.pubsub.get_node_affiliations(SERVICE, NODE)
        found = {str(a["jid"]): a["affiliation"] for a in listed["pubsub_owner"]["affiliations"]}
        assert found == {owner.jid: "owner", alice.jid: "member", bob.jid: "publisher"}
        own = await bob.pubsub.get_affiliations(SERVICE)
        assert [(a["node"], a["affiliation"]) for a in own["pubsub"]["affiliations"]] == [
            (NODE, "publisher")]

        await alice.pubsub.subscribe(SERVICE, NODE, bare=False)
        await owner.pubsub.modify_subscriptions(
            SERVICE, NODE, subscriptions=[(bob.jid, "subscribed")])
        listed = await owner.pubsub.get_node_subscriptions(SERVICE, NODE)
        jids = {str(s["jid"]) for s in listed["pubsub_owner"]["subscriptions"]}
        assert jids == {alice.full, bob.jid}
        own = await alice.pubsub.get_subscriptions(SERVICE)
        assert [str(s["jid"]) for s in own["pubsub"]["subscriptions"]] == [alice.full]
        await alice.pubsub.unsubscribe(SERVICE, NODE, bare=False)
        condition = await refused(alice.pubsub.unsubscribe(SERVICE, NODE, bare=False))
        assert condition == ("unexpected-request", "not-subscribed")


@with_loop
async def test_outcast_receives_no_further_notifications(server, gjallar):
    async with clients(server.client_port, "owner", "alice", "bob") as (owner, alice, bob):
        await owner.pubsub.create_node(SERVICE, NODE)
        for subscriber in (alice, bob):
            await subscriber.pubsub.subscribe(SERVICE, NODE)
        publishing = [owner.pubsub.publish(SERVICE, NODE, payload=entry(str(n)))
                      for n in range(20)]
        banning = owner.pubsub.modify_affiliations(
            SERVICE, NODE, affiliations=[(alice.jid, "outcast")])
        await banning
        await alice.settled()
        heard = len(alice.events)
        publishing += [owner.pubsub.publish(SERVICE, NODE, payload=entry(str(n)))
                       for n in range(20)]
        await asyncio.gather(*publishing)
        await bob.until(40)
        await alice.settled()
        assert len(alice.events) == heard


@with_loop
async def test_hundred_subscribers_receive_ten_items_once_and_in_order(server, gjallar):
    """With multicast the recipients are hidden from each other, too."""
    users = [f"u{n}" for n in range(100)]
    async with clients(server.client_port, "owner", *users) as (owner, *subscribers):
        await owner.pubsub.create_node(SERVICE, NODE)
        await asyncio.gather(*(s.pubsub.subscribe(SERVICE, NODE) for s in subscribers))
        ids = [f"item-{n}" for n in range(10)]
        for name in ids:
            await owner.pubsub.publish(SERVICE, NODE, id=name, payload=entry(name))
        for subscriber in subscribers:
            events = await subscriber.until(10)
            assert [item_ids(event) for event in events] == [[name] for name in ids]
            assert [place(event)[1] for event in events] == list(range(1, 11))
            others = [user for user in users if user != subscriber.xmpp.boundjid.user]
            for event in events:
                assert event.find("{http://jabber.org/protocol/address}addresses") is None
                assert not any(f"{user}@" in ET.tostring(event, encoding="unicode") for user in others)
        if server.name == "multicast":
            assert logged_as("multicast_enabled") in gjallar.logged()
        await asyncio.gather(*(s.settled() for s in subscribers))
        assert sum(len(s.events) for s in subscribers) == 1000


@with_loop
async def test_acknowledged_changes_survive_kill_9(server, gjallar):
    async with clients(server.client_port, "owner") as (owner,):
        await owner.pubsub.create_node(SERVICE, NODE)
        acknowledged = []

        async def publish(lane):
            for n in range(10_000):
                name = f"{lane}-{n}"
                await owner.pubsub.publish(SERVICE, NODE, id=name, payload=entry(name), timeout=3)
                acknowledged.append(name)
        lanes = [asyncio.ensure_future(publish(lane)) for lane in range(8)]
        while len(acknowledged) < 200:
            await asyncio.sleep(0.01)
        gjallar.kill()
        known = list(acknowledged)
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        gjallar.start()
        gjallar.wait_for_log(CONNECTED)
        there = await owner.pubsub.get_item_ids(SERVICE, NODE)
        there = {name for _, _, name in there["disco_items"]["items"]}
        assert set(known) <= there
        assert len(known) >= 200


@with_loop
async def test_subscribers_miss_nothing_across_kills(server, gjallar):
    """CRASH_KILLS sets the number of kills: 5, or 100 in `make crash`."""
    kills = int(os.environ.get("CRASH_KILLS", "5"))
    async with clients(server.client_port, "owner", "alice", "bob") as (owner, *subscribers):
        await owner.pubsub.create_node(SERVICE, NODE)
        await asyncio.gather(*(s.pubsub.subscribe(SERVICE, NODE) for s in subscribers))
        acknowledged = []
        stopped = False

        async def publish(lane):
            n = 0
            while not stopped:
                n += 1
                name = f"{lane}-{n}"
                try:
                    await owner.pubsub.publish(
                        SERVICE, NODE, id=name, payload=entry(name), timeout=1)
                    acknowledged.append(name)
                except (IqError, IqTimeout):
                    pass
        lanes = [asyncio.ensure_future(publish(lane)) for lane in range(8)]
        for kill in range(kills):
            enough = len(acknowledged) + 30 * (kill % 5)
            while len(acknowledged) < enough:
                await asyncio.sleep(0.005)
            gjallar.kill()
            gjallar.start()
            gjallar.wait_for_log(CONNECTED)
        stopped = True
        await asyncio.gather(*lanes)
        await asyncio.gather(*(s.settled() for s in subscribers))
        for subscriber in subscribers:
            known, names, repeats = 0, set(), 0
            for event in subscriber.events:
                sequence = place(event)[1]
                assert sequence <= known + 1, f"{known + 1} is missing"
                repeats += sequence <= known
                known = max(known, sequence)
                names.update(item_ids(event))
            assert set(acknowledged) <= names
            print(f"{kills} kills: {known} events, {repeats} repeats")
            assert repeats <= 10_000 * kills


@with_loop
async def test_options_and_presence_take_effect(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        await owner.pubsub.create_node(SERVICE, NODE)
        defaults = await alice.pubsub.get_subscription_options(SERVICE, NODE)
        assert defaults["pubsub"]["default"].xml.find(".//{jabber:x:data}x") is not None
        options = alice.xmpp.plugin["xep_0004"].make_form(ftype="submit")
        options.add_field(var="FORM_TYPE", ftype="hidden",
                          value="http://jabber.org/protocol/pubsub#subscribe_options")
        options.add_field(var="pubsub#show-values", ftype="list-multi", value=["chat", "online"])
        options.add_field(var="pubsub#include_body", value="1")
        await alice.pubsub.subscribe(SERVICE, NODE, options=options)
        shown = await alice.pubsub.get_subscription_options(SERVICE, NODE, user_jid=alice.jid)
        values = [value.text for value in shown.xml.iter("{jabber:x:data}value")]
        assert "chat" in values and "dnd" in [
            option.find("{jabber:x:data}value").text for option in shown.xml.iter("{jabber:x:data}option")]
        # Events begin once the service has received her presence, which she shares with it.
        async with asyncio.timeout(60):
            while not alice.events:
                await owner.pubsub.publish(SERVICE, NODE, id="early", payload=entry("Early"))
                await alice.settled()
        assert alice.events[0].findtext("{jabber:client}body") == "Early"

        async def hears(id):
            before = len(alice.events)
            await owner.pubsub.publish(SERVICE, NODE, id=id, payload=entry(id))
            await alice.settled()
            return [item_ids(event) for event in alice.events[before:]] == [[id]]

        # Once the service withholds an event, it knows all her resources, and no earlier event is pending.
        alice.xmpp.send_presence(pshow="dnd")
        async with asyncio.timeout(60):
            while 'notifications_withheld_total{reason="unavailable"}' not in gjallar.run("stats"):
                await owner.pubsub.publish(SERVICE, NODE, id="early", payload=entry("Early"))
                await alice.settled()
        for show, is_told in [("dnd", False), ("chat", True), ("xa", False), (None, True)]:
            alice.xmpp.send_presence(pshow=show)
            await alice.xmpp.plugin["xep_0199"].send_ping(SERVICE, timeout=30)
            assert await hears(f"while {show}") == is_told, show

        # After a restart events wait until her server has reported her presence again.
        gjallar.kill()
        gjallar.start()
        gjallar.wait_for_log(CONNECTED)
        # A kill may repeat earlier events.
        await hears("after a restart")
        assert item_ids(alice.events[-1]) == ["after a restart"]


@with_loop
async def test_capabilities_create_implicit_subscriptions(server, gjallar):
    """§9.1.3, §9.2: alice has no explicit subscription; her client announces +notify, and sends its presence to the
    service."""
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        for node in (NODE, "other"):
            await owner.pubsub.create_node(SERVICE, node)
            await owner.pubsub.publish(SERVICE, node, id="before", payload=entry("Before"))
        for plugin in ("xep_0115", "xep_0163"):
            alice.xmpp.register_plugin(plugin)
        alice.xmpp.plugin["xep_0163"].add_interest(NODE)
        await alice.xmpp.plugin["xep_0115"].update_caps(broadcast=False)
        alice.xmpp.send_presence(pto=SERVICE)
        await alice.until(1)
        for node in ("other", NODE):
            await owner.pubsub.publish(SERVICE, node, id="one", payload=entry("One"))
        await alice.until(2)
        alice.xmpp.send_presence(pto=SERVICE, ptype="unavailable")
        await alice.xmpp.plugin["xep_0199"].send_ping(SERVICE, timeout=30)
        await owner.pubsub.publish(SERVICE, NODE, id="two", payload=entry("Two"))
        await alice.settled()
        assert [item_ids(event) for event in alice.events] == [["before"], ["one"]]


@with_loop
async def test_roster_grants_access(server, gjallar):
    """XEP-0356 in the version of each server: urn:xmpp:privilege:1 in ejabberd, :2 in Prosody."""
    async with clients(server.client_port, "owner", "alice", "bot") as (owner, alice, bot):
        await owner.xmpp.update_roster(alice.jid, groups=["Friends"])
        alice.xmpp.send_presence_subscription(owner.jid)
        # Her requests succeed once the owner's client has accepted her subscription request.
        async with asyncio.timeout(30):
            while alice.xmpp.client_roster[owner.jid]["subscription"] not in ("to", "both"):
                await alice.xmpp.get_roster()
        for node, fields, refusal in [
                ("near", {"access_model": "presence"}, "presence-subscription-required"),
                ("among-friends", {"access_model": "roster", "roster_groups_allowed": "Friends"},
                 "not-in-roster-group")]:
            await owner.pubsub.create_node(SERVICE, node, config=form(owner, **fields))
            await owner.pubsub.publish(SERVICE, node, id="one", payload=entry("one"))
            await alice.pubsub.subscribe(SERVICE, node)
            assert await refused(bot.pubsub.subscribe(SERVICE, node)) == ("not-authorized", refusal)
            assert await refused(bot.pubsub.get_items(SERVICE, node)) == ("not-authorized", refusal)
            items = (await alice.pubsub.get_items(SERVICE, node))["pubsub"]["items"]
            assert [item["id"] for item in items] == ["one"]


@with_loop
async def test_ad_hoc_commands_are_listed_and_executed(server, gjallar):
    async with clients(server.client_port, "owner", "admin", "alice") as (owner, admin, alice):
        await owner.pubsub.create_node(SERVICE, NODE)
        commands = await owner.xmpp.plugin["xep_0050"].get_commands(SERVICE)
        seen = {node for _, node, _ in commands["disco_items"]["items"]}
        assert seen >= {"urn:gjallar:command:list-nodes", "http://jabber.org/protocol/pubsub#get-pending"}
        assert "urn:gjallar:command:erase" not in seen
        commands = await admin.xmpp.plugin["xep_0050"].get_commands(SERVICE)
        assert "urn:gjallar:command:erase" in {node for _, node, _ in commands["disco_items"]["items"]}

        async def send(client, node, **options):
            answer = await client.xmpp.plugin["xep_0050"].send_command(SERVICE, node, **options)
            return answer["command"]

        def filled(client, **fields):
            made = client.xmpp.plugin["xep_0004"].make_form(ftype="submit")
            for var, value in fields.items():
                made.add_field(var=var.replace("__", "#"), value=value)
            return made

        for client in (owner, admin):
            stage = await send(client, "urn:gjallar:command:list-nodes")
            listed = await send(client, "urn:gjallar:command:list-nodes", sessionid=stage["sessionid"],
                                payload=filled(client, pattern="*"))
            assert listed["status"] == "completed"
            assert listed["form"].get_values()["nodes"] == [NODE]
        with pytest.raises(IqError):
            await send(alice, "urn:gjallar:command:list-nodes")

        stage = await send(owner, "urn:gjallar:command:configure-node")
        assert stage["status"] == "executing" and "next" in stage["actions"]
        stage = await send(owner, "urn:gjallar:command:configure-node", action="next", sessionid=stage["sessionid"],
                           payload=filled(owner, node=NODE))
        assert stage["form"].get_values()["pubsub#title"] in ("", None)
        stage = await send(owner, "urn:gjallar:command:configure-node", action="complete",
                           sessionid=stage["sessionid"], payload=filled(owner, pubsub__title="T"))
        assert stage["status"] == "completed"
        config = await owner.pubsub.get_node_config(SERVICE, NODE)
        assert config["pubsub_owner"]["configure"]["form"].get_values()["pubsub#title"] == "T"

        stage = await send(admin, "urn:gjallar:command:delete-node")
        cancelled = await send(admin, "urn:gjallar:command:delete-node", action="cancel", sessionid=stage["sessionid"])
        assert cancelled["status"] == "canceled"
        with pytest.raises(IqError):
            await send(admin, "urn:gjallar:command:delete-node", action="complete", sessionid=stage["sessionid"],
                       payload=filled(admin, node=NODE))
        stage = await send(admin, "urn:gjallar:command:delete-node")
        stage = await send(admin, "urn:gjallar:command:delete-node", action="next", sessionid=stage["sessionid"],
                           payload=filled(admin, node=NODE))
        done = await send(admin, "urn:gjallar:command:delete-node", action="complete", sessionid=stage["sessionid"],
                          payload=filled(admin, name=NODE))
        assert done["status"] == "completed"
        with pytest.raises(IqError):
            await send(owner, "urn:gjallar:command:configure-node")
