//go:build linux

package netlab

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestForbidden(t *testing.T) {
	const confined = "Name:\tnlb\nSeccomp:\t2\nSeccomp_filters:\t1\n"
	for _, c := range []struct {
		name   string
		files  map[string]string
		cause  error
		inside bool
		want   string
	}{
		{
			"limit of zero",
			map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"},
			unix.ENOSPC, false,
			"not allowed here: no space left on device: user.max_user_namespaces is 0;",
		},
		{
			"limit reached",
			map[string]string{"/proc/sys/user/max_user_namespaces": "5\n"},
			unix.ENOSPC, false,
			"a limit of namespaces is reached",
		},
		{
			"Debian",
			map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"},
			unix.EPERM, false,
			"kernel.unprivileged_userns_clone is 0",
		},
		{
			"Ubuntu 24.04",
			map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			unix.EPERM, true,
			"kernel.apparmor_restrict_unprivileged_userns is 1",
		},
		{
			"Ubuntu 23.10",
			map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			unix.EACCES, false,
			"kernel.apparmor_restrict_unprivileged_userns is 1",
		},
		{
			"container",
			map[string]string{"/proc/self/status": confined},
			unix.EPERM, false,
			"a seccomp filter is in force",
		},
		{
			"no networks",
			map[string]string{"/proc/sys/user/max_net_namespaces": "0\n"},
			unix.ENOSPC, false,
			"user.max_net_namespaces is 0",
		},
		{"SELinux", nil, unix.EACCES, false, "a security module"},
		{"no powers", nil, unix.EPERM, true, "it has no powers over networks"},
		{"small kernel", nil, unix.EINVAL, false, "CONFIG_USER_NS"},
		{"chroot", nil, unix.EPERM, false, "a chroot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := forbidden(func(path string) string { return c.files[path] }, c.cause, c.inside)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
		})
	}
}
