//go:build linux

package main

// Kernel parameters: what profiles need of them, and how the table remembers
// what was found.

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/nft"
	"nlb/sysctl"
)

// parameters are the changes that profiles need before they work here. Where
// a profile wants them kept, or where they cannot be written, it is an error.
func parameters(profiles []*lb.Profile) ([]sysctl.Change, error) {
	var auto []*lb.Profile
	for _, p := range profiles {
		if p.Sysctl != lb.SysctlKeep {
			auto = append(auto, p)
			continue
		}
		for _, need := range lb.Needs([]*lb.Profile{p}) {
			found, err := sysctl.Local.Get(need.Param)
			if err != nil {
				return nil, explainParameter(err)
			}
			if found != need.Value {
				return nil, failed(
					fmt.Errorf("profile %s says sysctl: keep, and %s is %s, not %s: %s", p.Name, need.Param, found, need.Value, need.Why),
					"", fmt.Sprintf("sysctl -w %s=%s", need.Param, need.Value))
			}
		}
	}
	var settings []sysctl.Setting
	for _, need := range lb.Needs(auto) {
		settings = append(settings, sysctl.Setting{Name: need.Param, Value: need.Value})
	}
	changes, err := sysctl.Local.Plan(settings)
	if err == nil {
		err = sysctl.Local.Writable(changes)
	}
	return changes, explainParameter(err)
}

// explainParameter adds what helps where a parameter cannot be read or written.
func explainParameter(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist) && strings.Contains(err.Error(), "ipv6"):
		return failed(err, "", "this machine has no IPv6 (ipv6.disable=1?); leave its IPv6 services out")
	case errors.Is(err, unix.EROFS):
		return failed(err, "", "set it where this container is started (docker run --sysctl NAME=1), then sysctl: keep holds too")
	}
	return err
}

// records are the changes as the table keeps them: net.ipv4.ip_forward=1 was 0.
func records(changes []sysctl.Change) []nft.Param {
	out := make([]nft.Param, len(changes))
	for i, c := range changes {
		out[i] = nft.Param{Name: sysctl.Setting{Name: c.Name, Value: c.To}.String(), Value: c.From}
	}
	return out
}

// recorded reads what records wrote.
func recorded(params []nft.Param) []sysctl.Change {
	var out []sysctl.Change
	for _, p := range params {
		if name, to, ok := strings.Cut(p.Name, "="); ok {
			out = append(out, sysctl.Change{Name: name, From: p.Value, To: to})
		}
	}
	return out
}

// parameterValue is a change of a kernel parameter in JSON.
type parameterValue struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// visible are the changes that change something.
func visible(changes []sysctl.Change) []parameterValue {
	out := []parameterValue{}
	for _, c := range changes {
		if !c.Silent() {
			out = append(out, parameterValue(c))
		}
	}
	return out
}

// turn says what is done to a parameter: turned on net.ipv4.ip_forward.
func (p parameterValue) turn(on, set string) string {
	if p.To == "1" {
		return on + " " + p.Name
	}
	return set + " " + p.Name + " to " + p.To
}
