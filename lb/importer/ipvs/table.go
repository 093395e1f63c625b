package ipvs

// The table: what the commands leave.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
)

// Virtual is a virtual service.
type Virtual struct {
	key  string
	mark uint32

	Place importer.Place
	// Protocol, Addr and Port are where it listens; of a mark they are zero.
	Protocol   lb.Protocol
	Addr       netip.Addr
	Port       uint16 // 0: all ports
	IPv6       bool
	Scheduler  string // as ipvsadm has it
	Flags      []string
	Persistent uint32 // seconds; 0: not
	Netmask    string
	OnePacket  bool
	Engine     string // of persistence
	Servers    []*Server
	// SchedulerAt is where the scheduler stands, if anywhere.
	SchedulerAt importer.Place
}

// Server is a real server of a virtual service.
type Server struct {
	Place      importer.Place
	Addr       netip.Addr
	Port       uint16
	Forwarding byte // g, i, m
	Weight     uint32
	Most       uint32 // upper threshold; 0: none
}

// table is all virtual services.
type table struct {
	*importer.Draft
	services []*Virtual
	marks    []*mark
	ran      bool     // there was something of ipvsadm
	listed   []string // the service of the rows before, as options
}

// do does what a command says.
func (t *table) do(c *command) {
	if c.verb == 'C' {
		t.services = nil
		return
	}
	v, ok := t.service(c)
	if !ok {
		return
	}
	i := slices.IndexFunc(t.services, func(o *Virtual) bool { return o.key == v.key })
	switch {
	case c.verb == 'A' && i >= 0 && v.same(t.services[i]):
		t.again(c.place)
	case c.verb == 'A' && i >= 0:
		t.Fail(c.place, "this service is here twice", "each service once")
	case c.verb == 'A':
		t.services = append(t.services, v)
	case i < 0:
		t.Fail(c.service.Place, "no -A before has this service", "a service that was added")
	case c.verb == 'E':
		v.Servers = t.services[i].Servers
		t.services[i] = v
	case c.verb == 'D':
		t.services = slices.Delete(t.services, i, i+1)
	default:
		t.server(c, t.services[i])
	}
}

// again notes what a text has twice, as one that shows commands and what they saved.
func (t *table) again(at importer.Place) {
	t.Note("this is here twice, and the same", "", at)
}

func (v *Virtual) same(o *Virtual) bool {
	return v.key == o.key && v.Scheduler == o.Scheduler && slices.Equal(v.Flags, o.Flags) && v.Persistent == o.Persistent && v.Netmask == o.Netmask && v.OnePacket == o.OnePacket && v.Engine == o.Engine
}

func (s *Server) same(o *Server) bool {
	one := *s
	one.Place = o.Place
	return one == *o
}

// service reads the virtual service of a command.
func (t *table) service(c *command) (*Virtual, bool) {
	w := c.service
	v := &Virtual{Place: c.place, Scheduler: "wlc", OnePacket: c.given["-o"].Text != "", Engine: c.given["--pe"].Text}
	if c.transport == "-f" {
		n, err := strconv.ParseUint(w.Text, 0, 32)
		if err != nil || n == 0 {
			t.Fail(w.Place, fmt.Sprintf("%q is not a mark", w.Text), "1 to 4294967295")
			return nil, false
		}
		v.mark, v.IPv6 = uint32(n), c.given["-6"].Text != ""
		v.key = fmt.Sprint("f ", n, v.IPv6)
	} else {
		v.Protocol = map[string]lb.Protocol{"-t": lb.TCP, "-u": lb.UDP, "--sctp-service": lb.SCTP}[c.transport]
		var ok bool
		if v.Addr, v.Port, ok = t.endpoint(w, "an address that is listened on"); !ok {
			return nil, false
		}
		v.IPv6 = v.Addr.Is6()
		v.key = fmt.Sprint(v.Protocol, v.Addr, v.Port)
	}
	if s, ok := c.given["-s"]; ok {
		v.Scheduler, v.SchedulerAt = s.Text, s.Place
	}
	if b, ok := c.given["-b"]; ok {
		v.Flags = strings.Split(b.Text, ",")
	}
	if p, ok := c.given["-p"]; ok {
		n, err := strconv.ParseUint(p.Text, 10, 31)
		if err != nil || n == 0 {
			t.Fail(p.Place, fmt.Sprintf("%q is not a number of seconds", p.Text), "1 or more")
		}
		v.Persistent = uint32(n)
	}
	v.Netmask = c.given["-M"].Text
	return v, true
}

// endpoint reads ADDRESS[:PORT] and [IPV6][:PORT].
func (t *table) endpoint(w word, want string) (netip.Addr, uint16, bool) {
	host, port, ok := importer.HostPort(w.Text)
	if !ok {
		t.Fail(w.Place, fmt.Sprintf("%q has [ without ]", w.Text), want)
		return netip.Addr{}, 0, false
	}
	a, ok := importer.Addr(host)
	if !ok {
		hint := want
		if !a.IsValid() && strings.ContainsAny(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") && !strings.Contains(host, ":") {
			hint = "an address: ipvsadm -S -n prints numbers"
		}
		t.Fail(w.Place, fmt.Sprintf("%q is not an address", host), hint)
		return a, 0, false
	}
	if port == "" {
		return a, 0, true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		hint := "0 to 65535"
		if !isNumber(port) {
			hint = "a number: ipvsadm -S -n prints numbers"
		}
		t.Fail(w.Place, fmt.Sprintf("%q is not a port", port), hint)
		return a, 0, false
	}
	return a, uint16(n), true
}

// server adds, changes or removes a real server.
func (t *table) server(c *command, v *Virtual) {
	s := &Server{Place: c.place, Forwarding: 'g', Weight: 1}
	var ok bool
	if s.Addr, s.Port, ok = t.endpoint(c.given["-r"], "the address of a server"); !ok {
		return
	}
	s.Port = cmp.Or(s.Port, v.Port)
	for _, f := range []string{"-g", "-i", "-m"} {
		if c.given[f].Text != "" {
			s.Forwarding = f[1]
		}
	}
	for option, into := range map[string]*uint32{"-w": &s.Weight, "-x": &s.Most} {
		if w, given := c.given[option]; given {
			n, err := strconv.ParseUint(w.Text, 10, 31)
			if err != nil {
				t.Fail(w.Place, fmt.Sprintf("%q is not a number", w.Text), "0 or more")
			}
			*into = uint32(n)
		}
	}
	i := slices.IndexFunc(v.Servers, func(o *Server) bool { return o.Addr == s.Addr && o.Port == s.Port })
	switch {
	case c.verb == 'a' && i >= 0 && s.same(v.Servers[i]):
		t.again(c.place)
	case c.verb == 'a' && i >= 0:
		t.Fail(c.given["-r"].Place, "this server is here twice", "each server once")
	case c.verb == 'a':
		v.Servers = append(v.Servers, s)
	case i < 0:
		t.Fail(c.given["-r"].Place, "no -a before has this server", "a server that was added")
	case c.verb == 'e':
		v.Servers[i] = s
	default:
		v.Servers = slices.Delete(v.Servers, i, i+1)
	}
}
