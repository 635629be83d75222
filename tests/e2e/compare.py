"""Plays the scripts of tests/xep0060 against gjallar and the pubsub modules of Prosody and ejabberd, and writes into
docs/CONFORMANCE.md how many steps are answered as XEP-0060 demands. `make compare` runs it.

The scripts assert more than the XEP demands, because they are tests of gjallar. `is_demanded` and `difference` ignore
what the XEP permits. A request below the comment `# choice`, to which the XEP names no answer, is not sent, and an
event below it is not expected. A request below `# refused`, for which the XEP names no condition, may have any error.
If a service assigned a SubID to a subscription, requests have it.

Each script has a separate server. Two components of the server stand for the clients: users who may create nodes, and
strangers who may not.
"""

import asyncio
import contextlib
import hashlib
import pathlib
import re
import sys
import tempfile
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "benches"))

import behind  # noqa: E402
from behind import OWN, USERS  # noqa: E402
from servers import SECRET, SERVICE, Gjallar  # noqa: E402

SCRIPTS = sorted((ROOT / "tests/xep0060").glob("*.scs"))
DOCUMENT = ROOT / "docs/CONFORMANCE.md"
STREAM, SCANSION = "jabber:component:accept", "https://matthewwild.co.uk/projects/scansion"
PUBSUB = "http://jabber.org/protocol/pubsub"
EVENT, DISCO, FORM = f"{PUBSUB}#event", "http://jabber.org/protocol/disco#", "{jabber:x:data}"
ANY = "{scansion:any}"
STRANGERS = "far.localhost"
CHOICE, REFUSED = "# choice", "# refused"
PATIENCE = 2


class Prosody(behind.Prosody):
    def prepare(self):
        super().prepare()
        with open(self.folder / "prosody.cfg.lua", "a") as config:
            config.write(f'\nComponent "{STRANGERS}"\n  component_secret = "{SECRET}"\n')


class Ejabberd(behind.Ejabberd):
    # The privilege decides which access models gjallar offers, and the scripts exclude models that need rosters.
    privilege = None

    def prepare(self):
        super().prepare()
        config = self.folder / "ejabberd.yml"
        text = config.read_text().replace("\n    hosts:\n", f'\n    hosts:\n      "{STRANGERS}":\n        password: "{SECRET}"\n')
        text = text.replace("access_createnode: all", "access_createnode: creators")
        config.write_text(f"acl:\n  creators:\n    server: {USERS}\naccess_rules:\n  creators:\n    allow: creators\n{text}")


# Name, server, and the JID of the tested service.
SERVICES = {"gjallar": (Ejabberd, SERVICE), "Prosody": (Prosody, OWN), "ejabberd": (Ejabberd, OWN)}


class Link:
    """Stream of a component: sends and receives stanzas."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.parser = ET.XMLPullParser(["start", "end"])
        self.depth, self.waiting = 0, []

    @classmethod
    async def open(cls, port, domain):
        link = cls(*await asyncio.open_connection("127.0.0.1", port))
        link.send(f"<stream:stream xmlns='{STREAM}' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}'>")
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

    async def take(self, is_it, patience=PATIENCE):
        """Returns the first stanza that matches, or None after a timeout."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    for stanza in self.waiting:
                        if is_it(stanza):
                            self.waiting.remove(stanza)
                            return stanza
                    await self.read()
        except TimeoutError:
            return None


def steps(script, service):
    """Returns each step of a script (its line, the comment that marks it, the client, the verb and the stanza), and
    the JIDs of the clients. The domains are those of `service` and of the component that stands for the clients."""
    def renamed(text):
        text = re.sub(r"@[a-z]+\.example", f"@{STRANGERS}", text.replace("@localhost", f"@{USERS}"))
        return text.replace(SERVICE, service)
    lines, jids, client, found = script.read_text().splitlines(), {}, None, []
    number, mark = 0, None
    while number < len(lines):
        line = lines[number].strip()
        number += 1
        if line.startswith("[Client] "):
            client = line.removeprefix("[Client] ")
        elif line.startswith("jid: "):
            jids[client] = renamed(line.removeprefix("jid: "))
        elif line in (CHOICE, REFUSED):
            mark = line
        elif line and line[0] not in "#-":
            client, verb = line.split(" ", 1)
            begin, stanza = number, []
            while number < len(lines) and (not lines[number] or lines[number][0] in "\t "):
                stanza.append(lines[number])
                number += 1
            found.append((begin, mark, client, verb, renamed("\n".join(stanza).strip())))
            mark = None
    return jids, found


def parsed(stanza):
    """Parses a stanza of a script, without fields that only gjallar has."""
    outer = ET.fromstring(f"<o xmlns='{STREAM}' xmlns:scansion='{SCANSION}'>{stanza}</o>")
    for form in outer.iter(f"{FORM}x"):
        for field in [field for field in form if field.get("var", "").startswith("x-gjallar#")]:
            form.remove(field)
    return outer[0]


