package main

// Help, made from the commands.

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

const purpose = "balances connections over backends, in the kernel: profiles become nftables"

// overview is the help of nlb itself.
func overview(commands []*cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nlb %s.\n\n", purpose)
	b.WriteString("usage: nlb COMMAND [ARGUMENTS] [FLAGS]\n\n")
	var rows [][2]string
	for _, c := range commands {
		rows = append(rows, [2]string{strings.TrimSpace(c.Name + " " + c.ArgsUsage), c.Usage})
	}
	list(&b, rows)
	b.WriteString("\neverywhere, before or after the arguments:\n")
	list(&b, flagRows(everywhere()))
	b.WriteString("\nexit: ")
	for i, e := range exitCodes {
		fmt.Fprintf(&b, "%s%d %s", []string{"", ", "}[min(i, 1)], e.code, e.meaning)
	}
	b.WriteString("\n")
	return b.String()
}

// exitCodes are what they mean, in words.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitDone, "done"},
	{exitFailed, "failed or interrupted"},
	{exitUsage, "usage"},
	{exitInvalid, "invalid profile"},
	{exitDiffer, "differences, findings"},
}

// helpOf is the help of a command.
func helpOf(c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s [FLAGS]\n\n%s\n", strings.TrimSpace("nlb "+c.Name+" "+c.ArgsUsage), sentence(c.Usage))
	if c.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Description)
	}
	common := len(everywhere())
	if own := c.Flags[:len(c.Flags)-common]; len(own) > 0 {
		b.WriteString("\n")
		list(&b, flagRows(own))
	}
	b.WriteString("\neverywhere:\n")
	list(&b, flagRows(c.Flags[len(c.Flags)-common:]))
	return b.String()
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func flagRows(flags []cli.Flag) [][2]string {
	var rows [][2]string
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
		rows = append(rows, [2]string{letter + "--" + f.Names()[0] + value, usage})
	}
	return rows
}

// list writes rows of a name and what it is.
func list(b *strings.Builder, rows [][2]string) {
	wide := 0
	for _, r := range rows {
		wide = max(wide, len(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(b, "  %-*s  %s\n", wide, r[0], r[1])
	}
}
