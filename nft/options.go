package nft

// Options of an apply or a flush, what comes of it, and its errors.

import (
	"fmt"
	"time"

	"nlb/lb"
)

// Options say how to apply.
type Options struct {
	// Table is the name of the table, of family inet.
	Table string
	// Prune also removes the profiles that are not applied.
	Prune bool
	// Cut also ends the live TCP and SCTP connections of backends that were
	// removed. UDP flows always end.
	Cut bool
	// DryRun lets the kernel check the batch and changes nothing.
	DryRun bool
	// Digest stands for all that is applied, options included: an apply whose
	// digest is that of the last one sends nothing, and reads nothing back where
	// nobody has changed the ruleset since. At most 64 bytes; empty: unknown.
	Digest string
	// Build stands for the nlb that applies: what another one has applied is read
	// back as a whole.
	Build string
	// Keep are the bits of the connection mark that nlb leaves to others, who
	// route by them; see KeepableBits.
	Keep uint32
	// Settle is how long answers of removed backends that are under way may take;
	// 0: 250 ms. It is waited for where UDP flows have to move only.
	Settle time.Duration
	// Params are kernel parameters with the values that were found before they
	// were changed; kept in the table until it is flushed. Those that the table
	// knows already stay as they are.
	Params []Param
}

// Result says what was done.
type Result struct {
	// Changes are the differences between what was there and what is wanted;
	// empty where nothing was sent for them.
	Changes []lb.Change
	// Repaired says that objects were sent which only somebody else can have
	// changed.
	Repaired bool
	// Replaced says that the table had a layout of a later nlb, which cannot be
	// read, and was replaced whole, other profiles included.
	Replaced bool
	// Batches and Messages count what was committed, or by a dry run written; 0
	// where there was nothing to do. A destination that passes to another chain or
	// map takes up to three batches. Those that move flows are not counted.
	Batches, Messages int
	// Split says that the socket could not take a batch whole.
	Split bool
	// Ended counts the connections of removed backends that were ended.
	Ended int
	// Open counts the connections that a flush leaves open. For their sake an
	// empty table stays.
	Open int
	// Generation is the ruleset's, afterwards.
	Generation uint32
}

// ConflictError says that a service of another profile, in the kernel, claims
// what a new one listens on. Nothing was changed.
type ConflictError struct{ Errors lb.Errors }

func (e *ConflictError) Error() string { return e.Errors.Error() }

// PartialError says that some of several batches were committed before one
// failed. What makes a service reachable comes last.
type PartialError struct {
	Done, All int
	Err       error
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%d of about %d batches were committed, then: %v", e.Done, e.All, e.Err)
}

func (e *PartialError) Unwrap() error { return e.Err }

// FlowsError says that all was committed, but flows of removed backends could
// not be ended. The next apply tries again.
type FlowsError struct{ Err error }

func (e *FlowsError) Error() string {
	return fmt.Sprintf("flows of removed backends were not ended: %v", e.Err)
}

func (e *FlowsError) Unwrap() error { return e.Err }
