//go:build linux

package main

// nlb render: the ruleset as an nft script.

import (
	"bufio"
	"context"

	"nlb/cmd/nlb/internal/source"
	"nlb/nft/compile"
)

// renderedValue is what render prints as JSON.
type renderedValue struct {
	Table string `json:"table"`
	// Script is for nft -f. It replaces the table.
	Script string `json:"script"`
}

func render(ctx context.Context, j *job) error {
	_, profiles, err := j.resolved(ctx, source.Names{})
	if err != nil {
		return err
	}
	r := compile.Profiles(j.table, profiles)
	if j.JSON {
		return j.Value(renderedValue{j.table, r.String()})
	}
	w := bufio.NewWriter(j.Out)
	_, _ = r.WriteTo(w) // j.Out remembers its error
	_ = w.Flush()
	return nil
}
