package lb

// What a value of a profile may be.

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"nlb/lb/internal/safe"
)

// MaxTimeout is the longest timeout of an affinity.
const MaxTimeout = 365 * 24 * time.Hour

// MaxRate is the largest number of events of a rate. It keeps the kernel's arithmetic exact: it counts in nanoseconds.
const MaxRate = 1_000_000_000

// CheckName says what is wrong with a name; empty: nothing.
func CheckName(s string) string {
	if s == "" {
		return "is empty"
	}
	for _, r := range s {
		if !safe.NameRune(r) {
			return "has the character " + strconv.QuoteRune(r)
		}
	}
	if len(s) > MaxName {
		return fmt.Sprintf("has %d characters", len(s))
	}
	return ""
}

// DefaultSeed is the hash-seed of a service that gives none: the same on every
// machine, another for every name.
func DefaultSeed(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}
