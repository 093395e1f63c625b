package importer

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"nlb/lb"
	"nlb/lb/config"

	"github.com/google/go-cmp/cmp"
)

func service(name, listen string, backends ...string) lb.Service {
	p, err := config.Parse("test", []byte("services: [{name: x, listen: \""+listen+"\", backends: [\""+strings.Join(backends, `","`)+"\"]}]"))
	if err != nil {
		panic(err)
	}
	s := p.Services[0]
	s.Name = name
	return s
}

func TestDraft(t *testing.T) {
	lines := []string{"one", "two", "three"}
	d := New("etc/my rules.v4", "iptables", lines)
	d.Add(service("web shop", "203.0.113.1:80", "10.0.0.1:80"), Place{1, 1, 0}, "line 1", "strange \x01 ünd")
	d.Add(service("web/shop", "203.0.113.2:80", "10.0.0.1:80"), Place{2, 1, 0})
	d.Add(service("///", "203.0.113.1:80", "10.0.0.2:80"), Place{3, 1, 0})
	hash := service("web-shop", "203.0.113.3:80", "10.0.0.1:80")
	hash.Scheduler, hash.HashBy = lb.Hash, []lb.HashField{lb.SourceAddress}
	hash.Log = &lb.Log{Level: 4}
	hash.Backends[0].Log = hash.Log
	d.Add(hash, Place{3, 1, 0})
	loop := service("loop", "203.0.113.4:80", "10.0.0.1:80")
	loop.Backends[0].Address = lb.Endpoint{Addr: netip.MustParseAddr("203.0.113.4"), Port: 80}
	loop.Backends[0].Name = "203.0.113.4:80"
	d.Add(loop, Place{2, 1, 0})
	d.Note("good to know", "", Place{3, 1, 2}, Place{1, 1, 0})
	d.Note("good to know", "", Place{2, 1, 0}, Place{1, 1, 0})
	d.Lost("all of it", "no \x1b way")
	m := d.Finish()
	want := `# nlb import: made of my rules.v4 (iptables)
# parts of it are not here: see the warnings
profile: my-rules
services:
  # line 1
  # strange ? ?nd
  - name: web-shop
    listen: 203.0.113.1:80
    backends:
      - 10.0.0.1:80
  - name: web-shop-2
    listen: 203.0.113.2:80
    backends:
      - 10.0.0.1:80
  - name: web-shop-3
    listen: 203.0.113.3:80
    scheduler: hash
    log:
      prefix: "web-shop-3 "
      level: warn
    backends:
      - 10.0.0.1:80
`
	if diff := cmp.Diff(want, string(m.YAML())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var got []string
	for _, f := range m.Findings {
		got = append(got, f.Format())
	}
	wantFindings := []string{
		"etc/my rules.v4:1:1: note: good to know (also in lines 2-3)\n   1 | one",
		"etc/my rules.v4:2:1: warning: service loop is left out, since a profile cannot have it: backend 203.0.113.4:80 is what the service listens on, want another address or port\n   2 | two",
		"etc/my rules.v4:3:1: warning: service service does not get 203.0.113.1:80, which another service has\n   3 | three",
		"etc/my rules.v4:1:1: warning: all of it\n   hint: no \\x1b way",
	}
	if diff := cmp.Diff(wantFindings, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if m.Complete() {
		t.Error("an import with warnings is complete")
	}
}

func TestName(t *testing.T) {
	for text, want := range map[string]string{
		"web": "web", "a b//c": "a-b-c", " --x-- ": "x", "ü": "", "": "", "A_b.c": "A_b.c", strings.Repeat("y", 100): strings.Repeat("y", 63),
	} {
		if got := Name(text); got != want {
			t.Errorf("Name(%q) = %q, want %q", text, got, want)
		}
	}
	n := names{}
	long := strings.Repeat("z", 63)
	for _, want := range []string{long, long[:61] + "-2", long[:61] + "-3"} {
		if got := n.unique(long); got != want {
			t.Errorf("unique is %q, want %q", got, want)
		}
	}
}

func TestLineList(t *testing.T) {
	for _, tt := range []struct {
		lines []int
		want  string
	}{
		{[]int{7}, "line 7"},
		{[]int{1, 2, 3, 5}, "lines 1-3, 5"},
		{[]int{1, 3, 5, 7, 9, 11, 13, 15, 17, 18}, "lines 1, 3, 5, 7, 9, 11, 13, 15, and 2 more"},
	} {
		if got := LineList(tt.lines); got != tt.want {
			t.Errorf("%v is %q, want %q", tt.lines, got, tt.want)
		}
	}
}

func TestLines(t *testing.T) {
	got, err := Lines("x", []byte("\uFEFFa\r\nb\tc\n\nd\xe9"))
	if diff := cmp.Diff([]string{"a", "b\tc", "", "d\uFFFD"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for text, want := range map[string]string{
		"a\nb\x00":                         "x:2:2: the control character \\x00, want plain text",
		strings.Repeat("a\n", MaxText/2+1): "x:1:1: the text is too long, want at most 16 MiB",
	} {
		_, err := Lines("x", []byte(text))
		if errs, ok := errors.AsType[lb.Errors](err); !ok || errs[0].Error() != want {
			t.Errorf("%.10q: %v, want %s", text, err, want)
		}
	}
}
