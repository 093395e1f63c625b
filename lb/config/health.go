package config

// Health in a file: how servers are checked, and what goes with it.

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

// checkDraft is a check while it is read.
type checkDraft struct {
	lb.Check
	at map[string]*node // where its keys stand
}

var healthKeys = table[checkDraft]{of: "health", what: "health", keys: noting([]key[checkDraft]{
	{word: "check", read: func(*decoder, *lb.Key, *node, *checkDraft) {}}, // read ahead of the others
	{word: "port", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) {
		if n, ok := readNumber(d, k, v, 1, 65535); ok {
			c.Port = uint16(n)
		}
	}},
	{word: "interval", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { c.Interval = readSpan(d, k, v) }},
	{word: "timeout", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { c.Timeout = readSpan(d, k, v) }},
	{word: "rise", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readInt(d, k, v, 1, 100, &c.Rise) }},
	{word: "fall", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readInt(d, k, v, 1, 100, &c.Fall) }},
	{word: "passive", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readBool(d, k, v, &c.Passive) }},
	{word: "source", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) {
		if text, ok := readText(d, k, v); ok {
			a, p := parseAddr(text, k.Word())
			if p != nil {
				d.breaks(k, v, p)
			}
			c.Source = a
		}
	}},
	{word: "path", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { c.Path, _ = readText(d, k, v) }},
	{word: "host", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readSome(d, k, v, &c.Host) }},
	{word: "status", read: readStatus},
	{word: "body", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readSome(d, k, v, &c.Body) }},
	{word: "verify", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) {
		if !none(v) {
			readSome(d, k, v, &c.Verify)
		}
	}},
	{word: "send", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readEscaped(d, k, v, &c.Send) }},
	{word: "expect", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readEscaped(d, k, v, &c.Expect) }},
	{word: "query", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { c.Query, _ = readText(d, k, v) }},
	{word: "type", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { c.QueryType, _ = readText(d, k, v) }},
	{word: "service", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { c.Service, _ = readText(d, k, v) }},
	{word: "tls", read: func(d *decoder, k *lb.Key, v *node, c *checkDraft) { readBool(d, k, v, &c.TLS) }},
	{word: "command", read: readCommand},
})}

// noting has each key note where it stands.
func noting(keys []key[checkDraft]) []key[checkDraft] {
	for i := range keys {
		read := keys[i].read
		keys[i].read = func(d *decoder, k *lb.Key, v *node, c *checkDraft) {
			c.at[k.Word()] = v
			read(d, k, v, c)
		}
	}
	return keys
}

func readHealth(d *decoder, k *lb.Key, v *node, s *draft) {
	s.at.health, s.Health, s.checks, s.badHealth = v, nil, nil, false
	if none(v) {
		return
	}
	items, ok := readItems(d, k, v, false)
	if len(items) > lb.MaxChecks {
		d.fail(items[lb.MaxChecks], fmt.Sprintf("health has %d checks", len(items)), fmt.Sprintf("at most %d", lb.MaxChecks), "")
		items, ok = items[:lb.MaxChecks], false
	}
	for _, item := range items {
		c, good := readCheck(d, k, item)
		ok = ok && good
		s.Health, s.checks = append(s.Health, c), append(s.checks, item)
	}
	s.badHealth = !ok
}

// readCheck reads a check; false where something was refused.
func readCheck(d *decoder, k *lb.Key, v *node) (lb.Check, bool) {
	wrong := len(d.errs) + d.more
	c := checkDraft{at: map[string]*node{}}
	var kind lb.CheckKind
	switch v.kind {
	case mapping:
		at := -1
		for i := 0; i+1 < len(v.kids) && at < 0; i += 2 {
			if v.kids[i].kind == scalar && v.kids[i].text == "check" {
				at = i + 1
			}
		}
		if at < 0 {
			d.fail(v, "health has no check", "the key check ("+healthKeys.keys[0].Values+")", "")
			return c.Check, false
		}
		if kindAt := &v.kids[at]; !kindAt.null() && !readWord(d, &healthKeys.keys[0].Key, kindAt, &kind) {
			return c.Check, false
		}
		c.Check = lb.DefaultCheck(kind)
		if healthKeys.read(d, v, &c); c.at["timeout"] == nil {
			c.Timeout = c.DefaultTimeout()
		}
	case scalar:
		if !readWord(d, k, v, &kind) {
			return c.Check, false
		}
		c.Check = lb.DefaultCheck(kind)
	default:
		d.fail(v, "a check is a list", k.Values, "")
	}
	if len(d.errs)+d.more > wrong {
		return c.Check, false
	}
	ok := true
	for i := range healthKeys.keys {
		if word := healthKeys.keys[i].word; c.at[word] != nil && !kind.Takes(word) {
			d.refuse(c.at[word], kind.Refusal(word))
			ok = false
		}
	}
	if !ok {
		return c.Check, false
	}
	for word, p := range c.Problems {
		at := c.at[word]
		if at == nil {
			at = v
		}
		d.refuse(at, p)
		ok = false
	}
	return c.Check, ok
}

