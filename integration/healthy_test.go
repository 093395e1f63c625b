package integration

// nlb healthy without an agent.

import (
	"testing"

	addresses "nlb/lb/announce"
	"nlb/nft"
	"nlb/nft/wire"
)

const healthyShops = `profile: 2shops
services:
  - {name: web, listen: ["203.0.113.10:80", "[2001:db8::10]:80"], backends: ["10.2.0.11:8080", "[fd02::11]:8080"]}
  - {name: same, listen: "203.0.113.11:80", scheduler: consistent, affinity: {timeout: 10m}, backends: ["10.2.0.11:8080", "10.2.0.12:8080"]}
  - {name: limited, listen: "203.0.113.12:80", retry: true, backends: [{address: "10.2.0.11:8080", max-connections: 5}, "10.2.0.12:8080"]}
  - {name: none, listen: "203.0.113.13:80", backends: [{address: "10.2.0.11:8080", weight: 0}]}
  - {name: unchecked, listen: "203.0.113.14:80", health: tcp, backends: ["10.2.0.99:8080"]}
  - {name: many, listen: "203.0.113.15:53", protocol: udp, balance: datagrams, backends: ["10.2.0.11:53", "10.2.0.12:53"]}
`

// TestHealthyOfOne: what is said of a service that is read by itself is what is said of it
// when all is read.
func TestHealthyOfOne(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Apply(healthyShops)
	for _, p := range b.Load().Profiles {
		for i := range p.Services {
			whole := &p.Services[i]
			b.Kernel(b.Balancer, func(c *wire.Conn) error {
				one := nft.ReadService(c, "nlb", p.Name, whole.Name)
				if one == nil {
					t.Errorf("%s: it was not read", whole.Name)
					return nil
				}
				for _, f := range whole.Families() {
					if got, want := addresses.Serves(one, f), addresses.Serves(whole, f); got != want {
						t.Errorf("%s: %t of %v, want %t", whole.Name, got, f, want)
					}
				}
				if len(one.Backends) != len(whole.Backends) {
					t.Errorf("%s: %d backends, want %d", whole.Name, len(one.Backends), len(whole.Backends))
				}
				return nil
			})
		}
	}
	b.shell(b.Balancer, "nlb healthy 2shops/web | grep -F '1 of 1 service'")
	b.shell(b.Balancer, "nlb healthy 2shops/none || [ $? = 4 ]")
	b.shell(b.Balancer, "nlb healthy 2shops/nobody 2>&1 | grep -F '2shops/nobody is not balanced here'")
}
