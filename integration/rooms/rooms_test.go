// Package rooms tests the shape of the source: which package may import which,
// and how large files and packages may be. docs/contributing.md says what lives
// in each room. A change of the shape begins here.
package rooms

import (
	"bytes"
	"cmp"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "nlb/"

	mostFiles     = 15   // of a package, tests not counted
	mostLines     = 400  // of a file that is no test
	mostLinesMain = 2000 // of cmd/nlb proper, tests not counted
)

// room is a package and what is below it, as far as that is no room of its own.
// It may import these rooms, itself and the library.
type room struct {
	path string
	may  []string
}

// rooms are sorted: each may import only what stands above it. One that is not
// there yet, or no longer, allows nothing.
var rooms = []room{
	{"lb/internal", nil},
	{"lb", []string{"lb/internal"}},
	{"lb/health", []string{"lb"}},
	{"lb/announce", []string{"lb"}},
	{"lb/names", []string{"lb"}},
	{"lb/needs", []string{"lb"}},
	{"lb/config", []string{"lb", "lb/internal"}},
	{"lb/importer", []string{"lb", "lb/config", "lb/internal"}},

	{"sysctl", nil},
	{"nft/wire", nil},
	{"nft/ruleset", []string{"nft/wire"}}, // values that know no profile
	{"nft/conntrack", []string{"nft/wire"}},
	{"nft/fleet", []string{"lb", "nft/ruleset"}},          // knows no kernel
	{"nft/compile/border", []string{"lb", "nft/ruleset"}}, // knows no kernel
	{"nft/compile/datagrams", []string{"lb", "nft/ruleset"}},
	{"nft/compile/synproxy", []string{"lb", "nft/ruleset"}},
	{"nft/compile/handshake", []string{"lb", "nft/ruleset"}},
	{"nft/compile", []string{"lb", "nft/ruleset", "nft/fleet", "nft/compile/border", "nft/compile/datagrams", "nft/compile/synproxy", "nft/compile/handshake"}}, // knows no kernel
	{"nft/listing", []string{"nft/wire"}}, // rulesets of others, as nft lists them
	{"nft/flows", []string{"lb", "nft/wire", "nft/ruleset", "nft/conntrack", "nft/compile"}},
	{"nft/direct", []string{"lb", "nft/ruleset", "nft/compile"}}, // knows no kernel
	{"nft/links", []string{"lb", "nft/direct"}},
	{"nft", []string{"lb", "nft/wire", "nft/ruleset", "nft/conntrack", "nft/compile", "nft/flows", "nft/direct"}},
	{"nft/probe", []string{"lb", "nft/wire", "nft/ruleset", "nft/compile", "nft/direct", "nft"}},

	{"integration/netlab", []string{"sysctl"}},
	{"integration/netlab/netlabtest", []string{"lb", "lb/config", "sysctl", "nft/wire", "nft/direct", "nft/links", "nft", "nft/probe", "integration/netlab"}},
	{"integration/lab/plan", []string{"lb", "lb/health"}}, // pure
	{"integration/lab", []string{"integration/lab/plan", "lb", "integration/netlab"}},
	{"integration/lab/fleet", []string{"integration/lab", "lb", "integration/netlab"}},
	{"integration", []string{"lb", "lb/config", "sysctl", "nft/wire", "nft/ruleset", "nft/conntrack", "nft", "integration/netlab"}},

	{"cmd/nlb/internal/text", nil},
	{"cmd/nlb/internal/manual", []string{"lb/config", "cmd/nlb/internal/text"}},
	{"cmd/nlb/internal/daemons", []string{"lb", "lb/announce", "cmd/nlb/internal/text"}},
	{"cmd/nlb/internal/agent/resolve", []string{"lb", "lb/names"}},
	{"cmd/nlb/internal/source", []string{"lb", "lb/config", "lb/names", "cmd/nlb/internal/text", "cmd/nlb/internal/agent/resolve"}},
	{"cmd/nlb/internal/doctor/firewall", []string{"nft/wire", "nft/listing"}},
	{"cmd/nlb/internal/engine/vip", nil},
	{"cmd/nlb/internal/engine", []string{
		"lb", "lb/config", "lb/needs", "sysctl", "nft/wire", "nft/ruleset", "nft/conntrack", "nft/compile", "nft/direct", "nft/links", "nft", "nft/probe",
		"cmd/nlb/internal/doctor/firewall", "cmd/nlb/internal/engine/vip",
	}},
	{"cmd/nlb/internal/doctor", []string{
		"lb", "lb/announce", "lb/needs", "cmd/nlb/internal/engine/vip", "sysctl", "nft/wire", "nft/conntrack", "nft/compile", "nft/links", "nft", "nft/probe", "cmd/nlb/internal/text", "cmd/nlb/internal/doctor/firewall",
	}},
	{"cmd/nlb/internal/view", []string{
		"lb", "lb/health", "lb/config", "lb/importer", "sysctl", "nft", "integration/lab", "integration/lab/plan", "integration/lab/fleet", "cmd/nlb/internal/text", "cmd/nlb/internal/doctor",
	}},
	{"cmd/nlb/internal/agent/probe", []string{"lb"}},
	{"cmd/nlb/internal/agent/roster", []string{"lb", "lb/health", "nft", "cmd/nlb/internal/agent/probe"}}, // asks nobody
	{"cmd/nlb/internal/metrics", []string{"lb", "sysctl", "cmd/nlb/internal/view"}},
	{"cmd/nlb/internal/agent/board", []string{"lb", "cmd/nlb/internal/engine", "cmd/nlb/internal/metrics", "cmd/nlb/internal/view"}}, // values alone
	{"cmd/nlb/internal/web", []string{
		"lb", "cmd/nlb/internal/text", "cmd/nlb/internal/metrics", "cmd/nlb/internal/view", "cmd/nlb/internal/agent/board",
	}},
	{"cmd/nlb/internal/agent/announcer", []string{"lb", "lb/announce", "cmd/nlb/internal/engine", "cmd/nlb/internal/engine/vip"}},
	{"cmd/nlb/internal/fleet", []string{ // knows no kernel
		"lb", "lb/config", "cmd/nlb/internal/text", "cmd/nlb/internal/source", "cmd/nlb/internal/view",
	}},
	{"cmd/nlb/internal/agent", []string{
		"lb", "lb/health", "lb/names", "lb/announce", "nft", "nft/conntrack", "cmd/nlb/internal/agent/resolve", "cmd/nlb/internal/agent/announcer",
		"cmd/nlb/internal/text", "cmd/nlb/internal/source", "cmd/nlb/internal/engine", "cmd/nlb/internal/view",
		"cmd/nlb/internal/agent/probe", "cmd/nlb/internal/agent/roster", "cmd/nlb/internal/agent/board", "cmd/nlb/internal/web",
	}},
	{"cmd/nlb/internal/incumbent", []string{"lb", "lb/importer", "nft/wire", "nft/listing", "cmd/nlb/internal/doctor"}},
	{"cmd/nlb/internal/stage", []string{
		"lb", "lb/config", "integration/netlab", "integration/lab", "integration/lab/plan", "integration/lab/fleet", "cmd/nlb/internal/engine",
	}},
	{"cmd/nlb/internal/fleet/member", []string{
		"lb", "lb/config", "nft", "cmd/nlb/internal/source", "cmd/nlb/internal/agent/board", "cmd/nlb/internal/agent", "cmd/nlb/internal/fleet",
	}},
	{"cmd/nlb", []string{
		"lb", "lb/config", "lb/announce", "lb/importer", "nft/compile", "nft", "integration/netlab", "integration/lab/plan",
		"cmd/nlb/internal/stage", "cmd/nlb/internal/incumbent", "cmd/nlb/internal/text", "cmd/nlb/internal/manual", "cmd/nlb/internal/daemons", "cmd/nlb/internal/source", "cmd/nlb/internal/engine", "cmd/nlb/internal/view",
		"cmd/nlb/internal/doctor", "cmd/nlb/internal/agent", "cmd/nlb/internal/metrics", "cmd/nlb/internal/web",
		"cmd/nlb/internal/fleet", "cmd/nlb/internal/fleet/member",
	}},
}

