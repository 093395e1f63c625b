package ruleset

// Helpers: readers of protocols in which a connection announces others, as objects that
// statements refer to (https://docs.kernel.org/networking/nf_conntrack-sysctl.html).

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Helper is a ct helper object, for both families. It goes with the first rule that
// refers to it.
type Helper struct {
	Name     string
	Type     string // the kernel's name: ftp
	Protocol byte   // TCP or UDP
}

const (
	objectCtHelper = 3 // NFT_OBJECT_CT_HELPER (linux/netfilter/nf_tables.h)

	// Its attributes.
	helperName, helperFamily, helperProtocol = 1, 2, 3 // NFTA_CT_HELPER_NAME, L3PROTO, L4PROTO
)

// SetHelper gives a new connection of the object's protocol its helper. It has to come
// behind conntrack in the hook, and ahead of the translation.
func SetHelper(h *Helper) Statement {
	s := NewStatement(fmt.Sprintf("meta l4proto %s ct helper set %q", protocolName(h.Protocol), h.Name),
		loadL4, compare(expr.CmpOpEq, []byte{h.Protocol}), &expr.Objref{Type: objectCtHelper, Name: h.Name})
	s.Helper = h
	return s
}

// newObjects makes the objects that a statement refers to, where they are not there.
func (m *Messages) newObjects(s *Statement) {
	if s.Timeouts != nil {
		m.newTimeouts(s.Timeouts)
	}
	if s.Helper != nil {
		m.newHelper(s.Helper)
	}
}

// newHelper makes the object, where it is not there.
//
//	NFTA_OBJ_TABLE, NAME, TYPE, DATA [NAME, L3PROTO, L4PROTO]
func (m *Messages) newHelper(h *Helper) {
	m.open(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, "ct helper "+h.Name)
	m.Text(unix.NFTA_OBJ_NAME, h.Name)
	m.Uint32(unix.NFTA_OBJ_TYPE, objectCtHelper)
	data := m.Nest(unix.NFTA_OBJ_DATA)
	m.Text(helperName, h.Type)
	m.Data(helperFamily, string([]byte{0, unix.NFPROTO_INET}))
	m.Data(helperProtocol, string([]byte{h.Protocol}))
	m.Unnest(data)
	m.End()
}

// helpers prints the objects that the rules of a ruleset refer to.
func (p *printer) helpers(chains []*Chain) {
	var seen []string
	for _, c := range chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if h := s.Helper; h != nil && !slices.Contains(seen, h.Name) {
					seen = append(seen, h.Name)
					p.printf("\n\tct helper %s {\n\t\ttype %q protocol %s\n\t\tl3proto inet\n\t}\n", h.Name, h.Type, protocolName(h.Protocol))
				}
			}
		}
	}
}
