package firewall

// Dumping: all tables of nftables in a network namespace.

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// tries bounds how often reading begins again because the ruleset changed.
const tries = 20

// Read reads all tables of nftables in the namespace that c talks to, in the
// order of their families, but for those that skip names. Those of
// iptables-nft are among them. Errors: wire.ErrInterrupted where somebody
// changes the ruleset all the time, *wire.Error.
func Read(c *wire.Conn, skip func(family, name string) bool) ([]*Table, error) {
	for try := 0; ; try++ {
		out, err := read(c, skip)
		changed := errors.Is(err, wire.ErrInterrupted) || errors.Is(err, unix.ENOENT)
		if !changed || try == tries {
			return out, err
		}
	}
}

// families are those that a table can be of (linux/netfilter.h, NFPROTO_*).
var families = []struct {
	name   string
	number uint8
}{
	{"inet", unix.NFPROTO_INET},
	{"ip", unix.NFPROTO_IPV4},
	{"ip6", unix.NFPROTO_IPV6},
	{"bridge", unix.NFPROTO_BRIDGE},
	{"netdev", unix.NFPROTO_NETDEV},
}

func read(c *wire.Conn, skip func(family, name string) bool) ([]*Table, error) {
	var out []*Table
	for _, f := range families {
		tables, err := readTables(c, f.name, f.number)
		if err != nil {
			return nil, fmt.Errorf("read the tables of %s: %w", f.name, err)
		}
		tables = slices.DeleteFunc(tables, func(t *Table) bool { return skip(t.Family, t.Name) })
		if len(tables) == 0 {
			continue
		}
		if err := readChains(c, f.number, tables); err != nil {
			return nil, fmt.Errorf("read the chains of %s: %w", f.name, err)
		}
		for _, t := range tables {
			// A table without a base chain does nothing, however much is in it.
			if len(t.Bases()) == 0 {
				continue
			}
			if err := t.readRules(c, f.number); err != nil {
				return nil, err
			}
		}
		out = append(out, tables...)
	}
	return out, nil
}

func nfTables(m uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | m }

// named are the attributes that select a table, and an object of it.
func named(names ...string) []byte {
	var e wire.Encoder
	for i, n := range names {
		e.Text(uint16(i+1), n)
	}
	return e.Bytes()
}

func readTables(c *wire.Conn, family string, number uint8) ([]*Table, error) {
	const dormant = 1 // NFT_TABLE_F_DORMANT
	var out []*Table
	err := c.Dump(nfTables(unix.NFT_MSG_GETTABLE), number, nil, func(b []byte) error {
		out = append(out, &Table{
			Family: family, Name: wire.Text(wire.Attr(b, unix.NFTA_TABLE_NAME)),
			Dormant: wire.Uint32(wire.Attr(b, unix.NFTA_TABLE_FLAGS))&dormant != 0,
			Handle:  wire.Uint64(wire.Attr(b, nftaTableHandle)),
			Chains:  map[string]*Chain{},
		})
		return nil
	})
	return out, err
}

const nftaTableHandle = 4 // NFTA_TABLE_HANDLE

func readChains(c *wire.Conn, number uint8, tables []*Table) error {
	return c.Dump(nfTables(unix.NFT_MSG_GETCHAIN), number, nil, func(b []byte) error {
		of := wire.Text(wire.Attr(b, unix.NFTA_CHAIN_TABLE))
		i := slices.IndexFunc(tables, func(t *Table) bool { return t.Name == of })
		if i < 0 {
			return nil
		}
		ch := &Chain{Name: wire.Text(wire.Attr(b, unix.NFTA_CHAIN_NAME))}
		if h := wire.Attr(b, unix.NFTA_CHAIN_HOOK); h != nil {
			ch.Base = &Base{
				Type: wire.Text(wire.Attr(b, unix.NFTA_CHAIN_TYPE)),
				Hook: hookName(tables[i].Family, wire.Uint32(wire.Attr(h, unix.NFTA_HOOK_HOOKNUM))),
				// A chain without a policy accepts.
				Drop:     wire.Attr(b, unix.NFTA_CHAIN_POLICY) != nil && wire.Uint32(wire.Attr(b, unix.NFTA_CHAIN_POLICY)) == 0,
				Priority: int(int32(wire.Uint32(wire.Attr(h, unix.NFTA_HOOK_PRIORITY)))),
				Devices:  devices(h),
			}
		}
		tables[i].Chains[ch.Name] = ch
		return nil
	})
}

// hookName names a hook (enum nf_inet_hooks, enum nf_dev_hooks); those of
// bridge have the same numbers as those of inet.
func hookName(family string, number uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	if family == "netdev" {
		names = []string{"ingress", "egress"}
	}
	if int(number) < len(names) {
		return names[number]
	}
	return fmt.Sprintf("hook %d", number)
}

func devices(hook []byte) []string {
	const oneDevice, allDevices = 3, 4 // NFTA_HOOK_DEV, NFTA_HOOK_DEVS
	var out []string
	if d := wire.Attr(hook, oneDevice); d != nil {
		out = append(out, wire.Text(d))
	}
	for _, d := range wire.Attrs(wire.Attr(hook, allDevices)) {
		if name := wire.Text(d); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (t *Table) readRules(c *wire.Conn, number uint8) error {
	sets, err := readSets(c, number, t.Name)
	if err != nil {
		return err
	}
	d := &decoder{sets}
	err = c.Dump(nfTables(unix.NFT_MSG_GETRULE), number, named(t.Name), func(b []byte) error {
		ch := t.Chains[wire.Text(wire.Attr(b, unix.NFTA_RULE_CHAIN))]
		if ch != nil && wire.Text(wire.Attr(b, unix.NFTA_RULE_TABLE)) == t.Name {
			ch.Rules = append(ch.Rules, d.rule(b)...)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the rules of %s: %w", t, err)
	}
	return nil
}