// changing are the calls that change the machine. In cmd, only engine makes
// them: rules and kernel parameters are one act.
var (
	changing = []string{"nft.Apply(", "nft.Open(", "nft.Flush(", "sysctl.Local.Write(", "sysctl.Local.Undo(", "sysctl.Local.Set("}
	engine   = "cmd/nlb/internal/engine"
)

// until are faults of the shape that are known and will go. One that is gone
// must go from here, too.
var until []string

// pack is a package, without its tests.
type pack struct {
	path         string
	files, lines int
	long         []string // files with more than mostLines
	imports      []string // of this module, sorted
	changes      []string // the calls of changing that it makes
}

func TestRooms(t *testing.T) {
	root := os.DirFS("../..")
	packs := read(t, root)
	if len(packs) < 20 {
		t.Fatalf("only %d packages were found", len(packs))
	}
	found := faults(packs)
	for _, f := range found {
		if !slices.Contains(until, f) {
			t.Error(f)
		}
	}
	for _, f := range until {
		if !slices.Contains(found, f) {
			t.Errorf("%q is not so any more: take it out of until", f)
		}
	}
}

// TestRoomsOrder: what a room may import is a room above it.
func TestRoomsOrder(t *testing.T) {
	for i, r := range rooms {
		for _, may := range r.may {
			if !slices.ContainsFunc(rooms[:i], func(above room) bool { return above.path == may }) {
				t.Errorf("%s may import %s, which is no room above it", r.path, may)
			}
		}
	}
}

