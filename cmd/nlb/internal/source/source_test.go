package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// TestUnread: who may not read a file learns who that is, and what lets them.
func TestUnread(t *testing.T) {
	err := unread("/etc/nlb/web.yaml", &fs.PathError{Op: "open", Path: "/etc/nlb/web.yaml", Err: syscall.EACCES})
	want := fmt.Sprintf("/etc/nlb/web.yaml: permission denied to user %d, as whom nlb runs (chmod a+rX lets all read it)", os.Getuid())
	if err.Error() != want || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %s", err, want)
	}
	err = unread("web.yaml", &fs.PathError{Op: "open", Path: "web.yaml", Err: syscall.ENOENT})
	if err.Error() != "web.yaml: no such file or directory" {
		t.Errorf("got %v", err)
	}
}
