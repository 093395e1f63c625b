package main

// What was typed, put in order. urfave/cli takes the first argument that is no
// flag for the end of the flags, and would apply web.yaml in
// `nlb apply web.yaml --dry-run`. So flags are moved in front here, each in its
// long form, and what is wrong with them is found here too.

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nlb/lb"

	"github.com/urfave/cli/v2"
)

// line is a command line in order.
type line struct {
	command  string   // "" where there is none
	flags    []string // --dry-run, --table=x
	operands []string
}

// arrange puts what was typed after the program's name in order. The command
// is the first word that is no flag; flags may stand anywhere, up to a "--".
func arrange(commands []*cli.Command, typed []string) (line, error) {
	at := commandAt(commands, typed)
	if at < 0 {
		flags, operands, err := sortFlags(append(everywhere(), &cli.BoolFlag{Name: "version"}), typed)
		if unknown, ok := errors.AsType[*unknownFlagError](err); ok {
			err = unknownFlag(commands, nil, unknown.flag)
		}
		return line{"", flags, operands}, err
	}
	name := typed[at]
	c := find(commands, name)
	if c == nil {
		return line{}, unknownCommand(commands, name)
	}
	flags, operands, err := sortFlags(c.Flags, slices.Concat(typed[:at], typed[at+1:]))
	if unknown, ok := errors.AsType[*unknownFlagError](err); ok {
		err = unknownFlag(commands, c, unknown.flag)
	}
	return line{name, flags, operands}, err
}

// words are the command line for urfave/cli.
func (l line) words() []string {
	return slices.Concat([]string{program, l.command}, l.flags, []string{"--"}, l.operands)
}

// commandAt is the place of the command, -1 where there is none.
func commandAt(commands []*cli.Command, typed []string) int {
	for i := 0; i < len(typed); i++ {
		switch word := typed[i]; {
		case word == "--":
			return -1
		case !isFlag(word):
			return i
		case takesNext(commands, word):
			i++
		}
	}
	return -1
}

// takesNext reports whether a word is a flag, of any command, that has its
// value in the next word.
func takesNext(commands []*cli.Command, word string) bool {
	for _, c := range commands {
		for _, f := range c.Flags {
			if takesValue(f) && (word == "--"+f.Names()[0] || len(word) == 2 && f.Names()[len(f.Names())-1] == word[1:]) {
				return true
			}
		}
	}
	return false
}

// unknownFlagError names a flag that sortFlags does not know.
type unknownFlagError struct{ flag string }

func (e *unknownFlagError) Error() string { return "unknown flag " + e.flag }

// sortFlags tells flags from operands.
func sortFlags(known []cli.Flag, typed []string) (flags, operands []string, err error) {
	byName := map[string]cli.Flag{}
	for _, f := range known {
		for _, name := range f.Names() {
			byName[name] = f
		}
	}
	for len(typed) > 0 {
		word := typed[0]
		typed = typed[1:]
		switch {
		case word == "--":
			return flags, append(operands, typed...), nil
		case !isFlag(word):
			operands = append(operands, word)
		case strings.HasPrefix(word, "--"):
			name, value, has := strings.Cut(word[2:], "=")
			f := byName[name]
			switch {
			case f == nil || len(name) == 1:
				return nil, nil, &unknownFlagError{"--" + name}
			case !takesValue(f) && has:
				return nil, nil, usagef("--%s takes no value", name)
			case takesValue(f) && !has:
				if len(typed) == 0 {
					return nil, nil, usagef("--%s needs a value", name)
				}
				value, typed = typed[0], typed[1:]
			}
			flags = append(flags, canonical(f, value))
		default:
			for i, letter := range word[1:] {
				f := byName[string(letter)]
				switch {
				case f != nil && takesValue(f):
					if i+2 < len(word) || len(typed) == 0 {
						return nil, nil, usagef("-%c needs a value, as the next word", letter)
					}
					flags = append(flags, canonical(f, typed[0]))
					typed = typed[1:]
				case f != nil:
					flags = append(flags, canonical(f, ""))
				case i == 0: // perhaps a long name with one hyphen
					return nil, nil, &unknownFlagError{word}
				case letter == '=':
					return nil, nil, usagef("%s takes no value", word[:i+1])
				default:
					return nil, nil, &unknownFlagError{"-" + string(letter)}
				}
			}
		}
	}
	return flags, operands, nil
}

// isFlag reports whether a word is meant as a flag; "-" is stdin.
func isFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

// takesValue reports whether a flag has a value.
func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// canonical is a flag in its long form.
func canonical(f cli.Flag, value string) string {
	if takesValue(f) {
		return "--" + f.Names()[0] + "=" + value
	}
	return "--" + f.Names()[0]
}

func find(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(name) })
	if i < 0 {
		return nil
	}
	return commands[i]
}

func unknownCommand(commands []*cli.Command, name string) error {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	err := usagef("unknown command %q", name)
	if best := near(name, names); best != "" {
		err.hint = "did you mean nlb " + best + "?"
	} else {
		err.hint = "nlb --help lists the commands"
	}
	return err
}

// unknownFlag is the error for a flag that a command, nil for nlb itself, does
// not have: the nearest that it has, or the command that has it.
func unknownFlag(commands []*cli.Command, c *cli.Command, flag string) error {
	err := usagef("unknown flag %s", flag)
	name := strings.TrimLeft(flag, "-")
	known, help := everywhere(), "nlb --help"
	if c != nil {
		known, help = c.Flags, "nlb "+c.Name+" --help"
	}
	if best := near(name, flagNames(known)); best != "" {
		err.hint = fmt.Sprintf("did you mean --%s?", best)
		return err
	}
	err.hint = help + " lists the flags"
	for _, other := range commands {
		if slices.Contains(flagNames(other.Flags), name) {
			err.hint = fmt.Sprintf("%s is a flag of nlb %s", flag, other.Name)
		}
	}
	return err
}

// flagNames are the long names of flags.
func flagNames(flags []cli.Flag) []string {
	var out []string
	for _, f := range flags {
		out = append(out, f.Names()[0])
	}
	return out
}

// near is the word that was probably meant: one that begins with what was
// written, or one like it; empty where there is none.
func near(written string, words []string) string {
	if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, written) }); i >= 0 && len(written) > 1 {
		return words[i]
	}
	return lb.Nearest(written, words)
}
