#!/bin/sh
# After the files of a package are gone.
set -e
case $1 in remove | 0) ;; *) exit 0 ;; esac
[ ! -d /run/systemd/system ] || systemctl daemon-reload
