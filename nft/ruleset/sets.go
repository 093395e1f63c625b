package ruleset

// Sets: statements that look into sets of marks and of connections, and have packets fill
// them. A connection is known there by the number that the kernel has for it (nf_ct_get_id
// in net/netfilter/nf_conntrack_core.c).

import (
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// in matches where what was loaded is in a set, or is not.
func in(text, set string, not bool, load ...expr.Any) Statement {
	op := ""
	if not {
		op = "!= "
	}
	return NewStatement(text+" "+op+"@"+set, append(load, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: not})...)
}

// dynsets are the kernel's numbers for what packets do to a set, by nft's words.
var dynsets = map[string]uint32{
	"add": unix.NFT_DYNSET_OP_ADD, "update": unix.NFT_DYNSET_OP_UPDATE, "delete": 2, // NFT_DYNSET_OP_DELETE
}

// into changes a set that packets fill, by what was loaded, which has this text. An element
// lives for the timeout; 0: it has none.
func into(word, set, key string, timeout time.Duration, load ...expr.Any) Statement {
	return intoWith(word, set, key, timeout, load, "", nil)
}

// intoWith is into for elements with an expression of their own.
func intoWith(word, set, key string, timeout time.Duration, load []expr.Any, with string, inner []expr.Any) Statement {
	lives := ""
	if timeout > 0 {
		lives = " timeout " + durationText(timeout)
	}
	d := &expr.Dynset{SrcRegKey: reg, SetName: set, Operation: dynsets[word], Timeout: timeout, Exprs: inner}
	return NewStatement(word+" @"+set+" { "+key+lives+with+" }", append(load, d)...)
}

// MarkIn matches where the connection mark is in a set, or is not.
func MarkIn(set string, not bool) Statement { return in("ct mark", set, not, loadMark) }

// MarkBitsIn matches where some bits of the connection mark are in a set.
func MarkBitsIn(set string, mask uint32) Statement {
	text, exprs := markBits(mask)
	return in(text, set, false, exprs...)
}

// UpdateMark puts some bits of the connection mark into a set that packets fill,
// for a time from now on.
func UpdateMark(set string, mask uint32, timeout time.Duration) Statement {
	text, exprs := markBits(mask)
	return into("update", set, text, timeout, exprs...)
}

// AddMark puts the connection mark into a set that packets fill, for a time.
func AddMark(set string, timeout time.Duration) Statement {
	return into("add", set, "ct mark", timeout, loadMark)
}

// DeleteMark takes the connection mark out of such a set.
func DeleteMark(set string) Statement { return into("delete", set, "ct mark", 0, loadMark) }

// IDUdata is nft's description of `typeof ct id` (nftables, src/ct.c).
func IDUdata() string {
	const ctExpr, noDirection = 12, 1<<32 - 1
	return Udata(keyTypeof, udataNumber(exprID, ctExpr)+Udata(exprData, udataNumber(0, uint32(expr.CtKeyID))+udataNumber(1, noDirection)))
}

var loadID = &expr.Ct{Key: expr.CtKeyID, Register: reg}

// IDIn matches where the connection is in a set, or is not.
func IDIn(set string, not bool) Statement { return in("ct id", set, not, loadID) }

// AddID puts the connection into a set that packets fill, for a time. Where the set is
// full, its rule ends.
func AddID(set string, timeout time.Duration) Statement {
	return into("add", set, "ct id", timeout, loadID)
}

// UpdateID is AddID, and has one that is there stay for a time from now on.
func UpdateID(set string, timeout time.Duration) Statement {
	return into("update", set, "ct id", timeout, loadID)
}
