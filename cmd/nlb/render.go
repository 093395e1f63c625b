//go:build linux

package main

// nlb render: the ruleset as an nft script.

import (
	"bufio"
	"context"

	"nlb/nft"
)

// rendered is what render prints as JSON.
type rendered struct {
	Table string `json:"table"`
	// Script is for nft -f. It replaces the table.
	Script string `json:"script"`
}

func render(ctx context.Context, j *job) error {
	sources, err := j.sources(ctx)
	if err != nil {
		return err
	}
	r := nft.Compile(j.table, profilesOf(sources))
	if j.json {
		return j.value(rendered{j.table, r.String()})
	}
	w := bufio.NewWriter(j.out)
	_, _ = r.WriteTo(w) // j.out remembers its error
	_ = w.Flush()
	return nil
}
