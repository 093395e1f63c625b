// Package ruleset is nftables as values: maps, chains, rules and statements, which
// print themselves as an nft script, and become and are read from the messages of
// the kernel. It knows nothing of profiles.
package ruleset

// A ruleset as a value: one table of maps and chains.

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ruleset is what a table should hold. Its order is the order in which it is
// written.
type Ruleset struct {
	Table string
	// Family is the table's: Inet or Netdev.
	Family uint8
	// Comment is the table's.
	Comment string
	// Flowtables stand ahead of the chains that add to them.
	Flowtables []*Flowtable
	Maps       []*Map
	Chains     []*Chain
}

// Kind is what the elements of a map are for, and so what becomes of them.
type Kind uint8

const (
	// Unspecified: what packets fill, addresses, and what is not of nlb.
	Unspecified Kind = iota
	// Destinations lead to services. Those that pass to another map are handed over.
	Destinations
	// Exemptions are destinations that are left alone.
	Exemptions
	// Addresses are those of services, with what becomes of what these do not take.
	Addresses
	// Slots lead to backends.
	Slots
	// OwnSlots are those of one service alone, which are replaced in place.
	OwnSlots
	// Before is where those have led, until it ends by itself.
	Before
	// Members lead from the backends of one service to what they are in a group of
	// services, and back.
	Members
	// Backends are marks of backends that packets find their way without.
	Backends
	// Endpoints are what the mark of a backend or of a service leads to. They
	// outlive the apply that needs them no longer.
	Endpoints
	// Pools lead from the mark of a backend to a list of addresses.
	Pools
	// Record is what nlb keeps for itself.
	Record
)

// OfMarks reports whether the keys are marks of backends.
func (k Kind) OfMarks() bool { return k == Backends || k == Endpoints || k == Pools }

// Map is a named map, or a set where it has no data.
type Map struct {
	Name     string
	Kind     Kind
	Key      Type
	Data     Type
	Interval bool          // keys are ranges of each field
	Counter  bool          // every element counts
	Dynamic  bool          // packets fill it
	Timeout  bool          // its elements expire
	Prefixes bool          // keys are prefixes of addresses, nothing else
	Jump     bool          // its verdicts jump to chains, rather than go to them
	Size     uint32        // the most elements; 0: no limit of its own
	Collect  time.Duration // how often the kernel takes away what has expired; 0: each second
	OfChain  string        // the service whose chain it goes with
	TypeOf   string        // the declaration, where nft wants an expression
	Udata    string        // the same for the kernel's listing
	Comment  string
	Elements []Element
}

// Element is one entry. Keys and data are the kernel's bytes, but for a
// verdict, whose data is the name of the chain to go to.
type Element struct {
	Key, End string // end: the last key of a range
	Data     string
	*Extra   // nil for most: there are a lot of elements
}

// Extra is what few elements have.
type Extra struct {
	Comment        string
	Udata          string // further user data
	Packets, Bytes uint64
	// Timeout is how long the element lives after it was last used, and Expires
	// what of that is left; 0: it has none of its own.
	Timeout, Expires time.Duration
}

var noExtra Extra

// More is what an element has beside its key and data; it is only for reading.
func (e *Element) More() *Extra {
	if e.Extra == nil {
		return &noExtra
	}
	return e.Extra
}

// Chain is a regular chain, or a base chain where it has a hook.
type Chain struct {
	Name   string
	Hook   *Hook
	Filter bool // a base chain of type filter, not nat
	Rules  []Rule
}

// kind is the type of a base chain.
func (c *Chain) kind() string {
	if c.Filter {
		return "filter"
	}
	return "nat"
}

// Hook is where a base chain is attached.
type Hook struct {
	Name     string
	Num      uint32 // linux/netfilter.h, enum nf_inet_hooks
	Priority int32
	Text     string // the priority as nft takes it
	// Devices are those that an ingress hook is on.
	Devices []string
}

