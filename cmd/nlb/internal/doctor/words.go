package doctor

// Names of kernel parameters in findings.

import "strings"

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
