package ruleset

// Handshake: statements about single connections, by the number that the kernel has for
// each (nf_ct_get_id in net/netfilter/nf_conntrack_core.c).

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// IDUdata is nft's description of `typeof ct id` (nftables, src/ct.c).
func IDUdata() string {
	const ctExpr, noDirection = 12, 1<<32 - 1
	return Udata(keyTypeof, udataNumber(exprID, ctExpr)+Udata(exprData, udataNumber(0, uint32(expr.CtKeyID))+udataNumber(1, noDirection)))
}

var loadID = &expr.Ct{Key: expr.CtKeyID, Register: reg}

// IDIn matches where the connection is in a set, or is not.
func IDIn(set string, not bool) Statement {
	op := ""
	if not {
		op = "!= "
	}
	return NewStatement("ct id "+op+"@"+set, loadID, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: not})
}

// AddID puts the connection into a set that packets fill, for a time. Where the set is
// full, its rule ends.
func AddID(set string, timeout time.Duration) Statement {
	return idInto("add", unix.NFT_DYNSET_OP_ADD, set, timeout)
}

// UpdateID is AddID, and has one that is there stay for a time from now on.
func UpdateID(set string, timeout time.Duration) Statement {
	return idInto("update", unix.NFT_DYNSET_OP_UPDATE, set, timeout)
}

func idInto(word string, operation uint32, set string, timeout time.Duration) Statement {
	return NewStatement(fmt.Sprintf("%s @%s { ct id timeout %s }", word, set, durationText(timeout)),
		loadID, &expr.Dynset{SrcRegKey: reg, SetName: set, Operation: operation, Timeout: timeout})
}

// HasSYN matches the first segment of either side.
func HasSYN() Statement {
	return NewStatement("tcp flags syn", loadL4, compare(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}), tcpField(tcpFlags, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{syn}, Xor: []byte{0}}, compare(expr.CmpOpNeq, []byte{0}))
}
