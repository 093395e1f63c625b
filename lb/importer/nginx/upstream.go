package nginx

// Upstreams: servers, and how one of them is chosen.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/relay"
	"nlb/lb/importer/words"
)

// upstream is a block of that name.
type upstream struct {
	directive *words.Directive // nil: an address in place of an upstream
	members   []member
	method    *words.Directive // nil: in turn
}

// member is a server of an upstream.
type member struct {
	relay.Server
	slow time.Duration
	// fails says how failures count: not at all, or otherwise than by default.
	never, own bool
}

// upstream reads a block.
func (r *reader) upstream(d *words.Directive) *upstream {
	u := &upstream{directive: d}
	for _, one := range r.block(d.Block) {
		switch one.Name() {
		case "server":
			if m, ok := r.member(one); ok {
				u.members = append(u.members, m)
			}
		case "least_conn", "hash", "random", "least_time":
			u.method = one
		case "zone", "resolver", "resolver_timeout", "state":
		default:
			r.Lost(one.Name()+" is not translated", "", one.Place())
		}
	}
	return u
}

// member reads a server.
func (r *reader) member(d *words.Directive) (member, bool) {
	e, ok := relay.Parse(d.Arg(1), false)
	if !ok || e.Any || e.Ports.First != e.Ports.Last {
		r.Lost("the address "+d.Arg(1)+" is not translated, so this server is left out", "an address or a name, and a port", d.Place())
		return member{}, false
	}
	m := member{Server: relay.Server{Backend: e.Backend(), Place: d.Place()}}
	for _, w := range d.Words[2:] {
		name, value, _ := strings.Cut(w.Text, "=")
		n, err := strconv.ParseInt(value, 10, 32)
		t, isTime := relay.Span(value, time.Second)
		wrong := false
		switch name {
		case "weight":
			m.Weight, wrong = int(n), err != nil || n < 1
		case "max_conns":
			if wrong = err != nil || n < 0; n > 0 && !wrong {
				m.MaxConnections = uint32(n)
				r.Note("max_conns counts the connections of each worker, unless zone shares them; the profile counts all", "", w.Place)
			}
		case "max_fails":
			m.never, wrong = n == 0, err != nil || n < 0
			m.own = m.own || n > 1
		case "fail_timeout":
			m.own, wrong = m.own || t != 10*time.Second, !isTime
		case "slow_start":
			m.slow, wrong = t, !isTime
		case "backup":
			m.Priority = 2
		case "down":
			r.Note("a server that is down has weight 0", "", w.Place)
			m.Weight = 0
		case "resolve":
		case "service":
			if !strings.Contains(value, ".") {
				value = "_" + value + "._tcp"
			}
			m.Host = lb.Host{Name: strings.ToLower(value) + "." + e.Host, SRV: true}
			wrong = e.Host == ""
		default:
			r.Lost(name+" of a server is not translated", "", w.Place)
		}
		if wrong {
			r.Fail(w.Place, fmt.Sprintf("%s %q is not what it can be", name, value), "")
		}
	}
	if m.Address.Port == 0 && !m.Host.SRV {
		r.Fail(d.Place(), "server "+d.Arg(1)+" has no port", "ADDRESS:PORT")
	}
	return m, true
}

// keys are what a hash can be made of.
var keys = []struct {
	text string
	by   lb.HashField
}{
	{"$binary_remote_addr", lb.SourceAddress},
	{"$remote_addr", lb.SourceAddress},
	{"$remote_port", lb.SourcePort},
	{"$server_addr", lb.DestinationAddress},
	{"$server_port", lb.DestinationPort},
	{"$protocol", lb.ByProtocol},
}

