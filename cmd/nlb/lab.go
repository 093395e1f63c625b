//go:build linux

package main

// nlb lab: rehearse a profile in throw-away network namespaces.

import (
	"context"
	_ "embed"
	"fmt"

	"nlb/integration/lab"
	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
)

//go:embed example.yaml
var example []byte

func rehearse(ctx context.Context, j *job) error {
	// Who may not make namespaces goes on from here in a process that may.
	if err := netlab.Isolate(); err != nil {
		return err
	}
	profiles, err := j.rehearsed(ctx)
	if err != nil {
		return err
	}
	options := lab.Options{Progress: j.progress, Connections: j.number("connections")}
	if options.Connections < 0 || options.Connections > maxConnections {
		return usagef("--connections %d is out of range, want 1 to %d", options.Connections, maxConnections)
	}
	l, err := lab.New(ctx, profiles, balancer{j.table}, options)
	if err != nil {
		j.progress("")
		return explain(err)
	}
	defer l.Close()
	report, err := l.Rehearse(ctx)
	j.progress("")
	if err != nil {
		return explain(err)
	}
	switch {
	case j.json:
		err = j.value(report)
	case !j.quiet:
		err = report.Write(j.out, lab.Style{Color: j.out.color})
	}
	if err == nil && !report.OK() {
		err = fmt.Errorf("%s in the rehearsal", count(len(report.AllProblems()), "problem"))
	}
	if j.flag("keep") {
		// The hosts live as long as this process.
		if doors := l.WriteDoors(j.err); err == nil {
			err = doors
		}
		<-ctx.Done()
	}
	return err
}

// maxConnections bounds the time that a rehearsal takes.
const maxConnections = 1_000_000

// rehearsed are the profiles that the arguments name, or the example.
func (j *job) rehearsed(ctx context.Context) ([]*lb.Profile, error) {
	if len(j.args) == 0 {
		p, err := config.Parse("example.yaml", example)
		return []*lb.Profile{p}, err
	}
	sources, err := j.sources(ctx)
	return profilesOf(sources), err
}

// balancer is what nlb apply does, in the lab's host.
type balancer struct{ table string }

// Apply is as lab.Balancer wants it. The lab's hosts are new, so there are no
// kernel parameters that could be kept.
func (b balancer) Apply(ctx context.Context, profiles []*lb.Profile) error {
	auto := make([]*lb.Profile, len(profiles))
	for i, p := range profiles {
		q := *p
		q.Sysctl = lb.SysctlAuto
		auto[i] = &q
	}
	_, err := balance(ctx, auto, nft.Options{Table: b.table, Prune: true})
	return err
}

// progress says what comes next, in one line of the terminal.
func (j *job) progress(what string) {
	if j.quiet || !j.err.terminal {
		return
	}
	if what != "" {
		what = j.onErr(dim, what+" ...")
	}
	fmt.Fprintf(j.err, "\r\x1b[K%s", what)
}