// Prerouting is the hook of what enters, before it is routed. text is the
// priority as nft writes it.
func Prerouting(priority int32, text string) *Hook {
	return &Hook{Name: "prerouting", Num: unix.NF_INET_PRE_ROUTING, Priority: priority, Text: text}
}

// Ingress is the hook of what devices receive, in a table of family netdev,
// before anything else looks at it. All devices must be there: the kernel refuses
// the batch otherwise.
func Ingress(priority int32, devices ...string) *Hook {
	return &Hook{
		Name: "ingress", Num: unix.NF_NETDEV_INGRESS, Priority: priority, Text: strconv.Itoa(int(priority)), Devices: devices,
	}
}

// Output is the hook of what this host sends.
func Output(priority int32, text string) *Hook {
	return &Hook{Name: "output", Num: unix.NF_INET_LOCAL_OUT, Priority: priority, Text: text}
}

// Postrouting is the hook of what leaves.
func Postrouting(priority int32, text string) *Hook {
	return &Hook{Name: "postrouting", Num: unix.NF_INET_POST_ROUTING, Priority: priority, Text: text}
}

// Rule is statements in a row, and a comment for people and for Load.
type Rule struct {
	Statements []Statement
	Comment    string
	Needs      string // the map without which the rule is not there
}

// Fingerprint is 8 bytes that tell rules apart. It travels with the rule, since
// what the kernel gives back of the rule itself is not what it was given.
func (r Rule) Fingerprint() string {
	h := uint64(14695981039346656037)
	for _, s := range r.Statements {
		h = fnv1a(fnv1a(fnv1a(h, s.Text), "\x00"), s.Exprs)
	}
	return string(binary.BigEndian.AppendUint64(nil, fnv1a(h, r.Comment)))
}

// fnv1a goes on with a hash (FNV-1a, 64 bits); hash/fnv would copy each text.
func fnv1a[B ~string | ~[]byte](h uint64, b B) uint64 {
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	return h
}

// NewRule is a rule of statements alone.
func NewRule(statements ...Statement) Rule { return Rule{Statements: statements} }

// String is the rule as nft takes it.
func (r Rule) String() string {
	texts := make([]string, len(r.Statements))
	for i, s := range r.Statements {
		texts[i] = s.Text
	}
	s := strings.Join(texts, " ")
	if r.Comment != "" {
		s += fmt.Sprintf(" comment %q", r.Comment)
	}
	return s
}

// replaceTable is the first part of a script that replaces a table; see WriteTo.
const replaceTable = "add table %[1]s %[2]s\ndelete table %[1]s %[2]s\n"

// WriteTo writes the ruleset as a script for nft -f. Loading it replaces the
// table of that name, atomically.
func (r *Ruleset) WriteTo(w io.Writer) (int64, error) {
	p := &printer{w: w}
	family := "inet"
	if r.Family == Netdev {
		family = "netdev"
	}
	p.printf(replaceTable, family, r.Table)
	p.printf("table %s %s {\n\tcomment %q\n", family, r.Table, r.Comment)
	for _, f := range r.Flowtables {
		p.flowtable(f)
	}
	for _, m := range r.Maps {
		p.mapping(m)
	}
	p.objects(r.Chains, objectCtTimeout)
	p.objects(r.Chains, objectCtHelper)
	for _, c := range r.Chains {
		p.chain(c)
	}
	p.printf("}\n")
	return p.n, p.err
}

// String is the script that WriteTo writes.
func (r *Ruleset) String() string {
	var b strings.Builder
	_, _ = r.WriteTo(&b)
	return b.String()
}

// printer writes until the first error.
type printer struct {
	w   io.Writer
	n   int64
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err != nil {
		return
	}
	n, err := fmt.Fprintf(p.w, format, args...)
	p.n += int64(n)
	p.err = err
}

