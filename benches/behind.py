"""Servers of the end-to-end tests with additions for benches: components that stand for users, and the server's own
pubsub module."""

import servers

USERS, OWN = "users.localhost", "own.localhost"


class Prosody(servers.Prosody):
    def prepare(self):
        super().prepare()
        config = self.folder / "prosody.cfg.lua"
        config.write_text(config.read_text() + f"""
Component "{USERS}"
  component_secret = "{servers.SECRET}"
Component "{OWN}" "pubsub"
  admins = {{ "owner@{USERS}" }}
""")


class Ejabberd(servers.Ejabberd):
    def prepare(self):
        super().prepare()
        config = self.folder / "ejabberd.yml"
        text = config.read_text()
        users = f'\n      "{USERS}":\n        password: "{servers.SECRET}"'
        text = text.replace("\n    hosts:\n", "\n    hosts:" + users + "\n", 1)
        own = f"\nmodules:\n  mod_pubsub:\n    host: {OWN}\n    access_createnode: all\n    plugins: [flat]"
        config.write_text(text.replace("\nmodules:", own, 1))


class Multicast(Ejabberd):
    """ejabberd with mod_multicast in its default configuration: 20 recipients per stanza."""

    multicast = True


class RaisedMulticast(Ejabberd):
    CONFIG = Ejabberd.CONFIG + "  mod_multicast:\n    limits:\n      remote:\n        message: 500\n"


BEHIND = {"Prosody": Prosody, "ejabberd": Ejabberd}
