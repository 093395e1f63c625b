package compile

// Info: comments of rules and elements, which people read in a listing, and how
// they are read back.

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
	"nlb/nft/compile/border"
	"nlb/nft/compile/datagrams"
	"nlb/nft/compile/synproxy"
)

// poolInfo describes the rule that draws a backend of one family.
type poolInfo struct {
	family  lb.Family
	service *lb.Service // scheduler, hash, retry, fleet and on-empty only
	block   Block
}

// The names of more than three fields are too long for a comment. These are nft's.
var (
	shortFields = strings.NewReplacer("source-address", "saddr", "source-port", "sport", "destination-address", "daddr", "destination-port", "dport")
	longFields  = strings.NewReplacer("saddr", "source-address", "sport", "source-port", "daddr", "destination-address", "dport", "destination-port")
)

// String is at most 128 bytes, nft's limit for comments:
//
//	IPv4 round-robin slots 0+3
//	IPv6 hash source-address,protocol seed 77 slots 3+2+1 (one is parked)
//	IPv6 consistent saddr,sport,daddr,dport seed 77 slots 0+1021+10 (of its own)
//	IPv4 random slots 6+2 retry
//	IPv4 hash source-address seed 77 slots 6+2 fleet anycast
//	IPv4 random slots 6+0+2 on-empty drop
func (p poolInfo) String() string {
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	s := p.family.String() + " " + p.service.Scheduler.String()
	if p.service.Scheduler.Hashes() {
		var by []string
		for _, f := range p.service.HashBy {
			by = append(by, f.String())
		}
		fields := strings.Join(by, ",")
		if len(by) > 3 {
			fields = shortFields.Replace(fields)
		}
		s += " " + fields + " seed " + number(p.service.HashSeed)
	}
	s += " slots " + number(p.block.Base) + "+" + number(p.block.Slots)
	if p.block.Parked > 0 {
		s += "+" + number(p.block.Parked)
	}
	if p.service.Retry {
		s += " retry"
	}
	if p.service.Fleet != lb.FleetNone {
		s += fleetWord + p.service.Fleet.String()
	}
	if p.block.Slots == 0 && p.service.OnEmpty == lb.Drop {
		s += " on-empty drop"
	}
	return s
}

// draw is how a slot is drawn, and nothing else.
func (p poolInfo) draw() string {
	s := p.service
	return poolInfo{p.family, &lb.Service{Scheduler: s.Scheduler, HashBy: s.HashBy, HashSeed: s.HashSeed}, Block{Slots: p.block.Slots}}.String()
}

// parsePoolInfo reads what String writes.
func parsePoolInfo(s string) (poolInfo, bool) {
	p := poolInfo{}
	words := strings.Fields(s)
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		w := words[0]
		words = words[1:]
		return w
	}
	switch next() {
	case lb.IPv4.String():
		p.family = lb.IPv4
	case lb.IPv6.String():
		p.family = lb.IPv6
	default:
		return p, false
	}
	p.service = &lb.Service{}
	if lb.Read(&p.service.Scheduler, next()) != nil {
		return p, false
	}
	if p.service.Scheduler.Hashes() {
		for _, w := range strings.Split(longFields.Replace(next()), ",") {
			var f lb.HashField
			if lb.Read(&f, w) != nil {
				return p, false
			}
			p.service.HashBy = append(p.service.HashBy, f)
		}
		if _, err := fmt.Sscanf(next()+" "+next(), "seed %d", &p.service.HashSeed); err != nil {
			return p, false
		}
	}
	if next() != "slots" {
		return p, false
	}
	var ok bool
	if p.block, ok = parseBlock(next()); !ok {
		return p, false
	}
	p.block.Own = p.service.Scheduler.OwnSlots()
	if len(words) > 0 && words[0] == "retry" {
		p.service.Retry, words = true, words[1:]
	}
	if len(words) > 1 && words[0] == strings.TrimSpace(fleetWord) && lb.Read(&p.service.Fleet, words[1]) == nil {
		words = words[2:]
	}
	if strings.Join(words, " ") == "on-empty drop" {
		p.service.OnEmpty, words = lb.Drop, nil
	}
	return p, len(words) == 0
}

// parseBlock reads base+slots or base+slots+parked.
func parseBlock(s string) (Block, bool) {
	var b Block
	fields := []*uint32{&b.Base, &b.Slots, &b.Parked}
	parts := strings.Split(s, "+")
	if len(parts) < 2 || len(parts) > len(fields) {
		return b, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return b, false
		}
		*fields[i] = uint32(n)
	}
	// A block must not wrap around: its end is compared.
	return b, uint64(b.Base)+uint64(b.Slots)+uint64(b.Parked) < 1<<32
}

// ReadDraw reads the comment of the rule that draws a backend of one family: where
// its slots are, and into the service the scheduler, its hash, retry, fleet and
// on-empty.
func ReadDraw(comment string, s *lb.Service) (family lb.Family, b Block, ok bool) {
	p, ok := parsePoolInfo(comment)
	if !ok {
		return family, b, false
	}
	s.Scheduler, s.HashBy, s.HashSeed, s.Retry, s.Fleet = p.service.Scheduler, p.service.HashBy, p.service.HashSeed, p.service.Retry, p.service.Fleet
	if p.service.OnEmpty != lb.Reject {
		s.OnEmpty = p.service.OnEmpty // told by the families that are empty
	}
	return p.family, p.block, true
}

