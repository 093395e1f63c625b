//go:build linux

package engine

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
func (e *Engine) parameters(profiles []*lb.Profile) ([]sysctl.Change, error) {
	var auto []*lb.Profile
	for _, p := range profiles {
		if p.Sysctl != lb.SysctlKeep {
			auto = append(auto, p)
			continue
		}
		for _, need := range lb.Needs([]*lb.Profile{p}) {
			found, err := e.params.Get(need.Param)
			if err != nil {
				return nil, explainParameter(err)
			}
			if found != need.Value {
				return nil, &Error{
					Err:  fmt.Errorf("profile %s says sysctl: keep, and %s is %s, not %s: %s", p.Name, need.Param, found, need.Value, need.Why),
					Hint: fmt.Sprintf("sysctl -w %s=%s", need.Param, need.Value),
				}
			}
		}
	}
	var settings []sysctl.Setting
	for _, need := range lb.Needs(auto) {
		settings = append(settings, sysctl.Setting{Name: need.Param, Value: need.Value})
	}
	changes, err := e.params.Plan(settings)
	if err == nil {
		err = e.params.Writable(changes)
	}
	return changes, explainParameter(err)
}

// explainParameter adds what helps where a parameter cannot be read or written.
func explainParameter(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist) && strings.Contains(err.Error(), "ipv6"):
		return &Error{Err: err, Hint: "this machine has no IPv6 (ipv6.disable=1?); leave its IPv6 services out"}
	case errors.Is(err, unix.EROFS):
		return &Error{Err: err, Hint: "set it where this container is started (docker run --sysctl NAME=1), then sysctl: keep holds too"}
	}
	return &Error{Err: err}
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
