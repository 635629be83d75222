"""Demo of the main use cases on a real server, from an empty folder to a summary with figures.

A private Prosody on free loopback ports; gjallar on a sled store; an owner (slixmpp) who creates a node and manages
nodes by ad-hoc commands; a bot and two subscribers (examples/, on tokio-xmpp); a SIGKILL; a restart.
"""

import asyncio
import subprocess
import sys
import tempfile
import threading
import time

from clients import clients, form
from servers import CONNECTED, DOMAIN, PASSWORD, SERVICE, Gjallar, Prosody, binaries

NODE = "princely_musings"
ITEMS = 10


def say(text):
    # One write, because the output of the programs is printed by other threads.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def step(text):
    say(f"\n== {text}")


class Example:
    """Program of examples/, whose output is shown line by line as it arrives."""

    def __init__(self, name, user, server):
        program = binaries() / "examples" / name
        address = f"127.0.0.1:{server.client_port}"
        arguments = [f"{user}@{DOMAIN}", PASSWORD, SERVICE, NODE, str(ITEMS), address]
        self.user, self.lines = user, []
        self.subscribed = threading.Event()
        self.process = subprocess.Popen(
            [str(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.show)
        self.reader.start()

    def show(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())
            say(f"   {self.user:>8}: {line.strip()}")
            if line.startswith("subscribed"):
                self.subscribed.set()

    def wait(self, timeout=40):
        code = self.process.wait(timeout)
        self.reader.join()
        return code

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join()


async def by_command(owner):
    """Lists, configures and deletes nodes like any client with ad-hoc commands (XEP-0050)."""
    commands = owner.xmpp.plugin["xep_0050"]

    async def send(name, **options):
        node = f"urn:gjallar:command:{name}"
        return (await commands.send_command(SERVICE, node, **options))["command"]

    def choice(node, var="node"):
        made = owner.xmpp.plugin["xep_0004"].make_form(ftype="submit")
        made.add_field(var=var, value=node)
        return made

    async def listed():
        stage = await send("list-nodes")
        stage = await send("list-nodes", sessionid=stage["sessionid"], payload=choice("*", "pattern"))
        return ", ".join(stage["form"].get_values()["nodes"])

    found = await commands.get_commands(SERVICE)
    say("   commands: " + ", ".join(sorted(name for _, _, name in found["disco_items"]["items"])))
    say(f"   list nodes: {await listed()}")
    stage = await send("configure-node")
    stage = await send(
        "configure-node", action="next", sessionid=stage["sessionid"], payload=choice(NODE))
    done = await send(
        "configure-node", action="complete", sessionid=stage["sessionid"],
        payload=form(owner, title="Princely Musings", max_items="100"))
    say(f"   configure {NODE}: {done['notes'][0][1]}")
    stage = await send("delete-node")
    stage = await send("delete-node", sessionid=stage["sessionid"], payload=choice("scratch"))
    done = await send(
        "delete-node", action="complete", sessionid=stage["sessionid"],
        payload=choice("scratch", "name"))
    say(f"   delete scratch: {done['notes'][0][1]}")
    say(f"   list nodes: {await listed()}")


async def prepare(server):
    async with clients(server.client_port, "owner") as (owner,):
        step("an owner creates a node and lets a bot publish there")
        await owner.pubsub.create_node(SERVICE, NODE)
        await owner.pubsub.create_node(SERVICE, "scratch")
        await owner.pubsub.modify_affiliations(
            SERVICE, NODE, affiliations=[(f"bot@{DOMAIN}", "publisher")])
        say(f"   node {NODE!r}, publisher bot@{DOMAIN}")
        step("the owner lists, configures and deletes nodes by ad-hoc command")
        await by_command(owner)


async def read_back(server):
    async with clients(server.client_port, "owner") as (owner,):
        answer = await owner.pubsub.get_items(SERVICE, NODE)
        return [item["id"] for item in answer["pubsub"]["items"]]


def scene(server, gjallar):
    """Runs the scene; returns the figures of the summary."""
    asyncio.run(prepare(server))

    step("two subscribers subscribe; the bot publishes an item a second")
    began = time.monotonic()
    examples = [Example("subscriber", user, server) for user in ("romeo", "juliet")]
    try:
        for subscriber in examples:
            if not subscriber.subscribed.wait(20):
                raise RuntimeError(f"{subscriber.user} is not subscribed")
        examples.append(Example("bot", "bot", server))
        codes = [example.wait() for example in examples]
    finally:
        for example in examples:
            example.stop()
    took = time.monotonic() - began
    expected = [f"item-{n}" for n in range(1, ITEMS + 1)]
    received = [[line.split()[1].rstrip(":") for line in example.lines if line.startswith("received")]
                for example in examples[:2]]

    step("gjallar is killed with SIGKILL, and started again")
    gjallar.kill()
    restart = time.monotonic()
    gjallar.start()
    gjallar.wait_for_log(CONNECTED)
    restart = time.monotonic() - restart
    there = asyncio.run(read_back(server))
    say(f"   items read back: {', '.join(there)}")
    ok = codes == [0, 0, 0] and received == [expected, expected] and there == expected
    return ok, [
        ("items acknowledged to the bot", ITEMS),
        ("events received, each once and in order",
         f"{sum(map(len, received))} of {2 * ITEMS}" if received == [expected] * 2 else "NO"),
        ("items read back after SIGKILL", f"{len(there)} of {ITEMS}"),
        ("time of the scene", f"{took:.1f} s"),
        ("from restart to connected", f"{restart * 1000:.0f} ms"),
    ]


def join(server):
    step("it is left running: join with any XMPP client that takes a host, a port and no TLS")
    say(f"   accounts   owner, bot, romeo, juliet, guest @{DOMAIN}; password {PASSWORD}")
    say(f"   server     127.0.0.1, port {server.client_port}, without encryption")
    say(f"   service    {SERVICE}, node {NODE}")
    say(f"   or         cargo run --example subscriber -- guest@{DOMAIN} {PASSWORD} {SERVICE} {NODE}"
        f" 10 127.0.0.1:{server.client_port}")
    say("   end it with Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("")


def main():
    began = time.monotonic()
    step("a private Prosody and gjallar on an embedded sled store")
    users = ["owner", "bot", "romeo", "juliet", "guest"]
    with Prosody(users) as server, tempfile.TemporaryDirectory(prefix="gjallar-demo-") as folder:
        with Gjallar(server.component_port, folder) as gjallar:
            say(f"   Prosody on 127.0.0.1:{server.client_port}, {len(users)} accounts; "
                f"{SERVICE} connected")
            ok, figures = scene(server, gjallar)
            if "--keep" in sys.argv:
                join(server)
            gjallar.stop()
    step("summary")
    for name, value in figures + [("all in all", f"{time.monotonic() - began:.1f} s")]:
        say(f"   {name:<42} {value}")
    say("   everything as it should be" if ok else "   SOMETHING IS WRONG")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
