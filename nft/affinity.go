package nft

// Affinity: a client, or its network, stays with its backend. Each service and
// family has a map that the packets themselves fill; an entry lives until its
// client has opened no connection for the timeout. nft 1.0.6 cannot load an
// update of a map whose key is an IPv6 address and something else, so the
// service is in the map's name and not in its key.

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/lb"
)

// stickySet has the backends that an affinity may lead to: those that take new
// connections.
const stickySet = "sticky"

const resolveChain = "resolve"

// affinity is what a service's rules need to know.
type affinity struct {
	*family
	set     string
	bits    int
	timeout time.Duration
}

func (c *compiler) affinity(chain string, s *lb.Service, f *family) affinity {
	a := affinity{family: f, set: chain + "/affinity" + f.digit, bits: s.Affinity.Bits, timeout: s.Affinity.Timeout}
	if f.Family == lb.IPv6 {
		a.bits = s.Affinity.Bits6
	}
	m := &mapping{name: a.set, key: typ{f.addr}, data: typ{mark}, dynamic: true, timeout: true, ofChain: chain}
	c.byName[m.name] = m
	c.maps = append(c.maps, m)
	return a
}

// wrap puts the affinity around the statements that draw a slot:
//
//	look the client up
//	unknown, or its backend takes no new connections: forget it, draw
//	remember, or keep for longer
//	deliver
func (a affinity) wrap(draw drawRule) []rule {
	info := fmt.Sprintf("affinity %s timeout %s bits %d", a.Family, a.timeout, a.bits)
	return []rule{
		{statements: []statement{a.match, a.lookup()}},
		{
			statements: append([]statement{a.match, isNotSticky(), a.dynset("delete", nftDynsetDelete)}, append(draw.draw, jumpTo(resolveChain))...),
			comment:    draw.comment,
		},
		{statements: []statement{a.match, a.dynset("update", unix.NFT_DYNSET_OP_UPDATE)}, comment: info},
		// By itself: an update of a map that is full ends its rule.
		{statements: []statement{a.match, goTo(a.deliver)}},
	}
}

// resolve turns the slot in the mark into the backend's mark, for all services
// with affinity: for each element that the kernel adds to a map it goes through
// all rules that look into it.
func resolve() *chain {
	return &chain{name: resolveChain, rules: []rule{{statements: []statement{slotToBackend()}}}}
}

const nftDynsetDelete = 2 // NFT_DYNSET_OP_DELETE

func (a affinity) lookup() statement {
	exprs := append(a.loadSource(reg, a.bits), lookupMark(a.set), setMark)
	return newStatement(fmt.Sprintf("ct mark set %s map @%s", a.sourceText(a.bits), a.set), exprs...)
}

func isNotSticky() statement {
	return newStatement("ct mark != @"+stickySet, loadMark, &expr.Lookup{SourceRegister: reg, SetName: stickySet, Invert: true})
}

// dynset changes the client's entry to the backend in the mark.
func (a affinity) dynset(word string, operation uint32) statement {
	timeout, until := time.Duration(0), ""
	if operation == unix.NFT_DYNSET_OP_UPDATE {
		timeout, until = a.timeout, " timeout "+timeText(a.timeout)
	}
	data := *loadMark
	data.Register = unix.NFT_REG_2
	exprs := append(a.loadSource(reg, a.bits), &data, &expr.Dynset{
		SrcRegKey: reg, SrcRegData: unix.NFT_REG_2, SetName: a.set, Operation: operation, Timeout: timeout,
	})
	return newStatement(fmt.Sprintf("%s @%s { %s%s : ct mark }", word, a.set, a.sourceText(a.bits), until), exprs...)
}

// readAffinity reads the comment that wrap writes.
func readAffinity(comment string, s *lb.Service) bool {
	rest, ok := strings.CutPrefix(comment, "affinity ")
	if !ok {
		return false
	}
	var family, timeout string
	var bits int
	if n, _ := fmt.Sscanf(rest, "%s timeout %s bits %d", &family, &timeout, &bits); n != 3 {
		return true
	}
	if s.Affinity == nil {
		s.Affinity = &lb.Affinity{}
	}
	s.Affinity.Timeout, _ = time.ParseDuration(timeout)
	if family == lb.IPv4.String() {
		s.Affinity.Bits = bits
	} else {
		s.Affinity.Bits6 = bits
	}
	return true
}
