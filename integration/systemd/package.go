//go:build linux

package main

// The package: dpkg installs it, upgrades it twice, and purges it.

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"nlb/integration/demand"
)

// installs are the phases of a machine that has dpkg, and nlb in three versions of
// its package.
var installs = []phase{
	{"install", install},
	{"upgrade without an agent", upgradeUnit},
	{"upgrade with an agent", upgradeAgent},
	{"purge", purge},
	{"newcomer", newcomer},
}

// parameters are those that nlb sets for the profile.
var parameters = []string{"ipv4/ip_forward", "netfilter/nf_conntrack_tcp_be_liberal", "netfilter/nf_conntrack_tcp_timeout_close_wait"}

// values are what the kernel has of parameters, once connection tracking is loaded.
func values() string {
	var all []string
	for _, p := range parameters {
		all = append(all, p+"="+strings.TrimSpace(string(demand.Of(os.ReadFile("/proc/sys/net/"+p)))))
	}
	return strings.Join(all, " ")
}

// deb is where a version is.
func deb(version string) string { return "/root/nlb_" + version + "-1_amd64.deb" }

// quiet demands that nothing of nlb runs, starts at boot or is in the kernel.
func quiet(s *stage) {
	for _, u := range []string{"nlb.service", unit} {
		for _, verb := range []string{"is-active", "is-enabled"} {
			if out, err := output("systemctl", verb, u); err == nil {
				demand.Fail("%s %s: %s", verb, u, out)
			}
		}
	}
	if rules := command("nft", "list", "ruleset"); rules != "" {
		demand.Fail("the kernel has rules:\n%s", rules)
	}
	if now := values(); now != s.found {
		demand.Fail("parameters are %s, were %s", now, s.found)
	}
}

// install: the package enables and starts nothing, though there is a profile; nor
// does systemctl preset.
func install(s *stage) string {
	for _, folder := range []string{"info", "updates", "triggers", "parts"} {
		demand.OK(os.MkdirAll("/var/lib/dpkg/"+folder, 0o755))
	}
	command("modprobe", "nf_conntrack")
	s.found = values()
	if !strings.HasPrefix(s.found, parameters[0]+"=0 ") {
		demand.Fail("this machine forwards before nlb is there: %s", s.found)
	}
	command("dpkg", "-i", deb("1.0.0"))
	quiet(s)
	command("systemctl", "preset", "nlb.service", unit)
	quiet(s)
	return "nothing is enabled, running or in the kernel; " + s.found
}

// upgradeUnit: with nlb.service, an upgrade applies the folder by the new program.
func upgradeUnit(s *stage) string {
	command("systemctl", "enable", "--now", "nlb.service")
	s.shares(all)
	s.hold()
	s.write(shop(2))
	n := s.during(func() { command("dpkg", "-i", deb("1.0.1")) })
	s.shares(heavy)
	return fmt.Sprintf("%d connections meanwhile, none lost", n)
}

// upgradeAgent: a running agent becomes the new program.
func upgradeAgent(s *stage) string {
	s.write(shop(1))
	command("systemctl", "disable", "nlb.service")
	command("systemctl", "enable", "--now", unit)
	before := settled(well)
	n := s.during(func() {
		command("dpkg", "-i", deb("1.0.2"))
		renewed(before, well)
	})
	s.shares(all)
	return fmt.Sprintf("%d connections meanwhile, none lost", n)
}

// purge: nothing of nlb is left but the profile, though both units ran and a
// connection is open.
func purge(s *stage) string {
	s.still()
	command("dpkg", "--purge", "nlb")
	quiet(s)
	for _, gone := range []string{program, "/usr/lib/systemd/system/" + unit, "/etc/systemd/system/multi-user.target.wants/" + unit, "/usr/share/doc/nlb", "/run/nlb", "/var/lib/nlb", "/var/lib/private/nlb"} {
		if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
			demand.Fail("%s was left (%v)", gone, err)
		}
	}
	if text, err := os.ReadFile(profile); err != nil || string(text) != shop(1) {
		demand.Fail("the profile was changed (%v):\n%s", err, text)
	}
	return "no rule, no unit and no file, but the profile; " + s.found
}
