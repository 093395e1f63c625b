#!/bin/bash
# Fetches what the QEMU lab boots from Debian's archive into a cache folder, and
# unpacks it there. Nothing is installed, and apt's own lists are left alone.
#
#	fetch.sh CACHE tools|bench|keepalived|systemd|systemd-backports|dpkg|KERNEL...
#
# A KERNEL is the beginning of a version, such as 6.1, 6.12 or 5.10. It becomes
# CACHE/linux-KERNEL with vmlinux, release and lib/modules; tools, which every
# machine needs, and the others become folders of programs and libraries;
# systemd-backports is a newer one, and dpkg goes beside one of these.
set -euo pipefail
shopt -s inherit_errexit
unset APT_CONFIG

tools=(busybox-static dropbear-bin libtomcrypt1 libtommath1 libgmp10 zlib1g libcrypt1 libc6)
bench=(iptables libxtables12 libip4tc2 libip6tc2 libmnl0 libnftnl11 libnfnetlink0
	libnetfilter-conntrack3 ipvsadm libnl-3-200 libnl-genl-3-200 libpopt0
	nftables libnftables1 libjansson4 libedit2 libbsd0 libmd0 libtinfo6 libgmp10
	iproute2 libbpf1 libelf1 libcap2 zlib1g)
keepalived=(keepalived libssl3 libpcre2-8-0 libsystemd0 libmount1 libblkid1 libselinux1 libgcrypt20 libgpg-error0 liblzma5 libzstd1 liblz4-1
	libsnmp40 libperl5.36 libsensors5 libpci3 libudev1 libwrap0 libnsl2 libtirpc3 libglib2.0-0 libffi8
	libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1)
systemd=(systemd libsystemd0 libsystemd-shared libacl1 libapparmor1 libaudit1 libblkid1 libcap-ng0 libcap2 libcrypt1
	libgcrypt20 libgpg-error0 libip4tc2 libkmod2 liblz4-1 liblzma5 libmount1 libpam0g libpcre2-8-0 libseccomp2
	libselinux1 libssl3 libzstd1 libc6)
dpkg=(dpkg tar libbz2-1.0 zlib1g)
systemd_backports=({systemd,libsystemd0,libsystemd-shared}/bookworm-backports "${systemd[@]:3}")

[[ $# -ge 2 ]] || { sed -n '5p' "$0" >&2; exit 2; }
cache=$(realpath -m "$1")
shift
mkdir -p "$cache"/apt/{lists/partial,cache/archives/partial} "$cache/debs"
exec 9>"$cache/lock"
flock 9

# apt with lists of our own. It keeps what it has parsed, though the system's own
# may be told not to.
parsed=(-q -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin)
wanted="$*"
configure() {
	local key=/usr/share/keyrings/debian-archive-keyring.gpg mirror=${NLB_LAB_MIRROR:-http://deb.debian.org}
	local suites=("debian bookworm" "debian bookworm-backports" "debian-security bookworm-security")
	[[ " $wanted" == *" 5."* ]] && suites+=("debian bullseye")
	for suite in "${suites[@]}"; do
		echo "deb [signed-by=$key] $mirror/$suite main"
	done >"$cache/apt/sources.list"
	: >"$cache/apt/status"
	cat >"$cache/apt/apt.conf" <<-CONF
		Dir::Etc::SourceList "$cache/apt/sources.list";
		Dir::Etc::SourceParts "-";
		Dir::State::Lists "$cache/apt/lists";
		Dir::State::status "$cache/apt/status";
		Dir::Cache "$cache/apt/cache";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONF
	export APT_CONFIG=$cache/apt/apt.conf
	apt-get "${parsed[@]}" -o APT::Update::Error-Mode=any update >&2
}

# download puts packages (NAME or NAME/RELEASE) into a folder of their own and prints
# their files.
download() { # FOLDER PACKAGE...
	local debs=$cache/debs/${1##*/}
	shift
	mkdir -p "$debs"
	(cd "$debs" && apt-get "${parsed[@]}" -o APT::Sandbox::User=root download "$@" >&2)
	for package in "$@"; do
		ls -t "$debs/${package%%/*}"_*.deb | head -n 1
	done
}

unpack() { # FOLDER PACKAGE...
	local to=$1 debs deb
	shift
	rm -rf "$to.new"
	mkdir -p "$to.new"
	debs=$(download "$to" "$@")
	for deb in $debs; do
		dpkg-deb -x "$deb" "$to.new"
	done
}

# vmlinux takes the ELF kernel out of a bzImage. QEMU starts it by PVH, which
# saves the emulated machine the decompression.
# https://docs.kernel.org/arch/x86/boot.html (setup_sects, payload_offset)
vmlinux() { # BZIMAGE
	local number sects offset length magic
	number() { od -An -v -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
	sects=$(number "$1" $((0x1f1)) 1)
	offset=$(((sects + 1) * 512 + $(number "$1" $((0x248)) 4)))
	length=$(number "$1" $((0x24c)) 4)
	magic=$(od -An -v -t x1 -j "$offset" -N 4 "$1" | tr -d ' ')
	# The last four bytes are the size of what was packed.
	dd if="$1" iflag=skip_bytes,count_bytes skip="$offset" count=$((length - 4)) bs=1M status=none | case $magic in
		fd377a58) xz -dc --single-stream ;;
		28b52ffd) zstd -dcq ;;
		02214c18) lz4 -dc ;;
		1f8b*) gzip -dc ;;
		*) echo "fetch.sh: $1 is packed in a way that is not known: $magic" >&2; exit 1 ;;
	esac
}

kernel() { # VERSION
	local to=$cache/linux-$1 version image release
	version=$(apt-cache "${parsed[@]}" madison linux-image-cloud-amd64 | awk -v v="$1." 'index($3, v) == 1 {print $3; exit}')
	[[ $version ]] || { echo "fetch.sh: Debian's archive has no cloud kernel $1" >&2; exit 1; }
	image=$(apt-cache "${parsed[@]}" show "linux-image-cloud-amd64=$version" | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
	unpack "$to" "$image"
	release=${image#linux-image-}
	vmlinux "$to.new/boot/vmlinuz-$release" >"$to.new/vmlinux"
	rm -rf "$to.new"/{boot,usr/share}
	[[ -d $to.new/lib/modules ]] || mv "$to.new/usr/lib" "$to.new/lib"
	# busybox loads plain modules fastest.
	find "$to.new/lib/modules" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 -P 2 xz -d
	"$cache/tools/bin/busybox" depmod -b "$to.new" "$release"
	echo "$release" >"$to.new/release"
}

for what in tools "$@"; do
	case $what in
		tools | bench | keepalived | systemd | systemd-backports | dpkg) to=$cache/$what ;;
		*) to=$cache/linux-$what ;;
	esac
	[[ -e $to ]] && continue
	[[ ${APT_CONFIG:-} ]] || configure
	case $what in
		tools) unpack "$to" "${tools[@]}" ;;
		bench) unpack "$to" "${bench[@]}" ;;
		keepalived)
			unpack "$to" "${keepalived[@]}"
			rm -rf "$to.new"/usr/lib/*/perl "$to.new"/usr/bin ;;
		systemd) unpack "$to" "${systemd[@]}" ;;
		dpkg) unpack "$to" "${dpkg[@]}" ;;
		systemd-backports) unpack "$to" "${systemd_backports[@]}" ;;
		*) kernel "$what" ;;
	esac
	mv "$to.new" "$to"
	echo "fetched $to" >&2
done
