package ruleset

// Timeouts: how long conntrack remembers connections of a kind, as an object that
// a statement refers to.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Timeouts is a ct timeout object. It goes with the first rule that refers to it, and
// the kernel never changes one: other timeouts need another name.
type Timeouts struct {
	Name     string
	Protocol byte // TCP or UDP
	// Seconds are those of each state, in the order of the kernel's numbers; 0: as
	// the kernel has it when the object is made.
	Seconds []uint32
}

const (
	objectCtTimeout = 7 // NFT_OBJECT_CT_TIMEOUT (linux/netfilter/nf_tables.h)

	// Its attributes, of which golang.org/x/sys/unix names none.
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
func SetTimeouts(t *Timeouts) Statement {
	s := NewStatement(fmt.Sprintf("meta l4proto %s ct timeout set %q", protocolName(t.Protocol), t.Name),
		loadL4, compare(expr.CmpOpEq, []byte{t.Protocol}), &expr.Objref{Type: objectCtTimeout, Name: t.Name})
	s.Timeouts = t
	return s
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

// newTimeouts makes the object, where it is not there.
//
//	NFTA_OBJ_TABLE, NAME, TYPE, DATA [L4PROTO, DATA [CTA_TIMEOUT_...]]
func (m *Messages) newTimeouts(t *Timeouts) {
	m.open(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, "ct timeout "+t.Name)
	m.Text(unix.NFTA_OBJ_NAME, t.Name)
	m.Uint32(unix.NFTA_OBJ_TYPE, objectCtTimeout)
	data := m.Nest(unix.NFTA_OBJ_DATA)
	m.Data(timeoutProtocol, string([]byte{t.Protocol}))
	policy := m.Nest(timeoutData)
	for i, s := range t.Seconds {
		if s > 0 {
			m.Uint32(uint16(i+1), s)
		}
	}
	m.Unnest(policy)
	m.Unnest(data)
	m.End()
}

// timeouts prints the objects that the rules of a ruleset refer to.
func (p *printer) timeouts(chains []*Chain) {
	var seen []string
	for _, c := range chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				t := s.Timeouts
				if t == nil || slices.Contains(seen, t.Name) {
					continue
				}
				seen = append(seen, t.Name)
				var policy []string
				for i, seconds := range t.Seconds {
					if seconds > 0 {
						policy = append(policy, fmt.Sprintf("%s : %d", timeoutStates[t.Protocol][i], seconds))
					}
				}
				p.printf("\n\tct timeout %s {\n\t\tprotocol %s\n\t\tpolicy = { %s }\n\t}\n", t.Name, protocolName(t.Protocol), strings.Join(policy, ", "))
			}
		}
	}
}
