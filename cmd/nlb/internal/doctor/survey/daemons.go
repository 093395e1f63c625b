//go:build linux

package survey

// The daemons of a fleet: which run in this network namespace, and what their
// configurations say.

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"

	"nlb/cmd/nlb/internal/doctor"
	"nlb/cmd/nlb/internal/engine/vip"
)

// known are the daemons that are looked for, with the flags and the file that say where
// a configuration is.
var known = map[string]struct {
	flags []string
	file  string
}{
	"keepalived": {[]string{"-f", "--use-file"}, "/etc/keepalived/keepalived.conf"},
	"conntrackd": {[]string{"-C"}, "/etc/conntrackd/conntrackd.conf"},
}

// mostConfig is how much of a configuration is read, in bytes.
const mostConfig = 1 << 20

// fleet looks for addresses that nlb run has made, and for daemons.
func (s *survey) fleet() {
	if all, err := vip.List(); err != nil {
		s.unseen("the addresses of this host", err, "announce")
	} else {
		for _, a := range all {
			if a.Ours {
				s.host.Announced = append(s.host.Announced, a.Addr)
			}
		}
	}
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return // without /proc nobody is seen
	}
	s.host.Daemons = map[string]doctor.Daemon{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		comm, _ := os.ReadFile(p + "/comm")
		name := string(bytes.TrimSpace(comm))
		k, wanted := known[name]
		if !wanted || s.host.Daemons[name].File != "" {
			continue
		}
		if ns, err := os.Readlink(p + "/ns/net"); err != nil {
			s.host.Daemons[name] = doctor.Daemon{} // it may be here: only root can tell
		} else if ns == here {
			file := configOf(p, k.flags, k.file)
			s.host.Daemons[name] = doctor.Daemon{File: file, Config: head(file)}
		}
	}
}

// configOf is the file that a process was told to read.
func configOf(process string, flags []string, usual string) string {
	text, _ := os.ReadFile(process + "/cmdline")
	args := bytes.Split(text, []byte{0})
	for i := range args[:max(0, len(args)-1)] {
		if slices.Contains(flags, string(args[i])) && filepath.IsAbs(string(args[i+1])) {
			return string(args[i+1])
		}
	}
	return usual
}

// head is the beginning of a file, or nothing: one that is no ordinary file may never
// end.
func head(file string) string {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, mostConfig))
	return string(text)
}