def set_subid(sent, subids):
    """Gives a request the SubID of its subscription (§6.2.1, §6.3.2), if the service assigned one."""
    for name in ("unsubscribe", "options"):
        for element in sent.iter(f"{{{PUBSUB}}}{name}"):
            element.attrib.pop("subid", None)
            subid = subids.get((element.get("node"), element.get("jid")))
            if subid:
                element.set("subid", subid)


def is_demanded(stanza):
    """Returns whether the XEP requires services to send a stanza. §8.9.4 permits notices of affiliations, §6.1.7 last
    items, §8.6 forms for owners. Other protocols of a service are outside the XEP."""
    if stanza.tag.endswith("}message"):
        event = stanza.find(f"{{{EVENT}}}event")
        return event is not None and len(event) > 0 and stanza.find("{urn:xmpp:delay}delay") is None
    return all(child.tag[1:].startswith((PUBSUB, DISCO)) for child in stanza if not child.tag.endswith("}error"))


async def play(script, port, service):
    """Plays a script; returns the number of steps that the XEP demands, and the steps with another result."""
    jids, all_steps = steps(script, service)
    links, number, others = {domain: await Link.open(port, domain) for domain in (USERS, STRANGERS)}, 0, []
    # Submitted fields, requests outside the XEP, and whether the newest item was sent by a publication: an item
    # after a subscription is the last one.
    submitted, foreign, is_published = {"FORM_TYPE"}, set(), True
    # Skipped requests, requests for which any error is accepted, optional events, and SubIDs by node and JID.
    left_out, refused, permitted, subids = set(), set(), [], {}
    for index, (line, mark, client, verb, stanza) in enumerate(all_steps):
        jid = jids[client]
        bare = jid.split("/")[0]
        link = links[bare.split("@")[1]]

        def is_for_client(other, to=(jid, bare)):
            return other.get("to") in to
        if mark == CHOICE:
            if verb == "sends:":
                left_out.add((client, parsed(stanza).get("id")))
            elif verb == "receives:":
                permitted.append((client, parsed(stanza)))
            continue
        assert not mark or verb == "sends:", f"{script.stem}:{line}: only a request is refused"
        if verb == "sends:":
            sent = parsed(stanza)
            if mark:
                refused.add((client, sent.get("id")))
            set_subid(sent, subids)
            submitted.update(field.get("var") for form in sent.iter(f"{FORM}x") for field in form)
            if sent.find(f".//{{{PUBSUB}}}subscribe") is not None or sent.find(f".//{{{PUBSUB}}}publish") is not None:
                is_published = sent.find(f".//{{{PUBSUB}}}publish") is not None
            if not is_demanded(sent) and not sent.tag.endswith("}message"):
                foreign.add((client, sent.get("id")))
            sent.set("from", jid)
            sent.set("to", sent.get("to", service))
            link.send(ET.tostring(sent, encoding="unicode"))
            continue
        if verb == "receives:":
            expected = parsed(stanza)
            if (client, expected.get("id")) in left_out:
                continue
            if (client, expected.get("id")) in refused:
                for error in expected:
                    error.clear()
            demanded = is_demanded(expected) and (client, expected.get("id")) not in foreign
            demanded &= is_published or expected.find(f".//{{{EVENT}}}items") is None

            def is_similar(other):
                return (is_for_client(other) and other.tag == expected.tag
                        and expected.get("id") in (None, ANY, other.get("id"))
                        and (other.find(f"{{{EVENT}}}event") is None) == (expected.find(f"{{{EVENT}}}event") is None))
            got = await link.take(lambda other: is_similar(other) and not difference(expected, other, submitted),
                                  PATIENCE if demanded else PATIENCE / 4)
            later = [parsed(stanza) for _, mark, other, verb, stanza in all_steps[index + 1:]
                     if other == client and verb == "receives:" and mark != CHOICE]

            def is_instead(other):
                """Returns whether a stanza replaces the expected one, because no later step expects it."""
                return is_similar(other) and all(difference(step, other, submitted) for step in later)
            similar = next(filter(is_instead, link.waiting), None) if got is None and demanded else None
            reason = None
            if similar is not None:
                link.waiting.remove(similar)
                reason = difference(expected, similar, submitted)
            elif got is None:
                reason = "no stanza arrives"
            for came in (stanza for stanza in (got, similar) if stanza is not None):
                for subscription in came.iter(f"{{{PUBSUB}}}subscription"):
                    subids[subscription.get("node"), subscription.get("jid")] = subscription.get("subid")
        else:
            demanded = True
            link.send(f"<iq type='get' id='probe' from='{bare}/probe' to='{service}'>"
                      f"<query xmlns='{DISCO}info'/></iq>")
            await link.take(lambda other: other.get("id") == "probe")
            own = [event for whose, event in permitted if whose == client]
            is_wrong = any(
                is_for_client(other) and is_demanded(other) and all(difference(event, other, submitted) for event in own)
                for other in link.waiting)
            reason = "an unexpected stanza arrives" if is_wrong else None
        if demanded:
            number += 1
            if reason:
                others.append((line, reason))
    for link in links.values():
        link.writer.close()
    return number, others


