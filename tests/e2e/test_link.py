"""Link to real servers: restarts, a wrong secret, and stanzas from strangers."""

import asyncio
import os
import signal
import time

import pytest

from clients import Callback, IqError, IqTimeout, StanzaPath, clients, entry, item_ids, place
from conftest import USERS, with_loop
from servers import CONNECTED, SECRET, SERVERS, SERVICE, Ejabberd, Gjallar, logged_as, wait_for

NODE = "princely_musings"
FAILED = logged_as("link_failed")


@pytest.fixture(params=sorted(SERVERS))
def own_server(request):
    """Server that a test may stop."""
    with SERVERS[request.param](USERS) as running:
        yield running


def test_service_reconnects_after_a_server_restart(own_server, tmp_path):
    own_server.halt()
    gjallar = Gjallar(own_server.component_port, tmp_path)
    gjallar.start()
    try:
        gjallar.wait_for_log(FAILED)
        own_server.launch()
        gjallar.wait_for_log(CONNECTED)
        create(own_server)
        failures = gjallar.logged().count(FAILED)
        own_server.halt()
        gjallar.wait_for_log(FAILED, failures + 1)
        own_server.launch()
        gjallar.wait_for_log(CONNECTED, 2)
        assert items(own_server) == ["one"]
    finally:
        assert gjallar.stop() == 0


@with_loop
async def create(server):
    async with clients(server.client_port, "owner") as (owner,):
        await owner.pubsub.create_node(SERVICE, NODE)
        await owner.pubsub.publish(SERVICE, NODE, id="one", payload=entry("x"))


@with_loop
async def items(server):
    async with clients(server.client_port, "owner") as (owner,):
        answer = await owner.pubsub.get_items(SERVICE, NODE)
        return [item["id"] for item in answer["pubsub"]["items"]]


@pytest.mark.one_release
@with_loop
async def test_server_that_reads_nothing_loses_no_items(own_server, tmp_path):
    """The service gives up the connection and reconnects, and all acknowledged items are received in order.
    STOPPED_SECONDS sets the duration: 6, or 60 in `make crash`."""
    seconds = float(os.environ.get("STOPPED_SECONDS", "6"))
    silence = dict(link_ping_after_seconds=2, link_ping_deadline_seconds=2)
    with Gjallar(own_server.component_port, tmp_path, **silence) as gjallar:
        async with clients(own_server.client_port, "owner", "alice") as (owner, alice):
            await owner.pubsub.create_node(SERVICE, NODE)
            await alice.pubsub.subscribe(SERVICE, NODE)
            acknowledged = []

            async def publish(name):
                try:
                    await owner.pubsub.publish(
                        SERVICE, NODE, id=name, payload=entry("x" * 2000), timeout=seconds + 10)
                    acknowledged.append(name)
                except (IqError, IqTimeout):
                    pass
            publishing = [asyncio.create_task(publish(str(number))) for number in range(300)]
            while len(acknowledged) < 20:
                await asyncio.sleep(0.01)
            own_server.process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            gjallar.wait_for_log(FAILED)
            await asyncio.sleep(max(0, seconds - (time.monotonic() - began)))
            own_server.process.send_signal(signal.SIGCONT)
            await asyncio.gather(*publishing)
            gjallar.wait_for_log(CONNECTED, 2, timeout=90)
            while True:
                try:
                    await owner.pubsub.publish(SERVICE, NODE, id="end", payload=entry("x"))
                    break
                except IqError:
                    # The server may still have the old connection.
                    await asyncio.sleep(0.1)
            names, known = set(), 0
            while "end" not in names:
                await alice.until(1)
                event = alice.events.pop(0)
                assert place(event)[1] <= known + 1, f"{known + 1} is missing"
                known = max(known, place(event)[1])
                names.update(item_ids(event))
            assert set(acknowledged) <= names
            print(f"{len(acknowledged)} acknowledged around {seconds:.0f} s of silence, {known} events")


class WithoutPrivilege(Ejabberd):
    """mod_privilege also filters stanzas of components without a grant (ejabberd 24.10 and later)."""

    name = "without-privilege"
    privilege = None


