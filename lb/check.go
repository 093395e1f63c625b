package lb

// Checks: how the servers behind a service are found to work. What a check is,
// as values; cmd/nlb/internal/agent carries them out, and lb/health judges what
// they find. Their keys are in healthkeys.go.

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"nlb/lb/internal/safe"
)

// CheckKind is what a check does.
type CheckKind uint8

// The kinds.
const (
	CheckTCP   CheckKind = iota // connects; with Send and Expect it also talks
	CheckTLS                    // connects and shakes hands
	CheckHTTP                   // asks for a path
	CheckHTTPS                  // asks for a path, over TLS
	CheckGRPC                   // asks grpc.health.v1
	CheckDNS                    // asks for a name
	CheckUDP                    // sends, and waits for an answer
	CheckICMP                   // pings the address
	CheckExec                   // runs a command
	CheckAgent                  // asks an agent-check of HAProxy's kind
)

// Limits of checks.
const (
	// MaxChecks is how many checks a service has at most.
	MaxChecks = 4
	// MaxCheckRate is how many checks a second the services of a profile have at
	// most, all together.
	MaxCheckRate = 20_000
	// MaxCheckText is the length of the longest text of a check, in bytes.
	MaxCheckText = 1024
	// MaxMinUp is the largest number of min-up.
	MaxMinUp = 1000
)

// Check is one way to find out whether a backend's server works. The fields that
// belong to other kinds have their zero values.
type Check struct {
	Kind CheckKind
	// Port is asked in place of the backend's; 0: that of the backend, or of the
	// listen where the backend keeps the port.
	Port uint16
	// Interval is from the beginning of one check to that of the next, 100 ms to
	// 1 h; Timeout bounds a whole check, 10 ms to Interval.
	Interval, Timeout time.Duration
	// Rise and Fall are how many results in a row bring a backend up and down, 1
	// to 100.
	Rise, Fall int
	// Passive has a check made at once where the kernel saw a refusal.
	Passive bool
	// Source is the address that checks of targets of its family come from; the
	// zero Addr: as routed.
	Source netip.Addr
	// Path, Host, Status and Body are of http and https. Host is a header, and
	// the name for SNI and verification of tls, https and grpc, too; empty: the
	// address. Body is a text that the first 64 KiB of the answer must have.
	Path, Host string
	Status     []StatusRange // sorted, without overlap
	Body       string
	// Verify is how a certificate is verified: "" not at all, "system", or a file
	// with CA certificates.
	Verify string
	// Send and Expect are of tcp and udp, at most 1 KiB each; empty: nothing is
	// sent, anything will do.
	Send, Expect string
	// Query and QueryType are of dns: a name, and A, AAAA, NS, SOA or TXT.
	Query, QueryType string
	// Service and TLS are of grpc.
	Service string
	TLS     bool
	// Command is of exec: a program and its arguments.
	Command []string
}

// StatusRange is First to Last, both included, 100 to 599.
type StatusRange struct{ First, Last uint16 }

// FailOpen says when health is ignored, since too few backends are up: 0 where
// none is, 1 to 100 where less than this percentage of the weight is, NeverOpen
// never.
type FailOpen int8

// NeverOpen is fail-open: none.
const NeverOpen FailOpen = -1

// MinUp is how many backends must be up before those of the next priority join
// them: a number, or a percentage of those of priority 1. The zero MinUp is 1.
type MinUp struct {
	Count   int // 1 to 1000; 0 where Percent says it
	Percent int // 1 to 100; 0 where Count says it
}

// OnDown is what becomes of live TCP and SCTP connections of a backend that goes
// down.
type OnDown uint8

// What becomes of them.
const (
	KeepConnections OnDown = iota
	CutConnections
)

// CheckAt is where a backend is checked instead of at its address. In the zero
// CheckAt neither differs.
type CheckAt struct {
	// None: it is not checked, and counts as up.
	None bool
	// Addr and Port stand for those of the backend where they are not zero.
	Addr netip.Addr
	Port uint16
}

