//go:build linux

package main

import (
	"net/netip"
	"testing"
)

// TestFrame: what the generator sends has checksums that the kernel takes, and
// so has the answer to it.
func TestFrame(t *testing.T) {
	f := make([]byte, frameSize)
	writeFrame(f, nobody, netip.MustParseAddrPort("10.1.0.2:1024"), netip.MustParseAddrPort("198.18.0.1:80"))
	check := func() {
		t.Helper()
		ip, udp := f[ethHeader:ethHeader+ipHeader], f[ethHeader+ipHeader:]
		if got := checksum(ip, 0); got != 0 {
			t.Errorf("IP checksum: %#x is left", got)
		}
		if got := checksum(udp, sum(ip[12:20], 17+uint32(len(udp)))); got != 0 {
			t.Errorf("UDP checksum: %#x is left", got)
		}
	}
	check()
	reverse(f, nobody)
	check()
	if to := netip.AddrFrom4([4]byte(f[ethHeader+16:])); to != netip.MustParseAddr("10.1.0.2") {
		t.Errorf("the answer goes to %s", to)
	}
}
