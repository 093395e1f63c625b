package nft

// Headers: which tables there are, and whose they are.

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nlb/nft/ruleset"
	"nlb/nft/wire"

	"golang.org/x/sys/unix"
)

func tableIsOurs(c *wire.Conn, table string) (bool, error) {
	b, err := c.Request(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, named(table))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the table: %w", err)
	}
	switch comment := ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment); {
	case comment == tableComment:
		return true, nil
	case strings.HasPrefix(comment, tableComment[:strings.IndexByte(tableComment, ':')]):
		return false, fmt.Errorf("table inet %s: %w", table, ErrLayout)
	}
	return false, fmt.Errorf("table inet %s: %w", table, ErrForeign)
}

// Tables are the names of the tables of family inet that nlb made.
func Tables(c *wire.Conn) ([]string, error) {
	var out []string
	err := c.Dump(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if ruleset.UdataText(wire.Attr(b, ruleset.TableUserdata), ruleset.UdataComment) == tableComment {
			out = append(out, wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)))
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// Header is what a table is, besides what it holds. The zero Header is one that
// is not there.
type Header struct {
	// Handle grows with every new table of the namespace, of whatever family.
	Handle uint64
	// Dormant says that the table is turned off: its chains are there and not
	// attached.
	Dormant bool
}

// ReadHeader reads the header of a table of family inet.
func ReadHeader(c *wire.Conn, table string) (Header, error) {
	const dormant, handle = 1, 4 // NFT_TABLE_F_DORMANT, NFTA_TABLE_HANDLE
	var h Header
	err := c.Dump(ruleset.MsgType(unix.NFT_MSG_GETTABLE), ruleset.Inet, nil, func(b []byte) error {
		if wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)) == table {
			h.Dormant = wire.Uint32(wire.Attr(b, unix.NFTA_TABLE_FLAGS))&dormant != 0
			h.Handle = wire.Uint64(wire.Attr(b, handle))
		}
		return nil
	})
	return h, err
}
