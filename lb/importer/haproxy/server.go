package haproxy

// Servers of a backend.

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/relay"
	"nlb/lb/importer/words"
)

// params are what stands behind a server's address, with what default-server says.
type params map[string]words.Word // the value, or the flag itself

func (m params) has(name string) bool { _, ok := m[name]; return ok }

// Parameters with a value, those without, and those that are named since they are not
// translated.
var (
	valued = importer.Words(`
		weight inter rise fall port addr maxconn slowstart check-sni agent-port agent-addr agent-inter on-marked-down source track verify verifyhost ca-file
		sni fastinter downinter alpn check-alpn ciphers ciphersuites cookie crl-file crt curves error-limit hash-key id guid init-addr init-state log-bufsize
		log-proto max-reuse maxqueue observe on-error pool-conn-name pool-low-conn pool-max-conn pool-purge-delay proto redir resolve-net resolve-opts
		resolve-prefer resolvers shard sigalgs ssl-max-ver ssl-min-ver tcp-ut ws
	`)
	flags = importer.Words(`
		check backup disabled ssl check-ssl send-proxy send-proxy-v2 send-proxy-v2-ssl send-proxy-v2-ssl-cn agent-check check-send-proxy enabled non-stick
		stick tfo tls-tickets allow-0rtt force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 renegotiate ssl-reuse
	`)
	unknown = importer.Words(`
		minconn namespace socks4 on-marked-up agent-send check-proto proxy-v2-options set-proxy-v2-tlv-fmt tcp-md5sig
	`)
)

// parameters reads the words from the first one on into m.
func (p *proxy) parameters(m params, ws []words.Word) {
	for i := 0; i < len(ws); i++ {
		w := ws[i]
		name := w.Text
		if off, no := strings.CutPrefix(name, "no-"); no {
			delete(m, off)
			continue
		}
		if !valued[name] && !flags[name] {
			p.Lost(name+" of a server is not translated", "", w.Place)
		}
		value := w
		if valued[name] || unknown[name] {
			if i++; i == len(ws) {
				p.Fail(w.Place, name+" has no value", "a value after it")
				return
			}
			value = ws[i]
		}
		m[name] = value
		if name == "source" && i+2 < len(ws) && (ws[i+1].Text == "usesrc" || ws[i+1].Text == "interface") {
			m["usesrc"] = ws[i+2]
			i += 2
		}
	}
}

// member is a server while it is read.
type member struct {
	relay.Server
	params
}

// servers are the servers of a backend, and what of the service follows from them.
func (p *proxy) servers(s *lb.Service) []relay.Server {
	usual := params{}
	var members []member
	for _, d := range p.lines {
		switch d.Name() {
		case "default-server":
			p.parameters(usual, d.Args())
		case "server", "server-template":
			if m, ok := p.server(d, usual); ok {
				members = append(members, m)
			}
		}
	}
	backups, together := 1, p.option("allbackups") != nil
	for i := range members {
		m := &members[i]
		if m.Priority > 1 { // HAProxy uses the first backup that is up, unless allbackups
			if backups++; together {
				backups = 2
			}
			m.Priority = min(backups, lb.MaxPriority)
		}
	}
	p.together(s, members)
	p.health(s, members)
	var out []relay.Server
	for _, m := range members {
		out = append(out, m.Server)
	}
	return out
}

// server reads a line `server`.
func (p *proxy) server(d *words.Directive, usual params) (m member, ok bool) {
	first := 3
	if len(d.Words) < first || d.Name() == "server-template" && len(d.Words) < 4 {
		p.Fail(d.Place(), d.Name()+" has no address", "server NAME ADDRESS:PORT")
		return m, false
	}
	where := d.Words[2]
	if d.Name() == "server-template" { // PREFIX NUMBER NAME:PORT
		where, first = d.Words[3], 4
	}
	e, ok := relay.Parse(strings.TrimPrefix(strings.TrimPrefix(where.Text, "ipv4@"), "ipv6@"), true)
	m = member{Server: relay.Server{Backend: e.Backend(), Place: d.Place()}, params: maps.Clone(usual)}
	p.parameters(m.params, d.Words[first:])
	switch {
	case !ok || e.Any || e.Ports.First != e.Ports.Last:
		p.Lost("the address "+where.Text+" is not translated, so this server is left out", "an address or a name, and a port", where.Place)
		return m, false
	case m.has("ssl"):
		p.Lost("TLS to the server is not translated, so this server is left out", "nlb passes TLS of clients on, and makes none", m.params["ssl"].Place)
		return m, false
	}
	switch m.Name = importer.Name(d.Arg(1)); {
	case m.Named():
		m.Name = ""
		p.Note("a name stands for all its addresses; HAProxy takes one for a server", "", where.Place)
	case d.Name() == "server-template" && d.Arg(2) != "1":
		p.Lost("all of these servers have one address, so they are one in the profile", "", d.Place())
	}
	m.Weight = p.number(m.params, "weight", 1, 0, 256)
	m.MaxConnections = uint32(p.number(m.params, "maxconn", 0, 0, 1<<31-1))
	if m.MaxConnections > 0 {
		p.Lost("what is over maxconn waits in HAProxy's queue; the profile gives it to other servers, and refuses it where they are full, too", "", m.params["maxconn"].Place)
	}
	if m.has("disabled") {
		p.Note("a server that is disabled has weight 0", "", m.params["disabled"].Place)
		m.Weight = 0
	}
	if m.has("backup") {
		m.Priority = 2
	}
	if w, ok := m.params["track"]; ok && !m.has("check") {
		p.Lost("the state of "+w.Text+" is not taken over for this server, which is not checked", "", w.Place)
	}
	for _, name := range []string{"send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"} {
		if m.has(name) {
			p.Lost("this server waits for the header of the PROXY protocol, which the profile does not send",
				"turn it off at the server; with snat: none it sees the client itself", m.params[name].Place)
		}
	}
	return m, true
}

