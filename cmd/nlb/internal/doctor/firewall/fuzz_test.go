package firewall

// Whatever a kernel holds: it is read and judged.

import (
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
	"nlb/nft/wire/wiretest"
)

// FuzzRead: a kernel whose tables, chains, sets and rules are any messages.
func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add(someTable(f))
	f.Fuzz(func(t *testing.T, messages []byte) {
		tables, err := Read(wire.NewConn(wiretest.Kernel(messages)), func(_, name string) bool { return name == "nlb" })
		if err != nil {
			return
		}
		for _, table := range tables {
			for _, base := range table.Bases() {
				for _, v6 := range []bool{false, true} {
					table.Judge(base, &Packet{
						In: "eth0", InIndex: 2, V6: v6, Dst: AddrsOf(netip.MustParsePrefix("10.0.0.0/8")), DstPort: Ports{80, 90}, Protocol: 6,
					})
				}
			}
		}
	})
}

// someTable is a table with a base chain that asks a set of ranges and a map of
// verdicts.
func someTable(f *testing.F) []byte {
	f.Helper()
	const table, set, verdicts, chain = "filter", "ports", "networks", "forward"
	b := wire.NewBatch(1)
	begin := func(typ uint16, names ...string) {
		b.Begin(nfTables(typ), unix.NFPROTO_INET, 0, "", "")
		for i, n := range names {
			b.Text(uint16(i+1), n)
		}
	}
	begin(unix.NFT_MSG_NEWTABLE, table)
	b.End()
	begin(unix.NFT_MSG_NEWCHAIN, table)
	b.Text(unix.NFTA_CHAIN_NAME, chain)
	hook := b.Nest(unix.NFTA_CHAIN_HOOK)
	b.Uint32(unix.NFTA_HOOK_HOOKNUM, 2)
	b.Uint32(unix.NFTA_HOOK_PRIORITY, 0)
	b.Unnest(hook)
	b.Uint32(unix.NFTA_CHAIN_POLICY, 0)
	b.Text(unix.NFTA_CHAIN_TYPE, "filter")
	b.End()
	for _, name := range []string{set, verdicts} {
		size := map[string]uint32{set: 2, verdicts: 4}[name]
		begin(unix.NFT_MSG_NEWSET, table, name)
		b.Uint32(unix.NFTA_SET_FLAGS, setInterval)
		b.Uint32(unix.NFTA_SET_KEY_LEN, size)
		b.End()
		begin(unix.NFT_MSG_NEWSETELEM, table, name)
		list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for i, flags := range []uint32{0, elemIntervalEnd} {
			at := b.Nest(unix.NFTA_LIST_ELEM)
			key := b.Nest(unix.NFTA_SET_ELEM_KEY)
			b.Data(unix.NFTA_DATA_VALUE, string(make([]byte, size-1))+string(rune(80+i)))
			b.Unnest(key)
			b.Uint32(unix.NFTA_SET_ELEM_FLAGS, flags)
			b.Unnest(at)
		}
		b.Unnest(list)
		b.End()
	}
	for _, exprs := range append(seeds,
		[]expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Lookup{SourceRegister: 1, SetName: set}, &expr.Verdict{Kind: expr.VerdictAccept}},
		[]expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, &expr.Lookup{SourceRegister: 1, SetName: verdicts, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true}},
	) {
		begin(unix.NFT_MSG_NEWRULE, table, chain)
		b.Raw(encoded(f, exprs...))
		b.End()
	}
	return b.Bytes()
}
