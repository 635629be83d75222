"""Plays the scripts of tests/scripts against the pubsub modules of Prosody and ejabberd, and writes into
docs/CONFORMANCE.md where they answer otherwise than gjallar does. `make compare` runs it.

Each script has a server of its own. A component of it stands for the clients, whose JIDs are in its domain.
"""

import asyncio
import hashlib
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "benches"))

from behind import BEHIND, OWN, USERS  # noqa: E402
from servers import SECRET, SERVICE  # noqa: E402

SCRIPTS = sorted((ROOT / "tests/scripts").glob("[5-8]*.scs"), key=lambda path: path.stem.split("-")[0].split("."))
DOCUMENT = ROOT / "docs/CONFORMANCE.md"
STREAM, SCANSION = "jabber:component:accept", "https://matthewwild.co.uk/projects/scansion"
PUBSUB = "http://jabber.org/protocol/pubsub"
ANY = "{scansion:any}"
PATIENCE = 2


class Link:
    """A component's stream: stanzas in and out."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.parser = ET.XMLPullParser(["start", "end"])
        self.depth, self.waiting = 0, []

    @classmethod
    async def open(cls, port):
        link = cls(*await asyncio.open_connection("127.0.0.1", port))
        link.send(f"<stream:stream xmlns='{STREAM}' xmlns:stream='http://etherx.jabber.org/streams' to='{USERS}'>")
        while not link.depth:
            await link.read()
        digest = hashlib.sha1((link.id + SECRET).encode()).hexdigest()
        link.send(f"<handshake>{digest}</handshake>")
        await link.take(lambda stanza: stanza.tag == f"{{{STREAM}}}handshake")
        return link

    def send(self, text):
        self.writer.write(text.encode())

    async def read(self):
        data = await self.reader.read(65536)
        if not data:
            raise EOFError("the server ended the stream")
        self.parser.feed(data)
        for event, element in self.parser.read_events():
            self.depth += 1 if event == "start" else -1
            if event == "start" and self.depth == 1:
                self.id = element.get("id")
            if event == "end" and self.depth == 1:
                self.waiting.append(element)

    async def take(self, is_it):
        """The first stanza that is wanted, or nothing if none comes in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    for stanza in self.waiting:
                        if is_it(stanza):
                            self.waiting.remove(stanza)
                            return stanza
                    await self.read()
        except TimeoutError:
            return None


def steps(script):
    """Who does what with which stanza, and in which line; and the JIDs."""
    lines, jids, client, found = script.read_text().splitlines(), {}, None, []
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        number += 1
        if line.startswith("[Client] "):
            client = line.removeprefix("[Client] ")
        elif line.startswith("jid: "):
            jids[client] = elsewhere(line.removeprefix("jid: "))
        elif line and line[0] not in "#-":
            who, verb = line.split(" ", 1)
            begin, stanza = number, []
            while number < len(lines) and (not lines[number] or lines[number][0] in "\t "):
                stanza.append(lines[number])
                number += 1
            found.append((begin, who, verb, elsewhere("\n".join(stanza).strip())))
    return jids, found


def elsewhere(text):
    """The same with the names of these services; whoever comes from elsewhere is of the component too."""
    return re.sub(r"@(localhost|[a-z]+\.example)", f"@{USERS}", text).replace(SERVICE, OWN)


async def play(script, server):
    """How many answers and events there are in a script, and which of them are others here."""
    jids, all_steps = steps(script)
    link, number, others = await Link.open(server.component_port), 0, []
    for line, who, verb, stanza in all_steps:
        jid = jids[who]
        bare = jid.split("/")[0]

        def theirs(other, jid=jid, bare=bare):
            return other.get("to") in (jid, bare)
        if verb == "sends:":
            name, rest = stanza.split(" ", 1)
            to = "" if " to=" in stanza else f" to='{OWN}'"
            link.send(f"{name} from='{jid}'{to} {rest}")
            continue
        number += 1
        if verb == "receives:":
            outer = ET.fromstring(f"<o xmlns='{STREAM}' xmlns:scansion='{SCANSION}'>{stanza}</o>")
            expected = outer[0]
            same = lambda other: (theirs(other) and other.tag == expected.tag  # noqa: E731
                                  and expected.get("id") in (None, ANY, other.get("id")))
            got = await link.take(same)
            reason = "nothing comes" if got is None else difference(expected, got)
        else:
            link.send(f"<iq type='get' id='probe' from='probe@{USERS}/p' to='{OWN}'>"
                      "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
            await link.take(lambda other: other.get("id") == "probe")
            got = next(filter(theirs, link.waiting), None)
            reason = None if got is None else "something comes"
        if reason:
            others.append((line, reason))
    link.writer.close()
    return number, others


# What the XEP leaves free: texts for people, what an error repeats, how a message is named and kept, whether it is
# said who published, and whether a creation is confirmed by more than its result.
FREE = {"text", "stanza-id", "no-store", "delay"}
FREE_ATTRIBUTES = {"message": {"id", "type"}, "item": {"publisher"}}


def difference(expected, got):
    """What is not as expected, if anything is."""
    if expected.tag != got.tag:
        return f"{short(got)} is not {short(expected)}"
    name = expected.tag.split("}")[-1]
    strict = not (name in ("message", "error") or expected.get("type") == "error")
    for attribute, value in expected.items():
        if attribute.startswith(f"{{{SCANSION}}}"):
            strict = strict and value != "false"
        elif attribute in FREE_ATTRIBUTES.get(name, ()):
            continue
        elif got.get(attribute) is None or value not in (ANY, got.get(attribute)):
            return f"`{attribute}` of {short(got)} is {got.get(attribute)!r}, not {value!r}"
    text = (expected.text or "").strip()
    if text not in (ANY, (got.text or "").strip()):
        return f"{short(got)} has another text"
    there = list(got)
    for child in expected:
        if child.tag.split("}")[-1] in FREE:
            continue
        if child.find(f"{{{PUBSUB}}}create") is not None:
            there = [other for other in there if other.tag != child.tag]
            continue
        fitting = next((other for other in there if difference(child, other) is None), None)
        if fitting is None:
            similar = next((other for other in there if other.tag == child.tag), None)
            return f"{short(got)} has no {short(child)}" if similar is None else difference(child, similar)
        there.remove(fitting)
    return f"{short(got)} has {short(there[0])} too" if there and strict else None


def short(element):
    return f"`{element.tag.split('}')[-1]}`"


async def main():
    rows, notes = [], {}
    for script in SCRIPTS:
        cells = []
        for name, kind in BEHIND.items():
            with kind([]) as server:
                number, others = await play(script, server)
            cells.append(f"{number - len(others)} of {number}")
            for line, reason in others:
                notes.setdefault((name, reason), []).append(f"{script.stem}:{line}")
            print(script.stem, name, cells[-1], flush=True)
        rows.append(f"| {script.stem} | " + " | ".join(cells) + " |")
    listed = sorted(notes.items(), key=lambda note: (note[0][0], -len(note[1]), note[0][1]))
    table = ["", "| script | " + " | ".join(BEHIND) + " |", "|---|---:|---:|", *rows, "",
             "| of | what is otherwise | where: script, and line |", "|---|---|---|",
             *(f"| {name} | {reason} | {', '.join(places)} |" for (name, reason), places in listed), ""]
    text, found = re.subn(r"(?s)(<!-- compared -->).*?(<!-- end compared -->)",
                          lambda match: match[1] + "\n" + "\n".join(table) + "\n" + match[2], DOCUMENT.read_text())
    assert found == 1
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
