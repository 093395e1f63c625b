//go:build linux

package main

// nlb show: what is in the kernel now.

import (
	"context"
	"fmt"
	"strings"

	"nlb/lb"
	"nlb/nft"
)

// shown is what show prints as JSON.
type shown struct {
	Table      string         `json:"table"`
	Generation uint32         `json:"generation"`
	Profiles   []shownProfile `json:"profiles"`
}

type shownProfile struct {
	Name     string         `json:"name"`
	Services []shownService `json:"services"`
}

type shownService struct {
	Name      string         `json:"name"`
	Listen    []string       `json:"listen"`
	Protocol  []string       `json:"protocol"`
	Role      string         `json:"role"`
	Scheduler string         `json:"scheduler"`
	SNAT      string         `json:"snat"`    // a list is separated by commas
	Refused   int            `json:"refused"` // by allow, deny and limits
	Backends  []shownBackend `json:"backends"`

	profile string
	service *lb.Service
}

type shownBackend struct {
	Name        string  `json:"name"`
	Address     string  `json:"address"`
	Weight      int     `json:"weight"`
	Share       float64 `json:"share"`          // of the new connections of its family, 0 to 1
	SNAT        string  `json:"snat,omitempty"` // where it is not the service's
	Connections uint64  `json:"connections"`    // new ones since the backend came
	Live        *int    `json:"live"`           // null: conntrack could not be read
}

func show(_ context.Context, j *job) error {
	conn, err := dial()
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	state, err := nft.Load(conn, j.table)
	if err != nil {
		return explain(err)
	}
	profile, service := "", ""
	if len(j.args) > 0 {
		profile, service, _ = strings.Cut(j.args[0], "/")
	}
	// Asked before the counters are printed, and only where there is something
	// to count.
	var live nft.Live
	if len(state.Profiles) > 0 {
		if live, err = nft.CountLive(conn); err != nil {
			j.complain("live connections are not known: %v", err)
		}
	}
	v := view(state, live)
	if len(j.args) > 0 {
		if v.Profiles, err = selected(v.Profiles, profile, service); err != nil {
			return err
		}
	}
	switch {
	case j.json:
		return j.value(v)
	case len(v.Profiles) > 0:
		j.services(v)
	case state.Exists():
		fmt.Fprintf(j.out, "nothing is balanced here (table inet %s is empty)\n", j.table)
	default:
		fmt.Fprintf(j.out, "nothing is balanced here (no table inet %s)\n", j.table)
	}
	return nil
}

// view is a state as it is shown. live is nil where it is not known.
func view(state *nft.State, live nft.Live) *shown {
	v := &shown{Table: state.Table, Generation: state.Generation, Profiles: []shownProfile{}}
	for _, p := range state.Profiles {
		out := shownProfile{p.Name, []shownService{}}
		for i := range p.Services {
			s := &p.Services[i]
			one := shownService{
				Name: s.Name, Listen: texts(s.Listen), Protocol: texts(s.Protocols), Role: s.Role.String(),
				Scheduler: s.Scheduler.String(), SNAT: s.SNAT.String(), Backends: []shownBackend{},
				profile: p.Name, service: s,
			}
			for _, b := range s.Backends {
				stats := state.Stats(p.Name, s.Name, b.Address, live)
				shown := shownBackend{
					Name: b.Name, Address: b.Address.String(), Weight: b.Weight, Share: share(s, b),
					Connections: stats.Connections,
				}
				if !b.SNAT.Equal(s.SNAT) {
					shown.SNAT = b.SNAT.String()
				}
				if live != nil {
					shown.Live = &stats.Live
				}
				one.Backends = append(one.Backends, shown)
			}
			out.Services = append(out.Services, one)
		}
		v.Profiles = append(v.Profiles, out)
	}
	return v
}

func texts[T fmt.Stringer](values []T) []string {
	out := []string{}
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// share is a backend's part of the new connections of its family.
func share(s *lb.Service, b lb.Backend) float64 {
	sum := 0
	for _, other := range s.Of(lb.FamilyOf(b.Address.Addr)) {
		sum += other.Weight
	}
	if b.Weight == 0 {
		return 0
	}
	return float64(b.Weight) / float64(sum)
}

// selected are one profile, or one service of it where it has a name.
func selected(profiles []shownProfile, profile, service string) ([]shownProfile, error) {
	var names []string
	for _, p := range profiles {
		names = append(names, p.Name)
		if p.Name != profile {
			continue
		}
		if service == "" {
			return []shownProfile{p}, nil
		}
		var services []string
		for _, s := range p.Services {
			services = append(services, p.Name+"/"+s.Name)
			if s.Name == service {
				return []shownProfile{{p.Name, []shownService{s}}}, nil
			}
		}
		return nil, notHere("service", profile+"/"+service, services)
	}
	return nil, notHere("profile", profile, names)
}

// notHere says that a name is not in the kernel, and which ones are.
func notHere(what, name string, here []string) error {
	err := fmt.Errorf("%s %s is not in the kernel", what, name)
	const most = 10
	switch best := near(name, here); {
	case best != "":
		return failed(err, "", "did you mean "+best+"?")
	case len(here) == 0:
		return failed(err, "", "nothing is balanced here")
	case len(here) > most:
		return failed(err, "", fmt.Sprintf("there: %s and %d more", strings.Join(here[:most], ", "), len(here)-most))
	}
	return failed(err, "", "there: "+strings.Join(here, ", "))
}
