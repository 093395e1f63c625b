package keepalived

// Checks of real servers.

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/ipvs"
	"nlb/lb/importer/relay"
	"nlb/lb/importer/words"
)

// check is a check of one real server, and where it goes.
type check struct {
	lb.Check
	at lb.Endpoint // what is zero is the server's own
}

// checkers are the kinds of checks.
var checkers = importer.Words("TCP_CHECK PING_CHECK HTTP_GET SSL_GET DNS_CHECK UDP_CHECK SMTP_CHECK MISC_CHECK FILE_CHECK BFD_CHECK")

// made are what a checker becomes, without its times. Where that is nothing, it is said
// why.
func (r *reader) made(d *words.Directive, levels [][]*words.Directive) []lb.Check {
	switch d.Name() {
	case "TCP_CHECK":
		return []lb.Check{lb.DefaultCheck(lb.CheckTCP)}
	case "SMTP_CHECK":
		c := lb.DefaultCheck(lb.CheckTCP)
		c.Expect = "220"
		r.Lost("SMTP_CHECK greets the server; the check of the profile reads its banner only", "", d.Place())
		return []lb.Check{c}
	case "PING_CHECK":
		return []lb.Check{lb.DefaultCheck(lb.CheckICMP)}
	case "HTTP_GET":
		return r.pages(lb.CheckHTTP, d, levels)
	case "SSL_GET":
		return r.pages(lb.CheckHTTPS, d, levels)
	case "DNS_CHECK":
		return r.names(d)
	case "UDP_CHECK":
		return r.datagrams(d)
	case "MISC_CHECK":
		r.Lost("MISC_CHECK is not translated", "check: exec runs a command of yours, which finds NLB_ADDRESS and NLB_PORT in its environment", d.Place())
	default:
		r.Lost(d.Name()+" is not translated", "", d.Place())
	}
	return nil
}

// literal are regular expressions that stand for themselves.
var literal = regexp.MustCompile(`^[^\\^$.|?*+()\[\]{}]+$`)

