#!/bin/sh
# After the files of a package are gone. Debian says: purge, after remove.
set -e
case $1 in
purge) rm -rf /var/lib/nlb /var/lib/private/nlb ;; # the state of the agent's unit
remove | 0) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
