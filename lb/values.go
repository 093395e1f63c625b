package lb

// What the keys of a service say, as values that files, JSON and changes are
// written from; and values of several parts as text, how a profile has them.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is what a key says.
type Value struct {
	// Word is the key.
	Word string
	// Value is a string, a number, a bool, a []string, a Joined, a Mapping or
	// Mappings; nil where the key says nothing.
	Value any
	// Default says that it holds without the key, too.
	Default bool
	// Hidden says that the kernel knows it at times only, so that what is
	// shown of the kernel leaves it out.
	Hidden bool
	// OfFile says that it is a key of the file.
	OfFile bool
}

// Values are what the keys of a mapping say, in the order of the reference. As
// JSON they are an object of those that say something and are not hidden; a
// mapping without keys is left out.
type Values []Value

// Joined is a list that is one text in JSON, separated by commas.
type Joined []string

// Mapping is a key whose value has keys of its own.
type Mapping struct {
	// Short is all of it in one word, for files; empty where there is none.
	Short string
	Values
}

// Mappings are a key whose value is a list of them.
type Mappings []Mapping

// String is the list as JSON has it.
func (j Joined) String() string { return strings.Join(j, ",") }

// MarshalJSON is the list as one text.
func (j Joined) MarshalJSON() ([]byte, error) { return json.Marshal(j.String()) }

// MarshalJSON is the object, in order.
func (v Values) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil) }

// JSONAppender is a value that appends itself. Tens of thousands of services
// make it worth it: what MarshalJSON returns is read again at each level.
type JSONAppender interface {
	AppendJSON(b []byte) ([]byte, error)
}

// AppendJSON appends the object, in order.
func (v Values) AppendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '{')
	first := true
	for _, one := range v {
		m, mapping := one.Value.(Mapping)
		if one.Value == nil || one.Hidden || mapping && len(m.Values) == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendText(b, one.Word), ':')
		if b, err = appendValue(b, one.Value); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return appendText(b, v), nil
	case Joined:
		return appendText(b, v.String()), nil
	case []string:
		b = append(b, '[')
		for i, text := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, text)
		}
		return append(b, ']'), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case float64:
		if v == 0 || 1e-6 <= v && v < 1e6 { // others have an exponent
			return strconv.AppendFloat(b, v, 'f', -1, 64), nil
		}
	case JSONAppender:
		return v.AppendJSON(b)
	}
	text, err := json.Marshal(value)
	return append(b, text...), err
}

// appendText appends a text in quotes.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // a string has no errors
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Text is what a key says, as a change names it; empty where it says nothing.
func (v Values) Text(word string) string {
	for _, one := range v {
		if one.Word == word && one.Value != nil {
			return text(one.Value)
		}
	}
	return ""
}

// Values are what the keys of a service say, without its backends.
func (s *Service) Values() Values { return valuesOf(serviceKeys, s) }

// Values are what the keys of a backend say that is not what the service says.
func (b *Backend) Values(s *Service) Values { return valuesOf(backendKeys, &member{b, s}) }

func valuesOf[T any](keys []key[T], v *T) Values {
	out := make(Values, len(keys))
	for i := range keys {
		k := &keys[i]
		value, usual := k.value(v)
		out[i] = Value{Word: k.word, Value: value, Default: usual, Hidden: k.hidden, OfFile: k.ofFile}
	}
	return out
}

// allDefault reports whether values say nothing that would not hold without them.
func allDefault(v Values) bool {
	for _, one := range v {
		if one.Value != nil && !one.Default {
			return false
		}
	}
	return true
}

// text is a value as a change names it.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return "none"
	case string:
		return v
	case []string:
		return strings.Join(v, ",")
	case Mapping:
		var parts []string
		for _, one := range v.Values {
			if one.Value != nil {
				parts = append(parts, one.Word+" "+text(one.Value))
			}
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(value)
}

// known is a value; nil, which says nothing, where it is zero.
func known[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// list is a list that says nothing where it is empty.
func list(values []string) any {
	if len(values) == 0 {
		return nil
	}
	return values
}

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

// Compare orders endpoints by address, then by port.
func (e Endpoint) Compare(o Endpoint) int {
	return cmp.Or(e.Addr.Compare(o.Addr), cmp.Compare(e.Port, o.Port))
}

// String is as it stands in a profile: 10.0.0.11:8080, [2001:db8::1]:80, an address
// alone, or :8080. A port of this host itself is :8080 for IPv4 and [::]:8080 for IPv6.
func (e Endpoint) String() string { return string(e.appendTo(nil)) }

func (e Endpoint) appendTo(text []byte) []byte {
	switch {
	case e.Port == 0:
		return append(text, e.Addr.String()...)
	case !e.Addr.IsValid(), e.Addr == netip.IPv4Unspecified():
		return strconv.AppendUint(append(text, ':'), uint64(e.Port), 10)
	}
	return netip.AddrPortFrom(e.Addr, e.Port).AppendTo(text)
}

// String is 100/second, or empty for no limit.
func (r Rate) String() string {
	for _, u := range Units {
		if r.Per == u.Duration {
			return strconv.FormatUint(r.Events, 10) + "/" + u.Long
		}
	}
	return ""
}

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

// String is the timeout, the group, and the networks where they are not single clients:
// 10m, 10m group web, 10m by /24, 10m by /24 and /64.
func (a *Affinity) String() string {
	s := timeText(a.Timeout)
	if a.Group != "" {
		s += " group " + a.Group
	}
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

// spanText is a time of at least a millisecond in its largest unit: 1m, 2s, 1500ms.
func spanText(t time.Duration) string {
	if t%time.Second != 0 && t%time.Millisecond == 0 {
		return strconv.FormatInt(t.Milliseconds(), 10) + "ms"
	}
	return timeText(t)
}

// spanValue is a time that says nothing where it is zero.
func spanValue(t time.Duration) any {
	if t == 0 {
		return nil
	}
	return spanText(t)
}

// escape is any text in printable ASCII: \r, \n, \xNN and \\ stand for what else
// it has.
func escape(s string) string {
	var b []byte
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\\':
			b = append(b, `\\`...)
		case c < ' ' || c > '~':
			b = fmt.Appendf(b, `\x%02x`, c)
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// Tracked reports whether the kernel tracks the connections of the service. If not, it
// counts packets.
func (s *Service) Tracked() bool { return !s.Mode.Direct() && s.Balance != Datagrams }

// PortsOf are the ports of a backend that the service sends to.
func (s *Service) PortsOf(b Backend) []PortRange {
	if b.Address.Port != 0 {
		return []PortRange{{First: b.Address.Port, Last: b.Address.Port}}
	}
	var out []PortRange
	for _, l := range s.Listen {
		out = append(out, l.Ports...)
	}
	return out
}

// JoinPorts makes ranges disjoint, and sorts them in place.
func JoinPorts(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	var out []PortRange
	for _, r := range ranges {
		if n := len(out); n > 0 && r.First <= out[n-1].Last {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// AnyService reports whether a service of profiles is such a one.
func AnyService(profiles []*Profile, is func(*Service) bool) bool {
	for _, s := range Services(profiles) {
		if is(s) {
			return true
		}
	}
	return false
}