const (
	modeWord   = "mode "
	fleetWord  = " fleet "
	beforeWord = "before "
)

// modeComment says that another table has the packets of a service, which this one lets
// pass: "mode dsr remember 1m0s".
func modeComment(s *lb.Service) string {
	out := modeWord + s.Mode.String()
	if s.Remember > 0 {
		out += " remember " + s.Remember.String()
	}
	return out
}

func readMode(comment string, s *lb.Service) bool {
	mode, remember, _ := strings.Cut(comment, " remember ")
	word, ok := strings.CutPrefix(mode, modeWord)
	var m lb.Mode
	if !ok || lb.Read(&m, word) != nil || !m.Direct() {
		return false
	}
	s.Mode, s.OnEmpty = m, lb.Drop
	if t, err := time.ParseDuration(remember); err == nil && lb.CheckRemember(t) == nil {
		s.Remember = t
	}
	return true
}

// ReadRule reads the comment of another rule of a service into it: its mode, its role, who may
// connect, limits, log, timeouts, affinity. It passes over what it does not know. clients returns the prefixes of a set.
func ReadRule(comment string, s *lb.Service, clients func(set string) []netip.Prefix) {
	switch {
	case comment == "role server":
		s.Role = lb.RoleServer
	case comment == dropsComment:
		s.OnRefuse = lb.Drop
	case !border.ReadNote(comment, s) && !datagrams.ReadNote(comment, s) && !synproxy.ReadNote(comment, s) && !readMode(comment, s) && !readTimeouts(comment, s) && !readGuard(comment, s, clients):
		readAffinity(comment, s)
	}
}

// ReadBackendRule reads the comment of a rule of a backend's own chain into the
// backend, and reports whether somebody else counts its connections.
func ReadBackendRule(comment string, b *lb.Backend) (counted bool) {
	if _, err := fmt.Sscanf(comment, "max-connections %d", &b.MaxConnections); err != nil {
		b.Log = readLog(strings.TrimPrefix(comment, "log "))
	}
	return comment == limitComment(b.MaxConnections)+countedMark
}

// sourcesComment says where the SNAT addresses of a pool are.
func sourcesComment(f lb.Family, b Block) string {
	return fmt.Sprintf("%s sources %d+%d", f, b.Base, b.Slots)
}

// ReadSources reads where the SNAT addresses of a pool are, from the comment of its rule.
func ReadSources(comment string) (b Block, ok bool) {
	words := strings.Fields(comment)
	if len(words) != 3 || words[1] != "sources" || words[0] != lb.IPv4.String() && words[0] != lb.IPv6.String() {
		return b, false
	}
	return parseBlock(words[2])
}

// backendComment holds what the other elements do not say: a name that is not
// the address, a weight that is not the number of slots, or that hardly ever is, a
// priority that is not 1, a share that is not the whole, a source that
// the host has chosen, a state that is not up:
// "name b1 weight 5 priority 2 share 3 down".
func backendComment(b lb.Backend, slots int, weighs bool) string {
	var parts []string
	if b.Renamed() {
		parts = append(parts, "name "+b.Name)
	}
	if (weighs || b.Weight != slots) && b.Weight != 0 {
		parts = append(parts, fmt.Sprintf("weight %d", b.Weight))
	}
	if b.Priority > 1 {
		parts = append(parts, fmt.Sprintf("priority %d", b.Priority))
	}
	if b.Share != 0 {
		parts = append(parts, fmt.Sprintf("share %d", b.Share))
	}
	if b.SNAT.Auto {
		parts = append(parts, lb.SNATAuto)
	}
	if b.State != lb.Up {
		parts = append(parts, b.State.String())
	}
	return strings.Join(parts, " ")
}

// ReadBackend reads the comment of a backend's element into the backend, which has
// the values of a backend without a comment. It passes over what it does not know
// and over numbers that no backend has.
func ReadBackend(comment string, b *lb.Backend) {
	words := strings.Fields(comment)
	for i := 0; i < len(words); i++ {
		word, value := words[i], ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		n, err := strconv.Atoi(value)
		within := func(most int) bool { return err == nil && 0 < n && n <= most }
		switch {
		case word == lb.SNATAuto:
			b.SNAT.Auto = true
			continue
		case word == "name" && value != "":
			b.Name = value
		case word == "weight" && within(lb.MaxWeight):
			b.Weight = n
		case word == "priority" && within(lb.MaxPriority):
			b.Priority = n
		case word == "share" && within(2*lb.Shares):
			b.Share = uint8(n)
		default:
			_ = lb.Read(&b.State, word)
			continue
		}
		i++
	}
}

// unknownLayout is later than every layout that we know.
const unknownLayout = 1 << 30

// LayoutOf reads the version of a layout from the comment of a table, or of the
// element; 0: the comment is none of ours.
func LayoutOf(comment string) int {
	if !strings.HasPrefix(comment, ourTables) {
		return 0
	}
	_, text, _ := strings.Cut(comment, "; layout ")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return unknownLayout
	}
	return n
}
