"""What tests/e2e/setup.sh installs is in the Debian release whose servers are tested, and what config/ offers for
Prosody is taken by it.
"""

import subprocess

import pytest
from servers import HERE, RELEASE, ROOT, Fanout, Prosody, in_root


def test_every_package_of_the_set_up_can_be_installed():
    packages = [name for file in ("packages.txt", "server-packages.txt") for name in (HERE / file).read_text().split()]
    if not (ROOT / "usr/bin/npm").exists():
        packages += ["nodejs", "npm"]
    done = subprocess.run(in_root("apt-get", "install", "--simulate", "--no-install-recommends", *packages),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Debian {RELEASE}: {done.stderr}"


@pytest.mark.parametrize("kind", [Prosody, Fanout])
def test_prosody_finds_nothing_wrong_with_what_is_pasted(kind):
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
