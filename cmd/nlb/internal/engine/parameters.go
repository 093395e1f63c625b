//go:build linux

package engine

// Kernel parameters: what profiles need of them, and how the table remembers
// what was found.

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nlb/lb"
	"nlb/lb/needs"
	"nlb/nft"
	"nlb/nft/probe"
	"nlb/sysctl"
)

// parameters are the changes that profiles need before they work here. Where
// a profile wants them kept, or where they cannot be written, it is an error,
// except for those that are only wanted: left says which of them stay as they
// are, and why; nil: none.
func (e *Engine) parameters(profiles []*lb.Profile) (changes []sysctl.Change, left, err error) {
	var auto []*lb.Profile
	for _, p := range profiles {
		if p.Sysctl != lb.SysctlKeep {
			auto = append(auto, p)
			continue
		}
		for _, need := range needs.Of([]*lb.Profile{p}) {
			if need.Wanted {
				continue
			}
			found, err := e.params.Get(need.Param)
			if err != nil {
				return nil, nil, withParameterHint(err)
			}
			if !need.Met(found) {
				return nil, nil, &Error{
					Err:  fmt.Errorf("profile %s says sysctl: keep, and %s is %s, not %s: %s", p.Name, need.Param, found, need.Value, need.Why),
					Hint: fmt.Sprintf("sysctl -w %s=%s", need.Param, need.Value),
				}
			}
		}
	}
	var settings []sysctl.Setting
	var kept []string
	var reason error
	for _, need := range needs.Of(auto) {
		if need.Wanted {
			met, err := e.wanted(need)
			if err != nil {
				kept, reason = append(kept, need.Param), cmp.Or(reason, err)
			}
			if err != nil || met {
				continue
			}
		}
		settings = append(settings, sysctl.Setting{Name: need.Param, Value: need.Value})
	}
	if reason != nil {
		left = fmt.Errorf("cannot set %s: %w", strings.Join(kept, " and "), reason)
	}
	changes, err = e.params.Plan(settings)
	if err == nil {
		err = e.params.Writable(changes)
	}
	return changes, left, withParameterHint(err)
}

// Tuned reports whether the kernel parameters have the values that the profiles need, and
// those that they want, where these can be set. An Apply sets them.
func (e *Engine) Tuned(profiles []*lb.Profile) bool {
	changes, _, err := e.parameters(profiles)
	return err == nil && len(changes) == 0
}

// wanted reports whether a parameter is as it should be. An error says why it
// is not and cannot be, without the parameter's name.
func (e *Engine) wanted(need needs.Need) (met bool, err error) {
	found, err := e.params.Get(need.Param)
	if err == nil && !need.Met(found) {
		err = e.params.Writable([]sysctl.Change{{Name: need.Param, From: found, To: need.Value}})
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return false, errno
	}
	return need.Met(found), err
}

// track has the kernel load connection tracking where its parameters are not
// there yet: the module comes with the first rules that need it, and those of
// a batch that is checked and dropped are enough.
func (e *Engine) track(profiles []*lb.Profile) {
	missing := func(n needs.Need) bool {
		_, err := e.params.Get(n.Param)
		return strings.HasPrefix(n.Param, "net.netfilter.") && errors.Is(err, os.ErrNotExist)
	}
	if slices.ContainsFunc(needs.Of(profiles), missing) {
		_, _ = probe.Kernel(e.conn, profiles) // the apply finds what is wrong
	}
}

// withParameterHint adds what helps where a parameter cannot be read or written.
func withParameterHint(err error) error {
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
