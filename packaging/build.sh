#!/usr/bin/env bash
# Builds packages and releases of what is checked out:
#
#	packaging/build.sh deb|rpm|apk|release...
#
#	DIST         where they go (dist)
#	VERSION      1.2.3 (from the tag v1.2.3; between tags 0.0.0-git and the commit's time)
#	MAINTAINER   whom packages name, NAME <ADDRESS>
#	PROCESSORS   as Go calls them (amd64 arm64 arm riscv64; arm is ARMv7, armhf)
#
# The same commit and version, built with the same Go, give the same bytes wherever
# that is.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC

go=${GO:-go}
# The last nfpm whose modules can all be had from the module proxy.
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

die() { echo "packaging/build.sh: $*" >&2 && exit 1; }

# tool MODULE@VERSION prints the path of a tool, built for this machine.
tool() {
	local program=${1%@*}
	GOOS='' GOARCH='' GOFLAGS="${GOFLAGS:-} -trimpath" GOBIN=$work/bin "$go" install "$1" && echo "$work/bin/${program##*/}"
}

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) || die "without git, SOURCE_DATE_EPOCH says of what time this is"
fi
export SOURCE_DATE_EPOCH
if [ -z "${VERSION:-}" ]; then
	tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null) || tag=v0.0.0-git$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)
	VERSION=${tag#v}
fi
[[ $VERSION =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || die "VERSION=$VERSION is none; 1.2.3 is one"
MAINTAINER=${MAINTAINER:-nlb maintainers <maintainers@nlb.invalid>}
read -ra processors <<<"${PROCESSORS:-amd64 arm64 arm riscv64}"
mkdir -p "${DIST:=dist}"
DIST=$(realpath "$DIST")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# compile FLAG... builds the program.
revision=()
compile() { CGO_ENABLED=0 "$go" build -trimpath "${revision[@]}" -ldflags="-s -X main.packaged=$VERSION" "$@" ./cmd/nlb; }

# build ARCH puts the program for a processor, and what goes with it, into a folder
# of its own, all with the time of the commit.
build() {
	local to=$work/$1
	[ ! -e "$to" ] || return 0
	mkdir "$to"
	echo "linux/$1"
	GOOS=linux GOARCH=$1 GOARM=7 compile -o "$to/nlb"
	[ -e "$work/native" ] || GOOS='' GOARCH='' compile -o "$work/native"
	"$work/native" man >"$to/nlb.8"
	gzip -9nk "$to/nlb.8"
	licenses "$1" | gzip -9n >"$to/licenses.gz"
	cp packaging/{installed,remove,removed}.sh "$to"
	cat >"$to/changelog.yaml" <<-YAML
		- semver: "$VERSION"
		  date: "$(date -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)"
		  packager: "$MAINTAINER"
		  deb: {distributions: [unstable], urgency: medium}
		  changes: [{note: "/usr/share/doc/nlb/CHANGELOG.md says what is new."}]
	YAML
	find "$to" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
}

# licenses ARCH prints the license, and those of all modules that are in the program.
licenses() {
	local name dir file
	cat LICENSE
	{
		echo "Go $("$go" env GOROOT)"
		GOOS=linux GOARCH=$1 CGO_ENABLED=0 "$go" list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./cmd/nlb
	} | sort -u | while read -r name dir; do
		for file in "$dir"/{LICENSE,LICENSE.*,LICENCE,COPYING,NOTICE,NOTICE.*}; do
			[ -e "$file" ] || continue
			printf '\n%s\n\nnlb contains %s, under these terms:\n\n' "$(printf '=%.0s' {1..80})" "$name"
			cat "$file"
		done
	done
}

# package FORMAT makes a package for each processor.
package() {
	local arch program
	program=$(tool "$nfpm")
	for arch in "${processors[@]}"; do
		build "$arch"
		# By a file, since nfpm does not fill in all of it.
		sed -e "s|\${BUILD}|$work/$arch|; s|\${ARCH}|${arch/%arm/arm7}|; s|\${VERSION}|$VERSION|; s|\${MAINTAINER}|$MAINTAINER|" \
			packaging/nfpm.yaml >"$work/$arch/nfpm.yaml"
		"$program" package --config "$work/$arch/nfpm.yaml" --packager "$1" --target "$DIST/"
	done
}

# archive FOLDER packs a folder of what was built.
archive() {
	tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --mode=u=rwX,go=rX --owner=0 --group=0 --numeric-owner --format=gnu -cf - "$1" |
		gzip -9n >"$DIST/$1.tar.gz"
}

# section prints what the changelog says of this version, or of what is not released.
section() {
	local heading=$VERSION
	[[ $VERSION != *-git* ]] || heading=Unreleased
	awk -v heading="$heading" '/^## / { on = $2 == heading || $2 == "[" heading "]" } on { print; any = 1 } END { exit !any }' CHANGELOG.md ||
		die "CHANGELOG.md has no section \"## $heading\""
}

# release makes everything, and the sums of it, in a folder of its own.
release() {
	local arch folder format program
	[ -z "$(git status --porcelain)" ] || die "what is not committed would be in the release: git status"
	revision=(-buildvcs=true)
	DIST=$DIST/nlb-$VERSION
	mkdir "$DIST" || die "a release is made in a new folder"
	section >"$DIST/CHANGES.md"
	for format in deb rpm apk; do
		package "$format"
	done
	for arch in "${processors[@]}"; do
		folder=nlb-$VERSION-linux-$arch
		mkdir "$work/$folder"
		cp -r "$work/$arch/"{nlb,nlb.8,licenses.gz} README.md CHANGELOG.md LICENSE docs examples packaging/{*.service,prometheus,grafana} cmd/nlb/completion/nlb.* "$work/$folder"
		archive "$folder"
	done
	git archive --prefix="nlb-$VERSION/" HEAD | gzip -9n >"$DIST/nlb-$VERSION.tar.gz"
	program=$(tool "$cyclonedx")
	GOOS=linux GOARCH=amd64 CGO_ENABLED=0 "$program" app -json -noserial -notimestamp -std -licenses -main cmd/nlb -output "$DIST/nlb-$VERSION.cdx.json" .
	(cd "$DIST" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
}

[ $# -gt 0 ] || { sed -n 4p "$0" >&2 && exit 2; }
for what; do
	case $what in
		deb | rpm | apk) package "$what" ;;
		release) release ;;
		*) die "$what is none of deb, rpm, apk and release" ;;
	esac
done
