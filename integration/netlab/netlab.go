//go:build linux

// Package netlab makes throw-away hosts: network namespaces joined by virtual
// cables, in which real packets flow.
//
// A process holds its worlds by file descriptors alone. Nothing is mounted,
// nothing gets a name in /run/netns, and no link is ever made in the namespace
// that the process came from. So a world ends with its process, whatever ended
// that, and leaves nothing behind.
//
// Making a namespace takes CAP_SYS_ADMIN and CAP_NET_ADMIN. A program that is
// not to need root calls Isolate first.
package netlab

// The world itself: its hosts, its threads, its end.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// World is a set of hosts. Its methods may be called from several goroutines.
type World struct {
	origin *os.File // the namespace that threads return to

	mu      sync.RWMutex // held for reading while a thread changes namespaces
	closed  bool
	hosts   []*Host
	owned   []io.Closer
	starter *starter
}

var errClosed = errors.New("world is closed")

// New makes an empty world. An error wraps unix.EPERM where the process may
// not make network namespaces; see Isolate.
func New() (*World, error) {
	if err := probe(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	origin, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	return &World{origin: origin}, nil
}

// Close ends the programs that were started in the world, closes what it owns,
// and lets go of the namespaces, which the kernel then takes down. Sockets
// that are still open keep theirs until they are closed.
func (w *World) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	hosts, owned, s := w.hosts, w.owned, w.starter
	w.mu.Unlock()

	if s != nil {
		s.stop()
	}
	var errs []error
	for _, c := range slices.Backward(owned) {
		errs = append(errs, c.Close())
	}
	for _, h := range hosts {
		h.handle.Close()
		errs = append(errs, h.ns.Close())
	}
	return errors.Join(append(errs, w.origin.Close())...)
}

// Own has the world close c when it ends, the last one first.
func (w *World) Own(c io.Closer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	w.owned = append(w.owned, c)
	return nil
}

// currentNamespace is the network namespace of the calling thread.
func currentNamespace() (*os.File, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open this thread's network namespace: %w", err)
	}
	return f, nil
}

// enter moves the calling thread, which must be locked, into a namespace.
func (w *World) enter(ns *os.File) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return errClosed
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	return nil
}

// onThread runs f on a thread of its own, which f may move to another
// namespace, and takes the thread back to where it began. A thread that cannot
// be taken back ends. What f panics with becomes an error.
func onThread(home *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.New("the function ended its goroutine (a test's FailNow?)")
		defer func() {
			if p := recover(); p != nil {
				err = panicError(p)
			}
			// Without the unlock, the end of the goroutine ends the thread.
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			done <- err
		}()
		err = f()
	}()
	return <-done
}

func panicError(p any) error {
	stack := make([]byte, 8<<10)
	stack = stack[:runtime.Stack(stack, false)]
	if err, ok := p.(error); ok {
		return fmt.Errorf("panic: %w\n%s", err, stack)
	}
	return fmt.Errorf("panic: %v\n%s", p, stack)
}
