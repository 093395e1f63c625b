package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
)

func parseNamed(t *testing.T, file, text string) *lb.Profile {
	t.Helper()
	p, err := Parse(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConflictsAcrossProfiles(t *testing.T) {
	const text = "services:\n  - {name: web, listen: 203.0.113.10:80, backends: []}\n"
	shop, blog := parseNamed(t, "shop.yaml", text), parseNamed(t, "blog.yaml", text)
	kernel := parseNamed(t, "shop.yaml", text)
	kernel.Pos, kernel.Services[0].Pos, kernel.Services[0].Listen[0].Pos = lb.Pos{}, lb.Pos{}, lb.Pos{}
	for _, tt := range []struct {
		name     string
		profiles []*lb.Profile
		want     string
	}{
		{
			"two files",
			[]*lb.Profile{shop, blog},
			"blog.yaml:2:25: service blog/web claims 203.0.113.10:80 tcp, which service shop/web claims at shop.yaml:2:25, " +
				"want each address, port and protocol once",
		},
		{
			"the other order",
			[]*lb.Profile{blog, shop},
			"shop.yaml:2:25: service shop/web claims 203.0.113.10:80 tcp, which service blog/web claims at blog.yaml:2:25, " +
				"want each address, port and protocol once",
		},
		{
			"kernel",
			[]*lb.Profile{kernel, blog},
			"blog.yaml:2:25: service blog/web claims 203.0.113.10:80 tcp, which service shop/web claims in the kernel, " +
				"want each address, port and protocol once",
		},
		{
			"one name",
			[]*lb.Profile{parseNamed(t, "a/shop.yaml", "services: []"), parseNamed(t, "b/shop.yaml", "\nservices: []")},
			"b/shop.yaml:1:1: profile shop is here twice, first at a/shop.yaml:1:1, want a name for each profile",
		},
		{"none", []*lb.Profile{shop}, ""},
	} {
		if diff := cmp.Diff(tt.want, lb.Conflicts(tt.profiles).Error()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestQuote(t *testing.T) {
	a := "services:\n  - {name: web, listen: [203.0.113.10:80, 203.0.113.10:81], backends: []}\n"
	b := bom + "services:\r\n  - name: api\r\n    listen: 203.0.113.10:*\r\n    backends: []\r\n"
	errs := lb.Conflicts([]*lb.Profile{parseNamed(t, "b.yaml", b), parseNamed(t, "a.yaml", a)})
	Quote(errs, "b.yaml", []byte(b))
	Quote(errs, "a.yaml", []byte(a))
	want := `a.yaml:2:26: error: service a/web claims 203.0.113.10:80 tcp, which service b/api claims at b.yaml:3:13
   2 |   - {name: web, listen: [203.0.113.10:80, 203.0.113.10:81], backends: []}
     |                          ^^^^^^^^^^^^^^^ want each address, port and protocol once
a.yaml:2:43: error: service a/web claims 203.0.113.10:81 tcp, which service b/api claims at b.yaml:3:13
   2 |   - {name: web, listen: [203.0.113.10:80, 203.0.113.10:81], backends: []}
     |                                           ^^^^^^^^^^^^^^^ want each address, port and protocol once`
	if diff := cmp.Diff(want, Format(errs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
