package view

import (
	"bytes"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/importer/iptables"
)

// TestMistakes: the parts of a mistake have colors, where the reader sees colors.
func TestMistakes(t *testing.T) {
	_, err := config.Parse("a b: error: .yaml", []byte("services:\n  - {name: web, listen: \"203.0.113.10:http\", backends: \"10.0.0.1\", snta: vip}\n"))
	errs := err.(lb.Errors)
	m, err := iptables.Import("r", []byte("iptables -t nat -A PREROUTING -p tcp -d 203.0.113.10 --dport 80 -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.0.0.11:8080\n"))
	if err != nil {
		t.Fatal(err)
	}
	text := func(color bool) string {
		var b bytes.Buffer
		c := NewConsole("nlb", nil, &b, &b)
		c.Err.Color = color
		c.PrintErrors(errs)
		if n := c.PrintFindings(m); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		return b.String()
	}
	plain, painted := text(false), text(true)
	for _, want := range []string{
		"\x1b[1ma b: error: .yaml:2:25:\x1b[0m \x1b[31merror:\x1b[0m port http is not a number\n",
		" | " + strings.Repeat(" ", 24) + "\x1b[31m^^^^^^^^^^^^^^^^^^^ want 80, ",
		"\n   \x1b[36mhint:\x1b[0m did you mean snat?",
		"\x1b[1mr:1:1:\x1b[0m \x1b[33mwarning:\x1b[0m these rules leave ",
	} {
		if !strings.Contains(painted, want) {
			t.Errorf("no %q in\n%q", want, painted)
		}
	}
	bare := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[31m", "", "\x1b[33m", "", "\x1b[36m", "").Replace(painted)
	if bare != plain || strings.Contains(plain, "\x1b") {
		t.Errorf("without colors:\n%s\nwant\n%s", bare, plain)
	}
	want := ""
	for _, e := range errs {
		want += config.FormatError(e) + "\n"
	}
	if !strings.HasPrefix(plain, want) {
		t.Errorf("got\n%swant\n%s", plain, want)
	}
}
