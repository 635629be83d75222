"""Measures the delay that one sender's burst causes another sender: the p99 of a publish and its reply, alone and
during bursts, with the default limits of bytes and stanzas. The script acts as the XMPP server, and reads replies
with little work, because its own time counts as a delay. Needs a release build of gjallar.

    benches/burst.py [--requests 5000] [--mixed] [--rounds 5]
"""

import argparse
import os
import pathlib
import re
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SERVICE = "pubsub.localhost"
PUBSUB = "http://jabber.org/protocol/pubsub"
BOT, OTHER = "bot@localhost/b", "other@localhost/o"
SAMPLES = 1000

TO_BOT, TO_OTHER = (re.compile(rb"<iq\b[^>]*\bto=['\"]" + jid.encode()) for jid in (BOT, OTHER))
REQUEST = re.compile(rb"<iq\b[^>]*type=['\"]get['\"][^>]*>")


class Server:
    """Connection of a component."""

    def __init__(self, listener):
        self.connection, _ = listener.accept()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest, self.of_bot, self.of_other = b"", 0, 0
        self.until(b"<stream:stream")
        self.send(f"<stream:stream xmlns='jabber:component:accept' from='{SERVICE}' id='1' "
                  "xmlns:stream='http://etherx.jabber.org/streams'>")
        self.until(b"</handshake>")
        self.send("<handshake/>")

    def send(self, text):
        self.connection.sendall(text.encode())

    def until(self, mark):
        text = b""
        while mark not in text:
            text += self.connection.recv(1 << 16)

    def read(self):
        """Counts the replies to both senders, and answers requests of the service."""
        data = self.connection.recv(1 << 18)
        assert data, "the service ended"
        data = self.rest + data
        start = data.rfind(b"<")
        end = start if b">" not in data[start:] else len(data)
        data, self.rest = data[:end], data[end:]
        for tag in REQUEST.findall(data):
            sender, to, identity = (
                re.search(rb"\b" + name + rb"=['\"]([^'\"]*)", tag).group(1).decode() for name in (b"from", b"to", b"id"))
            kind = "get" if to.startswith(SERVICE) else "result"
            sender, to = (sender, to) if kind == "get" else (to, sender)
            self.send(f"<iq type='{kind}' from='{sender}' to='{to}' id='{identity}'>"
                      "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
        assert b"type='error'" not in data, data
        self.of_bot += len(TO_BOT.findall(data))
        self.of_other += len(TO_OTHER.findall(data))


def request(sender, identity, kind, body):
    return f"<iq type='{kind}' from='{sender}' to='{SERVICE}' id='{identity}'>{body}</iq>"


def publish(sender, node, number):
    return request(sender, number, "set", f"<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item>"
                   f"<e xmlns='urn:x'>{'x' * 100}</e></item></publish></pubsub>")


def burst(number, mixed):
    bodies = (
        f"<pubsub xmlns='{PUBSUB}'><items node='bulk' max_items='1'/></pubsub>",
        "<query xmlns='http://jabber.org/protocol/disco#info' node='bulk'/>",
        f"<pubsub xmlns='{PUBSUB}'><subscriptions/></pubsub>",
    )
    return "".join(
        request(BOT, index, "get", bodies[index % 4 - 1]) if mixed and index % 4 else publish(BOT, "bulk", index)
        for index in range(number))


def percentile(server, requests, mixed):
    """Returns the p99 and the median of another sender's publish, in milliseconds."""
    samples = []
    while len(samples) < SAMPLES:
        server.of_bot = 0
        server.send(burst(requests, mixed))
        while server.of_bot < requests if requests else len(samples) < SAMPLES:
            server.of_other = 0
            began = time.perf_counter()
            server.send(publish(OTHER, "n", len(samples)))
            while not server.of_other:
                server.read()
            if not requests or server.of_bot < requests:
                samples.append((time.perf_counter() - began) * 1000)
    samples.sort()
    return samples[len(samples) * 99 // 100 - 1], statistics.median(samples)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--mixed", action="store_true", help="reads and discovery too, not publishes only")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory(dir=ROOT / "target") as store:
        environment = {
            "GJALLAR_JID": SERVICE, "GJALLAR_SECRET": "secret", "GJALLAR_STORE": f"sled:{store}/store",
            "GJALLAR_SERVER": f"127.0.0.1:{listener.getsockname()[1]}", "GJALLAR_LOG": "warn",
            "GJALLAR_CREATORS": "anyone", "GJALLAR_LIMITS_MAX_JID_REQUESTS_PER_SECOND": "0",
            "GJALLAR_LIMITS_MAX_DOMAIN_REQUESTS_PER_SECOND": "0", "PATH": os.environ["PATH"],
        }
        process = subprocess.Popen([ROOT / "target/release/gjallar", "serve"], env=environment)
        try:
            server = Server(listener)
            for sender, node in ((BOT, "bulk"), (OTHER, "n")):
                server.send(request(sender, "c", "set", f"<pubsub xmlns='{PUBSUB}'><create node='{node}'/></pubsub>"))
            while not (server.of_bot and server.of_other):
                server.read()
            percentile(server, 0, False)
            for _ in range(arguments.rounds):
                alone, usual = percentile(server, 0, False)
                during, then = percentile(server, arguments.requests, arguments.mixed)
                print(f"alone p99 {alone:.2f} ms, median {usual:.2f} ms; during a burst of {arguments.requests} "
                      f"p99 {during:.2f} ms ({during / alone:.2f} times), median {then:.2f} ms", flush=True)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
