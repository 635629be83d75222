"""Measures notifications per second to clients of Prosody, and the processor time of the server for each, in three
ways: gjallar with one stanza for each recipient, gjallar with one stanza for many by mod_gjallar_fanout, and
Prosody's own mod_pubsub. The processor time hardly depends on the load of the machine. Needs a release build of
gjallar.

    benches/fanout.py [--clients 1000] [--events 40] [--rounds 5]
"""

import argparse
import asyncio
import base64
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import servers

OWN, DIRECT = "own.localhost", "direct.localhost"
WAYS = {"gjallar, directly": DIRECT, "gjallar, mod_gjallar_fanout": servers.SERVICE, "mod_pubsub": OWN}
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
            + f'Component "{OWN}" "pubsub"\n  admins = {{ "user0@localhost" }}\n'
            + f'Component "{DIRECT}"\n  component_secret = "{servers.SECRET}"\n')


class Stream:
    """Client with a raw XML stream."""

    def __init__(self, port):
        self.port, self.messages, self.text = port, 0, b""

    def begin(self):
        self.send("<stream:stream xmlns='jabber:client' to='localhost' version='1.0' "
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
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.begin()
        await self.until(b"</stream:features>")
        plain = base64.b64encode(f"\0{user}\0{servers.PASSWORD}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")
        await self.until(b"<success")
        await self.until(b">")
        self.begin()
        await self.until(b"</stream:features>")
        self.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><presence/>")
        await self.until(b"<presence")
        await self.until(b">")

    async def count(self, counter):
        """Starts counting messages."""
        rest = self.text
        self.text = b""
        while data := await self.reader.read(262144):
            data = rest + data
            counter.add(data.count(b"</message>"))
            rest = data[-9:] if not data.endswith(b"</message>") else b""
            # A mark that is cut in two ends within the next chunk; a whole one within the rest counts once.
            rest = rest[rest.rfind(b"<"):] if b"<" in rest else b""


def seconds_of(process):
    """Returns the processor time used by a process."""
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


async def measure(server, arguments):
    clients = [f"user{number}" for number in range(arguments.clients)]
    streams = [Stream(server.client_port) for _ in clients]
    for first in range(0, len(clients), 50):
        await asyncio.gather(*(
            stream.log_in(user)
            for user, stream in zip(clients[first:first + 50], streams[first:first + 50])))
    owner = streams[0]
    pubsub = "http://jabber.org/protocol/pubsub"
    for service in WAYS.values():
        owner.send(f"<iq type='set' id='create' to='{service}'><pubsub xmlns='{pubsub}'><create node='n'/></pubsub></iq>")
        await owner.until(b"create")
        await owner.until(b">")
        for user, stream in zip(clients, streams):
            stream.send(f"<iq type='set' id='s' to='{service}'><pubsub xmlns='{pubsub}'>"
                        f"<subscribe node='n' jid='{user}@localhost'/></pubsub></iq>")
            await stream.until(b"</iq>")
    counter = Counter()
    counting = [asyncio.create_task(stream.count(counter)) for stream in streams]

    def publish(service, number):
        owner.send(f"<iq type='set' id='p' to='{service}'><pubsub xmlns='{pubsub}'><publish node='n'>"
                   f"<item id='{number}'>{PAYLOAD}</item></publish></pubsub></iq>")

    measured = {name: [] for name in WAYS}
    notifications = arguments.events * len(clients)
    for _ in range(arguments.rounds):
        for name, service in WAYS.items():
            before, began, used = counter.number, time.monotonic(), seconds_of(server.process)
            for number in range(arguments.events):
                publish(service, number)
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
    os.environ["GJALLAR_PROFILE"] = "release"
    options = {
        "creators": "anyone",
        "limits_max_jid_requests_per_second": 0,
        "limits_max_domain_requests_per_second": 0,
    }
    with (
        Prosody([f"user{number}" for number in range(arguments.clients)]) as server,
        tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other,
        servers.Gjallar(server.component_port, one, **options) as gjallar,
        servers.Gjallar(server.component_port, other, jid=DIRECT, link_multicast="off", **options),
    ):
        gjallar.wait_for_log(servers.logged_as("multicast_enabled"))
        measured = asyncio.run(measure(server, arguments))
    own = statistics.median(rate for rate, _ in measured["mod_pubsub"])
    for name, rounds in measured.items():
        rates, times = zip(*rounds)
        rate, spread = statistics.median(rates), f"{min(rates):.0f} – {max(rates):.0f}"
        print(f"{name:28} {rate:8.0f} a second ({spread}), {rate / own:.2f} of mod_pubsub; "
              f"{statistics.median(times):.0f} µs of the server's processor time for each")


if __name__ == "__main__":
    main()
