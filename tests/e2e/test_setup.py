"""Setup: the packages that tests/e2e/setup.sh installs exist in the Debian release under test, and Prosody and
ejabberd accept the files in config/."""

import signal
import subprocess
import urllib.request

import pytest
from servers import HERE, RELEASE, ROOT, SECRET, SERVICE, Ejabberd, Fanout, Gjallar, Prosody, in_root, is_open, wait_for
from test_doctor import examine


def test_every_setup_package_can_be_installed():
    packages = [name for file in ("packages.txt", "server-packages.txt") for name in (HERE / file).read_text().split()]
    if not (ROOT / "usr/bin/npm").exists():
        packages += ["nodejs", "npm"]
    done = subprocess.run(in_root("apt-get", "install", "--simulate", "--no-install-recommends", *packages),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Debian {RELEASE}: {done.stderr}"


@pytest.mark.parametrize("kind", [Prosody, Fanout])
def test_prosody_accepts_the_shipped_configuration(kind):
    with kind([]) as prosody:
        def check():
            config = str(prosody.folder / "prosody.cfg.lua")
            done = subprocess.run(in_root("/usr/bin/prosodyctl", "--config", config, "check", "config"),
                                  capture_output=True, text=True, check=False, cwd=prosody.folder)
            return done.returncode, done.stdout

        code, said = check()
        assert code == 0 and "All checks passed" in said, said
        # A check for options at the wrong level, such as a global option below a host.
        with open(prosody.folder / "prosody.cfg.lua", "a") as config:
            config.write("component_stanza_size_limit = 2097152\n")
        code, said = check()
        assert code != 0 and "component_stanza_size_limit" in said, said


class OwnPubsub(Ejabberd):
    """ejabberd with its own mod_pubsub, configured as by Debian and with more options."""

    options = ""

    def more_modules(self):
        return super().more_modules() + f"  mod_caps: {{}}\n  mod_pubsub:\n{self.options}    plugins:\n      - flat\n      - pep\n"


class OwnPubsubElsewhere(OwnPubsub):
    options = '    host: "pep.@HOST@"\n'


def test_doctor_detects_two_services_of_one_jid():
    for kind in (OwnPubsub, OwnPubsubElsewhere):
        with kind([]) as ejabberd:
            # As in config/ejabberd.yml.
            assert OwnPubsubElsewhere.options.strip() in ejabberd.shipped("ejabberd.yml")
            options = dict(jid=SERVICE, server=f"127.0.0.1:{ejabberd.component_port}", secret=SECRET)
            findings, code = examine(**options, store="memory:")
            if kind is OwnPubsubElsewhere:
                assert "jid" not in findings and code in (0, 4)
                continue
            assert (findings["jid"]["verdict"], code) == ("failed", 1)
            assert "host of mod_pubsub" in findings["jid"]["text"]


class LateComponent:
    """Mixin for a server that starts without the component; `add_component` adds it to the configuration."""

    def prepare(self):
        super().prepare()
        config = self.folder / self.config_name
        self.complete = without = config.read_text()
        for part in self.pasted():
            assert part in without
            without = without.replace(part, "")
        config.write_text(without)

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "output.log").read_text())
        return is_open(self.client_port) and is_open(self.http_port)

    def add_component(self):
        (self.folder / self.config_name).write_text(self.complete)

    def examine(self):
        options = dict(jid=SERVICE, server=f"127.0.0.1:{self.component_port}", secret=SECRET)
        return examine(**options, store="memory:")[0]

    def check_component(self):
        wait_for(lambda: is_open(self.component_port), f"{self.name} to listen for components")
        assert all(finding["verdict"] != "failed" for finding in self.examine().values())


class LateProsody(LateComponent, Prosody):
    config_name = "prosody.cfg.lua"

    def optional(self, _):
        return []

    def pasted(self):
        return self.shipped(self.config_name).split("---- Part 2")

    def wait_for_answer(self):
        """Waits for an answer of Prosody, after which its start or reload is complete. Before that, SIGHUP would end
        it."""
        urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/xmpp-websocket", timeout=20).close()

    def reload(self):
        self.wait_for_answer()
        self.process.send_signal(signal.SIGHUP)
        log = self.folder / "prosody.log"
        wait_for(lambda: "Reloading configuration file" in log.read_text(), "Prosody to reload")
        self.wait_for_answer()


class LateProsodyWithAnother(LateProsody):
    """Prosody with another component, so that the port for components is open from the start."""

    def prepare(self):
        super().prepare()
        another = 'Component "another.localhost"\n  component_secret = "another"\n'
        self.complete += another
        config = self.folder / self.config_name
        config.write_text(f"component_ports = {{ {self.component_port} }}\n{config.read_text()}\n{another}")


class LateEjabberd(LateComponent, OwnPubsub):
    config_name = "ejabberd.yml"

    # The action of `ejabberdctl reload_config`, without Erlang's distribution.
    CONFIG = OwnPubsub.CONFIG.replace("    request_handlers:\n", "    request_handlers:\n      /api: mod_http_api\n") + """
api_permissions:
  reload:
    who:
      ip: "127.0.0.1"
    what: reload_config
"""

    def pasted(self):
        return [self.shipped(self.config_name)]

    def add_component(self):
        own = "  mod_pubsub:\n"
        assert own in self.complete
        self.complete = self.complete.replace(own, own + OwnPubsubElsewhere.options, 1)
        super().add_component()

    def reload(self):
        urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/api/reload_config", b"{}", timeout=20).close()


@pytest.mark.parametrize("kind, text", [(LateProsody, "refused"), (LateProsodyWithAnother, "host-unknown")])
def test_prosody_has_to_restart_for_a_new_component(kind, text):
    with kind([]) as prosody:
        assert "Restart Prosody" in prosody.shipped("prosody.cfg.lua")
        prosody.add_component()
        prosody.reload()
        connection = prosody.examine()["connection"]
        assert connection["verdict"] == "failed" and text in connection["text"]
        prosody.halt()
        prosody.launch()
        prosody.check_component()


def test_ejabberd_reloads_a_new_component():
    with LateEjabberd([]) as ejabberd:
        assert "ejabberdctl reload_config" in ejabberd.shipped("ejabberd.yml")
        ejabberd.add_component()
        ejabberd.reload()
        ejabberd.check_component()