var (
	kindWords   = []string{"tcp", "tls", "http", "https", "grpc", "dns", "udp", "icmp", "exec", "agent"}
	onDownWords = []string{"keep", "cut"}
)

func (k CheckKind) String() string { return inWords(k) }
func (o OnDown) String() string    { return inWords(o) }
func (CheckKind) words() []string  { return kindWords }
func (OnDown) words() []string     { return onDownWords }

// String is all-down, none, or a percentage: 50%.
func (f FailOpen) String() string {
	switch f {
	case 0:
		return "all-down"
	case NeverOpen:
		return "none"
	}
	return strconv.Itoa(int(f)) + "%"
}

// UnmarshalText reads what String writes, and nothing else.
func (f *FailOpen) UnmarshalText(b []byte) error {
	switch string(b) {
	case "all-down":
		*f = 0
		return nil
	case "none":
		*f = NeverOpen
		return nil
	}
	n, ok := percent(string(b))
	if !ok {
		return fmt.Errorf("unknown %q, want all-down, none or a percentage", b)
	}
	*f = FailOpen(n)
	return nil
}

// Words are the words of the type; a percentage has none.
func (FailOpen) Words() []string { return []string{"all-down", "none"} }

// String is a number, or a percentage: 50%.
func (m MinUp) String() string {
	if m.Percent > 0 {
		return strconv.Itoa(m.Percent) + "%"
	}
	return strconv.Itoa(max(1, m.Count))
}

// UnmarshalText reads what String writes, and nothing else.
func (m *MinUp) UnmarshalText(b []byte) error {
	if n, ok := percent(string(b)); ok {
		*m = MinUp{Percent: n}
		return nil
	}
	n, ok := decimal(string(b))
	if !ok || n < 1 || n > MaxMinUp {
		return fmt.Errorf("%q is neither 1 to %d nor a percentage", b, MaxMinUp)
	}
	*m = MinUp{Count: n}
	return nil
}

// percent reads 1% to 100%.
func percent(s string) (int, bool) {
	digits, ok := strings.CutSuffix(s, "%")
	n, number := decimal(digits)
	return n, ok && number && n >= 1 && n <= 100
}

// decimal reads a number without sign and leading zeros.
func decimal(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && strconv.Itoa(n) == s
}

// String is none, an address, an address and a port, or a port: ":8081". Empty: the
// backend is checked where it is.
func (c CheckAt) String() string {
	switch {
	case c.None:
		return "none"
	case c.Addr.IsValid():
		return Endpoint{c.Addr, c.Port}.String()
	case c.Port != 0:
		return ":" + strconv.Itoa(int(c.Port))
	}
	return ""
}

func (c CheckAt) problem() *Problem {
	switch {
	case c.None && (c.Addr.IsValid() || c.Port != 0):
		return &Problem{Msg: "check-at is none, and has an address or a port"}
	case c.Addr.IsValid():
		return checkAddr("check-at", c.Addr)
	}
	return nil
}

// String is 200, or 200-399.
func (r StatusRange) String() string { return PortRange(r).String() }

// checkStatus and checkCommand are what is wrong with these of a check.
func checkStatus(c *Check) *Problem {
	if len(c.Status) == 0 {
		return &Problem{Msg: "status is empty"}
	}
	for i, r := range c.Status {
		switch {
		case r.First < 100 || r.First > 599 || r.Last < 100 || r.Last > 599:
			return &Problem{Msg: fmt.Sprintf("status %s is out of range", r), Want: "100 to 599"}
		case r.First > r.Last:
			return &Problem{Msg: fmt.Sprintf("status %s ends before it begins", r), Want: fmt.Sprintf("%d-%d", r.Last, r.First)}
		case i > 0 && r.First <= c.Status[i-1].Last:
			return &Problem{Msg: fmt.Sprintf("status %s and %s overlap, or are not in order", c.Status[i-1], r), Want: "each status once"}
		}
	}
	return nil
}

