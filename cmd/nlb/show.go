//go:build linux

package main

// nlb show: what is in the kernel now.

import (
	"context"
	"fmt"
	"strings"

	"nlb/nft"
	"nlb/nft/wire"
)

func show(ctx context.Context, j *job) error {
	if j.given("interval") && !j.flag("watch") {
		return usagef("--interval is for --watch")
	}
	conn, err := dial()
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	if j.flag("watch") {
		return j.watch(ctx, conn)
	}
	l, err := j.look(conn)
	if err == nil {
		err = j.pick(l.shown)
	}
	if err != nil {
		return err
	}
	if l.unknown != nil {
		j.complain("live connections are not known: %v", l.unknown)
	}
	if j.json {
		return j.value(l.shown)
	}
	j.seen(l)
	return nil
}

// look is what is seen of the kernel at a time.
type look struct {
	*shown
	exists  bool  // there is a table
	unknown error // why live connections are not known
}

func (j *job) look(conn *wire.Conn) (*look, error) {
	state, err := nft.Load(conn, j.table)
	if err != nil {
		return nil, explain(err)
	}
	l := &look{exists: state.Exists()}
	var live nft.Usage
	if len(state.Profiles) > 0 { // else there is nothing to count
		live, l.unknown = nft.ReadUsage(conn, state)
	}
	l.shown = view(state, live)
	return l, nil
}

// pick leaves only what the argument names, if there is one.
func (j *job) pick(v *shown) (err error) {
	if len(j.args) > 0 {
		profile, service, _ := strings.Cut(j.args[0], "/")
		v.Profiles, err = selected(v.Profiles, profile, service)
	}
	return err
}

// seen prints what was seen for a person.
func (j *job) seen(l *look) {
	switch {
	case len(l.Profiles) > 0:
		j.services(l.shown)
	case l.exists:
		fmt.Fprintf(j.out, "nothing is balanced here (table inet %s is empty)\n", j.table)
	default:
		fmt.Fprintf(j.out, "nothing is balanced here (no table inet %s)\n", j.table)
	}
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
			services = append(services, p.Name+"/"+s.service.Name)
			if s.service.Name == service {
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
