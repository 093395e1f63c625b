package main

// nlb completion: scripts for shells. They ask nlb itself what a word may be,
// so they know nothing of its commands.

import (
	"context"
	"embed"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb/importer/formats"
)

//go:embed completion
var scripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

func completion(_ context.Context, j *job) error {
	script, err := scripts.ReadFile("completion/nlb." + j.args[0])
	if err != nil {
		e := usagef("unknown shell %q", j.args[0])
		e.hint = "want " + strings.Join(shells, ", ")
		return e
	}
	fmt.Fprintf(j.Out, "%s", script)
	return nil
}

// completeCommand is what the scripts run, with the words after nlb, the last
// one being the one at the cursor. It answers a line for each candidate, with
// a tab and what it is; a line ":files" asks for the names of profiles.
const completeCommand = "__complete"

const filesPlease = ":files"

func (a *app) complete(commands []*cli.Command, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	word := words[len(words)-1]
	for _, line := range candidates(commands, words[:len(words)-1], word) {
		if line == filesPlease || strings.HasPrefix(line, word) {
			fmt.Fprintln(a.Out, line)
		}
	}
}

// candidates are what may stand for a word, after these.
func candidates(commands []*cli.Command, before []string, word string) []string {
	at := commandAt(commands, before)
	var command *cli.Command
	if at >= 0 {
		command = find(commands, before[at])
	}
	if n := len(before); n > 0 && takesNext(commands, before[n-1]) {
		return nil // the value of a flag
	}
	if isFlag(word) || word == "-" {
		flags := everywhere()
		if command != nil {
			flags = command.Flags
		}
		return flagCandidates(flags)
	}
	if at < 0 {
		return commandCandidates(commands)
	}
	switch before[at] {
	case "apply", "diff", "check", "render", "lab", "doctor", "run", "push":
		return []string{filesPlease}
	case "flush":
		return running(tableOf(before), view.OfProfiles)
	case "show", "healthy":
		return running(tableOf(before), view.OfAll)
	case "drain", "disable", "enable":
		return running(tableOf(before), view.OfBackends)
	case "fleet":
		return []string{"out", "in", "forget", "roles"}
	case "completion":
		return shells
	case "import":
		if at == len(before)-1 {
			return formats.Names()
		}
		return []string{filesPlease}
	case "help":
		return commandCandidates(commands)
	}
	return nil
}

// tableOf is the table that the words name.
func tableOf(words []string) string {
	table := program
	for i, w := range words {
		if value, ok := strings.CutPrefix(w, "--table="); ok {
			table = value
		} else if w == "--table" && i+1 < len(words) {
			table = words[i+1]
		}
	}
	return table
}

func commandCandidates(commands []*cli.Command) []string {
	var out []string
	for _, c := range commands {
		out = append(out, c.Name+"\t"+c.Usage)
	}
	return out
}

func flagCandidates(flags []cli.Flag) []string {
	var out []string
	for _, f := range flags {
		usage := strings.ReplaceAll(f.(cli.DocGenerationFlag).GetUsage(), "`", "")
		out = append(out, fmt.Sprintf("--%s\t%s", f.Names()[0], usage))
	}
	return out
}
