//go:build linux

package main

// The package: dpkg installs it, upgrades it twice, and purges it.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
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
func values() (string, error) {
	var all []string
	for _, p := range parameters {
		v, err := os.ReadFile("/proc/sys/net/" + p)
		if err != nil {
			return "", err
		}
		all = append(all, p+"="+strings.TrimSpace(string(v)))
	}
	return strings.Join(all, " "), nil
}

// dpkg runs it.
func dpkg(ctx context.Context, args ...string) error {
	_, err := command(ctx, "dpkg", args...)
	return err
}

// deb is where a version is.
func deb(version string) string { return "/root/nlb_" + version + "-1_amd64.deb" }

// quiet demands that nothing of nlb runs, starts at boot or is in the kernel.
func quiet(ctx context.Context, s *stage) error {
	for _, u := range []string{"nlb.service", unit} {
		for _, verb := range []string{"is-active", "is-enabled"} {
			if out, err := command(ctx, "systemctl", verb, u); err == nil {
				return fmt.Errorf("%s %s: %s", verb, u, out)
			}
		}
	}
	rules, err := command(ctx, "nft", "list", "ruleset")
	if err == nil && rules != "" {
		err = fmt.Errorf("the kernel has rules:\n%s", rules)
	}
	if err != nil {
		return err
	}
	now, err := values()
	if err == nil && now != s.found {
		err = fmt.Errorf("parameters are %s, were %s", now, s.found)
	}
	return err
}

// install: the package enables and starts nothing, though there is a profile; nor
// does systemctl preset.
func install(ctx context.Context, s *stage) (string, error) {
	var err error
	for _, folder := range []string{"info", "updates", "triggers", "parts"} {
		err = errors.Join(err, os.MkdirAll("/var/lib/dpkg/"+folder, 0o755))
	}
	if err == nil {
		_, err = command(ctx, "modprobe", "nf_conntrack")
	}
	if err == nil {
		s.found, err = values()
	}
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(s.found, parameters[0]+"=0 ") {
		return "", fmt.Errorf("this machine forwards before nlb is there: %s", s.found)
	}
	if err := dpkg(ctx, "-i", deb("1.0.0")); err != nil {
		return "", err
	}
	if err := quiet(ctx, s); err != nil {
		return "", err
	}
	if _, err := command(ctx, "systemctl", "preset", "nlb.service", unit); err != nil {
		return "", err
	}
	return "nothing is enabled, running or in the kernel; " + s.found, quiet(ctx, s)
}

// upgradeUnit: with nlb.service, an upgrade applies the folder by the new program.
func upgradeUnit(ctx context.Context, s *stage) (string, error) {
	if _, err := command(ctx, "systemctl", "enable", "--now", "nlb.service"); err != nil {
		return "", err
	}
	if err := s.shares(ctx, all); err != nil {
		return "", err
	}
	if err := s.hold(ctx); err != nil {
		return "", err
	}
	if err := s.write(shop(2)); err != nil {
		return "", err
	}
	n, err := s.during(ctx, func() error { return dpkg(ctx, "-i", deb("1.0.1")) })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d connections meanwhile, none lost", n), s.shares(ctx, heavy)
}

// upgradeAgent: a running agent becomes the new program.
func upgradeAgent(ctx context.Context, s *stage) (string, error) {
	if err := s.write(shop(1)); err != nil {
		return "", err
	}
	if _, err := command(ctx, "systemctl", "disable", "nlb.service"); err != nil {
		return "", err
	}
	if _, err := command(ctx, "systemctl", "enable", "--now", unit); err != nil {
		return "", err
	}
	before, err := settled(ctx, well)
	if err != nil {
		return "", err
	}
	n, err := s.during(ctx, func() error {
		if err := dpkg(ctx, "-i", deb("1.0.2")); err != nil {
			return err
		}
		after, err := settled(ctx, well)
		if err == nil && (after["MainPID"] == before["MainPID"] || !runs(after)) {
			err = fmt.Errorf("the program that runs is not the new one: %v", after)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d connections meanwhile, none lost", n), s.shares(ctx, all)
}

// purge: nothing of nlb is left but the profile, though both units ran and a
// connection is open.
func purge(ctx context.Context, s *stage) (string, error) {
	if err := s.still(); err != nil {
		return "", err
	}
	if err := dpkg(ctx, "--purge", "nlb"); err != nil {
		return "", err
	}
	if err := quiet(ctx, s); err != nil {
		return "", err
	}
	for _, gone := range []string{program, "/usr/lib/systemd/system/" + unit, "/etc/systemd/system/multi-user.target.wants/" + unit, "/usr/share/doc/nlb", "/run/nlb", "/var/lib/nlb", "/var/lib/private/nlb"} {
		if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s was left (%v)", gone, err)
		}
	}
	if text, err := os.ReadFile(profile); err != nil || string(text) != shop(1) {
		return "", fmt.Errorf("the profile was changed (%v):\n%s", err, text)
	}
	return "no rule, no unit and no file, but the profile; " + s.found, nil
}