func (p *printer) mapping(m *Map) {
	kind, value := "map", " : "+m.Data.String()
	if m.Data == nil {
		kind, value = "set", ""
	}
	p.printf("\n\t%s %s {\n", kind, m.Name)
	if m.TypeOf != "" {
		p.printf("\t\ttypeof %s\n", m.TypeOf)
	} else {
		p.printf("\t\ttype %s%s\n", m.Key, value)
	}
	if m.Size > 0 {
		p.printf("\t\tsize %d\n", m.Size)
	}
	if flags := m.FlagWords(); flags != "" {
		p.printf("\t\tflags %s\n", flags)
	}
	if m.Collect > 0 {
		p.printf("\t\tgc-interval %s\n", durationText(m.Collect))
	}
	if m.Counter {
		p.printf("\t\tcounter\n")
	}
	if m.Comment != "" {
		p.printf("\t\tcomment %q\n", m.Comment)
	}
	for i, e := range m.Elements {
		if i == 0 {
			p.printf("\t\telements = {\n")
		}
		p.printf("\t\t\t%s,\n", m.ElementText(e))
	}
	if len(m.Elements) > 0 {
		p.printf("\t\t}\n")
	}
	p.printf("\t}\n")
}

// FlagWords are the flags as nft takes them.
func (m *Map) FlagWords() string {
	var words []string
	if m.Interval || m.Prefixes {
		words = append(words, "interval")
	}
	if m.Dynamic {
		words = append(words, "dynamic")
	}
	if m.Timeout {
		words = append(words, "timeout")
	}
	return strings.Join(words, ",")
}

// ElementText is an element as nft takes it.
func (m *Map) ElementText(e Element) string {
	var b strings.Builder
	b.WriteString(m.KeyText(e))
	x := e.More()
	if x.Packets != 0 || x.Bytes != 0 {
		fmt.Fprintf(&b, " counter packets %d bytes %d", x.Packets, x.Bytes)
	}
	if x.Timeout > 0 {
		fmt.Fprintf(&b, " timeout %s expires %s", durationText(x.Timeout), durationText(x.Expires))
	}
	if x.Comment != "" {
		fmt.Fprintf(&b, " comment %q", x.Comment)
	}
	if m.Data != nil {
		b.WriteString(" : ")
		b.WriteString(m.dataText(e))
	}
	return b.String()
}

// KeyText is the key of an element as nft takes it.
func (m *Map) KeyText(e Element) string {
	if m.TypeOf != "" && len(m.Key) == 1 {
		return fmt.Sprint(MarkOf(e.Key)) // nft takes numgen's numbers as decimals only
	}
	return m.Key.Text(e.Key, e.End)
}

func (m *Map) dataText(e Element) string {
	if m.Verdicts() {
		return m.verdict(&e).Text
	}
	return m.Data.Text(e.Data, "")
}

// verdict is what an element of a verdict map does: it goes or jumps to a
// chain, or with no chain lets the packet pass.
func (m *Map) verdict(e *Element) verdictWord {
	switch {
	case e.Data == "":
		return verdictWord{"accept", nfAccept}
	case m.Jump:
		return verdictWord{"jump " + e.Data, unix.NFT_JUMP}
	}
	return verdictWord{"goto " + e.Data, unix.NFT_GOTO}
}

const nfAccept = 1 // NF_ACCEPT (linux/netfilter.h)

type verdictWord struct {
	Text string
	code int32
}

// Verdicts reports whether the values are verdicts.
func (m *Map) Verdicts() bool { return len(m.Data) == 1 && m.Data[0].id == Verdict.id }

func (p *printer) chain(c *Chain) {
	p.printf("\n\tchain %s {\n", c.Name)
	if h := c.Hook; h != nil {
		devices := ""
		if len(h.Devices) > 0 {
			devices = " devices = { " + strings.Join(h.Devices, ", ") + " }"
		}
		p.printf("\t\ttype %s hook %s%s priority %s; policy accept;\n", c.kind(), h.Name, devices, h.Text)
	}
	for _, r := range c.Rules {
		p.printf("\t\t%s\n", r)
	}
	p.printf("\t}\n")
}
