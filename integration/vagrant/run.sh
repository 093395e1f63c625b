#!/usr/bin/env bash
# Plays the scenario on the machines of the Vagrantfile, which libvirt and QEMU
# emulate: run.sh
#
#	NLB_BOX_FILE   the box; it is built by box.sh where there is none
#	               (~/.cache/nlb-lab/nlb.box)
#
# It wants root and a few packages, which it names. libvirtd is started by hand,
# in namespaces of its own for mounts, network and processes: this machine gets
# no bridge, no rule, no file, and when the script ends, all that it has started
# ends too.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ ! ${NLB_VAGRANT_WORK:-} ]]; then
	missing=()
	for need in vagrant:vagrant /usr/share/doc/vagrant-libvirt:vagrant-libvirt libvirtd:libvirt-daemon qemu-system-x86_64:qemu-system-x86 \
		qemu-img:qemu-utils dnsmasq:dnsmasq-base iptables:iptables mmdebstrap:mmdebstrap extlinux:extlinux sfdisk:fdisk mke2fs:e2fsprogs; do
		[[ -e ${need%%:*} ]] || command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
	done
	if [[ ${#missing[@]} -gt 0 || $(id -u) -ne 0 ]]; then
		echo "run.sh: this wants root${missing:+, and: apt-get install --no-install-recommends ${missing[*]}}" >&2
		exit 1
	fi
	box=${NLB_BOX_FILE:-${XDG_CACHE_HOME:-$HOME/.cache}/nlb-lab/nlb.box}
	if [[ ! -e $box ]]; then
		mkdir -p "$(dirname "$box")"
		integration/vagrant/box.sh "$box.new"
		mv "$box.new" "$box"
		echo "run.sh: built $box in $SECONDS s"
	fi
	work=$(mktemp -d)
	trap '[[ ! ${inside:-} ]] || kill -KILL $inside 2>/dev/null || :; rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
	DIST=$work PROCESSORS=amd64 packaging/build.sh deb
	go test -run '^$' ./integration/scenario >/dev/null # all that it needs, while there is a network
	NLB_VAGRANT_WORK=$work NLB_BOX_FILE=$(realpath "$box") \
		unshare --mount --net --pid --fork --kill-child --mount-proc "$0" &
	inside=$!
	wait $inside
	exit
fi
work=$NLB_VAGRANT_WORK

# What is written to these goes to memory, and with it.
mkdir "$work/memory"
mount -t tmpfs lab "$work/memory"
for dir in etc run var; do
	mkdir "$work/memory/$dir" "$work/memory/$dir.work"
	mount -t overlay -o "lowerdir=/$dir,upperdir=$work/memory/$dir,workdir=$work/memory/$dir.work" lab "/$dir"
done
for list in passwd group; do # libvirt-daemon-system would have made the user
	getent $list libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin >>/etc/$list
done
mkdir -p /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
ip link set lo up
cat >/etc/libvirt/qemu.conf <<-'CONF'
	user = "root"
	group = "root"
	security_driver = "none"
	cgroup_controllers = []
	namespaces = []
	remember_owner = 0
	stdio_handler = "file"
CONF
echo 'auth_unix_rw = "none"' >/etc/libvirt/libvirtd.conf
libvirtd --daemon
timeout 60 sh -c 'until [ -S /run/libvirt/libvirt-sock ]; do sleep 0.1; done'

export VAGRANT_HOME=$work/home VAGRANT_DOTFILE_PATH=$work/machines VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_CHECKPOINT_DISABLE=1
export NLB_BOX=nlb-lab NLB_BOX_URL=file://$NLB_BOX_FILE NLB_PACKAGE=$(echo "$work"/nlb_*.deb)
export NLB_DRIVER=${NLB_DRIVER:-qemu} NLB_CPU=${NLB_CPU:-Nehalem} NLB_CPU_WITHOUT=${NLB_CPU_WITHOUT:-cx16}
began=$SECONDS
vagrant up
echo "run.sh: up after $((SECONDS - began)) s"
vagrant ssh-config >"$work/ssh_config"
began=$SECONDS
go test -count=1 -timeout 30m -run Scenario -v ./integration/scenario -ssh-config "$work/ssh_config"
echo "run.sh: the scenario took $((SECONDS - began)) s"
vagrant destroy -f
