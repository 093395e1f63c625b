package lb

// Needs: what kernel parameters the traffic of a profile depends on.

// Need is a kernel parameter that must have a value.
type Need struct {
	// Param is the name as sysctl(8) writes it: net.ipv4.ip_forward.
	Param string
	// Value is what it has to be.
	Value string
	// Why says what does not work without it.
	Why string
}

// Needs lists what the services of the profiles depend on, each parameter
// once: a backend on another host is reached by forwarding, unless only this
// host's own connections are balanced.
func Needs(profiles []*Profile) []Need {
	var forward [2]bool
	for _, p := range profiles {
		for i := range p.Services {
			s := &p.Services[i]
			if s.Role == RoleClient {
				continue
			}
			for _, b := range s.Backends {
				if !b.Address.Addr.IsLoopback() {
					forward[index(FamilyOf(b.Address.Addr))] = true
				}
			}
		}
	}
	var out []Need
	if forward[0] {
		out = append(out, Need{"net.ipv4.ip_forward", "1", "IPv4 connections are not forwarded to backends without it"})
	}
	if forward[1] {
		out = append(out, Need{"net.ipv6.conf.all.forwarding", "1", "IPv6 connections are not forwarded to backends without it"})
	}
	return out
}
