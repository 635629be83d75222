"""What tests/e2e/setup.sh installs is in the Debian release whose servers are tested."""

import subprocess

from servers import HERE, RELEASE, ROOT, in_root


def test_every_package_of_the_set_up_can_be_installed():
    packages = [name for file in ("packages.txt", "server-packages.txt") for name in (HERE / file).read_text().split()]
    if not (ROOT / "usr/bin/npm").exists():
        packages += ["nodejs", "npm"]
    done = subprocess.run(in_root("apt-get", "install", "--simulate", "--no-install-recommends", *packages),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Debian {RELEASE}: {done.stderr}"
