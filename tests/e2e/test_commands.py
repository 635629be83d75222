"""Clients for end users: profanity in a terminal, with ad-hoc commands; and `gjallar client`."""

import asyncio
import json
import subprocess

import pytest
from clients import Callback, Client, IqError, StanzaPath, clients, gajim, item_ids
from clients.terminal import COMMAND, NODE, Terminal, configure
from conftest import USERS, with_loop
from servers import DOMAIN, PASSWORD, SERVERS, SERVICE, Gjallar, free_ports, wait_for


@pytest.mark.one_release
@with_loop
async def test_profanity_configures_a_node(server, gjallar, tmp_path):
    gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
    with Terminal("profanity", tmp_path) as terminal:
        configure(terminal, server)
        # profanity shows no options of a list with several values, so a text names the pending subscribers.
        gjallar.run("node", "create", "closed", "--as", f"owner@{DOMAIN}", "--set", "access_model=authorize")
        async with clients(server.client_port, "alice") as (alice,):
            await alice.pubsub.subscribe(SERVICE, "closed")
        terminal.type(f"/cmd exec {COMMAND}:approve {SERVICE}")
        terminal.wait_for("Approve or refuse subscriptions")
        terminal.type("/field1 closed")
        terminal.wait_for("Field updated")
        terminal.type("/form submit")
        terminal.wait_for(f"alice@{DOMAIN}")
    # The change is visible to another client.
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
    """Returns the command line of `gjallar client` for a user and arguments."""
    password = folder / "password"
    password.write_text(f"{PASSWORD}\n")

    def client(user, *arguments, host="127.0.0.1", port=server.client_port):
        return [
            str(gjallar.binary), "client", *arguments, "--jid", f"{user}@{DOMAIN}", "--service", SERVICE,
            "--server", f"{host}:{port}", "--password-file", str(password)]
    return client


def test_client_performs_all_its_commands(server, gjallar, tmp_path):
    """`gjallar client` with two accounts: all of its commands, and events as they arrive."""
    client = client_of(server, gjallar, tmp_path)

    def run(user, *arguments, code=0, host="127.0.0.1", **more):
        done = subprocess.run(client(user, *arguments, host=host), capture_output=True, text=True, timeout=60, check=False, **more)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    assert run("owner", "create", NODE) == f"{NODE}\n"
    assert run("owner", "create", NODE, code=1) == "gjallar: refused: conflict, the node already exists\n"
    gjallar.run("affiliation", "set", NODE, "publisher", f"bot@{DOMAIN}")
    assert run("owner", "publish", NODE, "--id", "0", input="<x xmlns='urn:x'>zero</x>\n") == "0\n"
    listening = subprocess.Popen(
        client("alice", "subscribe", NODE, "--json", "-n", "4"), stdout=subprocess.PIPE, text=True)
    # The last item is sent on subscribing.
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
    table = run("owner", "items", created, host="localhost")
    assert table.split() == ["ITEM", "PUBLISHER", "PAYLOAD"]


# An address of this machine that is not a loopback address, so that the client uses TLS.
NOT_LOOPBACK = "0.0.0.0"

CERTIFY = f"""set -e
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test"
openssl req -x509 $new -keyout ca.key -out ca.pem -days 2
openssl req $new -keyout server.key -out server.csr
echo subjectAltName=DNS:{DOMAIN} > names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem
cat server.key server.pem > both.pem"""


@pytest.fixture(params=["ejabberd", "prosody"])
def encrypted(request, tmp_path):
    """Server that requires TLS, with a certificate for its domain."""
    subprocess.run(["sh", "-c", CERTIFY], cwd=tmp_path, capture_output=True, check=True)
    base = SERVERS[request.param]
    config = base.CONFIG
    for plain, tls in [
            ("    starttls: false\n", "    starttls_required: true\n"),
            ("auth_method: internal\n", f'auth_method: internal\ncertfiles:\n  - "{tmp_path}/both.pem"\n'),
            ("c2s_require_encryption = false", "c2s_require_encryption = true"),
            ("allow_unencrypted_plain_auth = true\n", ""),
            ('"websocket" }}', '"websocket", "tls" }}'),
            ('VirtualHost "{domain}"\n',
             f'VirtualHost "{{domain}}"\nssl = {{{{ key = "{tmp_path}/server.key",'
             f' certificate = "{tmp_path}/server.pem" }}}}\n')]:
        config = config.replace(plain, tls)
    with type("Encrypted", (base,), {"CONFIG": config})(USERS) as running:
        yield running


