package nft_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/lbtest"
	"nlb/nft/compile"
)

// The demands on a field: what has to be another where its value is.
const (
	fingerprint = "fingerprint" // lb.Fingerprint: a service is sent to the kernel
	change      = "change"      // lb.Compare: people learn what happens
	ruleset     = "ruleset"     // compile.Profiles: packets notice
	file        = "file"        // config.Write, and the way back by config.Parse
	shown       = "shown"       // the JSON of nlb show
)

// missing says where a field has to be taught, by the demand that it does not meet.
var missing = map[string]string{
	fingerprint: "has the same fingerprint with another value: lb/compare.go does not walk it",
	change:      "is named by no change: the entry of its key in lb/keys.go is missing, or its text leaves the value out",
	ruleset:     "makes no other ruleset: the compiler does not know it",
	file:        "is not written and read back: its entries in lb/keys.go and lb/config/keys.go are missing, or leave the value out",
	shown:       "is not in the JSON of nlb show: its entry in lb/keys.go is missing, or leaves the value out",
}

// exempt are fields of which a demand is not made, with the reason.
var exempt = map[string]map[string]string{
	"Profile.Name": {fingerprint: "the caller's salt has it", shown: "the profile has it, not the service"},
	"Profile.Sysctl": {
		fingerprint: "no service has it", change: "the kernel does not keep it", ruleset: "it is about parameters of the kernel",
		shown: "the kernel does not keep it",
	},
	"Service.SNAT.Mode":        {change: "each backend has its own", ruleset: "each backend has its own"},
	"Service.SNAT.Auto":        {change: "each backend has its own", ruleset: "each backend has its own"},
	"Service.SNAT.Pool":        {change: "each backend has its own", ruleset: "each backend has its own"},
	"Service.OnRefuse":         {shown: "the kernel keeps it only where something is turned away"},
	"Service.OnEmpty":          {shown: "the kernel keeps it only where no backend takes connections"},
	"Backend.State":            known(),
	"Backend.Share":            known(),
	"Backend.Standing.Verdict": known(ruleset), "Backend.Standing.Since": known(ruleset), "Backend.Standing.Reason": known(ruleset),
	"Backend.Standing.Order": known(), "Backend.Standing.By": known(ruleset), "Backend.Standing.Until": known(ruleset),
	"Backend.CheckAt.None": unkept, "Backend.CheckAt.Addr": unkept, "Backend.CheckAt.Port": unkept,
	"Service.Health": unkept, "Service.FailOpen": unkept, "Service.OnDown": unkept, "Service.SlowStart": unkept,
	"Service.MinUp.Count": unkept, "Service.MinUp.Percent": unkept,
}

// unkept is for what only those look at who check the servers, or announce addresses:
// the kernel does not keep it. What it leads to are states and shares, which the kernel has.
var unkept = map[string]string{
	fingerprint: "the kernel does not keep it: another value is no reason to send anything",
	change:      "the kernel does not keep it, so nobody could say what it was",
	ruleset:     "packets meet the states and shares that follow from it",
	shown:       "the kernel does not keep it",
}

// known is for what is known of a backend; what the table keeps only of
// backends that are down, or under an order, is named.
func known(unwritten ...string) map[string]string {
	out := map[string]string{change: "what is wanted is compared", file: "no key of a profile", shown: "no key of a profile"}
	for _, demand := range unwritten {
		out[demand] = "the table keeps it of backends that are down"
	}
	return out
}

func init() {
	for _, p := range lbtest.Full() { // the keys of a check are those of health
		for _, f := range lbtest.Fields(p) {
			if strings.HasPrefix(f.Path, "Profile.Announce") {
				exempt[f.Path] = unkept
			}
			if strings.HasPrefix(f.Path, "Service.Health.") {
				exempt[f.Path] = unkept
			}
		}
	}
}

// unreached are fields that nothing here meets, with the reason.
var unreached = map[string]string{
	"Backend.Host.Name": "a name is resolved before a profile comes here",
	"Backend.Host.SRV":  "a name is resolved before a profile comes here",
}

// words are what a change calls a field, where that is not its own name or that
// of what it is in.
var words = map[string]string{"Service.HashBy": "hash by", "Service.Protocols": "listen"}

