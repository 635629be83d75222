"""Clients that people use: profanity, in a terminal, with ad-hoc commands; and `gjallar client`."""

import json
import subprocess

import pytest
from clients import clients, gajim
from clients.terminal import NODE, Terminal, configure
from conftest import USERS, with_loop
from servers import DOMAIN, PASSWORD, SERVERS, SERVICE, Gjallar, free_ports, wait_for


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


def test_the_client_receives_long_values_and_says_what_it_cannot_receive(resuming, tmp_path):
    """Values longer than the client's parser accepts arrive. With a longer name a request fails, and a subscriber goes on."""
    with Gjallar(resuming.component_port, tmp_path, admins="admin@localhost") as gjallar:
        receives_long_values(resuming, gjallar, tmp_path)


def receives_long_values(server, gjallar, tmp_path):
    client = client_of(server, gjallar, tmp_path)

    def publish(item, payload):
        gjallar.run("item", "publish", NODE, "--id", item, "--payload", payload)
        return payload

    def payload(length):
        return f"<x xmlns='urn:x' a='{'v' * length}'/>"

    def items(*arguments):
        command = client("owner", "items", NODE, "--json", *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert subprocess.run(client("owner", "create", NODE), check=False).returncode == 0
    listening = subprocess.Popen(client("alice", "subscribe", NODE, "-n", "4", "--json"), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
    wait_for(lambda: f"alice@{DOMAIN}" in gjallar.run("subscription", "list", NODE), "the subscription")
    published = [publish(str(length), payload(length)) for length in (20_000, 60_000)]
    events = [json.loads(listening.stdout.readline())["content"]["payload"] for _ in published]
    assert events == published
    listed = items()
    assert listed.returncode == 0 and not listed.stderr
    assert [json.loads(line)["payload"] for line in listed.stdout.splitlines()] == published
    name = "n" * 9000
    publish("long", f"<x xmlns='urn:x'><{name}/><y/></x>")
    publish("after", payload(10_000))
    events = [json.loads(line)["content"] for line in listening.stdout]
    assert listening.wait(10) == 0
    assert events[0] == {"item": "long", "publisher": None, "payload": "<x xmlns='urn:x'><y/></x>"}
    assert events[1]["payload"] == payload(10_000)
    warning, = listening.stderr.read().splitlines()
    assert "an element of an event was left out" in warning and "more than 8192 bytes" in warning
    refused = items()
    assert refused.returncode == 1 and "more than 8192 bytes" in refused.stderr
    assert items("-n", "1").returncode == 0
