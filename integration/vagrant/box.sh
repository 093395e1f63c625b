#!/usr/bin/env bash
# Builds a box for Vagrant's libvirt provider from packages of Debian's: a plain
# bookworm with its cloud kernel, sshd, and the user that Vagrant expects.
#
#	box.sh BOX
#
# It wants root and a loop device; it mounts in a namespace of its own.
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '5p' "$0" >&2; exit 2; }
if [[ ! ${NLB_BOX_INSIDE:-} ]]; then
	NLB_BOX_INSIDE=1 exec unshare --mount "$0" "$(realpath "$1")"
fi
box=$1
mirror=${NLB_LAB_MIRROR:-http://deb.debian.org}
work=$(mktemp -d)
trap 'umount -q -R "$work/root" || :; rm -rf --one-file-system "$work"' EXIT

packages=(linux-image-cloud-amd64 systemd-sysv dbus openssh-server sudo iproute2)
gigabytes=4 # sparse

# The partition begins at 1 MiB. extlinux reads neither 64-bit block numbers nor
# checksums of metadata.
truncate -s "${gigabytes}G" "$work/disk"
echo '2048,,L,*' | sfdisk -q "$work/disk"
dd if=/usr/lib/EXTLINUX/mbr.bin of="$work/disk" bs=440 count=1 conv=notrunc status=none
mke2fs -q -t ext4 -O ^64bit,^metadata_csum -L root -E offset=$((1 << 20)) "$work/disk" $(((gigabytes << 20) - 1024))k
mkdir "$work/root"
mount -o loop,offset=$((1 << 20)),noatime "$work/disk" "$work/root" # the loop device goes with the mount

# before comes before packages are configured: the initramfs has no other driver
# than those of virtual machines, and is small.
cat >"$work/before" <<-'BEFORE'
	set -eu
	mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
	echo MODULES=list >"$1/etc/initramfs-tools/conf.d/lab"
	printf '%s\n' virtio_pci virtio_blk virtio_net ext4 >"$1/usr/share/initramfs-tools/modules.d/lab"
BEFORE

# inside runs in the new system. An emulated processor takes its time, which
# systemd is to allow, and timers would keep it busy.
cat >"$work/inside" <<-'INSIDE'
	set -eu
	useradd -m -s /bin/bash vagrant
	install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
	install -m 600 -o vagrant -g vagrant /root/vagrant.pub /home/vagrant/.ssh/authorized_keys
	rm /root/vagrant.pub
	echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/vagrant
	echo 'UseDNS no' >/etc/ssh/sshd_config.d/vagrant.conf
	echo 'LABEL=root / ext4 errors=remount-ro 0 1' >/etc/fstab
	echo bookworm >/etc/hostname
	printf '127.0.0.1 localhost\n127.0.1.1 bookworm\n::1 localhost\n' >/etc/hosts
	printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n' >/etc/systemd/network/10-eth0.network
	mkdir -p /etc/systemd/system.conf.d
	printf '[Manager]\nDefaultTimeoutStartSec=10min\nDefaultDeviceTimeoutSec=10min\n' >/etc/systemd/system.conf.d/lab.conf
	systemctl enable -q systemd-networkd ssh
	systemctl mask -q systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
	mkdir -p /boot/extlinux
	cat >/boot/extlinux/extlinux.conf <<-CONF
		default linux
		label linux
			linux /vmlinuz
			initrd /initrd.img
			append root=LABEL=root quiet net.ifnames=0 mitigations=off nokaslr tsc=reliable no_timer_check
	CONF
INSIDE

key=$(dpkg -L vagrant | grep '/keys/vagrant.pub$')
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
	--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--essential-hook="sh $work/before \"\$1\"" --customize-hook="copy-in $key /root" --customize-hook='chroot "$1" sh -s <'"$work/inside" \
	bookworm "$work/root" "deb $mirror/debian bookworm main" "deb $mirror/debian-security bookworm-security main"
extlinux --install "$work/root/boot/extlinux" 2>/dev/null
fstrim "$work/root"
umount "$work/root"

# What a box of libvirt's is: https://vagrant-libvirt.github.io/vagrant-libvirt/boxes.html
qemu-img convert -O qcow2 "$work/disk" "$work/box.img"
echo "{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": $gigabytes}" >"$work/metadata.json"
echo 'Vagrant.configure("2") { |config| }' >"$work/Vagrantfile"
tar -C "$work" -cf "$box" metadata.json Vagrantfile box.img
