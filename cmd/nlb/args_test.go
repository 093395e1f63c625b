package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	all := commands(&app{})
	for _, test := range []struct{ typed, want string }{
		// What was typed, and what urfave/cli gets.
		{"show", "show --"},
		{"apply web.yaml", "apply -- web.yaml"},
		{"apply web.yaml --dry-run", "apply --dry-run -- web.yaml"},
		{"apply web.yaml -n", "apply --dry-run -- web.yaml"},
		{"apply -nq web.yaml", "apply --dry-run --quiet -- web.yaml"},
		{"apply web.yaml -n db.yaml -q", "apply --dry-run --quiet -- web.yaml db.yaml"},
		{"apply -n --dry-run -n a", "apply --dry-run --dry-run --dry-run -- a"},
		{"apply --table x a", "apply --table=x -- a"},
		{"apply a --table=x", "apply --table=x -- a"},
		{"apply a --table= b", "apply --table= -- a b"},
		{"apply a --table --prune", "apply --table=--prune -- a"},
		{"apply -", "apply -- -"},
		{"apply - -n", "apply --dry-run -- -"},
		{"apply -- -n", "apply -- -n"},
		{"apply a -- -n --", "apply -- a -n --"},
		{"push a -m two b", "push --message=two -- a b"},
		{"push -qm two a", "push --quiet --message=two -- a"},
		{"-m push push a", "push --message=push -- a"},
		{"--json show", "show --json --"},
		{"--table x show shop", "show --table=x -- shop"},
		{"-n apply a", "apply --dry-run -- a"},
		{"flush show", "flush -- show"},
		{"show help", "show -- help"},
		{"", " --"},
		{"--help", " --help --"},
		{"-h", " --help --"},
		{"--version", " --version --"},
	} {
		l, err := arrange(all, strings.Fields(test.typed))
		if got := strings.Join(l.words()[1:], " "); err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.typed, got, err, test.want)
		}
	}
}

func TestArrangeRefuses(t *testing.T) {
	all := commands(&app{})
	for _, test := range []struct{ typed, want, hint string }{
		{"aply x", `unknown command "aply"`, "did you mean nlb apply?"},
		{"ap x", `unknown command "ap"`, "did you mean nlb apply?"},
		{"frobnicate", `unknown command "frobnicate"`, "nlb --help lists the commands"},
		{"apply --dryrun a", "unknown flag --dryrun", "did you mean --dry-run?"},
		{"apply a --dry_run=1", "unknown flag --dry_run", "did you mean --dry-run?"},
		{"apply a -dry-run", "unknown flag -dry-run", "did you mean --dry-run?"},
		{"show -json", "unknown flag -json", "did you mean --json?"},
		{"apply -nx a", "unknown flag -x", "nlb apply --help lists the flags"},
		{"apply -n=true a", "-n takes no value", ""},
		{"apply --n a", "unknown flag --n", "nlb apply --help lists the flags"},
		{"apply --json=yes a", "--json takes no value", ""},
		{"show --table", "--table needs a value", ""},
		{"push -mx a", "-m needs a value, as the next word", ""},
		{"push a -m", "-m needs a value, as the next word", ""},
		{"show --prune", "unknown flag --prune", "--prune is a flag of nlb apply"},
		{"apply a --sysctl", "unknown flag --sysctl", "--sysctl is a flag of nlb flush"},
		{"--nosuch", "unknown flag --nosuch", "nlb --help lists the flags"},
		{"--nosuch show", "unknown flag --nosuch", "nlb show --help lists the flags"},
	} {
		_, err := arrange(all, strings.Fields(test.typed))
		usage, ok := errors.AsType[*usageError](err)
		if !ok || usage.msg != test.want || usage.hint != test.hint {
			t.Errorf("%s: got %#v", test.typed, err)
		}
	}
}

// Whatever is typed is either refused or reaches urfave/cli whole: flags in
// front, then all that is no flag.
func FuzzArrange(f *testing.F) {
	f.Add("apply\na.yaml\n-n")
	f.Add("--table\nx\nshow\n--\n-q")
	all := commands(&app{})
	f.Fuzz(func(t *testing.T, typed string) {
		words := strings.Split(typed, "\n")
		l, err := arrange(all, words)
		if err != nil {
			return
		}
		for _, flag := range l.flags {
			if !strings.HasPrefix(flag, "--") {
				t.Errorf("flag %q", flag)
			}
		}
		for _, operand := range l.operands {
			if !slices.Contains(words, operand) {
				t.Errorf("operand %q", operand)
			}
		}
	})
}

func TestNear(t *testing.T) {
	words := []string{"apply", "diff", "show", "flush", "check", "render"}
	for word, want := range map[string]string{
		"aply": "apply", "applly": "apply", "appyl": "apply", "ap": "apply", "dif": "diff", "difff": "diff",
		"status": "", "list": "", "x": "", "": "", "rendr": "render", "flsh": "flush", "s": "", "sh": "show",
	} {
		if got := near(word, words); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

// Every flag and command has a line in the help, and no line is wider than a
// terminal.
func TestHelp(t *testing.T) {
	all := commands(&app{})
	text := about(all).Overview()
	for _, c := range all {
		if !strings.Contains(text, "  "+c.Name) {
			t.Errorf("the overview lacks %s", c.Name)
		}
		help := about(all).Help(c)
		for _, name := range flagNames(c.Flags) {
			if !strings.Contains(help, "--"+name) {
				t.Errorf("the help of %s lacks --%s", c.Name, name)
			}
		}
		text += help
	}
	for line := range strings.Lines(text) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}