// TestRoomsListed: docs/contributing.md lists the rooms, each above those that it may
// import.
func TestRoomsListed(t *testing.T) {
	text, err := os.ReadFile("../../docs/contributing.md")
	if err != nil {
		t.Fatal(err)
	}
	row := func(r string) int { return bytes.Index(text, []byte("\n| `"+r+"` |")) }
	for _, r := range rooms {
		switch at := row(r.path); {
		case isKit(r.path):
		case at < 0:
			t.Errorf("%s is not listed", r.path)
		default:
			for _, may := range r.may {
				if row(may) < at {
					t.Errorf("%s is listed below %s, which it may import", r.path, may)
				}
			}
		}
	}
}

// TestFaults: each kind of fault is found.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		pack pack
		want string
	}{
		{pack{path: "nft/ruleset", imports: []string{"lb"}}, "nft/ruleset imports lb"},
		{pack{path: "lb", imports: []string{"lb/config"}}, "lb imports lb/config"},
		{pack{path: "integration/lab", imports: []string{"cmd/nlb/internal/engine"}}, "integration/lab imports cmd/nlb/internal/engine"},
		{pack{path: "nft", imports: []string{"lb/lbtest"}}, "nft imports lb/lbtest, which is for tests"},
		{pack{path: "tools"}, "tools is in no room"},
		{pack{path: "nft", files: 16}, "nft has more than 15 files"},
		{pack{path: "cmd/nlb", lines: 2001}, "cmd/nlb has more than 2000 lines"},
		{pack{path: "lb", long: []string{"slots.go"}}, "lb/slots.go has more than 400 lines"},
		{pack{path: "cmd/nlb", changes: []string{"nft.Apply("}}, "cmd/nlb calls nft.Apply("},
		{pack{path: engine}, engine + " changes nothing: changing is out of date"},
	} {
		if got := faults([]pack{tt.pack}); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%+v: got %q, want %q", tt.pack, got, tt.want)
		}
	}
	fine := []pack{
		{path: "nft", files: 15, lines: 6000, imports: []string{"lb", "nft/wire"}, changes: nil},
		{path: engine, imports: []string{"nft", "sysctl"}, changes: []string{"nft.Apply("}},
		{path: "lb/importer/ipvs", imports: []string{"lb", "lb/importer", "lb/importer/share"}},
		{path: "nft/wire/wiretest", imports: []string{"nft/wire"}},
	}
	if got := faults(fine); len(got) > 0 {
		t.Errorf("what is fine: got %q", got)
	}
}

// faults are what is not as it should be.
func faults(packs []pack) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, p := range packs {
		r, ok := roomOf(p.path)
		if !ok {
			say("%s is in no room", p.path)
			continue
		}
		for _, i := range p.imports {
			switch to, _ := roomOf(i); {
			case isKit(i) && !isKit(p.path):
				say("%s imports %s, which is for tests", p.path, i)
			case to.path != r.path && !slices.Contains(r.may, to.path):
				say("%s imports %s", p.path, i)
			}
		}
		if p.files > mostFiles {
			say("%s has more than %d files", p.path, mostFiles)
		}
		if p.path == "cmd/nlb" && p.lines > mostLinesMain {
			say("%s has more than %d lines", p.path, mostLinesMain)
		}
		for _, f := range p.long {
			say("%s/%s has more than %d lines", p.path, f, mostLines)
		}
		switch {
		case p.path == engine && len(p.changes) == 0:
			say("%s changes nothing: changing is out of date", p.path)
		case p.path != engine && strings.HasPrefix(p.path, "cmd/"):
			for _, c := range p.changes {
				say("%s calls %s", p.path, c)
			}
		}
	}
	return out
}

// roomOf is the innermost room of a package.
func roomOf(pack string) (best room, ok bool) {
	for _, r := range rooms {
		if (pack == r.path || strings.HasPrefix(pack, r.path+"/")) && len(r.path) > len(best.path) {
			best, ok = r, true
		}
	}
	return best, ok
}

// isKit reports whether a package is there for tests: its name ends in test.
func isKit(pack string) bool { return strings.HasSuffix(pack, "test") }

// read reads all packages, for all systems, sorted by path.
func read(t *testing.T, root fs.FS) []pack {
	all := map[string]*pack{}
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		b, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		dir := path.Dir(file)
		if all[dir] == nil {
			all[dir] = &pack{path: dir}
		}
		return all[dir].add(path.Base(file), b)
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []pack
	for _, p := range all {
		slices.Sort(p.imports)
		p.imports = slices.Compact(p.imports)
		slices.Sort(p.changes)
		p.changes = slices.Compact(p.changes)
		slices.Sort(p.long)
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b pack) int { return cmp.Compare(a.path, b.path) })
	return out
}

// add counts a file of the package.
func (p *pack) add(name string, source []byte) error {
	f, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
	if err != nil {
		return err
	}
	lines := bytes.Count(source, []byte("\n"))
	p.files++
	p.lines += lines
	if lines > mostLines {
		p.long = append(p.long, name)
	}
	for _, i := range f.Imports {
		to, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		if to, ok := strings.CutPrefix(to, module); ok {
			p.imports = append(p.imports, to)
		}
	}
	for _, c := range changing {
		if bytes.Contains(source, []byte(c)) {
			p.changes = append(p.changes, c)
		}
	}
	return nil
}
