"""What tests/e2e/setup.sh installs is in the Debian release whose servers are tested, and what config/ offers for
Prosody and ejabberd is taken by it.
"""

import subprocess

import pytest
from servers import HERE, RELEASE, ROOT, SECRET, SERVICE, Ejabberd, Fanout, Gjallar, Prosody, in_root
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
        # It would have found an option that stands below a host.
        with open(prosody.folder / "prosody.cfg.lua", "a") as config:
            config.write("component_stanza_size_limit = 2097152\n")
        code, said = check()
        assert code != 0 and "component_stanza_size_limit" in said, said


class OwnPubsub(Ejabberd):
    """With ejabberd's own mod_pubsub as Debian's configuration has it, and more options of it."""

    options = ""

    def more_modules(self):
        return super().more_modules() + f"  mod_caps: {{}}\n  mod_pubsub:\n{self.options}    plugins:\n      - flat\n      - pep\n"


class OwnPubsubElsewhere(OwnPubsub):
    options = '    host: "pep.@HOST@"\n'


def test_doctor_detects_two_services_of_one_jid():
    for kind in (OwnPubsub, OwnPubsubElsewhere):
        with kind([]) as ejabberd:
            # As config/ejabberd.yml says.
            assert OwnPubsubElsewhere.options.strip() in ejabberd.shipped("ejabberd.yml")
            options = dict(jid=SERVICE, server=f"127.0.0.1:{ejabberd.component_port}", secret=SECRET)
            findings, code = examine(**options, store="memory:")
            if kind is OwnPubsubElsewhere:
                assert "jid" not in findings and code in (0, 4)
                continue
            assert (findings["jid"]["verdict"], code) == ("failed", 1)
            assert "host of mod_pubsub" in findings["jid"]["text"]
