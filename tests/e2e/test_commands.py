"""Ad-hoc commands in a client that people use: profanity, in a terminal."""

from clients import clients
from conftest import with_loop
from servers import DOMAIN, SERVICE
from terminal import NODE, Terminal, configure


@with_loop
async def test_profanity_configures_a_node(server, gjallar, tmp_path):
    gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
    with Terminal("profanity", tmp_path) as terminal:
        configure(terminal, server)
    # Another client sees it.
    async with clients(server.client_port, "owner") as (owner,):
        config = await owner.pubsub.get_node_config(SERVICE, NODE)
        values = config["pubsub_owner"]["configure"]["form"].get_values()
        assert values["pubsub#title"] == "Princely Musings"
        assert values["pubsub#access_model"] == "open"
