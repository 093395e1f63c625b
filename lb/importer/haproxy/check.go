package haproxy

// Checks of servers.

import (
	"encoding/hex"
	"fmt"
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

// timing is when a server is checked, and how often it may fail.
type timing struct {
	interval, timeout time.Duration
	rise, fall        int
}

// timing is that of a server. check and connect are timeouts of the backend; without
// the first, the interval is for all of a check.
func (p *proxy) timing(m params, check, connect time.Duration) timing {
	t := timing{interval: p.span(m, "inter", 2*time.Second), rise: p.number(m, "rise", 2, 1, 1<<20), fall: p.number(m, "fall", 3, 1, 1<<20)}
	t.timeout = t.interval
	if check > 0 {
		t.timeout = min(t.interval, check+min(t.interval, connect))
	}
	return t
}

// into gives a check its times.
func (t timing) into(c *lb.Check, d *importer.Draft, at importer.Place) {
	if !relay.Timed(c, t.interval, t.timeout, t.rise, t.fall) {
		d.Lost("the times of these checks are not what a profile can have; it has the nearest", "", at)
	}
}

// protocolChecks are options that check in the words of a protocol.
var protocolChecks = []string{"tcp-check", "httpchk", "ssl-hello-chk", "redis-check", "smtpchk", "mysql-check", "pgsql-check", "ldap-check", "spop-check", "external-check"}

// checks are those of the backend.
func (p *proxy) checks(m params, t timing) []lb.Check {
	var option *words.Directive
	for d := range words.All(p.lines, "option") {
		if slices.Contains(protocolChecks, d.Arg(1)) {
			option = d
		}
	}
	tls := m.has("check-ssl")
	c := lb.DefaultCheck(map[bool]lb.CheckKind{false: lb.CheckTCP, true: lb.CheckTLS}[tls])
	out := []lb.Check{c}
	switch name := option.Arg(1); name {
	case "": // the check is in no protocol
	case "httpchk":
		out = []lb.Check{p.http(option, tls)}
	case "tcp-check":
		out = p.talk(c)
	case "ssl-hello-chk":
		out = []lb.Check{lb.DefaultCheck(lb.CheckTLS)}
	case "redis-check":
		out[0].Send, out[0].Expect = "*1\r\n$4\r\nPING\r\n", "+PONG\r\n"
	case "smtpchk":
		out[0].Expect = "220"
		p.Lost("smtpchk greets the server; the check of the profile reads its banner only", "", option.Place())
	default:
		p.Lost(name+" is not translated; the check of the profile is that the server takes connections",
			"check: exec runs a command of yours", option.Place())
	}
	for i := range out {
		t.into(&out[i], p.Draft, p.at)
		if w, ok := m["check-sni"]; ok && out[i].Kind.Takes("host") && out[i].Host == "" {
			out[i].Host = w.Text
		}
	}
	return out
}

// http reads `option httpchk` and http-check.
func (p *proxy) http(option *words.Directive, tls bool) lb.Check {
	c := lb.DefaultCheck(map[bool]lb.CheckKind{false: lb.CheckHTTP, true: lb.CheckHTTPS}[tls])
	method := "OPTIONS"
	switch args := option.Words[2:]; {
	case len(args) == 1:
		c.Path = args[0].Text
	case len(args) > 1:
		method, c.Path = args[0].Text, args[1].Text
		if len(args) > 2 {
			for line := range strings.SplitSeq(strings.ReplaceAll(args[2].Text, "\r\n", "\n"), "\n") {
				if name, value, ok := strings.Cut(line, ":"); ok {
					p.header(&c, name, strings.TrimSpace(value), args[2].Place)
				}
			}
		}
	}
	at := option.Place()
	for d := range words.All(p.lines, "http-check") {
		switch d.Arg(1) {
		case "send":
			for i := 2; i < len(d.Words); i++ {
				switch d.Arg(i) {
				case "meth":
					i++
					method, at = d.Arg(i), d.Place()
				case "uri":
					i++
					c.Path = d.Arg(i)
				case "ver":
					i++
				case "hdr":
					p.header(&c, d.Arg(i+1), d.Arg(i+2), d.Words[i].Place)
					i += 2
				default:
					p.Lost("http-check send "+d.Arg(i)+" is not translated", "", d.Words[i].Place)
					i++
				}
			}
		case "expect":
			p.expect(&c, d)
		default:
			p.Lost("http-check "+d.Arg(1)+" is not translated", "", d.Place())
		}
	}
	switch method {
	case "GET":
	case "HEAD":
		p.Note("checks ask with GET in place of HEAD", "", at)
	default:
		p.Lost("checks ask with GET in place of "+method, "a server may answer that otherwise: try it", at)
	}
	return c
}

func (p *proxy) header(c *lb.Check, name, value string, at importer.Place) {
	if strings.EqualFold(name, "Host") && !strings.Contains(value, "%[") {
		c.Host = value
	} else if !strings.EqualFold(name, "User-Agent") && !strings.EqualFold(name, "Connection") {
		p.Lost("checks do not send the header "+name, "", at)
	}
}

// expect reads http-check expect.
func (p *proxy) expect(c *lb.Check, d *words.Directive) {
	args := d.Words[2:]
	for len(args) > 1 && slices.Contains([]string{"min-recv", "comment", "ok-status", "error-status", "tout-status", "on-success", "on-error", "status-code"}, args[0].Text) {
		args = args[2:]
	}
	if len(args) == 2 {
		switch args[0].Text {
		case "status":
			if list, ok := relay.Statuses(strings.Split(args[1].Text, ",")); ok {
				c.Status = list
				return
			}
		case "rstatus":
			if n := args[1].Text; len(n) >= 2 && n[0] == '^' && n[1] >= '1' && n[1] <= '5' && strings.Trim(n[2:], ".[0-9]{2}*$") == "" {
				first := uint16(n[1]-'0') * 100
				c.Status = []lb.StatusRange{{First: first, Last: first + 99}}
				return
			}
		case "string":
			c.Body = args[1].Text
			return
		}
	}
	p.Lost("what this http-check expects is not translated", "status and body of a check are a list of numbers and a text", d.Place())
}

// talk reads tcp-check: for each answer that is expected a check that sends all
// that was sent before it, since a check of a profile sends once.
func (p *proxy) talk(base lb.Check) []lb.Check {
	var out []lb.Check
	c := base
	var at importer.Place
	for d := range words.All(p.lines, "tcp-check") {
		at = d.Place()
		switch d.Arg(1) {
		case "connect":
			if p.connect(d, &c) {
				p.Lost("checks by TLS that send and expect are not translated; the check of the profile shakes hands", "", at)
				return []lb.Check{lb.DefaultCheck(lb.CheckTLS)}
			}
			c.Send, c.Expect = "", ""
		case "send":
			c.Send += d.Arg(2)
		case "send-binary":
			b, err := hex.DecodeString(d.Arg(2))
			if err != nil {
				p.Fail(at, fmt.Sprintf("%q is not hexadecimal", d.Arg(2)), "pairs of digits")
			}
			c.Send += string(b)
		case "expect":
			text, ok := d.Arg(3), len(d.Words) >= 4 && (d.Arg(2) == "string" || d.Arg(2) == "binary")
			if ok && d.Arg(2) == "binary" {
				b, err := hex.DecodeString(text)
				text, ok = string(b), err == nil
			}
			if !ok {
				p.Lost("tcp-check expect "+d.Arg(2)+" is not translated", "expect of a check is a text", at)
				continue
			}
			c.Expect = text
			out = append(out, c)
		case "comment":
		default:
			p.Lost("tcp-check "+d.Arg(1)+" is not translated", "", at)
		}
	}
	switch {
	case len(out) == 0:
		c.Send = "" // HAProxy does not wait for an answer
		return []lb.Check{c}
	case len(out) > lb.MaxChecks:
		p.Lost(fmt.Sprintf("a service has at most %d checks; the others are not in the profile", lb.MaxChecks), "", at)
		out = out[:lb.MaxChecks]
	}
	if len(out) > 1 {
		p.Note("each answer that is expected is a check with a connection of its own", "", at)
	}
	return out
}

// connect reads tcp-check connect, and reports whether it is by TLS.
func (p *proxy) connect(d *words.Directive, c *lb.Check) (tls bool) {
	for i := 2; i < len(d.Words); i++ {
		switch d.Arg(i) {
		case "port":
			i++
			n, err := strconv.ParseUint(d.Arg(i), 10, 16)
			if err != nil {
				p.Lost("the port "+d.Arg(i)+" of a check is not translated", "", d.Place())
			}
			c.Port = uint16(n)
		case "ssl":
			tls = true
		case "comment", "sni", "alpn":
			i++
		case "default", "linger":
		default:
			p.Lost("tcp-check connect "+d.Arg(i)+" is not translated", "", d.Place())
		}
	}
	return tls
}

// agent adds the check of agents, which all servers must have.
func (p *proxy) agent(s *lb.Service, members []member) {
	first := members[0].params
	for _, m := range members {
		if !m.has("agent-check") || m.params["agent-port"].Text != first["agent-port"].Text {
			p.Lost("not all servers have an agent at the same port, so agents are not asked", "", m.Place)
			return
		}
	}
	c := lb.DefaultCheck(lb.CheckAgent)
	c.Port = uint16(p.number(first, "agent-port", 0, 1, 65535))
	if c.Port == 0 {
		p.Fail(members[0].Place, "agent-check has no agent-port", "agent-port PORT")
		return
	}
	t := timing{interval: p.span(first, "agent-inter", 2*time.Second), rise: 1, fall: 1}
	t.timeout = t.interval
	t.into(&c, p.Draft, members[0].Place)
	if w, ok := first["agent-addr"]; ok {
		if a, err := netip.ParseAddr(w.Text); err != nil || a != members[0].Address.Addr {
			p.Lost("agents are asked at the address of their server", "", w.Place)
		}
	}
	s.Health = append(s.Health, c)
}
