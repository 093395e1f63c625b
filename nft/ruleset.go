// Package nft turns profiles into native nftables, and back: it compiles a
// ruleset, writes it as text or as netlink messages, reads what the kernel
// has, plans the difference, and commits it in one batch.
package nft

// A ruleset as a value: one table of maps and chains, which prints itself as
// an nft script.

import (
	"fmt"
	"io"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Ruleset is what a table of family inet should hold. Its order is the order
// in which it is written.
type Ruleset struct {
	Table  string
	maps   []*mapping
	chains []*chain
}

// mapping is a named map, or a set where it has no data.
type mapping struct {
	name     string
	key      typ
	data     typ
	interval bool   // keys are ranges of each field
	counter  bool   // every element counts
	dynamic  bool   // packets fill it
	timeout  bool   // its elements expire
	prefixes bool   // keys are prefixes of addresses, nothing else
	tier     bool   // it leads to services
	ofChain  string // the service whose chain it goes with
	typeOf   string // the declaration, where nft wants an expression
	udata    string // the same for the kernel's listing
	comment  string
	elements []element
}

// element is one entry. Keys and data are the kernel's bytes, but for a
// verdict, whose data is the name of the chain to go to.
type element struct {
	key, end string // end: the last key of a range
	data     string
	*extra   // nil for most: there are a lot of elements
}

// extra is what few elements have.
type extra struct {
	comment        string
	udata          string // further user data
	packets, bytes uint64
}

var noExtra extra

// more is what an element has beside its key and data; it is only for reading.
func (e *element) more() *extra {
	if e.extra == nil {
		return &noExtra
	}
	return e.extra
}

// chain is a regular chain, or a base chain where it has a hook.
type chain struct {
	name   string
	hook   *hook
	filter bool // a base chain of type filter, not nat
	rules  []rule
}

// kind is the type of a base chain.
func (c *chain) kind() string {
	if c.filter {
		return "filter"
	}
	return "nat"
}

type hook struct {
	name     string
	num      uint32 // linux/netfilter.h, enum nf_inet_hooks
	priority int32
	text     string // the priority as nft takes it
}

// rule is statements in a row, and a comment for people and for Load.
type rule struct {
	statements []statement
	comment    string
	needs      string // the map without which the rule is not there
}

// statement is a part of a rule in both its forms, made from the same fields.
type statement struct {
	text  string
	exprs []byte // encoded NFTA_LIST_ELEM attributes
}

func newStatement(text string, exprs ...expr.Any) statement {
	return statement{text: text, exprs: encodeExprs(exprs...)}
}

func (r rule) String() string {
	texts := make([]string, len(r.statements))
	for i, s := range r.statements {
		texts[i] = s.text
	}
	s := strings.Join(texts, " ")
	if r.comment != "" {
		s += fmt.Sprintf(" comment %q", r.comment)
	}
	return s
}

// Text is the first part of a script that replaces a table; see WriteTo.
const replaceTable = "add table inet %[1]s\ndelete table inet %[1]s\n"

// WriteTo writes the ruleset as a script for nft -f. Loading it replaces the
// table of that name, atomically.
func (r *Ruleset) WriteTo(w io.Writer) (int64, error) {
	p := &printer{w: w}
	p.printf(replaceTable, r.Table)
	p.printf("table inet %s {\n\tcomment %q\n", r.Table, tableComment)
	for _, m := range r.maps {
		p.mapping(m)
	}
	for _, c := range r.chains {
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

func (p *printer) mapping(m *mapping) {
	kind, value := "map", " : "+m.data.String()
	if m.data == nil {
		kind, value = "set", ""
	}
	p.printf("\n\t%s %s {\n", kind, m.name)
	if m.typeOf != "" {
		p.printf("\t\ttypeof %s\n", m.typeOf)
	} else {
		p.printf("\t\ttype %s%s\n", m.key, value)
	}
	if m.dynamic {
		p.printf("\t\tsize %d\n", maxClients)
	}
	if flags := m.flagWords(); flags != "" {
		p.printf("\t\tflags %s\n", flags)
	}
	if m.counter {
		p.printf("\t\tcounter\n")
	}
	if m.comment != "" {
		p.printf("\t\tcomment %q\n", m.comment)
	}
	for i, e := range m.elements {
		if i == 0 {
			p.printf("\t\telements = {\n")
		}
		p.printf("\t\t\t%s,\n", m.elementText(e))
	}
	if len(m.elements) > 0 {
		p.printf("\t\t}\n")
	}
	p.printf("\t}\n")
}

func (m *mapping) flagWords() string {
	var words []string
	if m.interval || m.prefixes {
		words = append(words, "interval")
	}
	if m.dynamic {
		words = append(words, "dynamic")
	}
	if m.timeout {
		words = append(words, "timeout")
	}
	return strings.Join(words, ",")
}

func (m *mapping) elementText(e element) string {
	var b strings.Builder
	b.WriteString(m.keyText(e))
	x := e.more()
	if x.packets != 0 || x.bytes != 0 {
		fmt.Fprintf(&b, " counter packets %d bytes %d", x.packets, x.bytes)
	}
	if x.comment != "" {
		fmt.Fprintf(&b, " comment %q", x.comment)
	}
	if m.data != nil {
		b.WriteString(" : ")
		b.WriteString(m.dataText(e))
	}
	return b.String()
}

func (m *mapping) keyText(e element) string {
	if m.typeOf != "" {
		return fmt.Sprint(markOf(e.key)) // nft takes numgen's numbers as decimals only
	}
	return m.key.text(e.key, e.end)
}

func (m *mapping) dataText(e element) string {
	if m.verdicts() {
		return e.verdict().text
	}
	return m.data.text(e.data, "")
}

// verdict is what an element of a verdict map does: it goes to a service's
// chain, calls a backend's, or with no chain lets the packet pass.
func (e element) verdict() verdictWord {
	switch {
	case e.data == "":
		return verdictWord{"accept", nfAccept}
	case isBackendChain(e.data):
		return verdictWord{"jump " + e.data, unix.NFT_JUMP}
	}
	return verdictWord{"goto " + e.data, unix.NFT_GOTO}
}

const nfAccept = 1 // NF_ACCEPT (linux/netfilter.h)

type verdictWord struct {
	text string
	code int32
}

func (m *mapping) verdicts() bool { return len(m.data) == 1 && m.data[0].id == verdict.id }

func (p *printer) chain(c *chain) {
	p.printf("\n\tchain %s {\n", c.name)
	if h := c.hook; h != nil {
		p.printf("\t\ttype %s hook %s priority %s; policy accept;\n", c.kind(), h.name, h.text)
	}
	for _, r := range c.rules {
		p.printf("\t\t%s\n", r)
	}
	p.printf("\t}\n")
}
