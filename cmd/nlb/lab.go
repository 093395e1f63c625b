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
	"nlb/integration/lab/plan"
	"nlb/integration/netlab"
	"nlb/lb"
	"nlb/lb/config"
)

// The examples, of one balancer and of several.
var (
	//go:embed example.yaml
	example []byte
	//go:embed fleet.yaml
	fleetExample []byte
)

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
	l, err := stage.Stage{Table: j.table, Busy: j.setBegun}.New(ctx, profiles, stage.Request{
		Connections: j.number("connections"), Balancers: j.number("fleet"), Fail: j.texts("fail"), Progress: j.Progress,
	})
	if err != nil {
		j.Progress("")
		if bad, ok := errors.AsType[*plan.Error](err); ok {
			return &usageError{msg: bad.Message, hint: bad.Hint}
		}
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
		j.PrintRehearsed(report)
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

// rehearsed are the profiles that the arguments name, or an example.
func (j *job) rehearsed(ctx context.Context) ([]*lb.Profile, error) {
	if len(j.args) == 0 {
		text := example
		if j.number("fleet") > 0 {
			text = fleetExample
		}
		p, err := config.Parse("example.yaml", text)
		return []*lb.Profile{p}, err
	}
	_, profiles, err := j.resolved(ctx, source.Names{StandIns: true})
	return profiles, err
}
