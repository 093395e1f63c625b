package ruleset

// Decode: what the kernel says of maps and elements.

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// ID tells the elements of a map apart.
func (e Element) ID() string { return e.Key + e.End }

// Holds reports whether an element is of the map's types.
func (m *Map) Holds(e Element) bool {
	return len(e.Key) == m.Key.size() &&
		(e.End == "" || len(e.End) == len(e.Key)) &&
		(m.Verdicts() || len(e.Data) == m.Data.size())
}

// Decode reads what Messages.element writes. end: it is the end of a prefix.
func (m *Map) Decode(b string) (e Element, end bool) {
	var x Extra
	for t, v := range wire.Attrs(b) {
		switch t {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = wire.Attr(v, unix.NFTA_DATA_VALUE)
		case elemKeyEnd:
			e.End = wire.Attr(v, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_DATA:
			if m.Verdicts() {
				e.Data = wire.Text(wire.Attr(wire.Attr(v, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN))
			} else {
				e.Data = wire.Attr(v, unix.NFTA_DATA_VALUE)
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			end = wire.Uint32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			x.Timeout = time.Duration(wire.Uint64(v)) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPIRATION:
			x.Expires = time.Duration(wire.Uint64(v)) * time.Millisecond
		case unix.NFTA_SET_ELEM_USERDATA:
			x.Comment = UdataText(v, UdataComment)
			if f := UdataValue(v, UdataFingerprint); f != "" {
				x.Udata = Udata(UdataFingerprint, string(f))
			}
		case unix.NFTA_SET_ELEM_EXPR:
			d := wire.Attr(v, unix.NFTA_EXPR_DATA)
			x.Bytes = wire.Uint64(wire.Attr(d, unix.NFTA_COUNTER_BYTES))
			x.Packets = wire.Uint64(wire.Attr(d, unix.NFTA_COUNTER_PACKETS))
		}
	}
	if x != noExtra {
		e.Extra = &x
	}
	// A set of ranges gives a single key its own end.
	if m.Interval && e.End == "" {
		e.End = e.Key
	}
	return e, end
}

// DevicesOf are the devices that a hook is on.
func DevicesOf[B ~[]byte | ~string](hook B) (out []string) {
	for _, v := range wire.Attrs(wire.Attr(hook, hookDevices)) {
		out = append(out, wire.Text(v))
	}
	return out
}

// UdataText returns a text of user data, without its final NUL.
func UdataText[B ~[]byte | ~string](b B, typ byte) string {
	return strings.TrimSuffix(UdataValue(b, typ), "\x00")
}

// UdataValue returns a value of user data, empty where there is none.
func UdataValue[B ~[]byte | ~string](b B, typ byte) string {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return ""
		}
		if b[0] == typ {
			return string(b[2:n])
		}
		b = b[n:]
	}
	return ""
}
