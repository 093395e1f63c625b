package importer

// The text that is imported.

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"nlb/lb"
	"nlb/lb/config"
)

// MaxText is the size of the largest text, in bytes: that of the largest
// profile. 30,000 rules of kube-proxy take 6 MB.
const MaxText = config.MaxFile

// Lines are the lines of a text in UTF-8, without line breaks. The error is
// lb.Errors: binary, or too large.
func Lines(file string, data []byte) ([]string, error) {
	refuse := func(line, column int, msg, want string) ([]string, error) {
		return nil, lb.Errors{{Pos: lb.Pos{File: file, Line: line, Column: column}, Msg: msg, Want: want}}
	}
	if len(data) > MaxText {
		return refuse(1, 1, fmt.Sprintf("the text has %d MiB", len(data)>>20), fmt.Sprintf("at most %d MiB", MaxText>>20))
	}
	lines := strings.Split(strings.TrimPrefix(string(data), "\uFEFF"), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		lines[i] = line
		for at, r := range line {
			what := ""
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(line[at:], "\uFFFD"):
				what = fmt.Sprintf("the byte \\x%02x, which is not UTF-8", line[at])
			case r < ' ' && r != '\t' || r == 0x7f:
				what = fmt.Sprintf("the control character \\x%02x", r)
			}
			if what != "" {
				return refuse(i+1, utf8.RuneCountInString(line[:at])+1, what, "plain text in UTF-8")
			}
		}
	}
	return lines, nil
}
