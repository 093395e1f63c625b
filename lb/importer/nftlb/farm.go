package nftlb

// Farms: each becomes a service.

import (
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

// known are the keys of a farm that are read here, and last those that say nothing that
// matters for a profile.
var known = importer.Words(`
	name family virtual-addr virtual-ports source-addr mode protocol scheduler sched-param persistence persist-ttl helper log log-prefix log-rtlimit mark
	priority limits-ttl new-rtlimit new-rtlimit-burst rst-rtlimit rst-rtlimit-burst est-connlimit tcp-strict verdict flow-offload intra-connect queue
	state addresses backends sessions policies new-rtlimit-log-prefix rst-rtlimit-log-prefix est-connlimit-log-prefix tcp-strict-log-prefix iface oface
	ether-addr iether-addr oether-addr fqdn responsettl
`)

// addressKeys are those of an address.
var addressKeys = importer.Words("name family ip-addr ports protocol log-prefix log-rtlimit ether-addr iface policies used verdict")

// farm reads a farm and adds what it becomes.
func (r *reader) farm(o *document.Node) {
	place := lineOf(o)
	name := r.text(o, "name", "")
	if name == "" {
		r.Fail(o.Place, "a farm has no name", `"name"`)
		return
	}
	r.keys(o, known)
	switch state := r.text(o, "state", "up"); state {
	case "up":
	case "down", "off", "config_error":
		r.Note("this farm is "+state+", so it is left out", "", at(o, "state"))
		return
	default:
		r.Fail(at(o, "state"), fmt.Sprintf("unknown state %q", state), "up, down or off")
	}
	s := lb.Service{Name: name}
	switch mode := r.text(o, "mode", ""); mode {
	case "snat":
	case "dnat":
		s.SNAT.Mode = lb.SNATNone
	case "dsr", "stlsdnat", "local":
		why := map[string]string{
			"dsr": "direct server return", "stlsdnat": "DNAT without connection tracking", "local": "a farm for programs of this host",
		}[mode]
		r.Lost(fmt.Sprintf("mode %s (%s) is not translated, so this farm is left out", mode, why), "", at(o, "mode"))
		return
	default:
		r.Fail(at(o, "mode"), fmt.Sprintf("unknown mode %q", mode), "snat, dnat, dsr, stlsdnat or local")
	}
	listens := r.listens(o)
	r.scheduler(o, &s)
	r.persistence(o, &s)
	r.limits(o, &s)
	r.log(o, &s)
	r.clients(o, &s)
	r.others(o)
	backends := r.backends(o, &s)
	if len(listens) == 0 {
		r.Lost("this farm has no address, so it is left out", "", place)
		return
	}
	for _, l := range listens {
		one := s
		one.Protocols, one.Listen = l.protocols, l.listen
		if len(listens) > 1 {
			one.Name += "-" + l.protocols[0].String()
		}
		r.sources(o, &one)
		one.Backends = slices.Clone(backends)
		for i := range one.Backends {
			b := &one.Backends[i]
			if b.SNAT.Mode != lb.SNATPool || one.SNAT.Mode == lb.SNATNone {
				b.SNAT = one.SNAT
			}
			b.Log = one.Log
		}
		r.Add(one, place, "farm "+name+", line "+strconv.Itoa(place.Line))
	}
}

// listen is where a farm listens, for each set of protocols.
type listen struct {
	protocols []lb.Protocol
	listen    []lb.Listen
}

// listens reads virtual-addr, or the addresses that a farm refers to.
func (r *reader) listens(o *document.Node) []listen {
	var out []listen
	add := func(from *document.Node, address, ports string) {
		a := r.address(from, address)
		protocols := r.protocols(from)
		ranges := r.ports(from, ports)
		if !a.IsValid() || protocols == nil || ranges == nil {
			return
		}
		if f := r.text(from, "family", ""); f == "ipv4" && a.Is6() || f == "ipv6" && a.Is4() {
			r.Fail(at(from, "family"), fmt.Sprintf("family %s, and the address is %s", f, a), "the family of the address")
			return
		}
		i := slices.IndexFunc(out, func(l listen) bool { return slices.Equal(l.protocols, protocols) })
		if i < 0 {
			i = len(out)
			out = append(out, listen{protocols: protocols})
		}
		one := lb.Listen{Prefix: netip.PrefixFrom(a, a.BitLen()), Ports: ranges}
		// What nftlb prints has the address of the farm and the object made of it.
		if !slices.ContainsFunc(out[i].listen, func(o lb.Listen) bool { return o.Prefix == one.Prefix && slices.Equal(o.Ports, one.Ports) }) {
			out[i].listen = append(out[i].listen, one)
		}
	}
	add(o, "virtual-addr", "virtual-ports")
	for _, ref := range r.objects(o.Get("addresses")) {
		from := ref
		if name := r.text(ref, "name", ""); ref.Get("ip-addr") == nil {
			if from = r.addresses[name]; from == nil {
				r.Fail(ref.Place, fmt.Sprintf("there is no address %q", name), `one of "addresses"`)
				continue
			}
			r.used[from] = true
		}
		r.keys(from, addressKeys)
		r.verdict(from)
		add(from, "ip-addr", "ports")
	}
	return out
}

func (r *reader) protocols(o *document.Node) []lb.Protocol {
	text := r.text(o, "protocol", "tcp")
	if text == "all" {
		r.Lost("connections of protocols other than TCP, UDP and SCTP are not in the profile", "", at(o, "protocol"))
		return []lb.Protocol{lb.TCP, lb.UDP, lb.SCTP}
	}
	var p lb.Protocol
	if lb.Read(&p, text) != nil {
		r.Fail(at(o, "protocol"), fmt.Sprintf("unknown protocol %q", text), "tcp, udp, sctp or all")
		return nil
	}
	return []lb.Protocol{p}
}

// sources reads source-addr: what backends see.
func (r *reader) sources(o *document.Node, s *lb.Service) {
	a := r.address(o, "source-addr")
	if !a.IsValid() || s.SNAT.Mode == lb.SNATNone {
		return
	}
	s.SNAT = lb.SNAT{Mode: lb.SNATPool, Pool: []netip.Addr{a}}
	if len(s.Listen) == 1 && s.Listen[0].Prefix.Addr() == a {
		s.SNAT = lb.SNAT{Mode: lb.SNATVIP}
	}
}

// fields are what nftlb hashes by.
var fields = map[string]lb.HashField{
	"srcip": lb.SourceAddress, "srcport": lb.SourcePort, "dstip": lb.DestinationAddress, "dstport": lb.DestinationPort,
}

func (r *reader) scheduler(o *document.Node, s *lb.Service) {
	switch text := r.text(o, "scheduler", "rr"); text {
	case "rr":
	case "weight":
		s.Scheduler = lb.Random
	case "hash":
		s.Scheduler = lb.Hash
		for word := range strings.FieldsSeq(r.text(o, "sched-param", "")) {
			f, ok := fields[word]
			switch {
			case ok && !slices.Contains(s.HashBy, f):
				s.HashBy = append(s.HashBy, f)
			case ok || word == "none":
			case word == "srcmac" || word == "dstmac":
				r.Lost("a hash by "+word+" is not translated", "", at(o, "sched-param"))
			default:
				r.Fail(at(o, "sched-param"), fmt.Sprintf("unknown sched-param %q", word), "srcip, dstip, srcport, dstport, srcmac, dstmac or none")
			}
		}
		if s.HashBy == nil {
			s.HashBy = []lb.HashField{lb.SourceAddress}
		}
		slices.Sort(s.HashBy)
		r.Note("the hash is another than nftlb's: a client may meet another backend than before", "", at(o, "scheduler"))
	case "symhash":
		s.Scheduler = lb.Hash
		s.HashBy = []lb.HashField{lb.SourceAddress, lb.SourcePort, lb.DestinationAddress, lb.DestinationPort, lb.ByProtocol}
		r.Note("symhash is the same for both directions of a connection; the profile's hash is by the same fields of the first packet", "", at(o, "scheduler"))
	default:
		r.Fail(at(o, "scheduler"), fmt.Sprintf("unknown scheduler %q", text), "rr, weight, hash or symhash")
	}
}

func (r *reader) persistence(o *document.Node, s *lb.Service) {
	words := strings.Fields(r.text(o, "persistence", "none"))
	seconds := r.number(o, "persist-ttl", 60, 365*24*3600)
	switch {
	case len(words) == 0 || slices.Equal(words, []string{"none"}):
		return
	case slices.Equal(words, []string{"srcip"}) && seconds > 0:
		s.Affinity = &lb.Affinity{Timeout: time.Duration(seconds) * time.Second, Bits: 32, Bits6: 128}
	default:
		r.Lost("persistence by "+strings.Join(words, " ")+" is not translated", "affinity: is by the client's address or network", at(o, "persistence"))
	}
}

// others reads keys that have no equivalent.
func (r *reader) others(o *document.Node) {
	lost := func(key, msg, hint string) { r.Lost(msg, hint, at(o, key)) }
	if h := r.text(o, "helper", "none"); h != "none" {
		lost("helper", "helper "+h+" is not translated", "")
	}
	if m := r.text(o, "mark", "0x0"); strings.Trim(m, "0x") != "" {
		lost("mark", "mark "+m+" is not in the profile: nlb sets marks of connections of its own, and none of packets", "")
	}
	if r.rate(o, "rst-rtlimit").Events > 0 {
		lost("rst-rtlimit", "a limit of TCP resets is not translated", "")
	}
	if r.on(o, "tcp-strict") {
		lost("tcp-strict", "tcp-strict is not translated", "")
	}
	if r.on(o, "flow-offload") {
		r.Note("flow-offload is not in the profile: it makes connections cheaper, and does not choose backends", "", at(o, "flow-offload"))
	}
	if q := r.text(o, "queue", "-1"); q != "-1" {
		lost("queue", "packets are not given to user space: queue is not translated", "")
	}
	if !r.on(o, "intra-connect") {
		r.Note("without intra-connect, nftlb balances what comes from the network only; the profile also what this host itself sends", "", lineOf(o))
	}
	r.verdict(o)
	for _, n := range r.objects(o.Get("sessions")) {
		if n.Get("expiration") != nil {
			r.Note("sessions that end by themselves are not in the profile", "", lineOf(n))
		} else {
			r.Lost("fixed sessions of clients are not translated", "", lineOf(n))
		}
	}
}

func (r *reader) verdict(o *document.Node) {
	if v := r.text(o, "verdict", ""); v != "" && !strings.Contains(v, "drop") {
		r.Lost("verdict "+v+" lets pass what is over a limit; the profile refuses it", "", at(o, "verdict"))
	}
}
