package main

// nlb version.

import (
	"context"
	"runtime"
	"runtime/debug"
)

// built is what version prints as JSON.
type built struct {
	Version  string `json:"version"` // of the module, or devel
	Go       string `json:"go"`
	Platform string `json:"platform"` // linux/amd64
	Revision string `json:"revision"` // of git; empty where it is not known
}

func version(_ context.Context, j *job) error {
	b := build()
	j.quiet = false // it was asked for
	return j.result(b, "%s %s", program, b.Version)
}

func build() built {
	b := built{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}
