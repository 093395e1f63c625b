//go:build linux

package survey

// Room: the size of conntrack and its statistics, and what rp_filter has
// dropped, as /proc has them for everybody.

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nlb/sysctl"
)

func (s *survey) room() {
	t := &s.host.Track
	count, err := number("net.netfilter.nf_conntrack_count")
	if err == nil {
		var limit int
		if limit, err = number("net.netfilter.nf_conntrack_max"); err == nil {
			t.Known, t.Count, t.Max = true, count, limit
		}
	}
	if !t.Counted {
		if sums, ok := columns(filepath.Join(sysctl.Local.Net, "stat/nf_conntrack")); ok {
			t.Counted, t.InsertFailed, t.Drop, t.EarlyDrop = true, sums["insert_failed"], sums["drop"], sums["early_drop"]
		}
	}
	s.host.ReverseDrops = counter(filepath.Join(sysctl.Local.Net, "netstat"), "IPReversePathFilter")
}

func number(param string) (int, error) {
	v, err := sysctl.Local.Get(param)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}

// columns reads a table with titles and, below them, a line of hexadecimal
// numbers for each CPU, and sums them up.
func columns(path string) (map[string]uint64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if !lines.Scan() {
		return nil, false
	}
	titles := strings.Fields(lines.Text())
	sums := map[string]uint64{}
	for lines.Scan() {
		for i, word := range strings.Fields(lines.Text()) {
			if n, err := strconv.ParseUint(word, 16, 64); err == nil && i < len(titles) {
				sums[titles[i]] += n
			}
		}
	}
	return sums, lines.Err() == nil
}

// counter reads one number of /proc/net/netstat: pairs of lines, the titles and
// their values.
func counter(path, name string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var titles []string
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(titles) > 0 && len(words) == len(titles) && words[0] == titles[0] {
			if i := slices.Index(titles, name); i >= 0 {
				n, _ := strconv.ParseUint(words[i], 10, 64)
				return n
			}
			titles = nil
			continue
		}
		titles = words
	}
	return 0
}
