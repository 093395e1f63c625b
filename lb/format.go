package lb

// Values of several parts as text: how a profile has them.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Units are those of times and rates, the largest first: 10m, 100/minute.
var Units = []struct {
	Short, Long string
	time.Duration
}{
	{"d", "day", 24 * time.Hour},
	{"h", "hour", time.Hour},
	{"m", "minute", time.Minute},
	{"s", "second", time.Second},
}

// String is 80, 8000-8010 or *.
func (p PortRange) String() string {
	switch {
	case p == AllPorts:
		return "*"
	case p.First == p.Last:
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// String is as it stands in a profile: 203.0.113.10:80,443 or [2001:db8::1]:*.
func (l Listen) String() string {
	var b strings.Builder
	if p := l.Prefix; p.IsValid() {
		host := p.String()
		if p.IsSingleIP() {
			host = p.Addr().String()
		}
		if p.Addr().Is6() {
			host = "[" + host + "]"
		}
		b.WriteString(host)
	}
	b.WriteByte(':')
	for i, r := range l.Ports {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// String is as it stands in a profile: 10.0.0.11:8080, [2001:db8::1]:80, or an
// address alone.
func (e Endpoint) String() string {
	if e.Port == 0 {
		return e.Addr.String()
	}
	return netip.AddrPortFrom(e.Addr, e.Port).String()
}

// texts are the words of a profile: the mode, or the addresses of a pool.
func (s SNAT) texts() []string {
	if s.Mode != SNATPool {
		return []string{s.Mode.String()}
	}
	return texts(s.Pool)
}

// String is as it stands in a profile; a pool is its addresses, separated by
// commas.
func (s SNAT) String() string { return strings.Join(s.texts(), ",") }

// Equal reports whether both make the same of a source address.
func (s SNAT) Equal(t SNAT) bool { return s.Mode == t.Mode && slices.Equal(s.Pool, t.Pool) }

// String is 100/second, or empty for no limit.
func (r Rate) String() string { return rateText(r) }

// UnmarshalText reads what String writes.
func (r *Rate) UnmarshalText(b []byte) error {
	events, per, _ := strings.Cut(string(b), "/")
	n, err := strconv.ParseUint(events, 10, 64)
	if err != nil {
		return fmt.Errorf("rate %q: %w", b, err)
	}
	for _, u := range Units {
		if per == u.Long {
			*r = Rate{n, u.Duration}
			return nil
		}
	}
	return fmt.Errorf("rate %q: no unit", b)
}

// TimeoutText is the timeout as a profile has it: 10m.
func (a *Affinity) TimeoutText() string { return timeText(a.Timeout) }

// String is the timeout, and the networks where they are not single clients:
// 10m, 10m by /24, 10m by /24 and /64.
func (a *Affinity) String() string {
	s := timeText(a.Timeout)
	v4, v6 := a.Bits > 0 && a.Bits < 32, a.Bits6 > 0 && a.Bits6 < 128
	switch {
	case v4 && v6:
		return fmt.Sprintf("%s by /%d and /%d", s, a.Bits, a.Bits6)
	case v4:
		return fmt.Sprintf("%s by /%d", s, a.Bits)
	case v6:
		return fmt.Sprintf("%s by /%d", s, a.Bits6)
	}
	return s
}

// timeText is a time in its largest unit.
func timeText(t time.Duration) string {
	for _, u := range Units {
		if t%u.Duration == 0 {
			return strconv.FormatInt(int64(t/u.Duration), 10) + u.Short
		}
	}
	return t.String()
}

func rateText(r Rate) string {
	for _, u := range Units {
		if r.Per == u.Duration {
			return strconv.FormatUint(r.Events, 10) + "/" + u.Long
		}
	}
	return ""
}

// String is what is limited, or none.
func (l Limit) String() string {
	var parts []string
	if l.ConnectionsPerSource > 0 {
		parts = append(parts, fmt.Sprintf("connections-per-source %d", l.ConnectionsPerSource))
	}
	if l.NewPerSource.Events > 0 {
		parts = append(parts, fmt.Sprintf("new-per-source %s burst %d", l.NewPerSource, l.Burst))
	}
	if l.New.Events > 0 {
		parts = append(parts, "new "+l.New.String())
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// String is how connections are logged, or none.
func (l *Log) String() string {
	if l == nil {
		return "none"
	}
	parts := []string{"level " + l.Level.String()}
	if l.Rate.Events > 0 {
		parts = append(parts, "rate "+l.Rate.String())
	}
	if l.Prefix != "" {
		parts = append(parts, fmt.Sprintf("prefix %q", l.Prefix))
	}
	return strings.Join(parts, ", ")
}
