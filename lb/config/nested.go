package config

// Affinity, limits, logs, timeouts and announcing in a file: keys that are mappings of
// their own.

import (
	"strings"

	"nlb/lb"
	"nlb/lb/internal/safe"
)

func readAffinity(d *decoder, k *lb.Key, v *node, s *draft) {
	s.Affinity = nil
	if none(v) {
		return
	}
	a := lb.Affinity{Bits: 32, Bits6: 128}
	switch v.kind {
	case scalar:
		readTimeout(d, k, v, &a)
	case mapping:
		affinityKeys.need(d, v, affinityKeys.read(d, v, &a), "timeout", lb.TimeForm)
	default:
		d.fail(v, "affinity is a list", k.Values, "")
	}
	s.Affinity = &a
}

func readTimeout(d *decoder, k *lb.Key, v *node, a *lb.Affinity) {
	a.Timeout = readTime(d, k, v, "1s to 365d")
}

// limitDraft is a limit while it is read.
type limitDraft struct {
	lb.Limit
	newPerSource, burst, prefix, prefix6 *node
}

// readBits reads the length of a network; that of single addresses is 0.
func readBits(d *decoder, k *lb.Key, v *node, whole uint64, into *int) {
	if n, ok := readNumber(d, k, v, 1, whole); ok && n < whole {
		*into = int(n)
	}
}

func readLimit(d *decoder, k *lb.Key, v *node, s *draft) {
	s.Limit, s.at.limit = lb.Limit{}, v
	if none(v) {
		return
	}
	if v.kind != mapping {
		d.fail(v, "limit is "+v.kind.String(), k.Values, "")
		return
	}
	var l limitDraft
	limitKeys.read(d, v, &l)
	switch {
	case len(v.kids) == 0:
		d.fail(v, "limit has no keys", k.Values, "")
	case l.burst != nil && l.newPerSource == nil:
		d.refuse(l.burst, lb.NoMeaning("burst"))
	case l.prefix != nil && !l.PerSource():
		d.refuse(l.prefix, lb.NoMeaning("prefix"))
	case l.prefix6 != nil && !l.PerSource():
		d.refuse(l.prefix6, lb.NoMeaning("prefix6"))
	case l.burst == nil:
		l.Burst = uint32(l.NewPerSource.Events)
	}
	s.Limit = l.Limit
}

func readTimeouts(d *decoder, k *lb.Key, v *node, s *draft) {
	s.Timeouts, s.at.timeouts = lb.Timeouts{}, v
	switch {
	case none(v):
	case v.kind != mapping:
		d.fail(v, "timeouts is "+v.kind.String(), k.Values, "")
	case len(v.kids) == 0:
		d.fail(v, "timeouts has no keys", k.Values, "")
	default:
		timeoutKeys.read(d, v, &s.Timeouts)
	}
}

// readTimeoutOf reads one of the timeouts.
func readTimeoutOf(d *decoder, k *lb.Key, v *node, t *lb.Timeouts) {
	span := readTime(d, k, v, k.Values)
	if p := lb.CheckConnectionTimeout(k.Word(), span); span != 0 && p != nil {
		d.refuse(v, p)
		return
	}
	*t.Of(k.Word()) = span
}

func readSYNProtection(d *decoder, k *lb.Key, v *node, s *draft) {
	s.SYNProtection, s.at.syn = nil, v
	p := lb.SYNProxy
	switch {
	case none(v):
		return
	case v.kind == mapping:
		synKeys.read(d, v, &p)
	case v.kind != scalar || v.text != "synproxy":
		d.fail(v, "syn-protection "+safe.Show(v.text)+" is unknown", k.Values, "")
		return
	}
	s.SYNProtection = &p
}

func readLog(d *decoder, k *lb.Key, v *node, into **lb.Log) {
	*into = nil
	l := &lb.Log{Level: lb.LogInfo}
	switch v.kind {
	case mapping:
		logKeys.read(d, v, l)
	case scalar:
		switch v.text {
		case "true":
		case "false", "none":
			return
		default:
			hint := ""
			if s := strings.ToLower(v.text); s == "yes" || s == "on" || s == "true" {
				hint = "write true"
			}
			d.fail(v, "log "+safe.Show(v.text)+" is neither true nor false", k.Values, hint)
			return
		}
	default:
		d.fail(v, "log is a list", k.Values, "")
		return
	}
	*into = l
}

func readLogPrefix(d *decoder, k *lb.Key, v *node, l *lb.Log) {
	text, ok := readText(d, k, v)
	if !ok {
		return
	}
	if p := lb.CheckLogPrefix(text); p != nil {
		d.breaks(k, v, p)
		return
	}
	l.Prefix = text
}

func readAnnounce(d *decoder, k *lb.Key, v *node, t *top) {
	if none(v) {
		return
	}
	a := lb.AnnounceDefault
	switch v.kind {
	case scalar:
		readDevice(d, k, v, &a)
	case mapping:
		announceKeys.read(d, v, &a)
	default:
		d.fail(v, "announce is "+v.kind.String(), k.Values, "")
	}
	t.Announce = &a
}

func readDevice(d *decoder, k *lb.Key, v *node, a *lb.Announce) {
	text, ok := readText(d, k, v)
	if !ok {
		return
	}
	a.Interface = text
	if p := lb.CheckDummy(text); p != nil {
		d.breaks(k, v, p)
	}
}

// announcing is what a file says of it, in its short form where that says all.
func announcing(a *lb.Announce) lb.Mapping {
	delay, drain := a.Times()
	usualDelay, usualDrain := lb.AnnounceDefault.Times()
	m := lb.Mapping{Values: lb.Values{
		{Word: "interface", Value: a.Interface},
		{Word: "delay", Value: delay, Default: delay == usualDelay},
		{Word: "drain", Value: drain, Default: drain == usualDrain},
		{Word: "track", Value: a.Track, Default: len(a.Track) == 0},
	}}
	if m.Values[1].Default && m.Values[2].Default && m.Values[3].Default {
		m.Short = a.Interface
	}
	return m
}
