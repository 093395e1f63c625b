package nftlb

// Guards: logs, limits and policies of a farm.

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/document"
)

// log reads log, log-prefix and log-rtlimit.
func (r *reader) log(o *document.Node, s *lb.Service) {
	text := r.text(o, "log", "none")
	for word := range strings.FieldsSeq(text) {
		switch word {
		case "input", "forward":
			prefix := r.text(o, "log-prefix", "TYPE-FNAME")
			kind := map[string]string{"input": "IN", "forward": "FWD"}[word]
			prefix = strings.NewReplacer("KNAME", "", "TYPE", kind, "FNAME", s.Name, "ANAME", "").Replace(prefix) + " "
			s.Log = &lb.Log{Prefix: importer.LogPrefix(prefix), Level: 4, Rate: r.rate(o, "log-rtlimit")}
		case "output":
			r.Lost("a log of replies is not translated", "log: true is about new connections", at(o, "log"))
		case "none":
		default:
			r.Fail(at(o, "log"), fmt.Sprintf("unknown log %q", word), "none, input, forward or output")
		}
	}
}

// limits reads new-rtlimit and est-connlimit, which are for each client.
func (r *reader) limits(o *document.Node, s *lb.Service) {
	if s.Limit.NewPerSource = r.rate(o, "new-rtlimit"); s.Limit.NewPerSource.Events > 0 {
		s.Limit.Burst = cmp.Or(uint32(r.number(o, "new-rtlimit-burst", 0, 1<<32-1)), 5) // 5 is nft's default
	}
	s.Limit.ConnectionsPerSource = uint32(r.number(o, "est-connlimit", 0, 1<<32-1))
	if r.number(o, "limits-ttl", 0, 1<<32) > 0 && s.Limit != (lb.Limit{}) {
		r.Note("limits-ttl is not in the profile: a client over a limit is refused for as long as it is over it", "", at(o, "limits-ttl"))
	}
}

// rate reads 10, 10/second and the like; zero where there is no limit.
func (r *reader) rate(o *document.Node, key string) lb.Rate {
	text := r.text(o, key, "0")
	number, unit, has := strings.Cut(text, "/")
	if !has {
		unit = "second"
	}
	n, err := strconv.ParseUint(number, 10, 32)
	per := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}[unit]
	switch {
	case err != nil || per == 0:
		r.Fail(at(o, key), fmt.Sprintf("%s %q is not a rate", key, text), "N or N/second, minute, hour, day or week")
		return lb.Rate{}
	case n == 0:
		return lb.Rate{}
	case unit == "week":
		per = 24 * time.Hour
		if n%7 != 0 {
			r.Lost(fmt.Sprintf("%s %s is rounded: a profile has no weeks", key, text), "", at(o, key))
		}
		n = max(1, n/7)
	}
	return lb.Rate{Events: n, Per: per}
}

// clients reads the policies of a farm.
func (r *reader) clients(o *document.Node, s *lb.Service) {
	var white []netip.Prefix
	whiteAt := importer.Place{}
	for _, ref := range r.objects(o.Get("policies")) {
		name := r.text(ref, "name", "")
		p := r.policies[name]
		if p == nil {
			r.Fail(ref.Place, fmt.Sprintf("there is no policy %q", name), `one of "policies"`)
			continue
		}
		r.used[p] = true
		prefixes := r.elements(p)
		switch kind := r.text(p, "type", ""); kind {
		case "blacklist":
			s.Deny = append(s.Deny, prefixes...)
		case "whitelist":
			white = append(white, prefixes...)
			whiteAt = lineOf(p)
		default:
			r.Fail(at(p, "type"), fmt.Sprintf("unknown type %q", kind), "blacklist or whitelist")
		}
	}
	s.Deny = importer.Prefixes(s.Deny)
	if len(white) == 0 {
		return
	}
	overlap := slices.ContainsFunc(white, func(w netip.Prefix) bool {
		return slices.ContainsFunc(s.Deny, w.Overlaps)
	})
	if overlap || s.Limit != (lb.Limit{}) {
		r.Lost("a whitelist exempts clients from blacklists and limits; that is not translated", "", whiteAt)
	} else {
		r.Note("a whitelist exempts clients from blacklists and limits, and refuses nobody: there is nothing to exempt from here", "", whiteAt)
	}
}

// elements are the addresses and networks of a policy.
func (r *reader) elements(p *document.Node) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range r.objects(p.Get("elements")) {
		text := r.text(e, "data", "")
		prefix, ok := importer.Prefix(text)
		switch {
		case ok:
			out = append(out, prefix)
		case strings.Contains(text, "-"):
			r.Lost("a range of clients is not translated: "+text, "write it as networks", at(e, "data"))
		default:
			r.Fail(at(e, "data"), fmt.Sprintf("%q is neither an address nor a network", text), "an address or network")
		}
	}
	return out
}
