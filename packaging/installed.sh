#!/bin/sh
# After a package was installed or upgraded. Nothing is enabled, and nothing that did
# not run is started. What runs goes over to the new program: a restart of the agent
# and a reload of nlb.service leave the kernel balancing, and lose no connection.
# Debian says: configure; rpm: 1 or 2.
set -e
case $1 in configure | 1 | 2) ;; *) exit 0 ;; esac
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
systemctl try-restart nlb-agent.service || echo "nlb: nlb-agent.service does not start; the kernel balances on as it was" >&2
if systemctl -q is-active nlb.service; then
	systemctl reload nlb.service || echo "nlb: nlb.service cannot reload; what is balanced stays as it was" >&2
fi
