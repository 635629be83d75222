"""Clients that people use: profanity, in a terminal, with ad-hoc commands; and `gjallar client`."""

import json
import select
import subprocess
import time

import gajim
import pytest
from clients import clients
from conftest import USERS, with_loop
from servers import DOMAIN, PASSWORD, SERVERS, SERVICE, Gjallar, free_ports, wait_for
from terminal import NODE, Terminal, configure


@pytest.mark.one_release
@with_loop
async def test_profanity_configures_a_node(server, gjallar, tmp_path):
    gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
    with Terminal("profanity", tmp_path) as terminal:
        configure(terminal, server)
    # Another client sees it.
    async with clients(server.client_port, "owner") as (owner,):
        config = await owner.pubsub.get_node_config(SERVICE, NODE)
        values = config["pubsub_owner"]["configure"]["form"].get_values()
        assert values["pubsub#title"] == "Princely Musings"
        assert values["pubsub#access_model"] == "open"


@pytest.mark.one_release
def test_gajim_configures_a_node(server, gjallar):
    gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
    said = gajim.configure(server.client_port, "owner", PASSWORD, SERVICE, NODE, "Princely Musings")
    assert "Completed" in said.splitlines(), said
    assert json.loads(gjallar.run("node", "show", NODE, "--json"))["configuration"]["pubsub#title"] == "Princely Musings"


def client_of(server, gjallar, folder):
    """The command line of `gjallar client` for a user and arguments."""
    password = folder / "password"
    password.write_text(f"{PASSWORD}\n")

    def client(user, *arguments, port=server.client_port):
        return [
            str(gjallar.binary), "client", *arguments, "--jid", f"{user}@{DOMAIN}", "--service", SERVICE,
            "--server", f"127.0.0.1:{port}", "--password-file", str(password)]
    return client


def test_the_client_half(server, gjallar, tmp_path):
    """`gjallar client` with two accounts: everything that it offers, and events as they come."""
    client = client_of(server, gjallar, tmp_path)

    def run(user, *arguments, code=0, **more):
        done = subprocess.run(client(user, *arguments), capture_output=True, text=True, timeout=60, check=False, **more)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    assert run("owner", "create", NODE) == f"{NODE}\n"
    assert run("owner", "create", NODE, code=1) == "gjallar: refused: conflict, the node exists\n"
    gjallar.run("affiliation", "set", NODE, "publisher", f"bot@{DOMAIN}")
    assert run("owner", "publish", NODE, "--id", "0", input="<x xmlns='urn:x'>zero</x>\n") == "0\n"
    listening = subprocess.Popen(
        client("alice", "subscribe", NODE, "--json", "-n", "4"), stdout=subprocess.PIPE, text=True)
    # The last item comes with the subscription.
    events = [json.loads(listening.stdout.readline())]
    assert run("bot", "publish", NODE, "--id", "1", "--payload", "<x xmlns='urn:x'/>") == "1\n"
    assert run("bot", "publish", NODE, "--payload", "text", code=1).startswith("gjallar: the payload")
    assert run("bot", "retract", NODE, "1") == "1\n"
    listed = [json.loads(line) for line in run("alice", "items", NODE, "--json").splitlines()]
    assert [(item["item"], item["publisher"]) for item in listed] == [("0", None)]
    assert run("owner", "delete", NODE) == f"{NODE}\n"
    events += [json.loads(line) for line in listening.stdout]
    assert listening.wait() == 0
    assert [event["event"] for event in events] == ["published", "published", "retracted", "deleted"]
    assert [event["content"] and event["content"].get("item") for event in events] == ["0", "1", "1", None]
    assert events[0]["content"]["payload"] == "<x xmlns='urn:x'>zero</x>" and events[0]["since"]
    assert all(event["node"] == NODE for event in events)
    assert run("alice", "unsubscribe", NODE, code=1).startswith("gjallar: refused: item-not-found")
    (nobody,) = free_ports(1)
    away = subprocess.run(client("owner", "items", NODE, port=nobody), capture_output=True, text=True, timeout=20,
                          check=False)
    assert away.stderr == f"gjallar: 127.0.0.1:{nobody} cannot be reached: Connection refused (os error 111)\n"
    created = run("owner", "create").strip()
    table = run("owner", "items", created)
    assert table.split() == ["ITEM", "PUBLISHER", "PAYLOAD"]


@pytest.fixture(params=sorted(SERVERS))
def resuming(request):
    """A server with stream management (XEP-0198), which sends a resumed session again what it has not acknowledged."""
    base = SERVERS[request.param]
    config = base.CONFIG.replace('"websocket" }}', '"websocket", "smacks" }}')
    config = config.replace("  mod_ping: {{}}\n", "  mod_ping: {{}}\n  mod_stream_mgmt: {{}}\n")
    assert config != base.CONFIG
    with type("Resuming", (base,), {"CONFIG": config})(USERS) as running:
        yield running


def test_the_client_says_what_it_cannot_receive(resuming, tmp_path):
    """A longer attribute than the client's parser accepts: a request fails at once, and a subscriber goes on."""
    with Gjallar(resuming.component_port, tmp_path, admins="admin@localhost") as gjallar:
        says_what_it_cannot_receive(resuming, gjallar, tmp_path)


def says_what_it_cannot_receive(server, gjallar, tmp_path):
    client = client_of(server, gjallar, tmp_path)

    def publish(item, length):
        payload = f"<x xmlns='urn:x' a='{'v' * length}'/>"
        gjallar.run("item", "publish", NODE, "--id", item, "--payload", payload)

    assert subprocess.run(client("owner", "create", NODE), check=False).returncode == 0
    listening = subprocess.Popen(client("alice", "subscribe", NODE, "-n", "2", "--json"), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
    wait_for(lambda: f"alice@{DOMAIN}" in gjallar.run("subscription", "list", NODE), "the subscription")
    publish("short", 8000)
    assert json.loads(listening.stdout.readline())["content"]["item"] == "short"
    publish("long", 20_000)
    assert "above the limit" in listening.stderr.readline()
    began = time.monotonic()
    items = subprocess.run(client("owner", "items", NODE), capture_output=True, text=True, timeout=60, check=False)
    assert items.returncode == 1 and time.monotonic() - began < 10
    assert items.stderr.endswith("of more than 8192 bytes, which this client cannot receive\n"), items.stderr
    # Until its next connection it gets no events.
    ready = []
    while not ready:
        publish("after", 8000)
        ready, _, _ = select.select([listening.stdout], [], [], 1)
    assert json.loads(listening.stdout.readline())["content"]["item"] == "after"
    assert listening.wait(10) == 0