// number is a parameter as a number.
func (p *proxy) number(m params, name string, otherwise, low, high int) int {
	w, ok := m[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(w.Text)
	if err != nil || n < low || n > high {
		p.Fail(w.Place, fmt.Sprintf("%s %q is out of range", name, w.Text), fmt.Sprintf("%d to %d", low, high))
		return otherwise
	}
	return n
}

// span is a parameter as a time.
func (p *proxy) span(m params, name string, otherwise time.Duration) time.Duration {
	w, ok := m[name]
	if !ok {
		return otherwise
	}
	t, ok := relay.Span(w.Text, time.Millisecond)
	if !ok {
		p.Fail(w.Place, fmt.Sprintf("%s %q is not a time", name, w.Text), "a time such as 2s")
		return otherwise
	}
	return t
}

// together reads what a profile says of a whole service: the sources that servers
// see, slow starts, and connections of servers that go down.
func (p *proxy) together(s *lb.Service, members []member) {
	if d := p.last("source"); d != nil && len(d.Words) > 1 {
		usual := params{}
		p.parameters(usual, append([]words.Word{{Text: "source", Place: d.Words[0].Place}}, d.Words[1:]...))
		for i := range members {
			if !members[i].has("source") {
				members[i].params["source"] = usual["source"]
				if u, ok := usual["usesrc"]; ok {
					members[i].params["usesrc"] = u
				}
			}
		}
	}
	slow, cut := 0, 0
	for i := range members {
		m := &members[i]
		m.SNAT = p.source(m.params)
		if m.has("slowstart") {
			slow++
			s.SlowStart = relay.Seconds(p.span(m.params, "slowstart", 0), time.Hour)
		}
		if m.params["on-marked-down"].Text == "shutdown-sessions" {
			cut++
			s.OnDown = lb.CutConnections
		}
	}
	if len(members) > 0 {
		s.SNAT = members[0].SNAT
	}
	if slow > 0 && slow < len(members) {
		p.Lost("slowstart is of some servers only; the profile has it for all", "", p.at)
	}
	if cut > 0 && cut < len(members) {
		p.Lost("on-marked-down is of some servers only; the profile has on-down: cut for all", "", p.at)
	}
}

// source is what a server sees.
func (p *proxy) source(m params) lb.SNAT {
	w, given := m["source"]
	by := m["usesrc"].Text
	e, ok := relay.Parse(w.Text, false)
	switch {
	case !given:
	case by == "clientip" || by == "client":
		return lb.SNAT{Mode: lb.SNATNone}
	case by != "":
		p.Lost("source with "+by+" is not translated; servers see this host", "", w.Place)
	case e.Any:
	case !ok || !e.Addr.IsValid():
		p.Lost("source "+w.Text+" is not translated; servers see this host", "", w.Place)
	default:
		return lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{e.Addr}}
	}
	return lb.SNAT{}
}

// health reads how servers are checked.
func (p *proxy) health(s *lb.Service, members []member) {
	i := slices.IndexFunc(members, func(m member) bool { return m.has("check") })
	agent := slices.IndexFunc(members, func(m member) bool { return m.has("agent-check") })
	if i < 0 && agent < 0 {
		s.SlowStart, s.OnDown = 0, lb.KeepConnections // nothing finds that a server is down
		if j := slices.IndexFunc(members, func(m member) bool { return m.Priority > 1 }); j >= 0 {
			p.Note("no server is checked, so a backup is never used, here as there", "", members[j].Place)
		}
		return
	}
	s.FailOpen = lb.NeverOpen
	if i >= 0 {
		first := members[i].params
		check, connect := p.timeout("check"), p.timeout("connect")
		base := p.timing(first, check, connect)
		for _, m := range members {
			if m.has("check") && p.timing(m.params, check, connect) != base {
				p.Lost("servers are checked at different times; the profile has those of the first that is checked", "", m.Place)
			}
			for _, name := range []string{"fastinter", "downinter"} {
				if w, ok := m.params[name]; ok {
					p.Note(name+" is not in the profile: checks have one interval", "", w.Place)
				}
			}
			if w, ok := m.params["check-send-proxy"]; ok {
				p.Lost("checks do not send the header of the PROXY protocol", "", w.Place)
			}
		}
		s.Health = p.checks(first, base)
	}
	if agent >= 0 {
		p.agent(s, members)
	}
	for i := range members {
		m := &members[i]
		if !m.has("check") {
			m.CheckAt = lb.CheckAt{None: !m.has("agent-check")}
			continue
		}
		m.CheckAt.Port = uint16(p.number(m.params, "port", 0, 1, 65535))
		if w, ok := m.params["addr"]; ok {
			e, ok := relay.Parse(w.Text, false)
			if !ok || !e.Addr.IsValid() {
				p.Lost("checks go to the server's own address: "+w.Text+" is no address", "", w.Place)
				continue
			}
			m.CheckAt.Addr = e.Addr
		}
	}
	if len(members) > 1 && !slices.ContainsFunc(members, func(m member) bool { return m.CheckAt.Port == 0 || m.CheckAt.Port != members[0].CheckAt.Port }) {
		for i := range s.Health {
			s.Health[i].Port = cmp.Or(s.Health[i].Port, members[0].CheckAt.Port)
		}
		for i := range members {
			members[i].CheckAt.Port = 0
		}
	}
}
