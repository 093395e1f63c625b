package compile

import (
	"fmt"
	"testing"

	"nlb/lb"
)

// keyOf is the key of a service that has the name of a chain.
func keyOf(n *Numbers, service string) uint32 {
	return n.ClientsOf("shop", &lb.Service{Name: service, Affinity: &lb.Affinity{}}, Families[0]).Key
}

// TestClientKeys: each service has a key of its own, which stays until it is renewed, and
// which nobody has had in a map that is there.
func TestClientKeys(t *testing.T) {
	nobody := func(string) bool { return false }
	fresh := func(held map[string]uint32, salt uint32, there func(string) bool) *Numbers {
		n := NewNumbers(0)
		n.HoldClients(held, salt, there)
		return n
	}
	first := keyOf(NewNumbers(0), "web")
	if first == 0 || first&^keyMask != 0 || keyOf(fresh(nil, 7, nobody), "web") != first {
		t.Errorf("the key does not follow from the name: %#x", first)
	}
	// Somebody else has it already.
	n := fresh(map[string]uint32{"shop/other": first}, 7, nobody)
	if got := keyOf(n, "web"); got != first+1 || keyOf(n, "other") != first || !n.KeysClients() {
		t.Errorf("beside a service with the key %#x: %#x", first, got)
	}
	if n := fresh(map[string]uint32{"shop/web": first}, 7, nobody); keyOf(n, "web") != first || n.KeysClients() {
		t.Error("a key that is held was not kept")
	}
	// Somebody has given two services the same key.
	n = fresh(map[string]uint32{"shop/other": first, "shop/web": first}, 7, nobody)
	if keyOf(n, "web") == keyOf(n, "other") {
		t.Error("two services have one key")
	}
	// Where a map is there, it may hold clients under any key that there was.
	seen := map[uint32]uint32{}
	for salt := range uint32(1000) {
		n := fresh(map[string]uint32{"shop/web": first}, salt, func(string) bool { return true })
		n.RenewClients("shop/web")
		key := keyOf(n, "web")
		if other, ok := seen[key]; ok || key == first {
			t.Fatalf("the key %#x comes back, by %d and %d", key, other, salt)
		}
		seen[key] = salt
	}
}

// TestClientsMaps: the maps that services share are known by their names, and no others.
func TestClientsMaps(t *testing.T) {
	used := map[string]bool{}
	for i := range 100 * buckets {
		c := ClientsAt(fmt.Sprintf("shop/s%d", i), Families[0], 1)
		used[c.Set], used[c.Open] = true, true
	}
	if len(used) != 2*buckets {
		t.Errorf("%d maps are in use, want %d", len(used), 2*buckets)
	}
	for name := range used {
		if m := ClientsMap(name); m == nil || m.Name != name || !OfClients(m) {
			t.Errorf("%s is not known: %v", name, m)
		}
	}
	for _, name := range []string{"affinity4", "affinity4-", "affinity4-128", "affinity4-007", "affinity4-+1", "affinity4--1", "open4-x", "affinity6-1", "shop/web/affinity4-1"} {
		if ClientsMap(name) != nil {
			t.Errorf("%s is taken for a map of clients", name)
		}
	}
}

func TestReadClientsKey(t *testing.T) {
	for comment, want := range map[string]uint32{
		"affinity IPv4 timeout 10m0s bits 32 key 0x0000abcd": 0xabcd,
		"affinity IPv4 timeout 10m0s bits 32 key 0x4c00abcd": 0, // it may be the mark of a backend
		"affinity IPv4 timeout 10m0s bits 32 key 0x00000000": 0,
		"affinity IPv4 timeout 10m0s bits 32 key 0xg":        0,
		"affinity IPv4 timeout 10m0s bits 32":                0,
		"affinity IPv4 timeout 10m0s bits 32 group key":      0,
		"guard key 0x0000abcd":                               0,
	} {
		got, ok := ReadClientsKey(comment)
		if ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %#x, %v, want %#x", comment, got, ok, want)
		}
	}
}
