# make && sudo make install
#
# PREFIX says where it goes, DESTDIR what to put before that, for packages:
# make install PREFIX=/usr DESTDIR=package. Root needs no Go for the second
# command: there is nothing left to build.

GO     ?= go
PREFIX ?= /usr/local
# Where what is built goes.
O      ?= .

sbindir     = $(PREFIX)/sbin
mandir      = $(PREFIX)/share/man/man8
docdir      = $(PREFIX)/share/doc/nlb
sharedir    = $(PREFIX)/share/nlb
unitdir     = $(PREFIX)/lib/systemd/system
bashdir     = $(PREFIX)/share/bash-completion/completions
zshdir      = $(PREFIX)/share/zsh/site-functions
fishdir     = $(PREFIX)/share/fish/vendor_completions.d
profiledir  = /etc/nlb

units     = nlb.service nlb-agent.service
installed = $(sbindir)/nlb $(mandir)/nlb.8 $(units:%=$(unitdir)/%) \
	$(bashdir)/nlb $(zshdir)/_nlb $(fishdir)/nlb.fish $(sharedir)/prometheus/nlb.rules.yml $(sharedir)/grafana/nlb.json

# The linters, pinned.
gofumpt     = $(GO) run mvdan.cc/gofumpt@v0.12.0
staticcheck = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What the program is made of.
sources := go.mod go.sum $(shell find cmd integration lb nft sysctl -type f ! -name '*_test.go' ! -path '*/testdata/*')

.PHONY: build man install uninstall deb rpm apk release test lab-vagrant lint vet format staticcheck tidy portable fmt clean

build: $(O)/nlb man

$(O)/nlb: $(sources)
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/nlb

man: $(O)/nlb.8

# By a program for this machine, where nlb is built for another.
$(O)/nlb.8: $(O)/nlb
	$(O)/nlb man >$@.new || GOOS= GOARCH= CGO_ENABLED=0 $(GO) run -trimpath ./cmd/nlb man >$@.new
	mv $@.new $@

install: build
	install -d $(addprefix $(DESTDIR),$(sort $(dir $(installed))) $(docdir)/examples $(profiledir))
	install -m 755 $(O)/nlb $(DESTDIR)$(sbindir)/nlb
	install -m 644 $(O)/nlb.8 $(DESTDIR)$(mandir)/nlb.8
	for unit in $(units); do \
		sed 's|/usr/sbin/nlb|$(sbindir)/nlb|' packaging/$$unit >$(DESTDIR)$(unitdir)/$$unit && \
		chmod 644 $(DESTDIR)$(unitdir)/$$unit || exit 1; \
	done
	install -m 644 cmd/nlb/completion/nlb.bash $(DESTDIR)$(bashdir)/nlb
	install -m 644 cmd/nlb/completion/nlb.zsh $(DESTDIR)$(zshdir)/_nlb
	install -m 644 cmd/nlb/completion/nlb.fish $(DESTDIR)$(fishdir)/nlb.fish
	install -m 644 README.md CHANGELOG.md LICENSE $(wildcard docs/*.md) $(DESTDIR)$(docdir)
	install -m 644 examples/*.yaml $(DESTDIR)$(docdir)/examples
	install -m 644 packaging/prometheus/nlb.rules.yml $(DESTDIR)$(sharedir)/prometheus
	install -m 644 packaging/grafana/nlb.json $(DESTDIR)$(sharedir)/grafana

# The profiles stay.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(installed))
	rm -rf $(DESTDIR)$(docdir) $(DESTDIR)$(sharedir)
	-rmdir --ignore-fail-on-non-empty $(DESTDIR)$(profiledir)

# Packages and releases, in dist: packaging/build.sh says what can be set.
deb rpm apk release:
	GO=$(GO) packaging/build.sh $@

test:
	$(GO) test ./...

# Three emulated machines by Vagrant and libvirt, for which it wants root and
# packages: docs/lab.md.
lab-vagrant:
	integration/vagrant/run.sh

lint: vet format staticcheck tidy portable

vet:
	$(GO) vet ./...

# Of both: gofmt asks for something else now and then.
format:
	@files=$$($(gofumpt) -l . && gofmt -l .) && if [ -n "$$files" ]; then echo "make fmt would change:" $$files; exit 1; fi

staticcheck:
	$(staticcheck) ./...

tidy:
	$(GO) mod tidy -diff

# nlb is for Linux, on any processor: 64 and 32 bits, little- and big-endian.
# check, import, version and completion work on other systems, too.
# vet and the tests are of this processor.
processors = $(filter-out $(shell $(GO) env GOARCH),amd64 arm64 arm 386 riscv64 s390x)
systems    = darwin windows freebsd

portable: $(processors:%=portable-linux-%) $(systems:%=portable-%)

# With -trimpath, so that releases find what was compiled here.
portable-linux-%:
	GOOS=linux GOARCH=$* CGO_ENABLED=0 $(GO) build -trimpath -o /dev/null ./cmd/nlb
	GOOS=linux GOARCH=$* CGO_ENABLED=0 $(GO) vet -trimpath $(if $(filter 386,$*),./...,./cmd/nlb ./lb/... ./nft/... ./sysctl)

portable-%:
	GOOS=$* CGO_ENABLED=0 $(GO) build -trimpath -o /dev/null ./cmd/nlb
	GOOS=$* CGO_ENABLED=0 $(GO) vet -trimpath ./cmd/nlb ./lb/...

fmt:
	$(gofumpt) -w .

clean:
	rm -f $(O)/nlb $(O)/nlb.8
