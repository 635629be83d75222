"""Requests of Movim: communities, comments, stories, and Spaces with pending requests.

The requests are those that movim/movim bf786260 builds:
src/Moxl/Stanza/{Pubsub,PubsubAtom,Space,Bookmark2,AdHoc}.php, sent and read by
src/Moxl/Xec/Action/{Pubsub,Microblog,Space} and src/Moxl/Xec/Payload/Post.php.
"""

import asyncio
import uuid
import xml.etree.ElementTree as ET

import pytest
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from clients import EVENT, IqError, PUBSUB, RSM, TIMEOUT, clients, item_ids, request
from conftest import with_loop
from servers import SERVICE, Gjallar, shipped_policies

OWNER = "{http://jabber.org/protocol/pubsub#owner}"
DATA = "{jabber:x:data}"
ATOM = "{http://www.w3.org/2005/Atom}"
BOOKMARK = "{urn:xmpp:bookmarks:1}"
COMMAND = "{http://jabber.org/protocol/commands}"
CONFIG = "http://jabber.org/protocol/pubsub#node_config"
OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"
COMMENTS = "urn:xmpp:microblog:0:comments"
STORIES = "urn:xmpp:pubsub-social-feed:stories:0"
PAGE = 12
COMMUNITY = {
    "persist_items": "true", "deliver_payloads": "false", "send_last_published_item": "on_sub", "access_model": "open",
    "max_items": "max"}
POST = {"persist_items": "true", "max_items": "max", "itemreply": "publisher", "notify_sub": "true"}
STORY = dict(POST, notify_retract="true", access_model="presence", item_expire="86400")
THREAD = {
    "persist_items": "true", "max_items": "max", "send_last_published_item": "on_sub", "deliver_payloads": "false",
    "access_model": "open", "publish_model": "open", "itemreply": "publisher", "notify_retract": "true"}
SPACE = {
    "type": "urn:xmpp:spaces:0", "notify_retract": "true", "persist_items": "true", "purge_offline": "false",
    "notify_sub": "true", "notify_config": "true", "notify_delete": "true", "max_items": "max",
    "publish_model": "publishers", "access_model": "authorize", "deliver_payloads": "true"}

pytestmark = pytest.mark.parametrize("server", ["ejabberd", "prosody"], indirect=True)


def submitted(values, form_type=None):
    """Returns a form as Movim submits it: without types except that of FORM_TYPE, which its Spaces leave out of
    publish-options."""
    form = ET.Element(f"{DATA}x", type="submit")
    if form_type:
        field = ET.SubElement(form, f"{DATA}field", var="FORM_TYPE", type="hidden")
        ET.SubElement(field, f"{DATA}value").text = form_type
    for name, value in values.items():
        field = ET.SubElement(form, f"{DATA}field", var=f"pubsub#{name}")
        ET.SubElement(field, f"{DATA}value").text = value
    return form


def holding(tag, *children, **attributes):
    element = ET.Element(tag, attributes)
    element.extend(children)
    return element


def create(client, node, values):
    return request(client, ET.Element(f"{PUBSUB}create", node=node),
                   holding(f"{PUBSUB}configure", submitted(values, CONFIG)))


def publish(client, node, id, payload, options=None):
    content = [holding(f"{PUBSUB}publish", holding(f"{PUBSUB}item", payload, id=id), node=node)]
    if options is not None:
        content.append(holding(f"{PUBSUB}publish-options", options))
    return request(client, *content)


def items(client, node, count, **next_to):
    """Returns the newest items, or a page next to an edge."""
    wanted = ET.Element(f"{PUBSUB}items", node=node)
    if not next_to:
        wanted.set("max_items", str(count))
        return request(client, wanted, kind="get")
    page = ET.Element(f"{RSM}set")
    for name, value in {**next_to, "max": str(count)}.items():
        ET.SubElement(page, f"{RSM}{name}").text = value
    return request(client, page, wanted, kind="get")


def retract(client, node, id):
    return request(client, holding(f"{PUBSUB}retract", ET.Element(f"{PUBSUB}item", id=id), node=node, notify="true"))


def delete(client, node):
    return request(client, ET.Element(f"{OWNER}delete", node=node), namespace=OWNER)


def subscribe(client, node):
    return request(client, ET.Element(f"{PUBSUB}subscribe", node=node, jid=client.jid))


