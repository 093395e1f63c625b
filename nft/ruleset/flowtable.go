package ruleset

// Flow tables: packets of connections that are in one go from device to device, past
// all chains: https://docs.kernel.org/networking/nf_flowtable.html

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Flowtable is a flow table on some devices, which must be there: the kernel refuses
// the batch otherwise. One that goes leaves the flow table without a word.
type Flowtable struct {
	Name string
	// Hardware has the network cards carry the packets.
	Hardware bool
	Devices  []string // sorted
}

// Attributes of flow tables (linux/netfilter/nf_tables.h), of which
// golang.org/x/sys/unix names none.
const (
	flowtableName  = 2 // NFTA_FLOWTABLE_NAME
	flowtableHook  = 3 // NFTA_FLOWTABLE_HOOK
	flowtableFlags = 7 // NFTA_FLOWTABLE_FLAGS

	flowtableHookNum      = 1 // NFTA_FLOWTABLE_HOOK_NUM
	flowtableHookPriority = 2 // NFTA_FLOWTABLE_HOOK_PRIORITY
	flowtableHookDevices  = 3 // NFTA_FLOWTABLE_HOOK_DEVS

	hardwareFlag = 1 // NFT_FLOWTABLE_HW_OFFLOAD
)

// NewFlowtable makes a flow table, or adds devices to one that is there.
//
//	NFTA_FLOWTABLE_TABLE, NAME, HOOK [NUM, PRIORITY, DEVS [NAME ...]], FLAGS
func (m *Messages) NewFlowtable(f *Flowtable) {
	m.open(unix.NFT_MSG_NEWFLOWTABLE, unix.NLM_F_CREATE, "flowtable", f.Name)
	m.Text(flowtableName, f.Name)
	m.flowtableHook(f.Devices)
	flags := uint32(0)
	if f.Hardware {
		flags = hardwareFlag
	}
	m.Uint32(flowtableFlags, flags)
	m.End()
}

// DeleteFlowtable deletes a flow table, or where it has devices only these of it. The
// connections that are in it go through the chains again.
func (m *Messages) DeleteFlowtable(f *Flowtable) {
	m.open(unix.NFT_MSG_DELFLOWTABLE, 0, "flowtable", f.Name)
	m.Text(flowtableName, f.Name)
	if len(f.Devices) > 0 {
		m.flowtableHook(f.Devices)
	}
	m.End()
}

func (m *Messages) flowtableHook(devices []string) {
	hook := m.Nest(flowtableHook)
	m.Uint32(flowtableHookNum, unix.NF_NETDEV_INGRESS)
	m.Uint32(flowtableHookPriority, 0) // filter
	list := m.Nest(flowtableHookDevices)
	for _, d := range devices {
		m.Text(deviceName, d)
	}
	m.Unnest(list)
	m.Unnest(hook)
}

// DecodeFlowtable reads what the kernel says of a flow table, and whose it is.
func DecodeFlowtable(attrs []byte) (table string, f Flowtable) {
	f.Name = wire.Text(wire.Attr(attrs, flowtableName))
	if b := wire.Attr(attrs, flowtableFlags); len(b) == 4 {
		f.Hardware = wire.Uint32(b)&hardwareFlag != 0
	}
	for typ, name := range wire.Attrs(wire.Attr(wire.Attr(attrs, flowtableHook), flowtableHookDevices)) {
		if typ == deviceName {
			f.Devices = append(f.Devices, wire.Text(name))
		}
	}
	return wire.Text(wire.Attr(attrs, 1)), f // NFTA_FLOWTABLE_TABLE
}

// flowtable prints a flow table. Names of devices may have what other names have not.
func (p *printer) flowtable(f *Flowtable) {
	p.printf("\n\tflowtable %s {\n\t\thook ingress priority filter\n", f.Name)
	p.printf("\t\tdevices = { \"%s\" }\n", strings.Join(f.Devices, "\", \""))
	if f.Hardware {
		p.printf("\t\tflags offload\n")
	}
	p.printf("\t}\n")
}

// Forward is the hook of what is forwarded.
func Forward(priority int32) *Hook {
	return &Hook{Name: "forward", Num: unix.NF_INET_FORWARD, Priority: priority, Text: fmt.Sprint(priority)}
}

const ctEstablished = 1 << 1 // NF_CT_STATE_BIT(IP_CT_ESTABLISHED), linux/netfilter/nf_conntrack_common.h

// AsksAgain matches what the client of a connection sends behind an answer.
func AsksAgain() Statement {
	return NewStatement("ct direction original ct state established",
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, compare(expr.CmpOpEq, []byte{0}),
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, masked(ctEstablished), compare(expr.CmpOpNeq, make([]byte, 4)))
}

// IsKnown matches what belongs to connections that are known, and what is not tracked.
func IsKnown() Statement {
	return NewStatement("ct state established,related,untracked",
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		masked(ctEstablished|expr.CtStateBitRELATED|expr.CtStateBitUNTRACKED), compare(expr.CmpOpNeq, make([]byte, 4)))
}

// NotInZone matches connections of all zones of conntrack but one.
func NotInZone(zone uint16) Statement {
	return NewStatement(fmt.Sprintf("ct zone != %d", zone),
		&expr.Ct{Key: expr.CtKeyZONE, Register: reg}, compare(expr.CmpOpNeq, binary.NativeEndian.AppendUint16(nil, zone)))
}

// AddFlow puts the connection into a flow table. It goes on where that is not
// possible.
func AddFlow(flowtable string) Statement {
	return NewStatement("flow add @"+flowtable, &expr.FlowOffload{Name: flowtable})
}
