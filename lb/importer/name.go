package importer

// Names that a profile can have.

import (
	"fmt"
	"strings"

	"nlb/lb"
)

// Name is text as a name: letters, digits, '-', '_' and '.', everything else a
// hyphen, and hyphens neither at its ends nor in a row. Empty where nothing is
// left.
func Name(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.':
			b.WriteRune(r)
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() > 2*lb.MaxName {
			break
		}
	}
	return cut(strings.Trim(b.String(), "-"), lb.MaxName)
}

func cut(name string, length int) string {
	return strings.TrimRight(name[:min(len(name), length)], "-")
}

// names gives out each name once: the last number that each was given with.
type names map[string]int

// unique is the name, or the first of name-2, name-3 ... that is free.
func (n names) unique(name string) string {
	free := name
	for i := max(n[name], 1) + 1; n[free] > 0; i++ {
		suffix := fmt.Sprintf("-%d", i)
		free = cut(name, lb.MaxName-len(suffix)) + suffix
		n[name] = i
	}
	n[free] = max(n[free], 1)
	return free
}

// PortName names a service by its protocols, its first port unless it has most of them,
// and IPv6.
func PortName(protocols []lb.Protocol, ports []lb.PortRange, ipv6 bool) string {
	var parts []string
	for _, p := range protocols {
		parts = append(parts, p.String())
	}
	if len(parts) == 3 {
		parts = []string{"all"}
	}
	count := 0
	for _, r := range ports {
		count += int(r.Last) - int(r.First) + 1
	}
	if count <= 1<<15 {
		parts = append(parts, ports[0].String())
	}
	if ipv6 {
		parts = append(parts, "v6")
	}
	return strings.Join(parts, "-")
}

// fileName is the name of a profile that is made of a file.
func fileName(file, format string) string {
	base := file[strings.LastIndexByte(file, '/')+1:]
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		base = base[:i]
	}
	if name := Name(base); name != "" && file != "-" && file != "stdin" {
		return name
	}
	return format
}