def post(client, id, title):
    """Returns an Atom entry with the children that Movim writes."""
    entry = ET.Element(f"{ATOM}entry")
    ET.SubElement(entry, f"{ATOM}id").text = id
    ET.SubElement(entry, f"{ATOM}title").text = title
    author = ET.SubElement(entry, f"{ATOM}author")
    ET.SubElement(author, f"{ATOM}uri").text = f"xmpp:{client.jid}"
    ET.SubElement(entry, f"{ATOM}link", rel="replies", title="comments", href=f"xmpp:{SERVICE}?;node={COMMENTS}/{id}")
    ET.SubElement(entry, f"{ATOM}published").text = "2026-01-01T00:00:00+00:00"
    ET.SubElement(entry, f"{ATOM}updated").text = "2026-01-01T00:00:00+00:00"
    return entry


def ids(answer):
    return [item.get("id") for item in answer.xml.iter(f"{PUBSUB}item")]


def edge(answer, name):
    """Returns the count, or the first or last UID of a page, from which Movim requests the next page."""
    return answer.xml.findtext(f".//{RSM}{name}")


async def refusal(coroutine):
    with pytest.raises(IqError) as caught:
        await coroutine
    named = [child.tag.split("}")[1] for child in caught.value.iq["error"].xml]
    return tuple(name for name in named if name != "text")


