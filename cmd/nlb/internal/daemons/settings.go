package daemons

// Settings: the place in a network that a configuration is for. Examples stand for
// what is not said.

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// settings are a host's place in its network.
type settings struct {
	Self          netip.Addr
	Peers         []netip.Addr // other balancers
	AS            uint32
	Front, Back   []router // towards the clients, and the servers
	Interface     string   // towards the peers
	BackInterface string   // empty: the servers have no gateway that moves
	BackAddresses []netip.Prefix
	VRID          int
	Priority      int
	TrackFile     string
	Group         netip.Addr
	said          []string
}

// router is a neighbour of BGP.
type router struct {
	Addr netip.Addr
	AS   uint32
}

// Version is 4 or 6.
func (r router) Version() int {
	if r.Addr.Is6() {
		return 6
	}
	return 4
}

// Family is a channel of BIRD.
func (r router) Family() string { return fmt.Sprintf("ipv%d", r.Version()) }

// defaults are examples, of addresses and numbers that are set aside for these (RFC
// 5737, RFC 6996), and what needs no other value.
var defaults = settings{
	Self: netip.MustParseAddr("192.0.2.1"), Peers: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, AS: 64512,
	Front: []router{{netip.MustParseAddr("192.0.2.254"), 64513}}, Interface: "eth0",
	VRID: 51, Priority: 254, TrackFile: "/var/lib/nlb/fault", Group: netip.MustParseAddr("225.0.0.50"),
}

// needed are the settings of each daemon that an example stands for.
var needed = map[string][]string{
	"bird": {"self", "as", "front"}, "frr": {"self", "as", "front"},
	"keepalived": {"self", "peer", "interface"}, "conntrackd": {"self", "peer", "interface"},
}

// setting is one that can be said.
type setting struct {
	name, form string
	read       func(s *settings, value string) error
}

var all = []setting{
	{"self", "an address of this host, which the peers and routers know", func(s *settings, v string) error { return address(v, &s.Self) }},
	{"peer", "an address of another balancer; several for a mesh", func(s *settings, v string) error { return added(v, "peer", s, &s.Peers, address) }},
	{"as", "this host's AS number", func(s *settings, v string) error { return asNumber(v, &s.AS) }},
	{"front", "a router of the clients, ADDRESS/AS", func(s *settings, v string) error { return added(v, "front", s, &s.Front, neighbour) }},
	{"back", "a router of the servers, ADDRESS/AS", func(s *settings, v string) error { return added(v, "back", s, &s.Back, neighbour) }},
	{"interface", "towards the peers", func(s *settings, v string) error { return device(v, &s.Interface) }},
	{"back-interface", "towards the servers", func(s *settings, v string) error { return device(v, &s.BackInterface) }},
	{"back-address", "the servers' gateway, which moves: ADDRESS/LENGTH", func(s *settings, v string) error {
		return added(v, "back-address", s, &s.BackAddresses, func(v string, into *netip.Prefix) (err error) { *into, err = netip.ParsePrefix(v); return err })
	}},
	{"vrid", "1 to 254, another one for each pair of a network", func(s *settings, v string) error { return ranged(v, 1, 254, &s.VRID) }},
	{"priority", "1 to 254", func(s *settings, v string) error { return ranged(v, 1, 254, &s.Priority) }},
	{"track-file", "that of nlb run", func(s *settings, v string) error { return path(v, &s.TrackFile) }},
	{"group", "an IPv4 multicast address, for a mesh", func(s *settings, v string) error { return multicast(v, &s.Group) }},
}

// read takes settings, name=value.
func (s *settings) read(with []string) error {
	for _, one := range with {
		name, value, ok := strings.Cut(one, "=")
		at := slices.IndexFunc(all, func(k setting) bool { return k.name == name })
		if at < 0 || !ok {
			var forms []string
			for _, k := range all {
				forms = append(forms, k.name)
			}
			return fmt.Errorf("%q is no setting: want NAME=VALUE, with %s", one, text.List(forms))
		}
		if err := all[at].read(s, value); err != nil {
			return fmt.Errorf("%s: want %s (%w)", one, all[at].form, err)
		}
		s.said = append(s.said, name)
	}
	if (s.BackInterface == "") != (len(s.BackAddresses) == 0) {
		return fmt.Errorf("back-interface and back-address go together")
	}
	return nil
}

// added appends a value; the first one takes the place of the examples.
func added[T any](v, name string, s *settings, into *[]T, read func(string, *T) error) error {
	var one T
	if err := read(v, &one); err != nil {
		return err
	}
	if !slices.Contains(s.said, name) {
		*into = nil
	}
	*into = append(*into, one)
	return nil
}

func address(v string, into *netip.Addr) (err error) {
	*into, err = netip.ParseAddr(v)
	if err == nil && into.Zone() != "" {
		err = fmt.Errorf("it has a zone")
	}
	return err
}

func multicast(v string, into *netip.Addr) error {
	err := address(v, into)
	if err == nil && !(into.Is4() && into.IsMulticast()) {
		err = fmt.Errorf("it is none")
	}
	return err
}

func neighbour(v string, into *router) error {
	addr, as, ok := strings.Cut(v, "/")
	if !ok {
		return fmt.Errorf("it has no AS number")
	}
	if err := address(addr, &into.Addr); err != nil {
		return err
	}
	return asNumber(as, &into.AS)
}

func asNumber(v string, into *uint32) error {
	n, err := strconv.ParseUint(v, 10, 32)
	*into = uint32(n)
	if err == nil && n == 0 {
		err = fmt.Errorf("0 is none")
	}
	return err
}

func ranged(v string, least, most int, into *int) error {
	n, err := strconv.Atoi(v)
	*into = n
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("it is out of range")
	}
	return err
}

func device(v string, into *string) error {
	*into = v
	if p := lb.CheckInterface(v); p != nil {
		return p
	}
	if strings.HasSuffix(v, "*") {
		return fmt.Errorf("it is more than one")
	}
	return nil
}

// path takes a file that needs no quoting anywhere.
func path(v string, into *string) error {
	*into = v
	if !strings.HasPrefix(v, "/") || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'\\#!{}", r) }) {
		return fmt.Errorf("it is no whole path of plain characters")
	}
	return nil
}

// RouterID is that of BGP, an IPv4 address.
func (s *settings) RouterID() netip.Addr {
	if s.Self.Is4() {
		return s.Self
	}
	return netip.AddrFrom4([4]byte(s.Self.AsSlice()[12:])) // any number that others do not have
}

// Peer is the other one of a pair.
func (s *settings) Peer() netip.Addr { return s.Peers[0] }

// Mesh reports whether there are more than two balancers.
func (s *settings) Mesh() bool { return len(s.Peers) > 1 }

// Version is how conntrackd calls the family of the addresses.
func (s *settings) Version() string { return version(s.Self) }

// BackVRID is another one than VRID.
func (s *settings) BackVRID() int { return s.VRID%254 + 1 }
