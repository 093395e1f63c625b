//go:build linux

package main

// A program for scripts that runs nlb with fewer rights.

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// as nobody|net-admin|contained nlb [ARGUMENT...] runs nlb without any
// capability, or with CAP_NET_ADMIN alone, and as the user nobody where there
// is one: the user namespace of a test that is not run by root has root only.
// contained is as in most containers: /proc/sys is read-only.
func as() {
	runtime.LockOSThread()
	var err error
	switch os.Args[1] {
	case "nobody":
		err = drop(0)
	case "net-admin":
		err = drop(1 << unix.CAP_NET_ADMIN)
	case "contained":
		err = contain()
	default:
		err = errors.New("unknown " + os.Args[1])
	}
	if err == nil {
		// The way to the program is closed to nobody, the program is not.
		err = syscall.Exec("/proc/self/exe", os.Args[2:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "as:", err)
	os.Exit(125)
}

// contain makes /proc/sys read-only for this thread.
func contain() error {
	const sys = "/proc/sys"
	return errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(sys, sys, "", unix.MS_BIND|unix.MS_REC, ""),
		unix.Mount("", sys, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}

// drop gives up all capabilities but these, for good, at the next exec of this
// thread (capabilities(7)).
func drop(keep uint32) error {
	const noRoot, noRootLocked, keepCaps = 1, 2, 16
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot|noRootLocked|keepCaps, 0, 0, 0); err != nil {
		return fmt.Errorf("securebits: %w", err)
	}
	// By the calls themselves: those of syscall change all threads.
	for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
		if _, _, errno := unix.RawSyscall(call, nobody, nobody, nobody); errno != 0 && errno != unix.EINVAL {
			return fmt.Errorf("become nobody: %w", errno)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep, Inheritable: keep}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if keep == 0 {
		return nil
	}
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("this process has no CAP_NET_ADMIN to keep: %w", err)
	}
	return err
}
