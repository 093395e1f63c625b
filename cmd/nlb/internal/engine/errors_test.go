//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"nlb/nft"
	"nlb/nft/wire"
)

// Every failure of a change says whether anything was changed.
func TestOutcome(t *testing.T) {
	refused := &wire.Error{What: "chain shop/web", Errno: unix.EOPNOTSUPP}
	for _, test := range []struct {
		err  error
		want string
	}{
		{wire.ErrStale, "nlb: error: the ruleset was changed by somebody else meanwhile; nothing was changed\n" +
			"nlb: hint: something changes the ruleset all the time; nft monitor shows it\n"},
		{fmt.Errorf("%w: %w", wire.ErrUnknown, unix.ENOBUFS), "nlb: error: the kernel's answer was lost: no buffer space available; " +
			"it is not known whether anything was changed\nnlb: hint: nlb diff says whether it was applied\n"},
		{wire.ErrRefused, "nlb: error: the kernel refused the batch, and its reason was lost; nothing was changed\n"},
		{
			&nft.PartialError{Done: 2, All: 3, Err: &wire.Error{What: "map slots", Errno: unix.ENOMEM}},
			"nlb: error: map slots: cannot allocate memory; 2 of about 3 batches were committed before\n" +
				"nlb: hint: apply again, or nlb flush; what makes a service reachable comes last\n",
		},
		{&nft.FlowsError{Err: unix.EPERM}, "nlb: error: flows of removed backends were not ended: operation not permitted; all else was done\n"},
		{
			&ParameterError{Generation: 7, Err: errors.New("set net.ipv4.ip_forward to 1: input/output error")},
			"nlb: error: set net.ipv4.ip_forward to 1: input/output error; the rules were applied, generation 7, but do not work without it\n" +
				"nlb: hint: mend it and apply again, or nlb flush\n",
		},
		{
			fmt.Errorf("read the table: %w", &wire.Error{Errno: unix.EPERM}),
			"nlb: error: not permitted: nlb needs CAP_NET_ADMIN in this network namespace; nothing was changed\n" +
				"nlb: hint: run it as root, or give it the capability: setcap cap_net_admin+ep $(command -v nlb)\n",
		},
		{refused, "nlb: error: chain shop/web: operation not supported; nothing was changed\n" +
			"nlb: hint: this kernel, Linux " + release() + ", may lack something that nlb needs: " + modules + "\n"},
		{
			&wire.Error{What: "chain shop/web", Expr: "hash", Errno: unix.ENOENT},
			"nlb: error: chain shop/web: expression hash: no such file or directory; nothing was changed\n" +
				"nlb: hint: this kernel, Linux " + release() + ", may lack the expression hash, for scheduler: hash and consistent: " +
				"it needs Linux >= 4.10 and the module nft_hash (modprobe nft_hash)\n",
		},
		{context.Canceled, "nlb: error: context canceled; nothing was changed\n"},
		{
			&ParameterError{Generation: 7, Flushed: true, Err: unix.EROFS},
			"nlb: error: read-only file system; the rules are gone\n",
		},
	} {
		e := withOutcome(test.err)
		got := "nlb: error: " + e.Error() + "; " + e.Outcome + "\n"
		if e.Hint != "" {
			got += "nlb: hint: " + e.Hint + "\n"
		}
		if got != test.want {
			t.Errorf("%v: got\n%swant\n%s", test.err, got, test.want)
		}
		if !errors.Is(e, test.err) {
			t.Errorf("%v cannot be told from its error", test.err)
		}
	}
}
