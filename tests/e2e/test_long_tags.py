"""Long tags through Prosody, whose parser (libexpat 2.6 and later) defers an incomplete tag until as much data has
followed: no payload within the limits delays other stanzas on the service's stream."""

import asyncio
import subprocess
import time

import pytest

from clients import Callback, StanzaPath, clients, entry
from conftest import USERS, with_loop
from servers import CONNECTED, DOMAIN, PASSWORD, SERVICE, Gjallar, Prosody, wait_for

NODE = "princely_musings"
LONG = "long"
# Maximum delay of other stanzas, in addition to the usual latency.
SECOND = 1.0


def payloads(size):
    """Returns elements with a tag of this size: by an attribute, a namespace, or a name."""
    value = "v" * size
    return {
        "attribute": f"<x xmlns='urn:x' a='{value}'/>",
        "namespace": f"<x xmlns='urn:{value}'/>",
        "name": f"<{value} xmlns='urn:x'/>",
    }


def answers(client):
    """Returns the answers to requests that are sent as text, by id."""
    came = {}
    client.xmpp.register_handler(
        Callback("answers", StanzaPath("iq"), lambda iq: came.__setitem__(iq["id"], iq["type"])))
    return came


async def ask_in_text(client, came, identifier, kind, content, size):
    """Sends a request followed by white space: Prosody parses the client's own stream in the same way."""
    client.xmpp.send_raw(
        f"<iq type='{kind}' to='{SERVICE}' id='{identifier}'>{content}</iq>" + " " * (2 * size + 4096))
    async with asyncio.timeout(30):
        while identifier not in came:
            await asyncio.sleep(0.005)
    return came[identifier]


async def timed(coroutine):
    began = time.monotonic()
    await coroutine
    return time.monotonic() - began


@pytest.fixture(scope="module")
def prosody():
    with Prosody(USERS) as running:
        yield running


@with_loop
async def test_long_tag_delays_no_other_entity(prosody, tmp_path):
    with Gjallar(prosody.component_port, tmp_path) as gjallar:
        async with clients(prosody.client_port, "mallory", "owner", "alice", "bob") as (
                mallory, owner, alice, bob):
            came = answers(mallory)
            for who, node, reader in [(mallory, LONG, alice), (owner, NODE, bob)]:
                await who.pubsub.create_node(SERVICE, node)
                await reader.pubsub.subscribe(SERVICE, node)

            async def usual(number):
                """Measures the usual latency of an answer and of an event for another client."""
                answered = await timed(owner.pubsub.publish(SERVICE, NODE, id="i", payload=entry("x")))
                heard = await timed(bob.until(number))
                return answered + heard
            alone = max([await usual(number) for number in range(1, 6)])
            number, worst = 5, 0
            for size in (9000, 20000, 36000, 60000):
                for kind, payload in payloads(size).items():
                    name = f"{kind}-{size}"
                    item = f"<item id='i'>{payload}</item>"
                    pubsub = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>{}</pubsub>"
                    for what, iq_type, content in [
                            # An event, an answer, and a result of the archive.
                            ("event", "set", pubsub.format(f"<publish node='{LONG}'>{item}</publish>")),
                            ("answer", "get", pubsub.format(f"<items node='{LONG}'/>")),
                            ("archive", "set", f"<query xmlns='urn:xmpp:mam:2' node='{LONG}'/>")]:
                        asked = ask_in_text(mallory, came, f"{name}-{what}", iq_type, content, size)
                        assert await asked == "result", (name, what)
                        number += 1
                        took = await usual(number)
                        worst = max(worst, took)
                        assert took < alone + SECOND, (name, what, took, alone)
            events = 4 * 3
            assert len(await alice.until(events)) == events
            # Names that are long in their escaped form.
            odd = "&quot;" * 1000
            content = pubsub.format(f"<create node='{odd}'/>")
            assert await ask_in_text(mallory, came, "create", "set", content, 6000) == "result"
            content = pubsub.format(f"<publish node='{odd}'><item id='{odd}'><x xmlns='urn:x'/></item></publish>")
            assert await ask_in_text(mallory, came, "odd", "set", content, 12000) == "result"
            assert await usual(number + 1) < alone + SECOND
            wait_for(lambda: gjallar.stat("log_backlog_entries") == 0, "the confirmation", 5)
            print(f"alone {alone:.3f} s, beside long tags at most {worst:.3f} s")
        assert gjallar.logged().count(CONNECTED) == 1
        assert "WARN" not in gjallar.logged(), gjallar.logged()


class DefaultLimit(Prosody):
    """Prosody that accepts 512 KiB from components, as much as the service sends by default."""

    def prepare(self):
        super().prepare()
        config = self.folder / "prosody.cfg.lua"
        text = config.read_text()
        assert "\ncomponent_stanza_size_limit" in text
        config.write_text(text.replace("\ncomponent_stanza_size_limit", "\n-- component_stanza_size_limit", 1))


@with_loop
async def test_spaces_count_for_the_stanza_limit_of_the_server(tmp_path):
    with DefaultLimit(USERS) as prosody, Gjallar(prosody.component_port, tmp_path) as gjallar:
        async with clients(prosody.client_port, "mallory") as (mallory,):
            came = answers(mallory)
            await mallory.pubsub.create_node(SERVICE, NODE)
            await mallory.pubsub.subscribe(SERVICE, NODE)
            pubsub = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>{}</pubsub>"
            texts = "".join(f"<item id='{number}'><x xmlns='urn:x'>{'t' * 61000}</x></item>" for number in range(7))
            content = pubsub.format(f"<publish node='{NODE}'>{texts}</publish>")
            assert await ask_in_text(mallory, came, "texts", "set", content, 0) == "result"
            tag = f"<item id='tag'>{payloads(65000)['attribute']}</item>"
            content = pubsub.format(f"<publish node='{NODE}'>{tag}</publish>")
            assert await ask_in_text(mallory, came, "tag", "set", content, 65000) == "result"
            assert await ask_in_text(mallory, came, "all", "get", pubsub.format(f"<items node='{NODE}'/>"), 0) == "result"
            await mallory.until(2)
        assert gjallar.logged().count(CONNECTED) == 1


def test_client_publishes_long_tags(prosody, tmp_path):
    """The stream of `gjallar client` to Prosody has a deferring parser too."""
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    with Gjallar(prosody.component_port, tmp_path) as gjallar:
        for size in (3000, 9000, 20000, 60000):
            for kind, payload in payloads(size).items():
                done = subprocess.run(
                    [gjallar.binary, "client", "publish", "client", "--id", f"{kind}-{size}",
                     "--jid", f"bot@{DOMAIN}", "--service", SERVICE, "--server", f"127.0.0.1:{prosody.client_port}",
                     "--password-file", password],
                    input=payload, capture_output=True, text=True, timeout=60, check=False)
                assert (done.returncode, done.stdout) == (0, f"{kind}-{size}\n"), done.stderr
