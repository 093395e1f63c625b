//go:build linux

package main

// The machine that a run was on, and waiting until it is quiet.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says on what the table was measured.
func (b *bench) machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	size := ""
	if b.quick {
		size = "; QUICK: small sizes and few rounds, no proof"
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s; %d rounds, medians%s\n",
		processor(), runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), nftVersion(), b.rounds, size)
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

func nftVersion() string {
	out, err := exec.Command("nft", "--version").Output()
	if err != nil {
		return "no nft"
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(out)), " (")
	return name
}

const (
	quietFor  = 60 * time.Millisecond
	quietWait = 10 * time.Second
)

// quiet returns when the kernel's workers have nothing to do: they take down
// the namespaces and tables of the measurement before. On a machine where
// others keep them busy it gives up after a while.
func quiet() {
	for began := time.Now(); time.Since(began) < quietWait; {
		before := workerTicks()
		time.Sleep(quietFor)
		if workerTicks() == before {
			return
		}
	}
}

// workerTicks is the processor time of all kernel workers so far: fields 14
// and 15 of proc_pid_stat(5), in ticks.
func workerTicks() uint64 {
	var sum uint64
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		stat, err := os.ReadFile(file)
		at := bytes.LastIndexByte(stat, ')')
		if err != nil || at < 0 || !bytes.Contains(stat[:at], []byte("(kworker")) {
			continue
		}
		fields := strings.Fields(string(stat[at+1:]))
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseUint(f, 10, 64)
			sum += n
		}
	}
	return sum
}
