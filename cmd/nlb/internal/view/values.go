package view

// Values that several commands have in their JSON. docs/json.md describes the
// fields, which are stable.

import (
	"fmt"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/sysctl"
)

// Profile says how much a profile holds.
type Profile struct {
	Name     string `json:"name"`
	Services int    `json:"services"`
	Backends int    `json:"backends"`
}

// ProfileOf counts what a profile holds.
func ProfileOf(p *lb.Profile) Profile {
	out := Profile{Name: p.Name, Services: len(p.Services)}
	for i := range p.Services {
		out.Backends += len(p.Services[i].Backends)
	}
	return out
}

// Profiles counts what each profile holds.
func Profiles(profiles []*lb.Profile) []Profile {
	out := []Profile{}
	for _, p := range profiles {
		out = append(out, ProfileOf(p))
	}
	return out
}

// Size says how much there is in profiles: 1 service, 2 backends.
func Size(profiles ...*lb.Profile) string {
	services, backends := 0, 0
	for _, p := range Profiles(profiles) {
		services, backends = services+p.Services, backends+p.Backends
	}
	return text.Count(services, "service") + ", " + text.Count(backends, "backend")
}

// maxNamed is how many profiles are called by their names.
const maxNamed = 5

// Names are the names of profiles, or their number where they are many.
func Names(profiles []*lb.Profile) string {
	if len(profiles) > maxNamed {
		return text.Count(len(profiles), "profile")
	}
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// Depth says which names to list.
type Depth uint8

// The depths.
const (
	OfProfiles Depth = iota // shop
	OfBackends              // shop/web/b1 alone
	OfAll                   // shop, shop/web and shop/web/b1
)

// Paths are the names of what profiles hold, down to a depth.
func Paths(profiles []*lb.Profile, depth Depth) (out []string) {
	for _, p := range profiles {
		if depth != OfBackends {
			out = append(out, p.Name)
		}
		for i := range p.Services {
			s := &p.Services[i]
			if depth == OfAll {
				out = append(out, p.Name+"/"+s.Name)
			}
			for k := range s.Backends {
				if depth != OfProfiles {
					out = append(out, p.Name+"/"+s.Name+"/"+s.Backends[k].Name)
				}
			}
		}
	}
	return out
}

// Change is an lb.Change.
type Change struct {
	Op      string `json:"op"`      // + ~ -
	Service string `json:"service"` // profile/service
	Backend string `json:"backend"` // empty: the service itself
	Detail  string `json:"detail"`
}

// Changes are the differences between profiles, for JSON.
func Changes(changes []lb.Change) []Change {
	out := make([]Change, 0, len(changes))
	for _, c := range changes {
		out = append(out, Change{string(c.Op), c.Service, c.Backend, c.Detail})
	}
	return out
}

// ChangeCounts counts differences: +2 ~1 -0.
func ChangeCounts(changes []lb.Change) string {
	if len(changes) == 0 {
		return "no change"
	}
	n := map[lb.Op]int{}
	for _, c := range changes {
		n[c.Op]++
	}
	return fmt.Sprintf("+%d ~%d -%d", n[lb.Added], n[lb.Changed], n[lb.Removed])
}

var opStyles = map[lb.Op]text.Style{lb.Added: text.Green, lb.Changed: text.Yellow, lb.Removed: text.Red}

// PrintChange prints a difference in one line.
func (c *Console) PrintChange(change lb.Change) {
	fmt.Fprintln(c.Out, c.Out.Paint(opStyles[change.Op], change.String()))
}

// Parameter is a change of a kernel parameter.
type Parameter struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Parameters are the changes that change a value; the others are only recorded.
func Parameters(changes []sysctl.Change) []Parameter {
	out := []Parameter{}
	for _, c := range changes {
		if !c.Silent() {
			out = append(out, Parameter(c))
		}
	}
	return out
}

// Assignments are changes in one line, with the values before them: "is" where
// they are still to be made, else "was". Links that take router advertisements
// are many on some hosts, and become one: net.ipv6.conf.{eth0,eth1}.accept_ra.
func Assignments(changes []Parameter, before string) string {
	const prefix, suffix = "net.ipv6.conf.", ".accept_ra"
	var out []string
	for len(changes) > 0 {
		c, n := changes[0], 1
		var links []string
		for _, d := range changes {
			if !strings.HasPrefix(d.Name, prefix) || !strings.HasSuffix(d.Name, suffix) || d.From != c.From || d.To != c.To {
				break
			}
			links = append(links, d.Name[len(prefix):len(d.Name)-len(suffix)])
		}
		if len(links) > 1 {
			c.Name, n = prefix+"{"+strings.Join(links, ",")+"}"+suffix, len(links)
		}
		out = append(out, fmt.Sprintf("%s=%s (%s %s)", c.Name, c.To, before, c.From))
		changes = changes[n:]
	}
	return strings.Join(out, ", ")
}

// Them stands for n things in a sentence.
func Them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
