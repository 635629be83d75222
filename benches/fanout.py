"""Notifications a second to clients of Prosody, and processor time of the server for each, three ways in one run: one
stanza for each recipient, one for many by mod_gjallar_fanout, and Prosody's own mod_pubsub. The processor time hardly
depends on what else the machine does.

    benches/fanout.py [--clients 1000] [--events 40] [--rounds 5]
"""

import argparse
import asyncio
import base64
import hashlib
import os
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import servers

OWN = "own.localhost"
FANOUT = "urn:x-gjallar:fanout:0"
MAX_RECIPIENTS = 500
PAYLOAD = "<x xmlns='urn:x'>" + "x" * 379 + "</x>"


class Prosody(servers.Fanout):
    def prepare(self):
        super().prepare()
        config = self.folder / "prosody.cfg.lua"
        enabled = '"gjallar_fanout";'
        text = config.read_text()
        assert enabled in text
        config.write_text(
            text.replace(enabled, f'{enabled} "presence"; "message";')
            + f'Component "{OWN}" "pubsub"\n  admins = {{ "user0@localhost" }}\n')


class Stream:
    """A client or a component: raw XML."""

    def __init__(self, port):
        self.port, self.messages, self.text = port, 0, b""

    async def open(self, to, namespace):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        await self.begin(to, namespace)

    async def begin(self, to, namespace):
        self.send(f"<stream:stream xmlns='{namespace}' to='{to}' version='1.0' "
                  "xmlns:stream='http://etherx.jabber.org/streams'>")

    def send(self, xml):
        self.writer.write(xml.encode())

    async def until(self, mark):
        while mark not in self.text:
            data = await self.reader.read(65536)
            assert data, self.text
            self.text += data
        before, _, self.text = self.text.partition(mark)
        return before + mark

    async def log_in(self, user):
        await self.open("localhost", "jabber:client")
        await self.until(b"</stream:features>")
        plain = base64.b64encode(f"\0{user}\0{servers.PASSWORD}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")
        await self.until(b"<success")
        await self.until(b">")
        await self.begin("localhost", "jabber:client")
        await self.until(b"</stream:features>")
        self.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><presence/>")
        await self.until(b"<presence")
        await self.until(b">")

    async def log_in_as_component(self, jid):
        await self.open(jid, "jabber:component:accept")
        opened = await self.until(b"id='")
        stream_id = (await self.until(b"'"))[:-1].decode()
        assert opened
        await self.until(b">")
        digest = hashlib.sha1((stream_id + servers.SECRET).encode()).hexdigest()
        self.send(f"<handshake>{digest}</handshake>")
        await self.until(b"<handshake/>")

    async def count(self, counter):
        """Counts messages from now on."""
        rest = self.text
        self.text = b""
        while data := await self.reader.read(262144):
            data = rest + data
            counter.add(data.count(b"</message>"))
            rest = data[-9:] if not data.endswith(b"</message>") else b""
            # A mark that is cut in two ends within the next piece; a whole one within the rest counts once.
            rest = rest[rest.rfind(b"<"):] if b"<" in rest else b""


def seconds_of(process):
    """The processor time that it has used."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Counter:
    def __init__(self):
        self.number, self.wanted, self.reached = 0, 0, asyncio.Event()

    def add(self, more):
        self.number += more
        if self.number >= self.wanted:
            self.reached.set()

    async def wait_for(self, more):
        self.wanted = more
        if self.number < more:
            self.reached.clear()
            await asyncio.wait_for(self.reached.wait(), 120)


def event(identity):
    return ("<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'>"
            f"<item id='{identity}'>{PAYLOAD}</item></items></event>"
            f"<stanza-id xmlns='urn:xmpp:sid:0' by='pubsub.localhost' id='{identity}'/>"
            "<no-store xmlns='urn:xmpp:hints'/>")


async def measure(server, arguments):
    clients = [f"user{number}" for number in range(arguments.clients)]
    streams = [Stream(server.client_port) for _ in clients]
    for first in range(0, len(clients), 50):
        await asyncio.gather(*(
            stream.log_in(user)
            for user, stream in zip(clients[first:first + 50], streams[first:first + 50])))
    owner = streams[0]
    pubsub = "http://jabber.org/protocol/pubsub"
    owner.send(f"<iq type='set' id='create' to='{OWN}'><pubsub xmlns='{pubsub}'><create node='n'/></pubsub></iq>")
    await owner.until(b"create")
    await owner.until(b">")
    for user, stream in zip(clients, streams):
        stream.send(f"<iq type='set' id='s' to='{OWN}'><pubsub xmlns='{pubsub}'>"
                    f"<subscribe node='n' jid='{user}@localhost'/></pubsub></iq>")
        await stream.until(b"</iq>")
    component = Stream(server.component_port)
    await component.log_in_as_component(servers.SERVICE)
    counter = Counter()
    counting = [asyncio.create_task(stream.count(counter)) for stream in streams]
    head = f"<message from='{servers.SERVICE}' type='headline' id='0123456789abcdef-"

    def directly(number):
        component.send("".join(
            f"{head}{number}-{'s' * 12}' to='{user}@localhost'>{event(number)}</message>" for user in clients))

    def by_fanout(number):
        for first in range(0, len(clients), MAX_RECIPIENTS):
            lines = "\n".join(
                f"-{'s' * 12} {user}@localhost" for user in clients[first:first + MAX_RECIPIENTS])
            component.send(f"{head}{number}' to='localhost'><recipients xmlns='{FANOUT}'>{lines}</recipients>"
                           f"{event(number)}</message>")

    def by_own(number):
        owner.send(f"<iq type='set' id='p' to='{OWN}'><pubsub xmlns='{pubsub}'><publish node='n'>"
                   f"<item id='{number}'>{PAYLOAD}</item></publish></pubsub></iq>")

    ways = {"directly": directly, "mod_gjallar_fanout": by_fanout, "mod_pubsub": by_own}
    measured = {name: [] for name in ways}
    notifications = arguments.events * len(clients)
    for _ in range(arguments.rounds):
        for name, send in ways.items():
            before, began, used = counter.number, time.monotonic(), seconds_of(server.process)
            for number in range(arguments.events):
                send(number)
                await asyncio.sleep(0)
            await counter.wait_for(before + notifications)
            assert counter.number == before + notifications, counter.number - before
            measured[name].append((
                notifications / (time.monotonic() - began),
                (seconds_of(server.process) - used) / notifications * 1e6))
    for task in counting:
        task.cancel()
    return measured


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with Prosody([f"user{number}" for number in range(arguments.clients)]) as server:
        measured = asyncio.run(measure(server, arguments))
    own = statistics.median(rate for rate, _ in measured["mod_pubsub"])
    for name, rounds in measured.items():
        rates, times = zip(*rounds)
        rate, spread = statistics.median(rates), f"{min(rates):.0f} – {max(rates):.0f}"
        print(f"{name:20} {rate:8.0f} a second ({spread}), {rate / own:.2f} of mod_pubsub; "
              f"{statistics.median(times):.0f} µs of the server's processor time for each")


if __name__ == "__main__":
    main()