// pages are checks of HTTP_GET and SSL_GET: one for each url.
func (r *reader) pages(k lb.CheckKind, d *words.Directive, levels [][]*words.Directive) []lb.Check {
	var out []lb.Check
	for u := range words.All(d.Block, "url") {
		c := lb.DefaultCheck(k)
		c.Status = []lb.StatusRange{{First: 200, Last: 299}}
		unwanted := words.Last(u.Block, "regex_no_match") != nil
		for _, level := range append([][]*words.Directive{u.Block}, levels...) {
			if !r.Spend(len(level), u.Place()) {
				return out
			}
			if host := words.Last(level, "virtualhost").Arg(1); host != "" {
				c.Host = host
				break
			}
		}
		for _, o := range u.Block {
			switch o.Name() {
			case "path":
				c.Path = o.Arg(1)
			case "status_code":
				if list, ok := relay.Statuses(words.Texts(o.Args())); ok {
					c.Status = list
				} else {
					r.Fail(o.Place(), "these are no status codes", "200, or 200-299")
				}
			case "virtualhost":
			case "regex":
				if c.Body = o.Arg(1); !literal.MatchString(c.Body) || unwanted {
					c.Body = ""
					r.Lost("a regular expression is not translated", "body of a check is a text", o.Place())
				}
			case "digest":
				r.Lost("the digest of a page is not checked", "body of a check is a text that the page must have", o.Place())
			default:
				if !strings.HasPrefix(o.Name(), "regex_") {
					r.Lost(o.Name()+" is not translated", "", o.Place())
				}
			}
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		r.Fail(d.Place(), d.Name()+" has no url", "url { path / }")
	}
	return out
}

// names are checks of DNS_CHECK.
func (r *reader) names(d *words.Directive) []lb.Check {
	c := lb.DefaultCheck(lb.CheckDNS)
	c.Query = cmp.Or(words.Last(d.Block, "name").Arg(1), c.Query)
	if kind := words.Last(d.Block, "type").Arg(1); kind != "" {
		if c.QueryType = strings.ToUpper(kind); !slices.Contains([]string{"A", "AAAA", "NS", "SOA", "TXT"}, c.QueryType) {
			c.QueryType = "SOA"
			r.Lost("checks ask for SOA in place of "+kind, "", d.Place())
		}
	}
	return []lb.Check{c}
}

// datagrams are checks of UDP_CHECK.
func (r *reader) datagrams(d *words.Directive) []lb.Check {
	c := lb.DefaultCheck(lb.CheckUDP)
	bytes := func(o *words.Directive) (string, bool) {
		var all string
		for _, w := range o.Args() {
			b, err := hex.DecodeString(w.Text)
			if err != nil {
				return "", false
			}
			all += string(b)
		}
		return all, true
	}
	payload, reply := words.Last(d.Block, "payload"), words.Last(d.Block, "require_reply")
	if payload == nil || reply == nil {
		r.Lost("UDP_CHECK without a payload and an answer to it is not translated", "check: udp sends, and waits for an answer", d.Place())
		return nil
	}
	var ok, ok2 bool
	c.Send, ok = bytes(payload)
	c.Expect, ok2 = bytes(reply)
	if !ok || !ok2 {
		r.Lost("the bytes of this UDP_CHECK are not translated", "pairs of digits, without X", d.Place())
		return nil
	}
	return []lb.Check{c}
}

// span is a time in seconds, of the first level that says it.
func (r *reader) span(name string, otherwise time.Duration, levels [][]*words.Directive) time.Duration {
	for _, level := range levels {
		if d := words.Last(level, name); d != nil {
			f, err := strconv.ParseFloat(d.Arg(1), 64)
			if err != nil || f < 0 || f > 1e6 {
				r.Fail(d.Place(), fmt.Sprintf("%s %q is not a time", name, d.Arg(1)), "seconds")
				return otherwise
			}
			return time.Duration(f * float64(time.Second)).Round(time.Millisecond)
		}
	}
	return otherwise
}

// silentInChecks are words of checks that are read elsewhere, or change nothing here.
var silentInChecks = importer.Words(`
	connect_timeout retry nb_get_retry delay_before_retry delay_loop warmup alpha log_all_failures url virtualhost http_protocol enable_sni fast_recovery
	name type payload require_reply helo_name host
`)

// checksOf are the checks of a real server. Of times, those of the check count
// before those of the server, and these before those of the virtual server.
func (r *reader) checksOf(real *words.Directive, virtual []*words.Directive, own uint16) []check {
	var out []check
	for _, d := range real.Block {
		if !checkers[d.Name()] {
			continue
		}
		if !r.Spend(len(d.Block)+len(real.Block), d.Place()) {
			break
		}
		levels := [][]*words.Directive{d.Block, real.Block, virtual}
		for _, c := range r.made(d, levels) {
			one := check{Check: c}
			r.timed(&one.Check, d, levels)
			for _, o := range d.Block {
				switch o.Name() {
				case "connect_ip", "bindto":
					a, err := netip.ParseAddr(o.Arg(1))
					if err != nil {
						r.Fail(o.Place(), fmt.Sprintf("%s %q is not an address", o.Name(), o.Arg(1)), "an address")
					} else if o.Name() == "bindto" {
						one.Source = a
					} else {
						one.at.Addr = a
					}
				case "connect_port":
					if one.at.Port, _ = r.port(o, 1); one.at.Port == own {
						one.at.Port = 0
					}
				default:
					if !silentInChecks[o.Name()] {
						r.Lost(o.Name()+" is not translated", "", o.Place())
					}
				}
			}
			out = append(out, one)
		}
	}
	return out
}

// timed gives a check its times. A failure is tried again after
// delay_before_retry there, and at the next interval here.
func (r *reader) timed(c *lb.Check, d *words.Directive, levels [][]*words.Directive) {
	n := uint32(1)
	if d.Name() == "DNS_CHECK" {
		n = 3
	}
	for i, level := range slices.Backward(levels) {
		if k := r.number(level, "retry", n); k > 0 || i == 0 { // around checks keepalived refuses 0
			n = k
		}
	}
	if strings.HasSuffix(d.Name(), "_GET") { // as it was called before
		n = r.number(d.Block, "nb_get_retry", n)
	}
	if !relay.Timed(c, r.span("delay_loop", time.Minute, levels), r.span("connect_timeout", 5*time.Second, levels), 1, int(min(n+1, 100))) {
		r.Note("the times of these checks are not what a profile can have; it has the nearest", "", d.Place())
	}
	if n > 0 {
		r.Note("keepalived tries a server that failed again after delay_before_retry; the profile at the next interval, so it takes longer to find a failure",
			"a shorter interval finds it sooner", d.Place())
	}
}

// health reads how the real servers of a service are checked. A profile has the same
// checks for all.
func (r *reader) health(s *lb.Service, virtual []*words.Directive, v *ipvs.Virtual, reals []*words.Directive) {
	var base []check
	checked := make([]bool, len(s.Backends))
	samePort := true
	places := map[lb.Endpoint]int{}
	for i, b := range s.Backends {
		places[b.Address] = i
	}
	for k, real := range reals {
		i, ok := places[lb.Endpoint{Addr: v.Servers[k].Addr, Port: v.Servers[k].Port}]
		checks := r.checksOf(real, virtual, v.Servers[k].Port)
		if !ok || len(checks) == 0 {
			continue
		}
		checked[i] = true
		if base == nil {
			base = checks
		}
		sameChecks := func(a, b check) bool { return reflect.DeepEqual(a.Check, b.Check) } // they may go to different places
		if !slices.EqualFunc(base, checks, sameChecks) {
			r.Lost("real servers are checked in different ways; the profile has those of the first that is checked", "", real.Place())
			continue
		}
		for j, c := range checks {
			samePort = samePort && c.at == (lb.Endpoint{Port: base[j].at.Port})
			if c.at != checks[0].at {
				r.Lost("checks of a server go to different places; the profile has that of the first", "check-at is one for each backend", real.Place())
			}
		}
		s.Backends[i].CheckAt = lb.CheckAt{Addr: checks[0].at.Addr, Port: checks[0].at.Port}
	}
	if base == nil {
		return
	}
	s.FailOpen = lb.NeverOpen
	for _, c := range base {
		if samePort && c.Kind != lb.CheckICMP {
			c.Port = c.at.Port
		}
		if !slices.Contains(s.Protocols, lb.TCP) && !slices.Contains([]lb.CheckKind{lb.CheckICMP, lb.CheckDNS, lb.CheckUDP}, c.Kind) && c.Port == 0 {
			c.Port = v.Servers[0].Port // a profile wants it said that TCP is there, too
		}
		s.Health = append(s.Health, c.Check)
	}
	if len(s.Health) > lb.MaxChecks {
		r.Lost(fmt.Sprintf("a service has at most %d checks; the others are not in the profile", lb.MaxChecks), "", reals[0].Place())
		s.Health = s.Health[:lb.MaxChecks]
	}
	for i := range s.Backends {
		switch {
		case !checked[i]:
			s.Backends[i].CheckAt = lb.CheckAt{None: true}
		case samePort:
			s.Backends[i].CheckAt = lb.CheckAt{}
		}
	}
}
