package wiretest

// Another program: changes of the ruleset behind nlb's back.

import (
	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Commit sends the messages that write appends as one batch, whatever the
// generation, in the network namespace of the calling thread.
func Commit(write func(*wire.Batch)) error {
	c, err := wire.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return Send(c, write)
}

// Send is Commit on a socket that is open.
func Send(c *wire.Conn, write func(*wire.Batch)) error {
	b := wire.NewBatch(wire.AnyGeneration)
	write(b)
	_, err := c.Commit(b, wire.AnyGeneration)
	return err
}

// AddTable adds a table of a family (unix.NFPROTO_*), where it is not there.
func AddTable(b *wire.Batch, family uint8, name string) {
	message(b, family, unix.NFT_MSG_NEWTABLE, func() { b.Text(unix.NFTA_TABLE_NAME, name) })
}

// AddChain adds a chain, where it is not there.
func AddChain(b *wire.Batch, family uint8, table, chain string) {
	message(b, family, unix.NFT_MSG_NEWCHAIN, func() {
		b.Text(unix.NFTA_CHAIN_TABLE, table)
		b.Text(unix.NFTA_CHAIN_NAME, chain)
	})
}

// FlushChain deletes all rules of a chain.
func FlushChain(b *wire.Batch, family uint8, table, chain string) {
	message(b, family, unix.NFT_MSG_DELRULE, func() {
		b.Text(unix.NFTA_RULE_TABLE, table)
		b.Text(unix.NFTA_RULE_CHAIN, chain)
	})
}

// AddCounter appends a rule that counts.
func AddCounter(b *wire.Batch, family uint8, table, chain string) {
	message(b, family, unix.NFT_MSG_NEWRULE, func() {
		b.Text(unix.NFTA_RULE_TABLE, table)
		b.Text(unix.NFTA_RULE_CHAIN, chain)
		list := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
		item := b.Nest(unix.NFTA_LIST_ELEM)
		b.Text(unix.NFTA_EXPR_NAME, "counter")
		b.Unnest(item)
		b.Unnest(list)
	})
}

func message(b *wire.Batch, family uint8, typ uint16, attributes func()) {
	b.Begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, family, unix.NLM_F_CREATE|unix.NLM_F_APPEND, "a table of another program", "")
	attributes()
	b.End()
}