@pytest.mark.parametrize("kind", [*SERVERS.values(), WithoutPrivilege], ids=lambda kind: kind.name)
@with_loop
async def test_notifications_are_acknowledged_and_a_quiet_connection_lasts(kind, tmp_path):
    """Within 5 s of a publish the backlog is empty, 10 s without traffic do not break the connection, and after
    SIGTERM nothing is repeated."""
    with kind(USERS) as server:
        gjallar = Gjallar(server.component_port, tmp_path, link_ping_after_seconds=2, link_ping_deadline_seconds=2)
        with gjallar:
            async with clients(server.client_port, "owner", "alice") as (owner, alice):
                await owner.pubsub.create_node(SERVICE, NODE)
                await alice.pubsub.subscribe(SERVICE, NODE)
                await owner.pubsub.publish(SERVICE, NODE, id="one", payload=entry("x"))
                wait_for(lambda: gjallar.stat("log_backlog_entries") == 0, "the notification to be confirmed", 5)
                await alice.until(1)
                with pytest.raises(TimeoutError):
                    gjallar.wait_for_log(FAILED, timeout=10)
                began = time.monotonic()
                assert gjallar.stop() == 0
                assert time.monotonic() - began < 5
                gjallar.start()
                gjallar.wait_for_log(CONNECTED)
                await owner.pubsub.publish(SERVICE, NODE, id="two", payload=entry("x"))
                await alice.settled()
                assert [item_ids(event) for event in alice.events] == [["one"], ["two"]]


class SharedListener(Ejabberd):
    """Another component connects to the listener of config/ejabberd.yml."""

    other = "other.localhost"

    def shipped(self, name):
        text = super().shipped(name)
        component = f'      "{self.component}":\n        password: "{SECRET}"\n'
        assert component in text
        return text.replace(component, component + component.replace(self.component, self.other))


@with_loop
async def test_two_components_share_a_listener_of_ejabberd(tmp_path):
    """Without `global_routes: false` either component would receive stanzas of both."""
    with SharedListener(USERS) as server:
        (tmp_path / "other").mkdir()
        with (Gjallar(server.component_port, tmp_path),
              Gjallar(server.component_port, tmp_path / "other", jid=server.other)):
            async with clients(server.client_port, "owner") as (owner,):
                for number in range(10):
                    for service in (SERVICE, server.other):
                        await owner.pubsub.create_node(service, f"{number} at {service}")
                for service in (SERVICE, server.other):
                    listed = (await owner.pubsub.get_nodes(service))["disco_items"]["items"]
                    assert {node for _, node, _ in listed} == {f"{number} at {service}" for number in range(10)}


def test_wrong_secret_is_logged_as_an_error(server, tmp_path):
    gjallar = Gjallar(server.component_port, tmp_path, secret="hunter2")
    gjallar.start()
    gjallar.wait_for_log(logged_as("login_failed"))
    assert gjallar.stop() == 0
    assert '"level":"ERROR"' in gjallar.logged()
    assert "hunter2" not in gjallar.logged()


# Stanzas of logged-in users that the servers route to a component.
STANZAS = [
    "<iq type='get' to='{to}' id='1'><xml:foo/></iq>",
    "<iq type='get' to='{to}' id='2'><x xmlns='urn:x' a='{long}'/></iq>",
    "<iq type='get' to='{to}' id='3'><x xmlns='urn:x'>{deep}</x></iq>",
    "<iq type='get' to='{to}' id='4'><x xmlns='urn:x'>{wide}</x></iq>",
    "<message type='bogus' to='{to}'><body>1</body><body>2</body></message>",
    "<presence to='{to}'><priority>999</priority><show>zzz</show></presence>",
    "<presence type='subscribe' to='{to}'/>",
    "<iq type='error' to='{to}' id='5'/>",
    "<iq type='set' to='{to}' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'/></iq>",
]


def answers_to(client):
    """Returns the ids of the errors that a client receives."""
    ids = []
    client.xmpp.register_handler(Callback(
        "errors", StanzaPath("iq@type=error"), lambda iq: ids.append(iq["id"])))
    return ids


@with_loop
async def test_stanzas_of_strangers_end_no_connection(server, gjallar):
    values = dict(to=SERVICE, long="v" * 9000, deep="<x>" * 400 + "</x>" * 400, wide="<y/>" * 3000)
    async with clients(server.client_port, "mallory", "owner") as (mallory, owner):
        await owner.pubsub.create_node(SERVICE, NODE)
        answered = answers_to(mallory)
        for stanza in STANZAS:
            stanza = stanza.format(**values)
            # libexpat 2.6 and later, also on the client's stream, parses a long tag when as many bytes have
            # followed it.
            mallory.xmpp.send_raw(stanza + " " * 2 * len(stanza))
            # Whatever the result, the next request of the same sender is answered.
            with pytest.raises(IqError) as caught:
                await mallory.pubsub.get_items(SERVICE, "nowhere", timeout=10)
            assert caught.value.condition == "item-not-found"
        # Every request has an answer, some from the server.
        assert {"1", "2", "3", "4", "6"} <= set(answered)
        await owner.pubsub.publish(SERVICE, NODE, id="one", payload=entry("x"))
    assert gjallar.logged().count(CONNECTED) == 1