func checkCommand(c *Check) *Problem {
	if len(c.Command) == 0 {
		return &Problem{Msg: "check: exec has no command", Want: "command beside it"}
	}
	if program := c.Command[0]; program == "" || strings.ContainsFunc(program, unicode.IsSpace) {
		p := &Problem{Msg: "command " + safe.Show(program) + " cannot be a program", Hint: "no shell reads it"}
		if words := strings.Fields(program); len(words) > 0 && len(program) <= MaxCheckText {
			p.Want = "a list: [" + safe.Visible(strings.Join(words, ", ")) + "]"
		}
		return p
	}
	all := 0
	for _, word := range c.Command {
		if bad := checkText("command", word); bad != nil {
			return bad
		}
		all += len(word)
	}
	if all > MaxCheckText {
		return &Problem{Msg: fmt.Sprintf("command has %d bytes", all), Want: fmt.Sprintf("at most %d", MaxCheckText)}
	}
	return nil
}

// CheckRemember is what is wrong with how long flows are remembered; 0: they are not.
func CheckRemember(t time.Duration) *Problem {
	if t%time.Second != 0 {
		return &Problem{Msg: "remember " + spanText(t) + " is no whole number of seconds"}
	}
	return checkOptional("remember", t, time.Second, 24*time.Hour)
}

// CheckSlowStart is what is wrong with a slow-start; 0: there is none.
func CheckSlowStart(t time.Duration) *Problem {
	return checkOptional("slow-start", t, time.Second, time.Hour)
}

// checkOptional is checkSpan of a time that may be 0 as well: none.
func checkOptional(word string, t, least, most time.Duration) *Problem {
	if t == 0 {
		return nil
	}
	return checkSpan(word, t, least, most)
}

// CheckTarget is the address and port that a check asks about a backend of the
// service; of this host itself, the loopback address. The port is 0 for icmp, and for exec where no single port is known.
func (s *Service) CheckTarget(c *Check, b *Backend) netip.AddrPort {
	addr, port := b.Address.Addr, cmp.Or(c.Port, b.CheckAt.Port, b.Address.Port, s.onlyPort())
	switch {
	case b.CheckAt.Addr.IsValid():
		addr = b.CheckAt.Addr
	case addr == netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case addr == netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	if c.Kind == CheckICMP {
		port = 0
	}
	return netip.AddrPortFrom(addr, port)
}

// onlyPort is the port that the service listens on; 0 where there are several.
func (s *Service) onlyPort() uint16 {
	port := uint16(0)
	for _, l := range s.Listen {
		for _, r := range l.Ports {
			if r.First != r.Last || port != 0 && port != r.First {
				return 0
			}
			port = r.First
		}
	}
	return port
}

// CheckRate is how many checks a second profiles ask for, those of every service
// counted, even where several ask the same of a server.
func CheckRate(profiles []*Profile) float64 {
	rate := 0.0
	for _, s := range Services(profiles) {
		rate += s.checkRate()
	}
	return rate
}

func (s *Service) checkRate() float64 {
	checked, rate := 0, 0.0
	for i := range s.Backends {
		if s.Checked(&s.Backends[i]) {
			checked++
		}
	}
	for i := range s.Health {
		if every := s.Health[i].Interval; every > 0 {
			rate += float64(checked) / every.Seconds()
		}
	}
	return rate
}

// CheckRateProblem is what is wrong with how often the servers of a profile are
// checked, and the service with which that begins; nil: nothing.
func (p *Profile) CheckRateProblem() (*Service, *Problem) {
	rate := 0.0
	for i := range p.Services {
		s := &p.Services[i]
		if rate += s.checkRate(); rate > MaxCheckRate {
			return s, &Problem{
				Msg:  fmt.Sprintf("the profile asks for %.0f checks a second", CheckRate([]*Profile{p})),
				Want: fmt.Sprintf("at most %d", MaxCheckRate), Hint: "a longer interval asks less often",
			}
		}
	}
	return nil, nil
}