// method reads how a server is chosen.
func (r *reader) method(s *lb.Service, d *words.Directive) {
	switch d.Name() {
	case "least_conn", "least_time":
		s.Scheduler = lb.LeastConnections
		r.Note(d.Name()+" chooses a server for each connection; the profile makes live connections even, each second and under nlb run only", "", d.Place())
	case "random":
		s.Scheduler = lb.Random
		if d.Arg(1) != "" {
			r.Note("random "+d.Arg(1)+" takes the less loaded of two random servers; the profile is random by weight", "", d.Place())
		}
	case "hash":
		s.Scheduler = lb.Hash
		if d.Arg(2) == "consistent" {
			s.Scheduler = lb.Consistent
		}
		rest := d.Arg(1)
		for _, k := range keys {
			for _, form := range []string{k.text, "${" + k.text[1:] + "}"} {
				if strings.Contains(rest, form) && !slices.Contains(s.HashBy, k.by) {
					s.HashBy = append(s.HashBy, k.by)
				}
				rest = strings.ReplaceAll(rest, form, "")
			}
		}
		slices.Sort(s.HashBy)
		if len(s.HashBy) == 0 || strings.ContainsAny(rest, "$") {
			s.HashBy = []lb.HashField{lb.SourceAddress}
			r.Lost("a hash of "+d.Arg(1)+" is not translated; the profile hashes the client's address", "", d.Place())
			return
		}
		r.Note("the hash is another than nginx's: a client may meet another server than before", "", d.Place())
	}
}

// balance fills in what a service has of an upstream.
func (r *reader) balance(s *lb.Service, u *upstream, check *words.Directive, next bool) []relay.Server {
	if u.method != nil && len(u.members) > 1 {
		r.method(s, u.method)
	}
	var out []relay.Server
	never, own, backup := 0, false, false
	for _, m := range u.members {
		m.SNAT = s.SNAT
		if m.never {
			never++
		}
		own, backup = own || m.own, backup || m.Priority > 1
		if m.slow > 0 {
			s.SlowStart = relay.Seconds(m.slow, time.Hour)
		}
		out = append(out, m.Server)
	}
	at := importer.Place{}
	if u.directive != nil {
		at = u.directive.Place()
	}
	tcp := s.Protocols[0] == lb.TCP
	switch {
	case check != nil:
		r.check(s, check)
	case len(u.members) < 2:
	case never == len(u.members) || !next:
		if backup {
			r.Note("no failure counts, so a backup is never used, here as there", "", at)
		}
	case backup && tcp:
		s.Health = []lb.Check{lb.DefaultCheck(lb.CheckTCP)}
		s.Retry = true
		r.Lost("nginx finds by its connections that a server fails; the profile has a check of tcp for it, so that backups are used, and needs nlb run",
			"", at)
	case !tcp:
		r.Lost("nginx finds by its sessions that a server fails; the profile does not: a UDP server that fails keeps its share", "health: has checks for UDP and DNS; they need nlb run", at)
	case own:
		s.Retry = true
		r.Lost("max_fails and fail_timeout are not in the profile: a server that refuses is passed over for five seconds (retry)", "health: tcp finds one that is silent, too; it needs nlb run", at)
	default:
		s.Retry = true
		r.Note("nginx passes over a server that refuses or is silent; the profile (retry) over one that refuses", "health: tcp finds one that is silent, too; it needs nlb run", at)
	}
	if s.Health == nil {
		s.SlowStart = 0
	}
	return out
}

// check reads health_check, which nginx sells.
func (r *reader) check(s *lb.Service, d *words.Directive) {
	c := lb.DefaultCheck(lb.CheckTCP)
	c.Interval, c.Rise, c.Fall = 5*time.Second, 1, 1
	for _, w := range d.Args() {
		name, value, _ := strings.Cut(w.Text, "=")
		n, err := strconv.ParseUint(value, 10, 16)
		t, isTime := relay.Span(value, time.Second)
		switch {
		case name == "interval" && isTime:
			c.Interval = t
		case name == "passes" && err == nil:
			c.Rise = int(n)
		case name == "fails" && err == nil:
			c.Fall = int(n)
		case name == "port" && err == nil:
			c.Port = uint16(n)
		case name == "mandatory" || name == "persistent" || name == "jitter":
		default:
			r.Lost(name+" of health_check is not translated", "", w.Place)
		}
	}
	relay.Timed(&c, c.Interval, 5*time.Second, c.Rise, c.Fall)
	if s.Protocols[0] != lb.TCP {
		r.Lost("health_check of UDP is not translated", "health: udp sends and expects", d.Place())
		return
	}
	s.Health, s.FailOpen = []lb.Check{c}, lb.NeverOpen
}
