package doctor

// Conntrack: its room, what it had to drop, its parameters, the ports of SNAT,
// and what becomes of connections.

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
	"nlb/lb/needs"
)

const (
	full     = 80 // percent: it gets narrow
	nearly   = 95 // percent: it fails now and then
	maxTrack = "net.netfilter.nf_conntrack_max"
)

// level grades a use of what is there.
func level(used, all int) (Level, int) {
	percent := 100
	if all > 0 {
		percent = int(int64(used) * 100 / int64(all))
	}
	switch {
	case percent >= nearly:
		return Fail, percent
	case percent >= full:
		return Warn, percent
	}
	return OK, percent
}

func (e *exam) conntrack() {
	t := &e.Track
	if t.Known {
		if l, percent := level(t.Count, t.Max); l != OK {
			e.add(l, "", fmt.Sprintf("the connection table is %d%% full", percent),
				fmt.Sprintf("%d of %d connections; new ones are dropped when it is full", t.Count, t.Max), fmt.Sprintf("sysctl -w %s=%d", maxTrack, 2*t.Max))
		}
	}
	for _, s := range []struct {
		n         uint64
		what, why string
		grow      bool
	}{
		{t.EarlyDrop, "connection was forgotten to make room|connections were forgotten to make room", "the connection table was full", true},
		{t.InsertFailed, "connection could not be entered|connections could not be entered", "its addresses and ports were taken: of masqueraded ones, the ports may have run out", false},
		{minus(t.Drop, t.InsertFailed), "packet was dropped|packets were dropped", "there was no room for their connection, or no memory", true},
	} {
		if s.n == 0 {
			continue
		}
		one, many, _ := strings.Cut(s.what, "|")
		what := fmt.Sprintf("%d %s", s.n, many)
		if s.n == 1 {
			what = "1 " + one
		}
		mend := ""
		if s.grow && t.Max > 0 {
			mend = fmt.Sprintf("sysctl -w %s=%d", maxTrack, 2*t.Max)
		}
		e.add(Warn, "", what, s.why+"; counted since this host, or network namespace, came up", mend)
	}
	e.wanted()
	e.fineIf(t.Known, fmt.Sprintf("%d of %d connections", t.Count, t.Max))
}

// isTracking tells needs of connection tracking from those of forwarding.
func isTracking(n needs.Need) bool { return strings.HasPrefix(n.Param, "net.netfilter.") }

// wanted looks at the parameters of conntrack that should have another value.
// One that is not there cannot be mended: its module is not loaded yet, or the
// kernel keeps it from this network namespace.
func (e *exam) wanted() {
	for _, n := range needs.Of(e.Profiles) {
		name := strings.ReplaceAll(n.Param, ".", "/")
		value, there := e.Params[name]
		level := Warn
		if !n.Wanted {
			level = Fail // a fleet loses connections
		}
		switch {
		case !isTracking(n) || !there || n.Met(value):
		case e.applied() || e.keeps() || e.Fixed:
			e.add(level, "", fmt.Sprintf("%s is %s", n.Param, value), n.Why, setParam(name, n.Value))
		default:
			e.add(Warn, "", fmt.Sprintf("%s is %s", n.Param, value), n.Why+"; an apply sets it", e.apply())
		}
	}
}

func minus(a, b uint64) uint64 { return max(a, b) - b }

// portsOfAddress is how many ports SNAT takes of one address towards one
// backend: 1024 to 65535 (nf_nat_core.c, find_best_ips_proto and
// nf_nat_l4proto_unique_tuple).
const portsOfAddress = 65536 - 1024

// ports looks at the ports of translated sources. They are shared by all
// services that lead to the same endpoint with the same sources.
func (e *exam) ports() {
	type socket struct {
		protocol lb.Protocol
		address  lb.Endpoint
		sources  string
	}
	used, room, subject := map[socket]int{}, map[socket]int{}, map[socket]string{}
	for _, p := range e.paths {
		if p.backend.Address.Port == 0 || p.backend.SNAT.Mode == lb.SNATNone {
			continue
		}
		use, ok := e.Track.Uses[Key{p.profile, p.service.Name, p.backend.Address}]
		if !ok {
			continue
		}
		sources, n := sources(p)
		for _, proto := range p.service.Protocols {
			s := socket{proto, p.backend.Address, sources}
			used[s] += use.Entries[proto]
			room[s] = n * portsOfAddress
			subject[s] = cmp.Or(subject[s], p.subject())
		}
	}
	highest := 0
	for _, s := range slices.SortedFunc(maps.Keys(used), func(a, b socket) int {
		return cmp.Or(cmp.Compare(subject[a], subject[b]), cmp.Compare(a.protocol, b.protocol))
	}) {
		l, percent := level(used[s], room[s])
		highest = max(highest, percent)
		if l != OK {
			e.add(l, subject[s], fmt.Sprintf("%d%% of the ports of its source addresses are in use", percent),
				fmt.Sprintf("%d of %d over %s, by connections that live or ended just now; a new one is dropped when there is none left%s. More addresses in snat multiply the ports", used[s], room[s], s.protocol, e.pace(s.protocol, room[s])), "")
		}
	}
	e.fineIf(len(e.paths) > 0 && e.Track.Listed, fmt.Sprintf("at most %d%% of the source ports towards a backend are in use", highest))
}