def test_client_uses_tls(encrypted, tmp_path):
    """Servers that require TLS; a failed login names the obstacle."""
    with Gjallar(encrypted.component_port, tmp_path) as gjallar:
        client = client_of(encrypted, gjallar, tmp_path)
        trusting = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}

        def start(user, *arguments, env=None):
            command = client(user, *arguments, host=NOT_LOOPBACK)
            return subprocess.Popen(command, env=env or trusting, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        untrusting = start("owner", "items", NODE, env={"SSL_CERT_FILE": str(tmp_path / "nothing.pem")})
        unknown = start("nobody", "items", NODE)
        created = start("owner", "create", NODE)
        assert created.communicate(timeout=20) == (f"{NODE}\n", "")
        refused = untrusting.communicate(timeout=60)[1]
        assert "certificate" in refused, refused
        refused = unknown.communicate(timeout=60)[1]
        assert "check the password" in refused and "without TLS" not in refused, refused


@pytest.fixture(params=sorted(SERVERS))
def resuming(request):
    """Server with stream management (XEP-0198), which sends unacknowledged stanzas again in a resumed session."""
    base = SERVERS[request.param]
    config = base.CONFIG.replace('"websocket" }}', '"websocket", "smacks" }}')
    config = config.replace("  mod_ping: {{}}\n", "  mod_ping: {{}}\n  mod_stream_mgmt: {{}}\n")
    assert config != base.CONFIG
    with type("Resuming", (base,), {"CONFIG": config})(USERS) as running:
        yield running


def test_client_receives_long_values_and_reports_longer_names(resuming, tmp_path):
    """Values longer than the client's parser accepts are received. With a longer name a request fails, and a
    subscriber keeps running."""
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
    assert 'event="client_event_incomplete"' in warning and "more than 8192 bytes" in warning
    refused = items()
    assert refused.returncode == 1 and "more than 8192 bytes" in refused.stderr
    assert items("-n", "1").returncode == 0


def changed(name, **changes):
    """Returns a server with a changed configuration: each text is replaced by another."""
    base = SERVERS[name]
    config = base.CONFIG
    for old, new in changes[name].items():
        assert old in config
        config = config.replace(old, new)
    return type("Changed", (base,), {"CONFIG": config})(USERS)


@pytest.fixture(params=["ejabberd", "prosody"])
def storing(request):
    """Server that stores messages for offline accounts."""
    with changed(request.param, prosody={', "offline" }}': " }}"},
                 ejabberd={"  mod_ping: {{}}\n": "  mod_ping: {{}}\n  mod_offline: {{}}\n"}) as running:
        yield running


@pytest.mark.one_release
@with_loop
async def test_client_leaves_stored_messages_to_other_clients(storing, tmp_path):
    """Only `client subscribe` receives messages."""
    with Gjallar(storing.component_port, tmp_path) as gjallar:
        client = client_of(storing, gjallar, tmp_path)
        gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}", "--set", "notification_type=normal")
        gjallar.run("affiliation", "set", NODE, "owner", f"alice@{DOMAIN}")
        gjallar.run("subscription", "set", NODE, "subscribed", f"alice@{DOMAIN}")
        gjallar.run("item", "publish", NODE, "--id", "1", "--payload", "<x xmlns='urn:x'/>")
        # The service sends the event for alice before the one for bob.
        async with clients(storing.client_port, "bob") as (bob,):
            await bob.settled()
            bob.xmpp.send_message(f"alice@{DOMAIN}", "hello alice")
            await bob.xmpp.plugin["xep_0199"].send_ping(DOMAIN)
        for command in [("create", "other"), ("items", NODE), ("publish", NODE, "--id", "2", "--payload", "<x xmlns='urn:x'/>"),
                        ("retract", NODE, "2"), ("delete", "other")]:
            await asyncio.to_thread(subprocess.run, client("alice", *command), check=True, timeout=20, stdout=subprocess.DEVNULL)
        alice, bodies = Client("alice"), asyncio.Queue()
        alice.xmpp.register_handler(
            Callback("bodies", StanzaPath("message/body"), lambda message: bodies.put_nowait(message["body"])))
        await alice.login(storing.client_port)
        assert await asyncio.wait_for(bodies.get(), 10) == "hello alice"
        # The notice of her subscription, two items and the retraction.
        events = await alice.until(4)
        assert [item_ids(event) for event in events if item_ids(event)] == [["1"], ["2"]]
        await alice.xmpp.disconnect()


async def resource_of(client, command):
    """Starts a command with the account of a client; returns it with its full JID, taken from its presence."""
    presences = asyncio.Queue()
    client.xmpp.register_handler(Callback("presences", StanzaPath("presence"), presences.put_nowait))
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    jid = None
    while jid in (None, client.full):
        jid = str((await asyncio.wait_for(presences.get(), 20))["from"])
    return running, jid


@with_loop
async def test_client_replies_to_requests(server, gjallar, tmp_path):
    gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
    subscribe = client_of(server, gjallar, tmp_path)("alice", "subscribe", NODE)
    async with clients(server.client_port, "alice") as (alice,):
        running, jid = await resource_of(alice, subscribe)
        await alice.xmpp.plugin["xep_0199"].send_ping(jid, timeout=10)
        with pytest.raises(IqError) as refused:
            await alice.xmpp.plugin["xep_0030"].get_info(jid=jid, timeout=10)
        assert refused.value.condition == "service-unavailable"
        running.terminate()
        running.wait(10)


@pytest.fixture
def pinging():
    """Server that pings its clients each second and ends the sessions of those that do not answer."""
    pings = ("  mod_ping:\n    send_pings: true\n    ping_interval: 1 s\n    ping_ack_timeout: 1 s\n"
             "    timeout_action: kill\n")
    with changed("ejabberd", ejabberd={"  mod_ping: {{}}\n": pings}) as running:
        yield running


@pytest.mark.one_release
@with_loop
async def test_client_stays_connected_to_a_server_that_pings(pinging, tmp_path):
    with Gjallar(pinging.component_port, tmp_path) as gjallar:
        gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
        subscribe = client_of(pinging, gjallar, tmp_path)("alice", "subscribe", NODE)
        async with clients(pinging.client_port, "alice") as (alice,):
            running, jid = await resource_of(alice, subscribe)
            pings = asyncio.Queue()
            alice.xmpp.register_handler(Callback("pings", StanzaPath("iq@type=get/ping"), pings.put_nowait))
            for _ in range(4):
                await asyncio.wait_for(pings.get(), 10)
            await alice.xmpp.plugin["xep_0199"].send_ping(jid, timeout=10)
            running.terminate()
            running.wait(10)
