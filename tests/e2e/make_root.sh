#!/bin/sh
# make_root.sh RELEASE FOLDER PACKAGE...: makes a root folder with packages of a Debian release, by mmdebstrap. A folder
# with the same packages that is younger than a week is kept. The mirror is that of this machine's apt.
set -eu
release=$1 folder=$2
shift 2
# Package lists are kept for queries with apt; a change of the layout needs a new version.
wanted="2 $release $*"
if [ "$(cat "$folder/.packages" 2>/dev/null)" = "$wanted" ] && [ -n "$(find "$folder/.packages" -mtime -7)" ]; then
    exit 0
fi
echo "making $folder: Debian $release with $*" >&2
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo

mirrors() {
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' 'Component: main' |
        sed -n 's|/debian/$|/debian|p' | head -n 1
}
mirror=$(mirrors)
if [ -z "$mirror" ]; then
    $as_root apt-get update -q >&2
    mirror=$(mirrors)
fi
if [ -z "$mirror" ]; then
    echo "make_root.sh: apt on this machine has no mirror of Debian, so there are no packages of $release" >&2
    exit 1
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"; $as_root rm -rf --one-file-system "$folder.new"' EXIT
trap 'exit 130' INT TERM HUP
# Proxies and this machine's settings for its mirror also apply to the root folder.
apt-config dump | grep -E '^Acquire::(Check-|Retries|https?::)' > "$temporary/apt.conf" || true
mkdir -p "$(dirname "$folder")"
$as_root rm -rf --one-file-system "$folder.new"
packages=$(echo "$*" | tr ' ' ,)
if ! $as_root mmdebstrap --quiet --variant=apt --format=directory --skip=output/dev,cleanup/apt/lists --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' --aptopt="$temporary/apt.conf" --dpkgopt=force-unsafe-io \
    "$release" "$folder.new" "deb $mirror $release main" >&2; then
    echo "make_root.sh: the packages of Debian $release cannot be had" >&2
    exit 1
fi
echo "$wanted" | $as_root tee "$folder.new/.packages" >/dev/null
$as_root rm -rf --one-file-system "$folder"
$as_root mv "$folder.new" "$folder"
