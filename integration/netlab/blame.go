//go:build linux

package netlab

// Which of a machine's settings forbids user namespaces.

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// blame names the setting that made the kernel answer so.
// https://man7.org/linux/man-pages/man7/user_namespaces.7.html
func blame(read func(path string) string, cause error, inside bool) string {
	is := func(key, value string) bool {
		return strings.TrimSpace(read("/proc/sys/"+strings.ReplaceAll(key, ".", "/"))) == value
	}
	const unconfined = "kernel.apparmor_restrict_unprivileged_userns"
	switch {
	case is("user.max_user_namespaces", "0"):
		return "user.max_user_namespaces is 0; sysctl -w user.max_user_namespaces=10000 allows them, or run as root"
	case is("user.max_net_namespaces", "0"):
		return "user.max_net_namespaces is 0; sysctl -w user.max_net_namespaces=10000 allows them"
	case is("kernel.unprivileged_userns_clone", "0"):
		return "kernel.unprivileged_userns_clone is 0; sysctl -w kernel.unprivileged_userns_clone=1 allows them, or run as root"
	case is(unconfined, "1") && (inside || errors.Is(cause, unix.EACCES) || errors.Is(cause, unix.EPERM)):
		return unconfined + " is 1; sysctl -w " + unconfined + "=0 allows them, or run as root"
	case errors.Is(cause, unix.ENOSPC) || errors.Is(cause, unix.EUSERS):
		return "a limit of namespaces is reached; see user.max_user_namespaces and user.max_net_namespaces"
	case errors.Is(cause, unix.EINVAL):
		return "this kernel may have been built without CONFIG_USER_NS or CONFIG_NET_NS"
	case seccomp(read("/proc/self/status")):
		return "a seccomp filter is in force, as in a container; give it CAP_SYS_ADMIN and CAP_NET_ADMIN, " +
			"or a filter that allows unshare (docker run --security-opt seccomp=unconfined)"
	case errors.Is(cause, unix.EACCES):
		return "a security module (SELinux, AppArmor) forbids it; run as root"
	case inside:
		return "the user namespace was made, but it has no powers over networks: a security module takes them away; run as root"
	}
	return "neither a sysctl nor a seccomp filter is to blame: a chroot, or a user that the present user namespace does not map; run as root"
}

// seccomp reports whether a process, given its status, is under a filter.
// https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
func seccomp(status string) bool {
	for line := range strings.Lines(status) {
		if mode, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(mode) == "2"
		}
	}
	return false
}
