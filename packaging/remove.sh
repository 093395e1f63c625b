#!/bin/sh
# Before a package is removed: the units end, nothing of nlb stays in the kernel, and
# forwarding is as nlb found it. Connections that are balanced end. Profiles stay.
# An upgrade does none of this. Debian says: remove, or upgrade and others; rpm: 0, or
# 1 for an upgrade; apk: the version.
set -e
case $1 in upgrade | deconfigure | failed-upgrade | 1) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
	# The agent would put back what is flushed.
	systemctl stop nlb-agent.service
fi

# root PROCESS is the file system that a process has as its root.
root() { awk '$5 == "/" { at = $3 " " $4 } END { print at }' "/proc/$1/mountinfo" 2>/dev/null; }

# In a chroot the rules are those of the system around it.
here=$(root self) || :
if [ "$here" ] && [ "$here" = "$(root 1)" ]; then
	nlb flush --cut --sysctl || nlb flush --cut ||
		echo "nlb: its rules may still be there; nft delete table inet nlb removes them" >&2
fi
if command -v systemctl >/dev/null; then
	# Its stop flushes, too, but not the parameters.
	[ ! -d /run/systemd/system ] || systemctl stop nlb.service
	systemctl -q disable nlb.service nlb-agent.service || :
fi
