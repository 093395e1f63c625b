package ruleset

// Objects: what statements refer to: how long conntrack remembers connections of a kind, and
// readers of protocols in which a connection announces others
// (https://docs.kernel.org/networking/nf_conntrack-sysctl.html).

import (
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Object is what a statement refers to. It goes with the first rule that refers to it.
type Object interface {
	// kind is the kernel's number, and nft's word.
	kind() (number uint32, word string)
	name() string
	// text and data are what it is, for nft and as attributes.
	text() string
	data(m *Messages)
}

// Timeouts is a ct timeout object. The kernel never changes one: other timeouts need
// another name.
type Timeouts struct {
	Name     string
	Protocol byte // TCP or UDP
	// Seconds are those of each state, in the order of the kernel's numbers; 0: as
	// the kernel has it when the object is made.
	Seconds []uint32
}

// Helper is a ct helper object, for both families.
type Helper struct {
	Name     string
	Type     string // the kernel's name: ftp
	Protocol byte   // TCP or UDP
}

// Kinds of objects, and attributes, of which golang.org/x/sys/unix names none
// (linux/netfilter/nf_tables.h).
const (
	objectCtHelper  = 3 // NFT_OBJECT_CT_HELPER
	objectCtTimeout = 7 // NFT_OBJECT_CT_TIMEOUT

	helperName, helperFamily, helperProtocol = 1, 2, 3 // NFTA_CT_HELPER_NAME, L3PROTO, L4PROTO

	timeoutProtocol = 2 // NFTA_CT_TIMEOUT_L4PROTO
	timeoutData     = 3 // NFTA_CT_TIMEOUT_DATA: a state's number (nfnetlink_cttimeout.h) -> seconds
)

// timeoutStates are nft's words for the states from number 1 on.
var timeoutStates = map[byte][]string{
	unix.IPPROTO_TCP: {"syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close"},
	unix.IPPROTO_UDP: {"unreplied", "replied"},
}

// SetTimeouts gives a new connection of the object's protocol its timeouts. It has to
// come behind conntrack in the hook.
func SetTimeouts(t *Timeouts) Statement { return setObject(t, t.Protocol) }

// SetHelper gives a new connection of the object's protocol its helper. It has to come
// behind conntrack in the hook, and ahead of the translation.
func SetHelper(h *Helper) Statement { return setObject(h, h.Protocol) }

func setObject(o Object, protocol byte) Statement {
	number, word := o.kind()
	s := NewStatement(fmt.Sprintf("meta l4proto %s %s set %q", protocolName(protocol), word, o.name()),
		loadL4, compare(expr.CmpOpEq, []byte{protocol}), &expr.Objref{Type: int(number), Name: o.name()})
	s.Object = o
	return s
}

func (t *Timeouts) name() string           { return t.Name }
func (t *Timeouts) kind() (uint32, string) { return objectCtTimeout, "ct timeout" }

func (t *Timeouts) text() string {
	var policy []string
	for i, seconds := range t.Seconds {
		if seconds > 0 {
			policy = append(policy, fmt.Sprintf("%s : %d", timeoutStates[t.Protocol][i], seconds))
		}
	}
	return fmt.Sprintf("protocol %s\n\t\tpolicy = { %s }", protocolName(t.Protocol), strings.Join(policy, ", "))
}

// data is L4PROTO, DATA [CTA_TIMEOUT_...].
func (t *Timeouts) data(m *Messages) {
	m.Data(timeoutProtocol, string([]byte{t.Protocol}))
	policy := m.Nest(timeoutData)
	for i, s := range t.Seconds {
		if s > 0 {
			m.Uint32(uint16(i+1), s)
		}
	}
	m.Unnest(policy)
}

func (h *Helper) name() string           { return h.Name }
func (h *Helper) kind() (uint32, string) { return objectCtHelper, "ct helper" }

func (h *Helper) text() string {
	return fmt.Sprintf("type %q protocol %s\n\t\tl3proto inet", h.Type, protocolName(h.Protocol))
}

// data is NAME, L3PROTO, L4PROTO.
func (h *Helper) data(m *Messages) {
	m.Text(helperName, h.Type)
	m.Data(helperFamily, string([]byte{0, unix.NFPROTO_INET}))
	m.Data(helperProtocol, string([]byte{h.Protocol}))
}

// newObject makes an object, where it is not there.
//
//	NFTA_OBJ_TABLE, NAME, TYPE, DATA
func (m *Messages) newObject(o Object) {
	number, word := o.kind()
	m.open(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, word, o.name())
	m.Text(unix.NFTA_OBJ_NAME, o.name())
	m.Uint32(unix.NFTA_OBJ_TYPE, number)
	data := m.Nest(unix.NFTA_OBJ_DATA)
	o.data(m)
	m.Unnest(data)
	m.End()
}

// objects prints those of a kind that the rules of a ruleset refer to.
func (p *printer) objects(chains []*Chain, kind uint32) {
	seen := map[string]bool{}
	for _, c := range chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if s.Object == nil || seen[s.Object.name()] {
					continue
				}
				if number, word := s.Object.kind(); number == kind {
					seen[s.Object.name()] = true
					p.printf("\n\t%s %s {\n\t\t%s\n\t}\n", word, s.Object.name(), s.Object.text())
				}
			}
		}
	}
}

// PriorityIs matches packets of sockets with this SO_PRIORITY, or others.
func PriorityIs(priority uint32, not bool) Statement {
	op, word := expr.CmpOpEq, ""
	if not {
		op, word = expr.CmpOpNeq, "!= "
	}
	return NewStatement(fmt.Sprintf("meta priority %s%04x:%04x", word, priority>>16, priority&0xffff),
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: reg}, compare(op, []byte(MarkBytes(priority))))
}
