// Package relay is what programs have in common that take connections and make
// their own to servers, as HAProxy and nginx do: where they listen, whom they
// connect to, and what of that a translation of addresses can do.
package relay

// Addresses and times as such programs write them.

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
)

// Endpoint is where a program listens, or what it connects to.
type Endpoint struct {
	Addr netip.Addr // not valid: Host has a name, or all addresses are meant
	Host string
	Any  bool // all addresses: *, 0.0.0.0, [::], or none
	// Ports are what is behind the last colon; First is 0 where there is none.
	Ports lb.PortRange
}

// Backend is it as a server.
func (e Endpoint) Backend() lb.Backend {
	return lb.Backend{Address: lb.Endpoint{Addr: e.Addr, Port: e.Ports.First}, Host: lb.Host{Name: e.Host}, Weight: 1, Priority: 1}
}

// Parse reads ADDRESS[:PORT[-PORT]], [IPV6][:PORT], IPV6:PORT where loose, NAME[:PORT],
// *:PORT and :PORT. ok is false where it is none of them.
func Parse(text string, loose bool) (e Endpoint, ok bool) {
	host, ports, ok := importer.HostPort(text)
	if i := strings.LastIndexByte(host, ':'); loose && i >= 0 && text[0] != '[' {
		host, ports = host[:i], host[i+1:]
	}
	if !ok {
		return e, false
	}
	if ports != "" {
		if e.Ports, ok = importer.PortRange(ports, "-"); !ok {
			return e, false
		}
	}
	if host == "" || host == "*" {
		e.Any = true
		return e, ports != ""
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && a.Zone() == "":
		e.Addr = a.Unmap()
		e.Any = e.Addr.IsUnspecified()
		return e, true
	case err == nil || strings.ContainsAny(host, ":/@$%{} "):
		return e, false
	}
	e.Host = strings.ToLower(host)
	return e, lb.CheckHost(lb.Host{Name: e.Host}) == nil
}

// Statuses reads status codes of HTTP and ranges of them, such as 200 and 301-399.
func Statuses(texts []string) ([]lb.StatusRange, bool) {
	var out []lb.StatusRange
	for _, text := range texts {
		r, ok := importer.PortRange(text, "-")
		if !ok || r.First < 100 || r.Last > 599 {
			return nil, false
		}
		out = append(out, lb.StatusRange(r))
	}
	slices.SortFunc(out, func(a, b lb.StatusRange) int { return int(a.First) - int(b.First) })
	return out, len(out) > 0
}

// maxSpan is longer than any time of a profile.
const maxSpan = 1 << 20 * time.Hour

// Span reads a time such as 500ms, 2s, 1m or 1h30m, of less than a century; a number
// alone counts units of bare.
func Span(text string, bare time.Duration) (time.Duration, bool) {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * bare, true
	}
	total := time.Duration(0)
	for text != "" {
		n := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
		if n <= 0 || n > 9 {
			return 0, false
		}
		count, _ := strconv.ParseInt(text[:n], 10, 64)
		text = text[n:]
		unit := text[:len(text)-len(strings.TrimLeft(text, "usmhd"))]
		size := map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
		if size == 0 || count >= int64(maxSpan/size) {
			return 0, false
		}
		total += time.Duration(count) * size
		text = text[len(unit):]
	}
	return total, total < maxSpan
}

// Seconds is a time in whole seconds, from one to most.
func Seconds(t, most time.Duration) time.Duration {
	return min(max(t.Round(time.Second), time.Second), most)
}

// Timed gives a check its times, or the nearest that a profile can have. It reports
// whether they are the same.
func Timed(c *lb.Check, interval, timeout time.Duration, rise, fall int) bool {
	interval, timeout = interval.Round(time.Millisecond), timeout.Round(time.Millisecond)
	c.Interval = min(max(interval, 100*time.Millisecond), time.Hour)
	c.Timeout = min(max(timeout, 10*time.Millisecond), c.Interval)
	c.Rise, c.Fall = min(rise, 100), min(fall, 100)
	return c.Interval == interval && c.Timeout == timeout && c.Rise == rise && c.Fall == fall
}