# Elements that the XEP leaves to the service: texts for people, type and repeated content of an error, ids and
# storage hints of messages, the page of a list, and elements in the reply to a creation.
FREE = {"text", "stanza-id", "no-store", "delay", "set"}
FREE_ATTRIBUTES = {"message": {"id", "type"}, "error": {"type"}, "identity": {"name"}}
# Lists whose entries must match completely. Elsewhere unknown elements are ignored.
COMPLETE = {"items", "affiliations", "subscriptions"}
# Features that a service of XEP-0060 has to announce.
FEATURES = {PUBSUB, f"{PUBSUB}#publish"}


def difference(expected, got, submitted):
    """Returns the difference to the demanded stanza, or None."""
    if expected.tag != got.tag:
        return f"{short(got)} is not {short(expected)}"
    name = expected.tag.split("}")[-1]
    for attribute, value in expected.items():
        if attribute.startswith(f"{{{SCANSION}}}") or attribute in FREE_ATTRIBUTES.get(name, ()):
            continue
        if attribute == "publisher" and got.get(attribute) is None:
            continue
        if got.get(attribute) is None or value not in (ANY, got.get(attribute)):
            return f"`{attribute}` of {short(got)} is {got.get(attribute)!r}, not {value!r}"
    if name == "item" and expected.get("publisher") is None and got.get("publisher") is not None:
        return "`item` discloses its publisher"
    text = (expected.text or "").strip()
    if text != ANY and normal(text) != normal((got.text or "").strip()):
        return f"{short(got)} has another text"
    there = list(got)
    for child in expected:
        is_free = child.tag.split("}")[-1] in FREE
        # Values of fields that were not submitted are the service's choice.
        is_free |= child.tag == f"{FORM}field" and child.get("var") not in submitted
        is_feature = child.tag == f"{{{DISCO}info}}feature"
        is_free |= is_feature and (child.get("var") not in FEATURES or expected.get("node") is not None)
        is_free |= child.find(f"{{{PUBSUB}}}create") is not None
        # "MAY include" (§6.2.2).
        is_free |= child.find(f"{{{PUBSUB}}}subscription[@subscription='none']") is not None
        if is_free:
            there = [other for other in there if other.tag != child.tag or other.get("var") != child.get("var")]
            continue
        fitting = next((other for other in there if difference(child, other, submitted) is None), None)
        if fitting is None:
            var = child.get("var")
            similar = next((other for other in there if other.tag == child.tag and other.get("var") == var), None)
            named = short(child) + (f" {var}" if var else "")
            return f"{short(got)} has no {named}" if similar is None else difference(child, similar, submitted)
        there.remove(fitting)
    return f"{short(got)} has {short(there[0])} too" if there and name in COMPLETE else None


def normal(text):
    """Normalizes the two spellings of booleans."""
    return {"true": "1", "false": "0"}.get(text, text)


def short(element):
    return f"`{element.tag.split('}')[-1]}`"


async def compared(script, name):
    """Returns the number of steps that the XEP demands of a service, and the steps with another result."""
    server, service = SERVICES[name]
    with server([]) as running, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if service == SERVICE:
            stack.enter_context(Gjallar(running.component_port, folder, creators=USERS, admins=f"admin@{USERS}",
                                        # Discovery of multicast would query the components that stand for the
                                        # clients.
                                        link_multicast="off"))
        return await play(script, running.component_port, service)


async def main():
    rows, notes, services = [], {}, list(SERVICES)
    for script in SCRIPTS:
        cells = []
        for name in services:
            number, others = await compared(script, name)
            cells.append(f"{number - len(others)} of {number}")
            for line, reason in others:
                notes.setdefault((services.index(name), reason), []).append(f"{script.stem}:{line}")
            print(script.stem, name, cells[-1], flush=True)
        rows.append(f"| {script.stem} | " + " | ".join(cells) + " |")
    listed = sorted(notes.items(), key=lambda note: (note[0][0], -len(note[1]), note[0][1]))
    table = ["", "| script | " + " | ".join(services) + " |", "|---|" + "---:|" * len(services), *rows, "",
             "| server | difference | script and line |", "|---|---|---|",
             *(f"| {services[index]} | {reason} | {', '.join(places)} |" for (index, reason), places in listed), ""]
    text, found = re.subn(r"(?s)(<!-- compared -->).*?(<!-- end compared -->)",
                          lambda match: match[1] + "\n" + "\n".join(table) + "\n" + match[2], DOCUMENT.read_text())
    assert found == 1
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
