package flows

import "testing"

// TestIsMoving: what moves flows is told from a profile whose name begins in the same
// way.
func TestIsMoving(t *testing.T) {
	for _, c := range MovingChains() {
		if !IsMoving(c.Name) {
			t.Errorf("chain %s is not", c.Name)
		}
	}
	for _, m := range MovingMaps() {
		if !IsMoving(m.Name) {
			t.Errorf("map %s is not", m.Name)
		}
	}
	for _, name := range []string{"moving/web", "moving-out/web", "moving4/web/slots4", "slots"} {
		if IsMoving(name) {
			t.Errorf("%s is", name)
		}
	}
}
