#!/bin/sh
# Installs missing requirements of the demo and the end-to-end tests: Debian packages (with sudo when not
# root), also those named as arguments, and Python packages into .venv inside the working tree.
set -eu
cd "$(dirname "$0")/../.."

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
if [ -z "$found" ]; then
    echo "cargo is not there: install a current Rust with rustup (at least $wanted)" >&2
    exit 1
fi
oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)
if [ "$oldest" != "$wanted" ]; then
    echo "cargo $found is too old: gjallar needs Rust $wanted or later (rustup update)" >&2
    exit 1
fi

for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 || rustup component add "$(echo "$tool" | sed s/^fmt$/rustfmt/)"
done

missing=
# Any Node.js suffices, from Debian or not.
command -v npm >/dev/null || set -- "$@" nodejs npm
for package in $(cat tests/e2e/packages.txt tests/e2e/server-packages.txt) "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing$missing"
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    # The servers run as private processes, so their services must not start on installation.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '$as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    $as_root apt-get update -q
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    for server in prosody ejabberd postgresql; do
        case "$missing " in
        *" $server "*) ! command -v systemctl >/dev/null || $as_root systemctl disable -q "$server" || true ;;
        esac
    done
fi

# nbxmpp runs with Debian's Python, which has the bindings to GLib and its other dependencies.
if ! cat tests/e2e/requirements.txt tests/e2e/requirements-debian.txt | cmp -s - .venv/requirements.txt; then
    echo "installing Python packages into .venv"
    python3 -m venv .venv
    pip=".venv/bin/python -m pip install -q --disable-pip-version-check"
    $pip -r tests/e2e/requirements.txt
    $pip --no-deps --upgrade --target .venv/nbxmpp -r tests/e2e/requirements-debian.txt
    cat tests/e2e/requirements.txt tests/e2e/requirements-debian.txt > .venv/requirements.txt
fi

# The lock file of converse/ omits the build dependencies of Converse.
for client in xmppjs converse; do
    folder=tests/e2e/$client
    cmp -s "$folder/package-lock.json" "$folder/node_modules/.installed" && continue
    echo "installing npm packages into $folder"
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$folder/package-lock.json" "$folder/node_modules/.installed"
done
