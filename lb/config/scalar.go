package config

// Single values: words, names, numbers, times, rates. All are read from the
// text as it stands in the file, since YAML has other ideas of 010, yes and
// 1_000. Quotes make no difference.

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/internal/dup"
	"nlb/lb/internal/safe"
)

// readText is the text of a single value that is not null.
func readText(d *decoder, k *lb.Key, v *node) (string, bool) {
	switch {
	case v.kind != scalar:
		d.fail(v, k.Word()+" is "+v.kind.String(), k.Values, "")
		return "", false
	case v.null():
		d.fail(v, "an item of "+k.Word()+" is empty", k.Values, "")
		return "", false
	}
	return v.text, true
}

// readItems is the values of a key that takes one or a list. allowEmpty says
// whether the list may have none.
func readItems(d *decoder, k *lb.Key, v *node, allowEmpty bool) ([]*node, bool) {
	if v.kind == list && len(v.kids) == 0 && !allowEmpty {
		d.fail(v, k.Word()+" is an empty list", k.Values, "")
		return nil, false
	}
	return v.items(), true
}

func readWord[T lb.Enum](d *decoder, k *lb.Key, v *node, into *T) bool {
	return readOne(d, k, v, func(text string) error { return lb.Read(into, text) }, lb.Words[T])
}

// readOne reads a text for which there are words.
func readOne(d *decoder, k *lb.Key, v *node, read func(text string) error, words func() []string) bool {
	text, ok := readText(d, k, v)
	if !ok {
		return false
	}
	if read(text) == nil {
		return true
	}
	hint := ""
	if near := lb.Nearest(text, words()); near != "" {
		hint = "did you mean " + near + "?"
	}
	d.fail(v, fmt.Sprintf("unknown %s %s", k.Word(), safe.Show(text)), k.Values, hint)
	return false
}

// readName reads a name of something.
func readName(d *decoder, k *lb.Key, v *node) (string, bool) {
	text, ok := readText(d, k, v)
	if !ok {
		return "", false
	}
	if p := lb.CheckName(text); p != "" {
		d.fail(v, fmt.Sprintf("%s %s %s", k.Word(), safe.Show(text), p), lb.NameForm, "")
		return "", false
	}
	return text, true
}

// digits reports whether s is a decimal number as people write it.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && (s[0] != '0' || s == "0")
}

// number is a decimal number; math.MaxUint64 where it is larger.
func number(s string) (uint64, bool) {
	if !digits(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		n = math.MaxUint64
	}
	return n, true
}

func readNumber(d *decoder, k *lb.Key, v *node, least, most uint64) (uint64, bool) {
	text, ok := readText(d, k, v)
	if !ok {
		return 0, false
	}
	n, ok := number(text)
	switch {
	case !ok && strings.HasPrefix(text, "-") && digits(text[1:]), ok && (n < least || n > most):
		hint := ""
		if k.Path == "backend.weight" {
			hint = "weights are relative; 30 and 10 send three times as much to the first"
		}
		d.fail(v, fmt.Sprintf("%s %s is out of range", k.Word(), safe.Show(text)), k.Values, hint)
	case !ok:
		d.fail(v, fmt.Sprintf("%s %s is not a whole number", k.Word(), safe.Show(text)), k.Values, numberHint(text))
	default:
		return n, true
	}
	return 0, false
}

// numberHint explains why something that looks like a number, or like the 80/tcp of
// other programs, is none.
func numberHint(s string) string {
	if port, protocol, ok := strings.Cut(s, "/"); ok && digits(port) && (protocol == "tcp" || protocol == "udp" || protocol == "sctp") {
		return `the protocol is a key of its own: "protocol: ` + protocol + `"`
	}
	if s != "" && strings.Trim(s, "0123456789abcdefxABCDEFXo_+-.") == "" && strings.ContainsAny(s, "0123456789") {
		return "decimal digits only, without a sign, leading zeros or separators"
	}
	return ""
}

func readInt[T int | uint32](d *decoder, k *lb.Key, v *node, least, most uint64, into *T) bool {
	n, ok := readNumber(d, k, v, least, most)
	if ok {
		*into = T(n)
	}
	return ok
}

// readTime reads a time of at most a year. It is 0 where something was refused; want says
// how much is right.
func readTime(d *decoder, k *lb.Key, v *node, want string) time.Duration {
	text, ok := readText(d, k, v)
	if !ok {
		return 0
	}
	for _, u := range lb.Units {
		n, ok := number(strings.TrimSuffix(text, u.Short))
		if !ok || !strings.HasSuffix(text, u.Short) {
			continue
		}
		if n == 0 || n > uint64(lb.MaxTimeout/u.Duration) {
			d.fail(v, fmt.Sprintf("%s %s is out of range", k.Word(), safe.Show(text)), want, "")
			return 0
		}
		return time.Duration(n) * u.Duration
	}
	hint := ""
	if digits(text) {
		hint = "with its unit: " + safe.Show(text) + "s"
	}
	d.fail(v, fmt.Sprintf("%s %s is not a time", k.Word(), safe.Show(text)), lb.TimeForm, hint)
	return 0
}

// readSpan reads a time of at least a millisecond; how much is right, lb says. It is 0
// where something was refused.
func readSpan(d *decoder, k *lb.Key, v *node) time.Duration {
	if v.kind == scalar && strings.HasSuffix(v.text, "ms") {
		if n, ok := number(strings.TrimSuffix(v.text, "ms")); ok {
			if n == 0 {
				d.fail(v, k.Word()+" 0ms is out of range", k.Values, "")
			}
			return time.Duration(min(n, uint64(lb.MaxTimeout/time.Millisecond))) * time.Millisecond
		}
	}
	return readTime(d, k, v, k.Values)
}

func readRate(d *decoder, k *lb.Key, v *node) lb.Rate {
	text, ok := readText(d, k, v)
	if !ok {
		return lb.Rate{}
	}
	events, per, _ := strings.Cut(text, "/")
	for _, u := range lb.Units {
		n, ok := number(events)
		if !ok || per != u.Long {
			continue
		}
		if n == 0 || n > lb.MaxRate {
			d.fail(v, fmt.Sprintf("%s %s is out of range", k.Word(), safe.Show(text)), fmt.Sprintf("1 to %d per %s", lb.MaxRate, u.Long), "")
			return lb.Rate{}
		}
		return lb.Rate{Events: n, Per: u.Duration}
	}
	d.fail(v, fmt.Sprintf("%s %s is not a rate", k.Word(), safe.Show(text)), k.Values, "")
	return lb.Rate{}
}

// none reports whether a value is the word for nothing.
func none(v *node) bool { return v.kind == scalar && v.text == "none" }

// again notes the values that equal an earlier one.
func again[T comparable](d *decoder, k *lb.Key, at []*node, values []T) bool {
	ok := true
	dup.Find(values, func(v T) T { return v }, func(first, second int) {
		d.fail(at[second], fmt.Sprintf("%s %s is here twice, first in line %d", k.Word(), safe.Show(at[second].text), at[first].line),
			"each once", "")
		ok = false
	})
	return ok
}
