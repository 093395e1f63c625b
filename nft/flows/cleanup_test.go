package flows

import (
	"runtime"
	"testing"
)

// TestSpareBeforeRun: a cleanup may lose all its numbers at the moment in which it
// begins, and then does nothing. The race detector looks on.
func TestSpareBeforeRun(t *testing.T) {
	for range 100 {
		c := &Cleanup{Numbers: map[uint32]Change{1: Down, 2: Down}}
		c.Spare(func(n uint32, _ Change) bool { return n == 1 })
		begun := make(chan struct{})
		go func() {
			close(begun)
			c.Spare(func(uint32, Change) bool { return true })
		}()
		<-begun
		for !c.Idle() {
			runtime.Gosched()
		}
		if ended, err := c.Run(t.Context()); ended != 0 || err != nil || !c.Done() {
			t.Fatalf("ended %d, %v, done: %v", ended, err, c.Done())
		}
	}
}
