#!/bin/busybox sh
# The init of a laboratory machine: an initramfs is all the system it has. What
# it is to be is on the kernel's command line:
#
#	nlb.name=NAME nlb.eth1=PREFIX...   its name, and the addresses of its links
#	nlb.boot=1                         do what nlb's systemd unit does
#	nlb.run=PROGRAM,ARGUMENT...        run that, with the console as its output, and power off
#
# eth0 is QEMU's own, by which ssh comes in.
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /proc /sys /dev /run /tmp /etc/nlb /var/log /root
/bin/busybox --install -s
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
value() { tr ' ' '\n' </proc/cmdline | sed -n "s/^nlb\.$1=//p"; }
ip link set lo up
program=$(value run | tr , ' ')
if [ "$program" ]; then
	$program
	echo "nlb-lab: $program ended with $?"
	poweroff -f
fi
name=$(value name)
hostname "$name"
modprobe -a virtio_pci virtio_net virtio_blk
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
for link in eth1 eth2; do
	for prefix in $(value $link | tr , ' '); do
		ip addr add "$prefix" dev $link
		ip link set $link up
	done
done
# What has to outlive a boot is on a small disk of its own.
if [ -e /dev/vda ]; then
	mount -t ext4 /dev/vda /etc/nlb 2>/dev/null || { mke2fs /dev/vda >/dev/null && mount -t ext4 /dev/vda /etc/nlb; }
	rmdir /etc/nlb/lost+found 2>/dev/null
fi
if [ "$(value boot)" ] && ls /etc/nlb/*.yaml >/dev/null 2>&1; then
	sh /etc/nlb.boot >/var/log/nlb.log 2>&1
	echo "nlb-lab: $(cat /etc/nlb.boot): $? $(cat /var/log/nlb.log)"
fi
mkdir -p /etc/dropbear
dropbear -R -s -E 2>/var/log/dropbear.log
echo "nlb-lab: $name is up after $(cut -d ' ' -f 1 /proc/uptime) s, Linux $(uname -r)"
while :; do sleep 3600; done
