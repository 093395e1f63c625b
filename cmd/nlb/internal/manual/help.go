// Package manual is what the program says of itself: the help and the man page, made
// from its commands.
package manual

// The help, of the program and of a command.

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"nlb/cmd/nlb/internal/text"
)

// Program is what there is to say.
type Program struct {
	Name, Purpose, Version string
	Commands               []*cli.Command
	// Everywhere are the flags that every command has, behind its own.
	Everywhere []cli.Flag
	Exits      []Exit
}

// Exit is an exit code, and what it means.
type Exit struct {
	Code    int
	Meaning string
}

// Overview is the help of nlb itself.
func (p *Program) Overview() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s.\n\n", p.Name, p.Purpose)
	b.WriteString("usage: " + p.Name + " COMMAND [ARGUMENTS] [FLAGS]\n\n")
	var rows [][]string
	for _, c := range p.Commands {
		rows = append(rows, []string{strings.TrimSpace(c.Name + " " + c.ArgsUsage), c.Usage})
	}
	writeRows(&b, rows)
	b.WriteString("\neverywhere, before or after the arguments:\n")
	writeRows(&b, flagRows(p.Everywhere))
	b.WriteString("\nexit: ")
	for i, e := range p.Exits {
		fmt.Fprintf(&b, "%s%d %s", []string{"", ", "}[min(i, 1)], e.Code, e.Meaning)
	}
	b.WriteString("\n")
	return b.String()
}

// Help is the help of a command.
func (p *Program) Help(c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s [FLAGS]\n\n%s\n", strings.TrimSpace(p.Name+" "+c.Name+" "+c.ArgsUsage), Sentence(c.Usage))
	if c.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Description)
	}
	common := len(p.Everywhere)
	if own := c.Flags[:len(c.Flags)-common]; len(own) > 0 {
		b.WriteString("\n")
		writeRows(&b, flagRows(own))
	}
	b.WriteString("\neverywhere:\n")
	writeRows(&b, flagRows(c.Flags[len(c.Flags)-common:]))
	return b.String()
}

// Sentence is a usage as a sentence.
func Sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func flagRows(flags []cli.Flag) [][]string {
	var rows [][]string
	for _, f := range flags {
		d := f.(cli.DocGenerationFlag)
		// `NAME` in the usage is the placeholder of the value.
		usage, value := d.GetUsage(), ""
		if parts := strings.SplitN(usage, "`", 3); len(parts) == 3 {
			value, usage = " "+parts[1], parts[0]+parts[1]+parts[2]
		}
		letter := "    "
		if names := f.Names(); len(names) > 1 {
			letter = "-" + names[1] + ", "
		}
		rows = append(rows, []string{letter + "--" + f.Names()[0] + value, usage})
	}
	return rows
}

// writeRows writes rows of a name and what it is.
func writeRows(b *strings.Builder, rows [][]string) {
	for _, line := range text.Align(make([]text.Column, 2), rows) {
		b.WriteString(text.Gap + line + "\n")
	}
}
