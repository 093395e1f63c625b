//go:build linux

package modules

// IPVS: what nlb import --from-host reads of it, and whether the profile does the same.

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nlb/lb"
	"nlb/lb/config"
	"nlb/lb/importer/ipvs"
)

// virtual are services of all kinds.
const virtual = `-A -t 203.0.113.10:80 -s wrr
-a -t 203.0.113.10:80 -r 10.2.0.11:8080 -m -w 3
-a -t 203.0.113.10:80 -r 10.2.0.12:8080 -m -w 1 -x 1000 -y 900
-A -u [2001:db8::10]:53 -s rr -p 300 -M 64
-a -u [2001:db8::10]:53 -r [fd02::11]:8080 -m -w 1
-a -u [2001:db8::10]:53 -r [fd02::12]:8080 -m -w 0
-A -t 203.0.113.11:0 -s sh -b sh-port -p 60 -M 255.255.255.0
-a -t 203.0.113.11:0 -r 10.2.0.11:0 -g -w 1
-A --sctp-service 203.0.113.12:7 -s wlc
-a --sctp-service 203.0.113.12:7 -r 10.2.0.11:7 -i -w 1
-A -u 203.0.113.13:53 -s lc -o
-a -u 203.0.113.13:53 -r 10.2.0.11:53 -m -w 1
-A -f 7 -s mh
-a -f 7 -r 10.2.0.11:0 -m -w 1
`

func TestIPVS(t *testing.T) {
	if out, err := exec.Command("modprobe", "ip_vs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := newBed(t)
	b.Witness(b.Balancer, "", "ip", "address", "add", "203.0.113.10/32", "dev", "lo")
	b.Witness(b.Balancer, virtual, "ipvsadm", "-R")
	saved := b.Witness(b.Balancer, "", "ipvsadm", "-S", "-n")
	want, err := ipvs.Import("saved", []byte(saved))
	b.Check(err)
	c := b.Command(b.Balancer, *program, "import", "--from-host")
	said, err := c.Output()
	if c.ProcessState.ExitCode() != 4 { // the mark
		t.Fatalf("%v\n%s", err, said)
	}
	file := filepath.Join(b.dir, "old.yaml")
	b.Check(os.WriteFile(file, said, 0o644))
	got, err := config.Parse(file, said)
	b.Check(err)
	// ipvsadm sorts in its own way, and -S prints no thresholds.
	thresholds := strings.Count(string(said), "max-connections: 1000")
	for _, p := range []*lb.Profile{want.Profile, got} {
		p.Name = "old"
		slices.SortFunc(p.Services, func(a, b lb.Service) int { return strings.Compare(a.Name, b.Name) })
		for _, s := range p.Services {
			for i := range s.Backends {
				s.Backends[i].MaxConnections = 0
			}
			slices.SortFunc(s.Backends, func(a, b lb.Backend) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	if diff := cmp.Diff(string(config.Write(want.Profile)), string(config.Write(got))); diff != "" || len(got.Services) != 5 || thresholds != 1 {
		t.Errorf("of %d services (-ipvsadm -S +netlink)\n%s\n%s", len(got.Services), diff, saved)
	}

	shares := func() (first, second int) {
		row := b.Row("tcp", listen4, 16)
		for _, id := range row {
			if strings.Contains(id, "10.2.0.11") {
				first++
			} else if strings.Contains(id, "10.2.0.12") {
				second++
			}
		}
		return first, second
	}
	if a, c := shares(); a != 12 || c != 4 {
		t.Errorf("IPVS gives %d and %d of 16, want 12 and 4", a, c)
	}
	b.Witness(b.Balancer, "", "ipvsadm", "-C")
	b.Apply("profile: old\nservices:\n" + service(t, string(said), "tcp-80"))
	if a, c := shares(); a != 12 || c != 4 {
		t.Errorf("the profile gives %d and %d of 16, want 12 and 4", a, c)
	}
}

// service is one of a profile, as YAML.
func service(t *testing.T, profile, name string) string {
	t.Helper()
	_, text, ok := strings.Cut(profile, "  - name: "+name+"\n")
	if !ok {
		t.Fatalf("no service %s in\n%s", name, profile)
	}
	text, _, _ = strings.Cut(text, "  - name: ")
	return "  - name: " + name + "\n" + text
}
