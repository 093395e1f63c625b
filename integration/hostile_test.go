package integration

// Hostile names: texts of a profile that would be statements to nft, if they
// came that far. Fuzz targets beside the code do the same without a kernel.

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/nft"
	"nlb/nft/compile"
	"nlb/nft/wire"
)

// nasty are the texts.
var nasty = []string{
	`x" drop "`, `x" comment "y`, `x"`, `"`, `x; flush ruleset`, "x }\nflush ruleset\n", "x\ndrop", "x\r\ndrop", "x\tdrop", `x\`, `x\"`, `x\n`,
	"x # y", "$x", "@slots", "x,y", "x y", " x ", "{", "}", "{ }", "\x00", "x\x00y", "\x1b[2J", "\u202e", "é", "*", "eth*", "", "'", "`reboot`", "$(reboot)",
	"include", "define", "accept", "drop", "goto", "jump", "queue", "prerouting", "slots", "services4", "applied", "retired", "name", "weight 3",
	"-x", "--x", ".", "..", "/", "x/y", "0", "0x10", "9to5", "x_y.z-1", "true", "null", "~",
	strings.Repeat("x", 15), strings.Repeat("x", 16), strings.Repeat("x", 63), strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 300),
}

// places are profiles with a text somewhere.
var places = map[string]string{
	"profile": "profile: %s\nservices: [{name: web, listen: \"203.0.113.10:80\", backends: \"10.2.0.11:80\"}]\n",
	"service": "profile: shop\nservices: [{name: %s, listen: \"203.0.113.10:80\", log: true, affinity: 1m, backends: [{address: \"10.2.0.11:80\", max-connections: 3}]}]\n",
	"backend": "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", log: true, backends: [{address: \"10.2.0.11:80\", name: %s}]}]\n",
	"link":    "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", interface: %s, backends: \"10.2.0.11:80\"}]\n",
	"prefix":  "profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", log: {prefix: %s, rate: 5/second}, backends: \"10.2.0.11:80\"}]\n",
}

// TestNothingLostHostileNames: what is accepted makes the same objects as text
// and over netlink, as many as the profile is due, and reads back as it was; all
// else is refused at its place.
func TestNothingLostHostileNames(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	accepted, refused := 0, 0
	harmless := regexp.MustCompile(`^[a-z0-9]+$`)
	for place, format := range places {
		plain := 0
		for i, text := range append([]string{"plain"}, nasty...) {
			if !*full && i%8 != 0 && harmless.MatchString(text) {
				continue // words of nft
			}
			quoted, err := json.Marshal(text)
			b.Check(err)
			p, err := config.Parse("hostile.yaml", fmt.Appendf(nil, format, quoted))
			if err != nil {
				refused++
				if errs, ok := errors.AsType[lb.Errors](err); !ok || errs[0].Pos.Line == 0 || strings.Contains(config.FormatError(errs[0]), "\x1b") {
					t.Errorf("%s %q: %v", place, text, err)
				}
				continue
			}
			accepted++
			profiles := []*lb.Profile{p}
			b.Kernel(b.Balancer, func(c *wire.Conn) error {
				_, _, err := nft.Flush(t.Context(), c, nil, nft.Options{Table: "nlb"})
				if err == nil {
					_, err = nft.Apply(t.Context(), c, profiles, nft.Options{Table: "nlb"})
				}
				return err
			})
			ours := b.listed()
			if changes := lb.Compare(b.Load().Profiles, profiles); len(changes) > 0 {
				t.Errorf("%s %q reads back as something else: %v", place, text, changes)
			}
			b.Witness(b.Balancer, "flush ruleset\n"+compile.Profiles("nlb", profiles).String(), "nft", "-f", "-")
			theirs := b.listed()
			if d := cmp.Diff(ours, theirs); d != "" {
				t.Errorf("%s %q (-over netlink +from text):\n%s", place, text, d)
			}
			if plain == 0 {
				plain = len(theirs)
			}
			if len(theirs) != plain {
				t.Errorf("%s %q makes %d objects, want %d", place, text, len(theirs), plain)
			}
		}
	}
	if accepted < 40 || refused < 100 {
		t.Errorf("%d were accepted and %d refused", accepted, refused)
	}
	figures(t, "hostile names: %d accepted, and each made what was meant; %d refused", accepted, refused)
}

// listed is what nft lists: line by line and element by element, sorted.
func (b *bed) listed() []string {
	b.T.Helper()
	list := b.Witness(b.Balancer, "", "nft", "-s", "list", "ruleset")
	list = inQuotes.ReplaceAllStringFunc(list, func(s string) string { return strings.NewReplacer(",", "_", "{", "_", "}", "_").Replace(s) })
	out := strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune("\n,{}", r) })
	for i := range out {
		out[i] = strings.TrimSpace(strings.TrimPrefix(out[i], "\t\telements = "))
	}
	slices.Sort(out)
	return out
}

var inQuotes = regexp.MustCompile(`"[^"\n]*"`)
