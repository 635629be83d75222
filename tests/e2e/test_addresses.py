"""Addresses as stamped by servers; some keep the spelling that the user typed at login."""

import base64
import socket
import xml.etree.ElementTree as ET

import pytest

from servers import DOMAIN, PASSWORD, SERVERS, SERVICE, Gjallar

# With an invisible letter that Stringprep preserves: the account of another user.
FILLER = "owner\u1160"
USERS = ["owner", FILLER, "mallory", "strasse", "jessica"]
PUBSUB = "http://jabber.org/protocol/pubsub"
EVENT = f"{{{PUBSUB}#event}}"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
CLIENT = "{jabber:client}"
PUBLISH = "<publish node='n'><item id='{}'><x xmlns='urn:x'/></item></publish>"
# Spellings of mallory and of the domain at login.
SPELLINGS = [("mallory", DOMAIN), ("MALLORY", DOMAIN), ("mallory", "LOCALHOST"), ("MaLLory", "LocalHost"), ("ｍallory", DOMAIN)]


class Raw:
    """Client that logs in with a given spelling."""

    def __init__(self, port, user, domain=DOMAIN, resource="r"):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.domain, self.number = domain, 0
        self.open()
        self.next("features")
        secret = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        self.next("success")
        self.open()
        self.next("features")
        bind = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>"
        self.full = "".join(self.ask("set", bind, to=None).itertext()).strip()
        self.bare = self.full.split("/")[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def open(self):
        self.parser, self.stanzas = ET.XMLPullParser(("start", "end")), []
        self.depth = 0
        self.send(f"<?xml version='1.0'?><stream:stream to='{self.domain}' version='1.0' xmlns='jabber:client'"
                  " xmlns:stream='http://etherx.jabber.org/streams'>")

    def send(self, text):
        self.socket.sendall(text.encode())

    def next(self, name, **attributes):
        """Returns the next stanza of this name with these attributes; skips others."""
        while True:
            while self.stanzas:
                stanza = self.stanzas.pop(0)
                named = stanza.tag.rsplit("}", 1)[-1] == name
                if named and all(stanza.get(key) == value for key, value in attributes.items()):
                    return stanza
            self.parser.feed(self.socket.recv(65536))
            for event, element in self.parser.read_events():
                self.depth += 1 if event == "start" else -1
                if event == "end" and self.depth == 1:
                    self.stanzas.append(element)

    def ask(self, kind, content, to=SERVICE):
        self.number += 1
        address = f" to='{to}'" if to else ""
        self.send(f"<iq type='{kind}' id='{self.number}'{address}>{content}</iq>")
        return self.next("iq", id=str(self.number))

    def pubsub(self, kind, content, namespace=PUBSUB):
        """Sends a request; returns `result`, or the condition of the error."""
        answer = self.ask(kind, f"<pubsub xmlns='{namespace}'>{content}</pubsub>")
        error = answer.find(f"{CLIENT}error")
        if error is None:
            return answer.get("type")
        return next(child.tag.removeprefix(STANZAS) for child in error)

    def owner(self, kind, content):
        return self.pubsub(kind, content, f"{PUBSUB}#owner")

    def create(self):
        fields = "".join(
            f"<field var='{var}'><value>{value}</value></field>"
            for var, value in (("FORM_TYPE", f"{PUBSUB}#node_config"), ("pubsub#publish_model", "open")))
        form = f"<x xmlns='jabber:x:data' type='submit'>{fields}</x>"
        assert self.pubsub("set", f"<create node='n'/><configure>{form}</configure>") == "result"

    def ban(self, jid):
        entry = f"<affiliation jid='{jid}' affiliation='outcast'/>"
        return self.owner("set", f"<affiliations node='n'>{entry}</affiliations>")


@pytest.fixture(scope="module", params=["prosody", "ejabberd"])
def port(request, tmp_path_factory):
    """Port for clients of a server with the service."""
    with SERVERS[request.param](USERS) as server:
        with Gjallar(server.component_port, tmp_path_factory.mktemp("gjallar")):
            yield server.client_port


@pytest.fixture
def owner(port):
    """Owner of the node `n`, to which all entities may publish."""
    with Raw(port, "owner") as owner:
        owner.create()
        yield owner
        assert owner.owner("set", "<delete node='n'/>") == "result"


def rights(client):
    """Returns the answers to a subscription, a publish and a retrieval by a client."""
    subscribe = f"<subscribe node='n' jid='{client.bare}'/>"
    return [client.pubsub("set", subscribe), client.pubsub("set", PUBLISH.format("x")), client.pubsub("get", "<items node='n'/>")]


def test_outcast_is_forbidden_in_every_spelling_at_login(port, owner):
    with Raw(port, "MALLORY") as mallory:
        assert rights(mallory) == ["result"] * 3
    assert owner.ban("mallory@localhost") == "result"
    for user, domain in SPELLINGS:
        with Raw(port, user, domain) as mallory:
            assert rights(mallory) == ["forbidden"] * 3, mallory.full


def test_owner_keeps_its_rights_in_every_spelling_at_login(port, owner):
    for user, domain in [("OWNER", DOMAIN), ("oWner", "LocalHost"), ("ｏwner", DOMAIN)]:
        with Raw(port, user, domain, resource="other") as same:
            assert same.owner("get", "<configure node='n'/>") == "result", same.full
            same.send("<presence/>")
            same.next("presence")
            # Most clients write their address in lower case.
            assert same.pubsub("set", "<subscribe node='n' jid='owner@localhost/other'/>") == "result", same.full
            assert owner.pubsub("set", PUBLISH.format(user)) == "result"
            # The last item may arrive before.
            while same.next("message").find(f".//{EVENT}item").get("id") != user:
                pass
            assert same.pubsub("set", f"<unsubscribe node='n' jid='{same.full}'/>") == "result"


def test_account_with_a_hangul_filler_is_another_entity(port, owner):
    for user in (FILLER, "owner\u3164"):
        with Raw(port, user) as other:
            assert other.owner("get", "<configure node='n'/>") == "forbidden", ascii(other.full)
            assert "affiliation=" not in ET.tostring(other.ask("get", f"<pubsub xmlns='{PUBSUB}'><affiliations/></pubsub>"), "unicode")


def test_ban_holds_for_addresses_that_the_server_folds(port, owner):
    assert owner.ban("strasse@localhost") == "result"
    with Raw(port, "straße") as outcast:
        assert rights(outcast) == ["forbidden"] * 3, outcast.full


def test_owner_cannot_subscribe_an_address_that_the_server_folds(owner):
    entry = "<subscription jid='{}' subscription='subscribed'/>"
    for jid, answer in [("jeßica@localhost", "not-acceptable"), ("jessica@localhost", "result")]:
        content = f"<subscriptions node='n'>{entry.format(jid)}</subscriptions>"
        assert owner.owner("set", content) == answer


def test_service_replies_to_its_address_in_capitals(owner):
    answer = owner.ask("get", "<ping xmlns='urn:xmpp:ping'/>", to="PubSub.LocalHost")
    assert answer.get("type") == "result"
