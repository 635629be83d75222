"""A bot in slixmpp: publishes each line of standard input as an item of a node.

    BOT_PASSWORD=... python3 examples/bot.py bot@example.org pubsub.example.org news < titles
"""

import asyncio
import os
import sys
import xml.etree.ElementTree as ET

import slixmpp

ATOM = "{http://www.w3.org/2005/Atom}"


def entry(title):
    """A payload: any element with a namespace."""
    element = ET.Element(f"{ATOM}entry")
    ET.SubElement(element, f"{ATOM}title").text = title
    return element


class Bot(slixmpp.ClientXMPP):
    def __init__(self, jid, password, service, node, titles):
        super().__init__(jid, password)
        self.service, self.node, self.titles = service, node, titles
        self.register_plugin("xep_0060")
        self.add_event_handler("session_start", self.publish)

    async def publish(self, _):
        try:
            for title in self.titles:
                # A reply means that the item is on disk. Without an id the service chooses one.
                reply = await self.plugin["xep_0060"].publish(self.service, self.node, payload=entry(title))
                print("published", reply["pubsub"]["publish"]["item"]["id"], flush=True)
        finally:
            await self.disconnect()


async def main():
    jid, service, node = sys.argv[1:]
    bot = Bot(jid, os.environ["BOT_PASSWORD"], service, node, sys.stdin.read().splitlines())
    bot.connect()
    await bot.disconnected


if __name__ == "__main__":
    asyncio.run(main())
