package lb

import (
	"testing"
)

// roundTrip reads what a word prints, and refuses what it does not.
func roundTrip[T Enum](t *testing.T, values ...T) {
	t.Helper()
	seen := map[string]bool{}
	for _, v := range values {
		var got T
		if err := Read(&got, v.String()); err != nil || got != v {
			t.Errorf("%T %v is read as %v, %v", v, v, got, err)
		}
		if seen[v.String()] {
			t.Errorf("%T %v is here twice", v, v)
		}
		seen[v.String()] = true
	}
	for _, s := range []string{"", " ", "x", values[0].String() + " ", "TCP", "1"} {
		got := values[0]
		if err := Read(&got, s); err == nil || got != values[0] {
			t.Errorf("%T accepts %q", got, s)
		}
	}
}

func TestWords(t *testing.T) {
	roundTrip(t, SysctlAuto, SysctlKeep)
	roundTrip(t, TCP, UDP, SCTP)
	roundTrip(t, RoleProxy, RoleClient, RoleServer)
	roundTrip(t, FleetNone, FleetPair, FleetAnycast, FleetMesh)
	roundTrip(t, RoundRobin, Random, Hash)
	roundTrip(t, SourceAddress, SourcePort, DestinationAddress, DestinationPort, ByProtocol)
	roundTrip(t, Reject, Drop)
	roundTrip(t, Up, Draining, Down)
	roundTrip(t, LogLevel(0), 1, 2, 3, 4, 5, LogInfo, 7)
}
