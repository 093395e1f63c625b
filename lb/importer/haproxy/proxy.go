package haproxy

// Proxies: frontends, backends and what is both.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/relay"
	"nlb/lb/importer/words"
)

// proxy is a section frontend, backend or listen.
type proxy struct {
	*reader
	kind, name string
	at         importer.Place
	// lines are its directives, those of the defaults first.
	lines []*words.Directive
}

func (p *proxy) last(name string) *words.Directive { return words.Last(p.lines, name) }

// option is the last line that turns an option on, nil where it is off.
func (p *proxy) option(name string) *words.Directive {
	for _, d := range slices.Backward(p.lines) {
		switch {
		case d.Name() == "option" && d.Arg(1) == name:
			return d
		case (d.Name() == "no" || d.Name() == "default") && d.Arg(1) == "option" && d.Arg(2) == name:
			return nil
		}
	}
	return nil
}

// timeout is a time of `timeout NAME`; 0 where it is not given.
func (p *proxy) timeout(name string) time.Duration {
	var out time.Duration
	for d := range words.All(p.lines, "timeout") {
		if d.Arg(1) == name {
			t, ok := relay.Span(d.Arg(2), time.Millisecond)
			if !ok {
				p.Fail(d.Place(), fmt.Sprintf("timeout %s %q is not a time", name, d.Arg(2)), "a time such as 5s")
			}
			out = t
		}
	}
	return out
}

// mode is tcp where nothing else is said.
func (p *proxy) mode() string {
	if d := p.last("mode"); d != nil {
		return d.Arg(1)
	}
	return "tcp"
}

// silent are keywords that are read elsewhere, or say nothing of where connections go.
var silent = importer.Words(`
	mode log log-format log-format-sd log-tag description id backlog errorfile errorfiles errorloc errorloc302 errorloc303 unique-id-format
	unique-id-header timeout retries fullconn bind-process grace email-alert guid option no default cookie compression http-reuse http-error stats declare
	clitcpka-cnt clitcpka-idle clitcpka-intvl srvtcpka-cnt srvtcpka-idle srvtcpka-intvl retry-on monitor-uri error-log-format load-server-state-from-file
	server-state-file-name max-keep-alive-queue persist hash-balance-factor http-send-name-header bind default_backend use_backend acl tcp-request maxconn
	balance hash-type server default-server server-template stick-table stick tcp-check http-check source external-check disabled enabled dispatch
	use-server
`)

// quietOptions are those that change nothing of where connections go, or are read.
var quietOptions = importer.Words(`
	tcp-check ssl-hello-chk mysql-check pgsql-check redis-check smtpchk ldap-check spop-check external-check lb-agent-chk redispatch allbackups tcplog
	dontlognull dontlog-normal logasap tcpka clitcpka srvtcpka contstats nolinger abortonclose persist socket-stats independent-streams log-health-checks
	log-separate-errors splice-auto splice-request splice-response prefer-last-server checkcache forwardfor originalto forceclose idle-close-on-response
	disable-h2-upgrade
`)

func quiet(option string) bool {
	return quietOptions[option] || strings.HasPrefix(option, "http") || strings.HasPrefix(option, "tcp-smart") || strings.HasPrefix(option, "accept-")
}

// rest says which lines are not translated.
func (p *proxy) rest() {
	for _, d := range p.lines {
		switch name := d.Name(); {
		case name == "timeout" && (d.Arg(1) == "client" || d.Arg(1) == "server" || d.Arg(1) == "tunnel"):
			p.Note("HAProxy ends connections that are silent for this time; the profile does not", "", d.Place())
		case name == "option" && !quiet(d.Arg(1)):
			p.Lost("option "+d.Arg(1)+" is not translated", "", d.Place())
		case strings.HasPrefix(name, "http-") || strings.HasPrefix(name, "capture") || strings.HasPrefix(name, "req") || strings.HasPrefix(name, "rsp"):
			// HAProxy itself passes over these where the mode is tcp.
		case name == "maxconn" && p.at.Line < d.Place().Line && p.kind != "backend":
			p.Lost("a limit of all connections of a service is not in the profile", "max-connections limits those of a backend", d.Place())
		case name == "dispatch" || name == "use-server" || !silent[name]:
			p.Lost(name+" is not translated", "", d.Place())
		}
	}
}

