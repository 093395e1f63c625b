package main

// nlb import: what runs today becomes a profile.

import (
	"bytes"
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/source"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/formats"
)

// importMemory is the limit of an import, which has the syntax of a text beside what it
// makes: with that of other commands, the largest texts took twice the time.
const importMemory = 512 << 20

func importProfile(ctx context.Context, j *job) error {
	debug.SetMemoryLimit(importMemory)
	m, err := imported(ctx, j)
	if errs, ok := errors.AsType[lb.Errors](err); ok {
		return &source.InvalidError{Errors: errs}
	}
	if err != nil {
		return err
	}
	if j.JSON {
		err = j.Value(view.ImportedOf(m))
	} else {
		_, err = bytes.NewReader(m.YAML()).WriteTo(j.Out)
	}
	if err != nil && j.Out.Failed == nil {
		return err
	}
	state := "complete"
	if n := j.PrintFindings(m); n > 0 {
		state = "partial, " + text.Count(n, "warning")
	}
	j.Notef("%s: %s", view.Size(m.Profile), state)
	if !m.Complete() {
		return errDiffer
	}
	return nil
}

// imported is the import of a text, or of what this machine runs.
func imported(ctx context.Context, j *job) (*importer.Import, error) {
	if j.flag("from-host") {
		if len(j.args) > 0 {
			return nil, usagef("--from-host reads no %s", j.args[0])
		}
		return fromHost(j)
	}
	format, file, err := importArgs(j.args)
	if err != nil {
		return nil, err
	}
	data, err := source.ReadFile(ctx, j.In, file)
	if err != nil {
		return nil, err
	}
	return formats.Read(format, source.Title(file), data)
}

// importArgs are FORMAT and FILE, each of which may be missing. An empty format
// is to be found out.
func importArgs(args []string) (format, file string, err error) {
	file = source.Stdin
	known := len(args) > 0 && slices.Contains(formats.Names(), args[0])
	switch {
	case len(args) == 0:
	case known && len(args) == 2:
		return args[0], args[1], nil
	case known:
		return args[0], file, nil
	case len(args) == 2 || !strings.ContainsAny(args[0], "./-") && near(args[0], formats.Names()) != "":
		wrong := usagef("unknown format %q", args[0])
		wrong.hint = "want " + strings.Join(formats.Names(), ", ")
		if best := near(args[0], formats.Names()); best != "" {
			wrong.hint = "did you mean nlb import " + best + "?"
		}
		return "", "", wrong
	default:
		file = args[0]
	}
	return "", file, nil
}
