package importer

// The text that is imported.

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"nlb/lb"
	"nlb/lb/config"
)

// MaxText is the size of the largest text, in bytes: that of the largest
// profile. 30,000 rules of kube-proxy take 6 MB.
const MaxText = config.MaxFile

// Lines are the lines of a text, without line breaks. Bytes that are not UTF-8
// become U+FFFD: comments may be older than UTF-8. The error is lb.Errors:
// binary, or too large.
func Lines(file string, data []byte) ([]string, error) {
	refuse := func(line, column int, msg, want string) ([]string, error) {
		return nil, lb.Errors{{Pos: lb.Pos{File: file, Line: line, Column: column}, Msg: msg, Want: want}}
	}
	if len(data) > MaxText {
		return refuse(1, 1, "the text is too long", fmt.Sprintf("at most %d MiB", MaxText>>20))
	}
	lines := strings.Split(strings.ToValidUTF8(strings.TrimPrefix(string(data), "\uFEFF"), "\uFFFD"), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		lines[i] = line
		for at, r := range line {
			if r < ' ' && r != '\t' || r == 0x7f {
				return refuse(i+1, utf8.RuneCountInString(line[:at])+1, fmt.Sprintf("the control character \\x%02x", r), "plain text")
			}
		}
	}
	return lines, nil
}

// PlaceOf is all of a line (from 0).
func PlaceOf(lines []string, line int) Place {
	text := strings.TrimSpace(lines[line])
	indent := len(lines[line]) - len(strings.TrimLeft(lines[line], " \t"))
	return Place{Line: line + 1, Column: indent + 1, Width: max(1, utf8.RuneCountInString(text))}
}

// Some lists texts, and says of what is over the most how many they are.
func Some(texts []string, most int) string {
	if len(texts) > most {
		texts = append(slices.Clip(texts[:most]), fmt.Sprintf("%d more", len(texts)-most))
	}
	return strings.Join(texts, ", ")
}

// Shorten is text for a message.
func Shorten(s string) string {
	const most = 60
	if runes := []rune(s[:min(len(s), 4*most)]); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return s
}
