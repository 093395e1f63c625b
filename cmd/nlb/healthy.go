//go:build linux

package main

// nlb healthy: whether somebody is there to serve.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/agent"
	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/announce"
)

// answerTime is how long the agent may take to say it: whoever asks wants to know now.
const answerTime = 2 * time.Second

func healthy(ctx context.Context, j *job) error {
	name := strings.Join(j.args, "")
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var health announce.Health
	c, _, err := agent.Find(ctx, j.socket(), j.table)
	if errors.Is(err, agent.ErrNoAgent) {
		health, err = j.healthOf(name)
	} else if err == nil {
		health, err = c.Serving(ctx, name)
	}
	if refused, ok := errors.AsType[*agent.RefusedError](err); ok {
		err = withHint(errors.New(refused.Message), refused.Hint)
	}
	if err != nil {
		return err
	}
	line := "nothing is balanced"
	if health.Services > 0 {
		line = fmt.Sprintf("%d of %s with a backend to serve", health.Serving, text.Count(health.Services, "service"))
		if len(health.Nobody) > 0 {
			line += "; nobody is up of " + strings.Join(health.Nobody[:min(len(health.Nobody), maxThere)], ", ")
		}
	}
	if err := j.Result(health, "%s", line); err != nil || health.Healthy {
		return err
	}
	return errDiffer
}

// healthOf is the health by what the table holds, where no agent is.
func (j *job) healthOf(name string) (announce.Health, error) {
	e, err := engine.Open(j.table)
	if err != nil {
		return announce.Health{}, err
	}
	defer e.Close()
	profiles, err := e.About(name)
	if err != nil {
		return announce.Health{}, err
	}
	serves := func(_ *lb.Profile, s *lb.Service, f lb.Family) bool { return announce.Serves(s, f) }
	health, found := announce.HealthOf(profiles, name, serves)
	if !found {
		return health, withHint(errors.New(name+" is not balanced here"), "nlb show lists what is")
	}
	return health, nil
}
