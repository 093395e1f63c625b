//go:build !linux

package main

// What needs Linux, on other systems.

import (
	"context"
	"errors"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb/importer"
)

var errLinux = errors.New("this needs Linux; check, import, version, completion and help do not")

func apply(context.Context, *job) error    { return errLinux }
func diff(context.Context, *job) error     { return errLinux }
func show(context.Context, *job) error     { return errLinux }
func flush(context.Context, *job) error    { return errLinux }
func render(context.Context, *job) error   { return errLinux }
func rehearse(context.Context, *job) error { return errLinux }
func examine(context.Context, *job) error  { return errLinux }
func healthy(context.Context, *job) error  { return errLinux }

func run(context.Context, *job) error { return errLinux }

func fromHost(*job) (*importer.Import, error) { return nil, errLinux }

func push(context.Context, *job) error      { return errLinux }
func showFleet(context.Context, *job) error { return errLinux }

func order(string) func(context.Context, *job) error { return run }

func running(string, view.Depth) []string { return nil }
