//go:build linux

package main

// nlb lab: rehearse a profile in throw-away network namespaces.

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/stage"
	"nlb/cmd/nlb/internal/text"
	"nlb/integration/lab"
	"nlb/integration/lab/plan"
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
	stage := stage.Stage{Table: j.table, Busy: j.setBegun}
	options := lab.Options{Progress: j.Progress, Connections: j.number("connections"), Agent: stage}
	options.Plan, err = plan.Read(j.texts("fail"), profiles)
	if bad, ok := errors.AsType[*plan.Error](err); ok {
		return &usageError{msg: bad.Message, hint: bad.Hint}
	}
	if options.Connections < 0 || options.Connections > maxConnections {
		return usagef("--connections %d is out of range, want 1 to %d", options.Connections, maxConnections)
	}
	l, err := lab.New(ctx, profiles, stage, options)
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
