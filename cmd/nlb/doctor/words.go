package doctor

// Words of findings.

import (
	"fmt"
	"strings"
)

// plural is a number and a noun: 1 rule, 2 rules.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list is words with commas, the last of them behind an and.
func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// setParam is the command that sets a kernel parameter.
func setParam(name, value string) string {
	if !strings.Contains(name, ".") {
		name = strings.ReplaceAll(name, "/", ".")
	}
	return "sysctl -w " + name + "=" + value
}

// dotted is the name of a kernel parameter as people know it.
func dotted(name string) string {
	if strings.Contains(name, ".") {
		return name // a link's name has a dot
	}
	return strings.ReplaceAll(name, "/", ".")
}
