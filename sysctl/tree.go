// Package sysctl reads, sets and puts back kernel parameters, by their files
// in /proc/sys. It runs no program.
package sysctl

// The files behind the parameters of one network namespace.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Tree is where the parameters are. Local is the kernel's own.
type Tree struct {
	// Sys holds the parameters as files: /proc/sys.
	Sys string
	// Net holds the tables of the network: /proc/thread-self/net.
	Net string
	// Ports returns the links that are ports of a bridge, by name; nil: there
	// are none.
	Ports func() map[string]bool
}

// Local is the tree of the network namespace of the thread that uses it; a
// goroutine that has changed namespaces must stay locked to its thread.
var Local = Tree{Sys: "/proc/sys", Net: "/proc/thread-self/net", Ports: bridgePorts}

// Setting is a parameter and a value.
type Setting struct {
	// Name is as sysctl(8) takes it: net.ipv4.ip_forward, or with slashes
	// throughout, where a part has a dot in it: net/ipv6/conf/eth0.5/accept_ra.
	Name string
	// Value is without the final newline.
	Value string
}

// String is name=value.
func (s Setting) String() string { return s.Name + "=" + s.Value }

// Get returns the value of a parameter. A parameter that this kernel does not
// have is an os.ErrNotExist.
func (t Tree) Get(name string) (string, error) {
	b, err := os.ReadFile(t.path(name))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, cause(err))
	}
	return strings.TrimSpace(string(b)), nil
}

// Set writes a parameter.
func (t Tree) Set(name, value string) error {
	f, err := t.open(name)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, cause(err))
	}
	return nil
}

// open opens without O_TRUNC and O_CREATE, so that opening alone changes
// nothing.
func (t Tree) open(name string) (*os.File, error) {
	f, err := os.OpenFile(t.path(name), os.O_WRONLY, 0)
	if err != nil {
		return nil, cause(err)
	}
	return f, nil
}

func (t Tree) path(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return filepath.Join(t.Sys, filepath.FromSlash(name))
}

// join makes a name of its parts.
func join(parts ...string) string {
	for _, p := range parts {
		if strings.Contains(p, ".") {
			return strings.Join(parts, "/")
		}
	}
	return strings.Join(parts, ".")
}

// cause is an error without the path, which says less than the name.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}
