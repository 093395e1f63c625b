package wiretest

// What is asked of the kernel.

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Asking is a transport that notices when all rules of a table are asked for, and when
// its maps are.
type Asking struct {
	wire.Transport
	All, Maps bool
}

// Send looks at a message, and passes it on.
func (a *Asking) Send(b []byte) error {
	const attrs = unix.SizeofNlMsghdr + 4 // struct nfgenmsg
	if len(b) > attrs {
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE:
			a.All = a.All || len(wire.Attr(b[attrs:], unix.NFTA_RULE_CHAIN)) == 0
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET:
			a.Maps = true
		}
	}
	return a.Transport.Send(b)
}
