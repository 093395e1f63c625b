//go:build linux

package modules

// keepalived: what nlb import makes of its virtual servers, against what they do. Servers
// fail while it balances and while nlb run does, and the traffic is measured each time.

import (
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/integration/netlab/traffic"
)

const virtualServers = `global_defs {
    router_id lb1
    lvs_flush_onstop
}
virtual_server 203.0.113.10 80 {
    delay_loop 1
    lvs_sched wrr
    lvs_method NAT
    protocol TCP
    sorry_server 10.2.0.14 8080
    real_server 10.2.0.11 8080 {
        weight 3
        TCP_CHECK { connect_timeout 1
                    retry 0 }
    }
    real_server 10.2.0.12 8080 {
        weight 1
        TCP_CHECK { connect_timeout 1
                    retry 0 }
    }
}
virtual_server 203.0.113.10 81 {
    delay_loop 1
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    real_server 10.2.0.11 8081 {
        HTTP_GET { retry 0
                   url { path /ready
                         status_code 200 } }
    }
    real_server 10.2.0.12 8081 {
        HTTP_GET { retry 0
                   url { path /ready
                         status_code 200 } }
    }
    real_server 10.2.0.13 8081 {
        HTTP_GET { retry 0
                   url { path /ready
                         status_code 200 } }
    }
}
virtual_server_group both {
    203.0.113.10 82
    203.0.113.11 82
}
virtual_server group both {
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    persistence_timeout 60
    real_server 10.2.0.11 8080 { }
    real_server 10.2.0.12 8080 { }
}
virtual_server 2001:db8::10 53 {
    lvs_sched wrr
    lvs_method NAT
    protocol UDP
    weight 2
    real_server fd02::11 8080 { weight 1 }
    real_server fd02::12 8080 { }
    real_server fd02::13 8080 { weight 0 }
}
`

// farm has the servers of virtualServers. Those of one address are called by it.
type farm struct {
	*bed
	plain map[string]*traffic.Server // at port 8080, by TCP
}

func newFarm(b *bed) *farm {
	f := &farm{b, map[string]*traffic.Server{}}
	for _, a := range []string{"10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14"} {
		f.up(a)
	}
	for a, status := range map[string]int{"10.2.0.11": http.StatusOK, "10.2.0.12": http.StatusServiceUnavailable, "10.2.0.13": http.StatusOK} {
		_, err := traffic.ServeChecks(b.Server, a, &traffic.Answers{Pages: map[string]traffic.Page{"/ready": {Status: status}}},
			traffic.Port{Network: "tcp", At: netip.MustParseAddrPort(a + ":8081")})
		b.Check(err)
	}
	for _, a := range []string{"fd02::11", "fd02::12", "fd02::13"} {
		_, err := traffic.Serve(b.Server, a, traffic.Port{Network: "udp", At: netip.MustParseAddrPort("[" + a + "]:8080")})
		b.Check(err)
	}
	return f
}

func (f *farm) up(a string) {
	f.t.Helper()
	s, err := traffic.Serve(f.Server, a, traffic.Port{Network: "tcp", At: netip.MustParseAddrPort(a + ":8080")})
	f.Check(err)
	f.plain[a] = s
}

func (f *farm) down(a string) {
	f.t.Helper()
	f.Check(f.plain[a].Close())
}

// ask is a connection to a service; empty: no server answered.
func (f *farm) ask(network, to string) (backend, source string) {
	c := f.From()
	c.Hello = strings.HasSuffix(to, ":81")
	r, err := c.Exchange(f.t.Context(), network, netip.MustParseAddrPort(to))
	if err != nil {
		return "", ""
	}
	return r.Backend, r.Seen.Addr().String()
}

// measure waits until nobody but the due servers answers, and demands their shares, and
// that they see the client.
func (f *farm) measure(who, network, to, client string, due map[string]int) {
	f.t.Helper()
	n := 0
	for _, k := range due {
		n += k
	}
	round := func() map[string]int {
		got := map[string]int{}
		for range n {
			backend, seen := f.ask(network, to)
			if got[backend]++; backend != "" && seen != client {
				f.t.Errorf("%s: %s sees %s, want %s", who, backend, seen, client)
			}
		}
		return got
	}
	eventually(f.t, who+": "+to+" is answered by those that are up", func() bool {
		got := round()
		return slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(due)))
	})
	if got := round(); !maps.Equal(got, due) {
		f.t.Errorf("%s, %s: got %v of %d, want %v", who, to, got, n, due)
	}
}

// all measures every service, with servers that fail and return.
func (f *farm) all(who string) {
	f.t.Helper()
	const web, client = "203.0.113.10:80", "10.1.0.2"
	f.measure(who, "tcp", web, client, map[string]int{"10.2.0.11": 12, "10.2.0.12": 4})
	f.measure(who, "tcp", "203.0.113.10:81", client, map[string]int{"10.2.0.11": 4, "10.2.0.13": 4})
	f.measure(who, "udp", "[2001:db8::10]:53", "fd01::2", map[string]int{"fd02::11": 3, "fd02::12": 6})
	for _, to := range []string{"203.0.113.10:82", "203.0.113.11:82"} {
		kept, _ := f.ask("tcp", to)
		f.measure(who, "tcp", to, client, map[string]int{kept: 8})
	}
	f.down("10.2.0.11")
	f.measure(who, "tcp", web, client, map[string]int{"10.2.0.12": 8})
	f.down("10.2.0.12")
	f.measure(who, "tcp", web, client, map[string]int{"10.2.0.14": 8})
	f.up("10.2.0.12")
	f.up("10.2.0.11")
	f.measure(who, "tcp", web, client, map[string]int{"10.2.0.11": 12, "10.2.0.12": 4})
}

func TestKeepalived(t *testing.T) {
	b := &bed{netlabtest.New(t), t, t.TempDir()}
	f := newFarm(b)
	b.Address(b.Balancer, "lo", "203.0.113.10/32", "203.0.113.11/32", "2001:db8::10/128")
	conf := filepath.Join(b.dir, "keepalived.conf")
	b.Check(os.WriteFile(conf, []byte(virtualServers), 0o644))
	stop := b.daemon("keepalived", "-n", "-l", "-C", "-f", conf,
		"-p", filepath.Join(b.dir, "keepalived.pid"), "-c", filepath.Join(b.dir, "checkers.pid"))
	f.all("keepalived")
	stop()
	if left := b.Witness(b.Balancer, "", "ipvsadm", "-S", "-n"); left != "" {
		t.Fatalf("keepalived has left\n%s", left)
	}
	file := filepath.Join(b.dir, "shop.yaml")
	b.Check(os.WriteFile(file, []byte(b.must("import", "-q", "keepalived", conf)), 0o644))
	b.start(file)
	f.all("nlb")
}
