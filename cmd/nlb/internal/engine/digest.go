//go:build linux

package engine

// The digest: what stands for everything that an apply is asked for.

import (
	"crypto/sha256"
	"fmt"

	"nlb/lb"
)

// digest is a hash of every field of the profiles, except their positions in
// files, and of what else decides what an apply makes of them.
func digest(profiles []*lb.Profile, prune bool, build string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%v %q\n", prune, build)
	for _, p := range profiles {
		fmt.Fprintf(h, "%q %v %d\n", p.Name, p.Sysctl, len(p.Services))
		for i := range p.Services {
			frame, backends := lb.Fingerprint("", &p.Services[i])
			h.Write(frame[:])
			h.Write(backends[:])
		}
	}
	return string(h.Sum(nil))
}
