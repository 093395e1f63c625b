//go:build linux

package main

// nlb lab: rehearse a profile in throw-away network namespaces.

import (
	"context"
	_ "embed"
	"fmt"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/text"
	"nlb/integration/lab"
	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/config"
)

//go:embed example.yaml
var example []byte

// maxConnections bounds the time that a rehearsal takes.
const maxConnections = 1_000_000

func rehearse(ctx context.Context, j *job) error {
	// Where this process may not make namespaces, another one goes on from here. It
	// gets the signals, and this one waits for its end.
	j.setBegun(true)
	err := netlab.Isolate()
	j.setBegun(false)
	if err != nil {
		return err
	}
	profiles, err := j.rehearsed(ctx)
	if err != nil {
		return err
	}
	options := lab.Options{Progress: j.Progress, Connections: j.number("connections")}
	if options.Connections < 0 || options.Connections > maxConnections {
		return usagef("--connections %d is out of range, want 1 to %d", options.Connections, maxConnections)
	}
	l, err := lab.New(ctx, profiles, balancer{j.table}, options)
	if err != nil {
		j.Progress("")
		return err
	}
	defer l.Close()
	report, err := l.Rehearse(ctx)
	j.Progress("")
	if err != nil {
		return err
	}
	switch {
	case j.JSON:
		err = j.Value(report)
	case !j.Quiet:
		j.PrintReport(report)
	}
	if err == nil && !report.OK() {
		err = fmt.Errorf("%s in the rehearsal", text.Count(len(report.AllProblems()), "problem"))
	}
	if j.flag("keep") {
		// The hosts live as long as this process.
		if doors := l.WriteDoors(j.Err); err == nil {
			err = doors
		}
		<-ctx.Done()
	}
	return err
}

// rehearsed are the profiles that the arguments name, or the example.
func (j *job) rehearsed(ctx context.Context) ([]*lb.Profile, error) {
	if len(j.args) == 0 {
		p, err := config.Parse("example.yaml", example)
		return []*lb.Profile{p}, err
	}
	_, profiles, err := j.resolved(ctx, source.Names{StandIns: true})
	return profiles, err
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
	e, err := engine.Open(b.table)
	if err != nil {
		return err
	}
	defer e.Close()
	_, err = e.Apply(ctx, auto, engine.Options{Prune: true, Full: true})
	return err
}