@with_loop
async def test_community_has_its_older_posts(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        # Movim checks whether the user may create communities.
        for user in (owner, alice, owner):
            await create(user, "test_node", dict(COMMUNITY, title="Test"))
            await delete(user, "test_node")
        await create(owner, "community", dict(COMMUNITY, title="A community"))
        await subscribe(alice, "community")
        names = [f"post-{number:02}" for number in range(32)]
        # The community does not name publishers; Movim publishes again without options.
        refused = await refusal(publish(owner, "community", names[0], post(owner, names[0], "x"), submitted(POST, OPTIONS)))
        assert refused == ("conflict", "precondition-not-met")
        for name in names:
            await publish(owner, "community", name, post(owner, name, "A post"))
        assert [item_ids(event) for event in await alice.until(len(names))] == [[name] for name in names]
        # Events have no payload; each post is retrieved by its id.
        assert all(len(item) == 0 for event in alice.events for item in event.iter(f"{EVENT}item"))
        wanted = holding(f"{PUBSUB}items", ET.Element(f"{PUBSUB}item", id=names[7]), node="community")
        assert ids(await request(alice, wanted, kind="get")) == [names[7]]

        newest = await items(alice, "community", PAGE)
        assert (ids(newest), edge(newest, "count")) == (names[20:], "32")
        # "Older" names the last item of the set, "newer" the first; after "newer" they are exchanged.
        older = await items(alice, "community", PAGE, before=edge(newest, "last"))
        assert (ids(older), edge(older, "count")) == (names[8:20], "32")
        oldest = await items(alice, "community", PAGE, before=edge(older, "last"))
        assert (ids(oldest), edge(oldest, "count")) == (names[:8], "32")
        newer = await items(alice, "community", PAGE, after=edge(oldest, "first"))
        assert ids(newer) == names[8:20]
        assert ids(await items(alice, "community", PAGE, before=edge(newer, "first"))) == names[:8]


@with_loop
async def test_post_has_comments_and_likes(server, gjallar):
    async with clients(server.client_port, "owner", "alice", "bob") as (owner, alice, bob):
        thread = f"{COMMENTS}/post"
        await create(owner, thread, THREAD)
        await publish(alice, thread, "hers", post(alice, "hers", "A comment"))
        await publish(bob, thread, "his", post(bob, "his", "♥"))
        all_of_them = await items(owner, thread, 500)
        assert [(item.get("id"), item.get("publisher")) for item in all_of_them.xml.iter(f"{PUBSUB}item")] == [
            ("hers", alice.jid), ("his", bob.jid)]
        assert await refusal(publish(bob, thread, "hers", post(bob, "hers", "Other words"))) == ("forbidden",)
        assert await refusal(retract(bob, thread, "hers")) == ("forbidden",)
        await retract(bob, thread, "his")
        await retract(owner, thread, "hers")
        assert ids(await items(alice, thread, 500)) == []


@with_loop
async def test_first_commenter_does_not_lock_out_others(server, tmp_path):
    """Bots link to comments without creating a node for them."""
    config = shipped_policies(tmp_path, "urn:xmpp:microblog:0:comments/")
    with Gjallar(server.component_port, tmp_path, config=config):
        async with clients(server.client_port, "alice", "bob") as (alice, bob):
            thread = f"{COMMENTS}/of-a-bot"
            await publish(alice, thread, "hers", post(alice, "hers", "A comment"))
            await publish(bob, thread, "his", post(bob, "his", "♥"))
            all_of_them = await items(bob, thread, 500)
            assert [(item.get("id"), item.get("publisher")) for item in all_of_them.xml.iter(f"{PUBSUB}item")] == [
                ("hers", alice.jid), ("his", bob.jid)]
            assert await refusal(retract(bob, thread, "hers")) == ("forbidden",)


@with_loop
async def test_story_is_visible_to_contacts_only(server, gjallar):
    async with clients(server.client_port, "owner", "alice", "mallory") as (owner, alice, mallory):
        await befriend(owner, alice)
        await publish(owner, STORIES, "story", post(owner, "story", "A story"), submitted(STORY, OPTIONS))
        assert ids(await items(alice, STORIES, 10)) == ["story"]
        assert await refusal(items(mallory, STORIES, 10)) == ("not-authorized", "presence-subscription-required")
        await retract(owner, STORIES, "story")
        assert ids(await items(alice, STORIES, 10)) == []


async def befriend(owner, friend):
    """Subscribes the friend to the owner's presence."""
    await owner.xmpp.get_roster()
    owner.xmpp.auto_authorize = True
    friend.xmpp.send_presence_subscription(owner.jid)
    async with asyncio.timeout(TIMEOUT):
        while friend.xmpp.client_roster[owner.jid]["subscription"] not in ("to", "both"):
            await friend.xmpp.get_roster()


@with_loop
async def test_space_has_rooms_and_pending_subscribers(server, gjallar):
    async with clients(server.client_port, "owner", "alice", "bob") as (owner, alice, bob):
        forms = []
        asked = asyncio.Event()

        def on_message(message):
            values = {field.get("var"): field.findtext(f"{DATA}value") for field in message.xml.iter(f"{DATA}field")}
            forms.append((values["pubsub#node"], values["pubsub#subscriber_jid"]))
            asked.set()
        owner.xmpp.register_handler(Callback("forms", MatchXPath(f"{{jabber:client}}message/{DATA}x"), on_message))

        async def asked_about(number):
            async with asyncio.timeout(TIMEOUT):
                while len(forms) < number:
                    asked.clear()
                    await asked.wait()
            return sorted(forms)

        await create(owner, "space", dict(SPACE, title="A Space"))
        for client in (alice, bob):
            answer = await subscribe(client, "space")
            assert answer.xml.find(f".//{PUBSUB}subscription").get("subscription") == "pending"
        waiting = [("space", alice.jid), ("space", bob.jid)]
        assert await asked_about(2) == waiting
        forms.clear()

        # The client chooses the session id.
        session = str(uuid.uuid4())
        iq = owner.xmpp.make_iq_set(ito=SERVICE)
        iq.xml.append(holding(
            f"{COMMAND}command", submitted({"node": "space"}), sessionid=session, action="execute",
            node="http://jabber.org/protocol/pubsub#get-pending"))
        command = (await iq.send(timeout=TIMEOUT)).xml.find(f"{COMMAND}command")
        assert (command.get("status"), command.get("sessionid")) == ("completed", session)
        assert await asked_about(2) == waiting
        for jid, state in ((alice.jid, "subscribed"), (bob.jid, "none")):
            await request(
                owner, holding(f"{OWNER}subscriptions", ET.Element(f"{OWNER}subscription", jid=jid, subscription=state),
                               node="space"), namespace=OWNER)

        for number, name in enumerate(("hall", "kitchen")):
            room = holding(f"{BOOKMARK}conference", name=name, autojoin="true")
            ET.SubElement(room, f"{BOOKMARK}nick").text = "nick"
            await publish(owner, "space", f"{name}@rooms.localhost", room, submitted(SPACE) if number else None)
        rooms = ["hall@rooms.localhost", "kitchen@rooms.localhost"]
        assert ids(await items(alice, "space", 100)) == rooms
        assert await refusal(items(bob, "space", 100)) == ("not-authorized", "not-subscribed")
        await retract(owner, "space", rooms[0])
        await delete(owner, "space")
        async with asyncio.timeout(TIMEOUT):
            while not any(event.find(f".//{EVENT}delete") is not None for event in alice.events):
                alice.came.clear()
                await alice.came.wait()
        told = [child.get("id") for event in alice.events for child in (event.find(f".//{EVENT}items") or ())]
        assert told == [*rooms, rooms[0]]
