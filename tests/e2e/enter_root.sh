#!/bin/sh
# enter_root.sh FOLDER COMMAND...: runs a command with another root folder, in a mount namespace that ends with it. The
# folder for temporary files is this machine's, so its paths are the same inside. Each step is an exec, so the command
# has the process id of this script, and receives its signals.
root=$1
shift
user=
[ "$(id -u)" = 0 ] || user=--map-root-user
exec unshare $user --mount sh -ec '
    root=$1 here=$PWD
    shift
    for folder in "${TMPDIR:-/tmp}" /dev /proc; do
        mkdir -p "$root$folder"
        mount --rbind "$folder" "$root$folder"
    done
    exec chroot "$root" sh -ec "cd \"\$1\" 2>/dev/null || cd /; shift; exec \"\$@\"" sh "$here" "$@"' sh "$root" "$@"