// pace is how many connections a second these ports are enough for, if all are
// short: an ended TCP connection keeps its port for a while.
func (e *exam) pace(protocol lb.Protocol, ports int) string {
	const param = "net/netfilter/nf_conntrack_tcp_timeout_time_wait"
	seconds, err := strconv.Atoi(e.Params[param])
	if protocol != lb.TCP || err != nil || seconds <= 0 {
		return ""
	}
	return fmt.Sprintf("; an ended connection keeps its port for %d s (%s), so they are enough for %d new ones a second", seconds, dotted(param), ports/seconds)
}

// sources are the addresses that a backend sees, as a name, and how many.
func sources(p *path) (string, int) {
	switch p.backend.SNAT.Mode {
	case lb.SNATPool:
		pool := p.backend.EffectiveSNAT()
		return pool.String(), len(pool.Pool)
	case lb.SNATVIP:
		n := 0
		var names []string
		for _, l := range p.listens {
			names = append(names, l.Prefix.String())
			n++
			if l.Prefix.IsValid() && !l.Prefix.IsSingleIP() {
				n += 1 << min(16, l.Prefix.Addr().BitLen()-l.Prefix.Bits()) // as many as clients ask for
			}
		}
		return strings.Join(names, ","), max(n, 1)
	}
	return "masquerade", 1
}

// capacity finds backends that have as many connections as max-connections lets
// them, and services with as many as half-open lets them. Connections whose ends are gone
// count until conntrack forgets them.
func (e *exam) capacity() {
	limited := e.halfOpen()
	for _, p := range e.paths {
		most := p.backend.MaxConnections
		if most == 0 {
			continue
		}
		limited = true
		use := e.Track.Uses[Key{p.profile, p.service.Name, p.backend.Address}]
		n := use.Live[lb.TCP] + use.Live[lb.UDP] + use.Live[lb.SCTP]
		if int64(n) < int64(most) {
			continue
		}
		why := "new ones go to other backends, or are refused"
		keeps, err := strconv.Atoi(e.Params["net/netfilter/nf_conntrack_tcp_timeout_established"])
		if own := p.service.Timeouts.Established; own > 0 {
			keeps, err = int(own.Seconds()), nil
		}
		if silent := keeps - use.Left; err == nil && use.Left > 0 && silent > 0 {
			why += fmt.Sprintf("; one of them has had no packet for %s. Connections whose ends have vanished count, too, until the kernel forgets them, after %s (timeouts: {established: 1h} in the profile)", span(silent), span(keeps))
		}
		e.add(Warn, p.subject(), fmt.Sprintf("it has %s, of max-connections %d", text.Count(n, "connection"), most), why,
			fmt.Sprintf("conntrack -L --reply-src %s", p.at))
	}
	e.fineIf(limited && e.Track.Listed, "no backend or service has all the connections that it may have")
}

// halfOpen finds services with as many half-open connections as they may have, and
// reports whether any service has such a limit.
func (e *exam) halfOpen() (limited bool) {
	for p, s := range lb.Services(e.Profiles) {
		most, n := int(s.Limit.HalfOpen), 0
		if most == 0 {
			continue
		}
		limited = true
		for _, b := range s.Backends {
			n += e.Track.Uses[Key{p.Name, s.Name, b.Address}].HalfOpen
		}
		if n < most {
			continue
		}
		why := "other new ones are refused"
		if s.SYNProtection != nil {
			why = "other new ones have to answer a cookie first"
		}
		e.add(Warn, p.Name+"/"+s.Name, fmt.Sprintf("it has %s, of half-open %d", text.Count(n, "half-open connection"), most),
			why+". Either somebody floods, or the limit is below a fifth of what is new in a second", "conntrack -L -p tcp --state SYN_RECV")
	}
	return limited
}

// few is how many connections say something about a backend.
const few = 5

// answers finds backends that do not answer.
func (e *exam) answers() {
	for _, p := range e.paths {
		use := e.Track.Uses[Key{p.profile, p.service.Name, p.backend.Address}]
		if n := use.Live[lb.UDP]; n >= few && use.Silent == n && e.othersAnswer(p) {
			e.add(Warn, p.subject(), fmt.Sprintf("it has answered none of its %d UDP flows, and others of its service answer", n),
				"conntrack has seen no datagram back: nothing listens there, or the answers do not come back through here", "conntrack -L -p udp --reply-src "+p.at.String())
		}
		n := use.Live[lb.TCP] + use.Live[lb.SCTP]
		if use.Unanswered < few || 2*use.Unanswered < n {
			continue
		}
		e.add(Warn, p.subject(), fmt.Sprintf("it has not answered %d of its %d connections", use.Unanswered, n),
			"conntrack has seen no packet back: nothing listens there, or the answers do not come back through here", "")
	}
	e.fineIf(len(e.paths) > 0 && e.Track.Listed, "no backend leaves its connections unanswered")
}

// othersAnswer reports whether another backend of a path's service answers UDP: not
// every protocol has answers.
func (e *exam) othersAnswer(p *path) bool {
	return slices.ContainsFunc(p.service.Backends, func(b lb.Backend) bool {
		use := e.Track.Uses[Key{p.profile, p.service.Name, b.Address}]
		return use.Live[lb.UDP] > use.Silent
	})
}

// gone finds connections of backends that are no more.
func (e *exam) gone() {
	var parts []string
	for _, proto := range []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP} {
		if n := e.Track.Gone.Live[proto]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, proto))
		}
	}
	if len(parts) > 0 {
		mend := e.apply("--cut")
		if mend == "" {
			mend = "nlb apply --cut PROFILE"
		}
		e.add(Warn, "", "live connections of backends that are gone: "+text.List(parts),
			"they go on until they end by themselves, or are cut", mend)
	}
	e.fineIf(e.Track.Listed, "no connections of backends that are gone")
}
