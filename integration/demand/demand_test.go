package demand

import (
	"errors"
	"os"
	"testing"
)

// TestTry: what is demanded in vain ends the play, with its place in front. A fault of the
// program goes on.
func TestTry(t *testing.T) {
	t.Parallel()
	on := false
	err := Try(func() {
		OK(nil)
		In("the folder", func() { Of(os.Stat("/nowhere")) })
		on = true
	})
	if on || !errors.Is(err, os.ErrNotExist) || err.Error() != "the folder: stat /nowhere: no such file or directory" {
		t.Errorf("got %v, and it went on: %t", err, on)
	}
	if err := Try(func() { on = true }); err != nil || !on {
		t.Errorf("got %v", err)
	}
	defer func() {
		if p := recover(); p != "fault" {
			t.Errorf("got %v", p)
		}
	}()
	_ = Try(func() { panic("fault") })
}
