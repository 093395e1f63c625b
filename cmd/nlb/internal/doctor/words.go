package doctor

// Names of kernel parameters in findings, and times.

import (
	"strings"
	"time"
)

// span is a number of seconds as people say it: 120h, 1m30s.
func span(seconds int) string {
	s := (time.Duration(seconds) * time.Second).String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, none) {
			s = s[:len(s)-2]
		}
	}
	return s
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