// front adds the service of a frontend, or of what is both.
func (r *reader) front(p *proxy) {
	switch mode := p.mode(); {
	case mode == "tcp":
	case p.last("bind") == nil && p.kind == "listen":
		return // only a backend of others
	case mode == "http":
		hint := "as connections it could be: mode tcp"
		if p.last("stats") != nil && p.last("server") == nil {
			hint = "nlb run has a page of its own: nlb run --listen"
		}
		r.Lost(p.kind+" "+p.name+" reads HTTP; nlb balances connections and reads nothing of them, so it is left out", hint, p.at)
		return
	default:
		r.Lost("mode "+mode+" is not translated, so "+p.kind+" "+p.name+" is left out", "", p.at)
		return
	}
	if d := p.last("disabled"); d != nil {
		r.Note(p.kind+" "+p.name+" is disabled, so it is left out", "", d.Place())
		return
	}
	back := p.chosen()
	if back == nil {
		return
	}
	if back.mode() != "tcp" {
		r.Lost("backend "+back.name+" has mode "+back.mode()+", so "+p.kind+" "+p.name+" is left out", "", p.at)
		return
	}
	if !r.Spend(len(p.lines)+len(back.lines), p.at) {
		return
	}
	r.used[back] = true
	s := lb.Service{Name: p.name, Protocols: []lb.Protocol{lb.TCP}}
	binds := p.binds(&s)
	p.guards(&s)
	p.rest()
	if back != p {
		back.rest()
	}
	servers := back.servers(&s)
	if len(binds) == 0 {
		r.Lost(p.kind+" "+p.name+" listens nowhere that a profile can have, so it is left out", "", p.at)
		return
	}
	back.balance(&s, len(servers))
	back.sticks(&s)
	s.Retry = back.option("redispatch") != nil
	note := fmt.Sprintf("%s %s, line %d", p.kind, p.name, p.at.Line)
	if back != p {
		note += fmt.Sprintf("; backend %s, line %d", back.name, back.at.Line)
	}
	relay.Add(r.Draft, s, binds, servers, p.at, note)
}

// chosen is the backend that connections get which no condition sends elsewhere. Where
// it is nil, that is said.
func (p *proxy) chosen() *proxy {
	var name words.Word
	for d := range words.All(p.lines, "use_backend") {
		switch {
		case name.Text != "": // none behind it is asked
		case len(d.Words) == 2 && !strings.Contains(d.Arg(1), "%["):
			name = d.Words[1]
		default:
			p.Lost("a backend that is chosen by what a connection says is not translated", "a service has one set of backends; by address or port, it can be several services", d.Place())
		}
	}
	if d := p.last("default_backend"); d != nil && name.Text == "" && len(d.Words) > 1 {
		name = d.Words[1]
	}
	back := p.backends[name.Text]
	switch {
	case name.Text == "" && p.kind == "listen":
		return p
	case name.Text == "":
		p.Lost(p.kind+" "+p.name+" has no backend that is always right, so it is left out", "", p.at)
		return nil
	case back == nil:
		p.Fail(name.Place, fmt.Sprintf("there is no backend %q", name.Text), "a section backend of this name")
	}
	return back
}

// balance reads the scheduler.
func (p *proxy) balance(s *lb.Service, servers int) {
	d := p.last("balance")
	if d == nil || servers < 2 {
		return
	}
	algorithm := d.Arg(1)
	lost := func(msg string) { p.Lost(msg, "", d.Place()) }
	switch algorithm {
	case "roundrobin", "static-rr":
		return
	case "leastconn":
		s.Scheduler = lb.LeastConnections
		p.Note("leastconn chooses the server with the fewest connections; the profile makes live connections even, each second and under nlb run only", "", d.Place())
		return
	case "first":
		lost("first fills a server before the next; the profile gives all their share")
		return
	case "source":
	case "hash":
		if d.Arg(2) != "src" {
			lost("balance hash " + d.Arg(2) + " is not translated; the profile hashes the client's address")
		}
	default:
		if name, _, _ := strings.Cut(algorithm, "("); name == "random" {
			s.Scheduler = lb.Random
			if algorithm != "random(1)" {
				p.Note("random takes the less loaded of random servers; the profile is random by weight", "", d.Place())
			}
			return
		}
		lost("balance " + algorithm + " is not translated; the profile is round-robin")
		return
	}
	s.Scheduler, s.HashBy = lb.Hash, []lb.HashField{lb.SourceAddress}
	if p.last("hash-type").Arg(1) == "consistent" {
		s.Scheduler = lb.Consistent
	}
	p.Note("the hash is another than HAProxy's: a client may meet another server than before", "", d.Place())
}

// sticks reads rules that keep clients with their server.
func (p *proxy) sticks(s *lb.Service) {
	kind, timeout := "", lb.MaxTimeout // of keys in the table
	if table := p.last("stick-table"); table != nil {
		for i, w := range table.Words {
			switch w.Text {
			case "type":
				kind = table.Arg(i + 1)
			case "expire":
				t, ok := relay.Span(table.Arg(i+1), time.Millisecond)
				if !ok {
					p.Fail(table.Words[min(i+1, len(table.Words)-1)].Place, "expire has no time", "a time such as 30m")
				}
				timeout = relay.Seconds(t, lb.MaxTimeout)
			}
		}
	}
	for d := range words.All(p.lines, "stick") {
		if (d.Arg(1) == "on" || d.Arg(1) == "match") && d.Arg(2) == "src" && len(d.Words) == 3 && (kind == "ip" || kind == "ipv6") {
			s.Affinity = &lb.Affinity{Timeout: timeout, Bits: 32, Bits6: 128}
			continue
		}
		if d.Arg(1) == "store-request" && d.Arg(2) == "src" && len(d.Words) == 3 {
			continue // goes with stick match src
		}
		p.Lost("stick "+d.Arg(1)+" "+d.Arg(2)+" is not translated", "affinity: is by the client's address or network", d.Place())
	}
}