// TestKeys changes each field of a profile, alone, and demands that everybody
// notices. A field that is new and was not taught to somebody fails here.
func TestKeys(t *testing.T) {
	t.Parallel()
	met := map[string]map[string]bool{} // by field and demand
	var paths []string
	for base, profile := range lbtest.Full() {
		if err := profile.Validate(); err != nil {
			t.Fatalf("profile %d is not valid: %v", base, err)
		}
		whole := readBack(profile) == ""
		if !whole {
			t.Errorf("a file does not say all of a profile: entries in lb/keys.go and lb/config/keys.go are missing (-want +got)\n%s", readBack(profile))
		}
		for i, f := range lbtest.Fields(profile) {
			if !slices.Contains(paths, f.Path) {
				paths = append(paths, f.Path)
			}
			for j := range lbtest.Others(f.Value) {
				want := lbtest.Full()[base]
				field := lbtest.Fields(want)[i]
				field.Value.Set(lbtest.Others(field.Value)[j])
				if want.Validate() != nil {
					continue
				}
				if met[f.Path] == nil {
					met[f.Path] = map[string]bool{}
				}
				for demand, isMet := range demands(t, f.Path, whole, profile, want) {
					met[f.Path][demand] = met[f.Path][demand] || isMet()
				}
			}
		}
	}
	for _, path := range paths {
		if unreached[path] != "" {
			if met[path] != nil {
				t.Errorf("%s: a value was found that is valid, although %q", path, unreached[path])
			}
			continue
		}
		if met[path] == nil {
			t.Errorf("%s: no other value of it was found that is valid: lbtest.Full or lbtest.Others have to be taught", path)
			continue
		}
		for demand, what := range missing {
			reason := exempt[path][demand]
			switch ok := met[path][demand]; {
			case !ok && reason == "":
				t.Errorf("%s: %s", path, what)
			case ok && reason != "":
				t.Errorf("%s: the %s does change, although %q", path, demand, reason)
			}
		}
	}
	for path := range exempt {
		if !slices.Contains(paths, path) {
			t.Errorf("%s: there is no such field", path)
		}
	}
	t.Logf("%d fields", len(paths))
}

// readBack is what differs when a profile is written and read.
func readBack(p *lb.Profile) string {
	read, err := config.Parse("p.yaml", config.Write(p))
	if err != nil {
		return err.Error()
	}
	return cmp.Diff(p, read, lbtest.Same)
}

// demands says which demands are met by two profiles that differ in a field.
// whole: a file says all of the first.
func demands(t *testing.T, path string, whole bool, have, want *lb.Profile) map[string]func() bool {
	t.Helper()
	type services = [2][lb.FingerprintSize]byte
	fingerprints := func(p *lb.Profile) (out []services) {
		for i := range p.Services {
			frame, backends := lb.Fingerprint("", &p.Services[i])
			out = append(out, services{frame, backends})
		}
		return out
	}
	word := words[path]
	named := func(c lb.Change) bool {
		if c.Op != lb.Changed || word != "" && strings.Contains(c.Detail, word) {
			return true
		}
		detail := strings.ReplaceAll(c.Detail, "-", "") + " " // MaxConnections is max-connections
		for name := range strings.SplitSeq(strings.ToLower(path), ".") {
			if strings.Contains(detail, name+" ") {
				return true
			}
		}
		return false
	}
	compiled := func(p *lb.Profile) string { return compile.Profiles("nlb", []*lb.Profile{p}).String() }
	return map[string]func() bool{
		fingerprint: func() bool { return !slices.Equal(fingerprints(have), fingerprints(want)) },
		change:      func() bool { return slices.ContainsFunc(lb.Compare([]*lb.Profile{have}, []*lb.Profile{want}), named) },
		ruleset:     func() bool { return compiled(have) != compiled(want) },
		file: func() bool {
			return string(config.Write(have)) != string(config.Write(want)) && (!whole || readBack(want) == "")
		},
		shown: func() bool { return jsonOf(t, have) != jsonOf(t, want) },
	}
}

// jsonOf is what nlb show prints of the keys of a profile's services.
func jsonOf(t *testing.T, p *lb.Profile) string {
	t.Helper()
	var out []any
	for i := range p.Services {
		s := &p.Services[i]
		out = append(out, s.Values())
		for j := range s.Backends {
			out = append(out, s.Backends[j].Values(s))
		}
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
