"""Libervia's command line: a blog with comments, reactions to a post, and a list."""

import json

import pytest

from libervia import Libervia
from servers import SERVICE, Gjallar, shipped_policies

pytestmark = [pytest.mark.parametrize("server", ["prosody"], indirect=True), pytest.mark.one_release]
# The fields of a list entry.
SCHEMA = """<x xmlns="jabber:x:data" type="form">
  <field var="FORM_TYPE" type="hidden"><value>org.salut-a-toi.tickets:0</value></field>
  <field var="title" type="text-single"/>
  <field var="comments_uri" type="text-single"/>
</x>"""


def entries(said):
    """Returns the entries of a blog, as printed with `-O json`."""
    return json.loads(said)[0]


def test_blog_has_comments_reactions_and_a_list(server, gjallar, tmp_path):
    with Libervia(tmp_path) as libervia:
        for user in ("alice", "bob"):
            libervia.connect(user, server.client_port)
        blog = ["-s", SERVICE, "-n", "blog"]
        # Libervia copies the access model of a blog to its comments, so the blog has to exist.
        libervia.run("pubsub", "node", "create", *blog, "-p", "alice")
        libervia.run("blog", "set", *blog, "-i", "first", "-T", "First", "-C", "-p", "alice", text="A post")
        post, = entries(libervia.run("blog", "get", *blog, "-O", "json", "-p", "bob"))
        assert (post["id"], post["title"], post["content"]) == ("first", "First", "A post")
        thread = ["-s", post["comments"][0]["service"], "-n", post["comments"][0]["node"]]
        libervia.run("blog", "set", *thread, "-p", "bob", text="A comment")
        comment, = entries(libervia.run("blog", "get", *thread, "-O", "json", "-p", "alice"))
        assert (comment["content"], comment["author_jid"]) == ("A comment", "bob@localhost")

        for user in ("alice", "bob"):
            libervia.run("blog", "attachments", "set", *blog, "-i", "first", "-r", "♥", "-p", user)
        reactions = libervia.run("blog", "attachments", "get", *blog, "-i", "first", "-p", "alice")
        assert [line for line in reactions.splitlines() if line.startswith("from")] == [
            "from: alice@localhost", "from: bob@localhost"]

        libervia.run("pubsub", "node", "schema", "set", "-s", SERVICE, "-n", "todo", "-p", "alice", SCHEMA)
        todo = ["-s", SERVICE, "-n", "fdp/submitted/todo", "-p"]
        libervia.run("list", "set", *todo, "alice", "-f", "title", "Buy milk")
        assert "title Buy milk" in libervia.run("list", "get", *todo, "bob").splitlines()


def affiliations(gjallar, node):
    """Returns the affiliations of a node, without the heading."""
    return [line.split() for line in gjallar.run("affiliation", "list", node).splitlines()[1:]]


def test_reactions_belong_to_the_author_of_the_post(server, tmp_path):
    """Libervia copies the blog's configuration, whose numbers exceed the limits of the policy for reactions."""
    config = shipped_policies(tmp_path, "urn:")
    with Gjallar(server.component_port, tmp_path, config=config) as gjallar, Libervia(tmp_path) as libervia:
        for user in ("alice", "bob"):
            libervia.connect(user, server.client_port)
        blog = ["-s", SERVICE, "-n", "blog"]
        libervia.run("pubsub", "node", "create", *blog, "-p", "alice")
        libervia.run("blog", "set", *blog, "-i", "first", "-C", "-p", "alice", text="A post")
        node = f"urn:xmpp:pubsub-attachments:1/xmpp:{SERVICE}?;node=blog;item=first"
        assert affiliations(gjallar, node) == [["alice@localhost", "owner"]]
        config = json.loads(gjallar.run("node", "show", node, "--json"))["configuration"]
        copied = ("max_payload_size", "publish_model", "itemreply", "publish_node_full")
        assert [config[f"pubsub#{field}"] for field in copied] == ["16384", "open", "none", "discard-oldest"]
        gjallar.run("node", "configure", node, "itemreply=publisher", "publish_node_full=reject")
        libervia.run("blog", "attachments", "set", *blog, "-i", "first", "-r", "♥", "-p", "bob")
        assert affiliations(gjallar, node) == [["alice@localhost", "owner"]]
        reactions = libervia.run("blog", "attachments", "get", *blog, "-i", "first", "-p", "alice")
        assert "from: bob@localhost" in reactions.splitlines()