func readStatus(d *decoder, k *lb.Key, v *node, c *checkDraft) {
	items, ok := readItems(d, k, v, false)
	var out []lb.StatusRange
	for _, item := range items {
		text, isText := readText(d, k, item)
		if !isText {
			ok = false
			continue
		}
		for part := range strings.SplitSeq(text, ",") {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			from, okFrom := number(first)
			to, okTo := number(last)
			if !okFrom || !okTo || from > 999 || to > 999 {
				d.fail(item, "status "+safe.Show(text)+" is neither a number nor a range", k.Values, "")
				ok = false
				break
			}
			out = append(out, lb.StatusRange{First: uint16(from), Last: uint16(to)})
		}
	}
	if ok {
		slices.SortFunc(out, func(a, b lb.StatusRange) int { return int(a.First) - int(b.First) })
		c.Status = out
	}
}

func readCommand(d *decoder, k *lb.Key, v *node, c *checkDraft) {
	items, _ := readItems(d, k, v, false)
	for _, item := range items {
		if text, ok := readText(d, k, item); ok {
			c.Command = append(c.Command, text)
		}
	}
}

// readSome is for texts that cannot be empty.
func readSome(d *decoder, k *lb.Key, v *node, into *string) {
	text, ok := readText(d, k, v)
	if ok && text == "" {
		d.fail(v, k.Word()+" is empty", k.Values, "")
	}
	*into = text
}

// readEscaped reads a text with \r, \n, \xNN and \\. In double quotes, YAML has
// read them already.
func readEscaped(d *decoder, k *lb.Key, v *node, into *string) {
	var text string
	readSome(d, k, v, &text)
	var b []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b = append(b, text[i])
			continue
		}
		code, rest := "", text[i+1:]
		if rest != "" {
			code = rest[:1]
		}
		i++
		switch code {
		case "r":
			b = append(b, '\r')
		case "n":
			b = append(b, '\n')
		case `\`:
			b = append(b, '\\')
		case "x":
			if two, err := hex.DecodeString(rest[1:min(3, len(rest))]); err == nil && len(two) == 1 {
				b = append(b, two[0])
				i += 2
				continue
			}
			fallthrough
		default:
			d.fail(v, fmt.Sprintf("%s has the escape %s", k.Word(), `\`+safe.Visible(code)), k.Values, `\\ is a single \`)
			return
		}
	}
	*into = string(b)
}

func readBool(d *decoder, k *lb.Key, v *node, into *bool) {
	text, ok := readText(d, k, v)
	switch {
	case !ok:
	case text == "true", text == "false":
		*into = text == "true"
	default:
		d.fail(v, fmt.Sprintf("%s %s is neither true nor false", k.Word(), safe.Show(text)), k.Values, "")
	}
}

func readMinUp(d *decoder, k *lb.Key, v *node, s *draft) {
	text, ok := readText(d, k, v)
	if ok && s.MinUp.UnmarshalText([]byte(text)) != nil {
		d.fail(v, "min-up "+safe.Show(text)+" is not a number or a percentage that it takes", k.Values, "")
	}
	s.at.minUp = v
}

// readOptionalSpan reads a time, or none.
func readOptionalSpan(d *decoder, k *lb.Key, v *node, into *time.Duration, check func(time.Duration) *problem) {
	if *into = 0; none(v) {
		return
	}
	if t := readSpan(d, k, v); t != 0 {
		*into = t
		if p := check(t); p != nil {
			d.breaks(k, v, p)
		}
	}
}

// readCheckAt reads none, ADDRESS, ADDRESS:PORT or :PORT.
func readCheckAt(d *decoder, k *lb.Key, v *node, b *backendDraft) {
	b.checkAt = v
	if none(v) {
		b.CheckAt = lb.CheckAt{None: true}
		return
	}
	text, ok := readText(d, k, v)
	if !ok {
		return
	}
	var p *problem
	if port, found := strings.CutPrefix(text, ":"); found && strings.Trim(port, "0123456789") == "" {
		b.CheckAt.Port, p = parsePort(port)
	} else {
		var e lb.Endpoint
		e, p = parseEndpoint(text, k.Word(), k.Values)
		b.CheckAt = lb.CheckAt{Addr: e.Addr, Port: e.Port}
	}
	if p != nil {
		b.CheckAt, p.Hint = lb.CheckAt{}, ""
		d.breaks(k, v, p)
	}
}
