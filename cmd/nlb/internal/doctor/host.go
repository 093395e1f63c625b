package doctor

// A host, as plain values.

import (
	"net/netip"
	"slices"

	"nlb/cmd/nlb/internal/doctor/firewall"
	"nlb/lb"
)

// Host is a picture of a host. What could not be looked at is in Unseen, and
// zero here.
type Host struct {
	// Kernel is its version: 6.18.1.
	Kernel string
	// Reads are helpers (lb.Helper) that read what connections announce, and do not
	// translate it: a module is not loaded, which the kernel loads for nobody.
	Reads []string
	// Admin says that this process has CAP_NET_ADMIN in its network namespace.
	Admin bool
	// Unseen says what could not be looked at, and why; Blind has the checks
	// that could not look for it.
	Unseen []string
	Blind  map[string]bool
	// Broken says that nftables does not answer at all; empty: it does.
	Broken string
	// Missing are the parts of nftables that the kernel refuses, of those that
	// the profiles need, or of all where there are none.
	Missing []Missing
	// Params are kernel parameters by their names, with slashes throughout:
	// net/ipv4/ip_forward. One that is not there has no entry.
	Params map[string]string
	// Fixed says that kernel parameters cannot be written here.
	Fixed bool
	// Links are all links.
	Links []Link
	// Routes are the kernel's answers to the questions that Questions asks.
	Routes map[Question]Route
	// MACs are the addresses of neighbours that Neighbours asks for; none: nobody
	// answers.
	MACs map[Neighbour]string
	// RuleMasks are the parts of a packet's mark that rules for routing look at.
	RuleMasks []uint32
	// ReverseDrops counts packets that rp_filter has dropped since the network
	// namespace came.
	ReverseDrops uint64
	// Tables are the rules of others.
	Tables []*firewall.Table
	// Ours is the state of nlb's own table.
	Ours Table
	// Sockets are those that wait for clients.
	Sockets []Socket
	// Track is conntrack.
	Track Track
	// Offload is what becomes of services that want to be offloaded.
	Offload Offload
	// Agent is nlb run.
	Agent Agent
	// Announced are the addresses that nlb run has made.
	Announced []netip.Addr
	// Daemons are those of a fleet that run in this network namespace, by their names.
	Daemons map[string]Daemon

	holders map[netip.Addr]*Link // see holder
}

// Missing is a part of nftables that the kernel refuses.
type Missing struct {
	Name, For, Since, Module, Answer string
}

// Link is a network interface.
type Link struct {
	Name  string
	Index int
	MTU   int // in bytes
	// Up says that it is on, and has a carrier where it can know.
	Up       bool
	Loopback bool
	// Bridge says that it is a bridge; Master is the name of the bridge, or
	// other link, that it is a port of.
	Bridge bool
	Master string
	// Hairpin says that it passes frames back by the port of a bridge that it is.
	Hairpin bool
	Addrs   []Addr
}

// Addr is an address of a link, with the network that is reached over it.
type Addr struct {
	netip.Prefix
	// Advertised says that it was made from a router's advertisement.
	Advertised bool
	// Second says that masquerading passes it by: it comes behind another address of its
	// network, or is of this link alone.
	Second bool
}

// Question asks for the way of a packet. Without In it is one that the host
// sends itself.
type Question struct {
	To   netip.Addr
	From netip.Addr // zero: any of the host's own
	In   string     // the link that it comes by
}

// Way is what the kernel does with a packet.
type Way uint8

// The ways.
const (
	Nowhere     Way = iota // there is no route
	Out                    // out of a link
	Local                  // it is for the host itself
	Blackhole              // a route says: drop it
	Unreachable            // a route says: refuse it
	Prohibited             // a route says: forbidden
	Refused                // what comes by the link is not let in
)

// Route is an answer.
type Route struct {
	Way     Way
	Link    string     // of Out and Local
	Gateway netip.Addr // zero: the destination is on the link
	Source  netip.Addr // of what this host sends itself; zero: it has none
	// Advertised says that a router's advertisement made the route.
	Advertised bool
}

// Table is nlb's own table, against what nlb made of it.
type Table struct {
	// Exists says that it is there.
	Exists bool
	// Foreign says that it is not nlb's, or of another version: why it cannot
	// be read.
	Foreign string
	Dormant bool
	// Handle tells how old it is, beside those of other tables.
	Handle uint64
	// Profiles are the names of those in it.
	Profiles []string
	// Drift is what nlb did not put there, by object. Untouched says that nobody has
	// changed anything since the last apply: then another version of nlb made the table.
	Drift     []Drift
	Untouched bool
	// Absent are the profiles that were asked for and are not there.
	Absent []string
	// Differs are the objects that an apply of the profiles would change, one
	// line each.
	Differs []string
	// Taken says which services in the kernel claim what the profiles listen
	// on.
	Taken []string
	// Repair says that an apply would change what is no difference of profiles.
	Repair bool
	// Held is what it holds, with the states of backends.
	Held []*lb.Profile
	// Fallen are the backends that it holds for down.
	Fallen []Fallen
	// Found are the kernel parameters that nlb has set, as they were before:
	// net.ipv4.ip_forward.
	Found map[string]string
}

// Socket is a socket of this host that waits for clients: TCP that listens, UDP
// that is not connected.
type Socket struct {
	Protocol lb.Protocol
	At       netip.AddrPort
	// Both says that one of IPv6 takes IPv4, too.
	Both bool
}

// takes reports whether a socket gets what is for an address of this host.
func (s Socket) takes(a netip.Addr) bool {
	own := s.At.Addr()
	return own == a || own.IsUnspecified() && (own.Is4() == a.Is4() || s.Both)
}

// Drift is a difference in one object: chain prerouting.
type Drift struct {
	Object, What string
	// Foreign: the object is not of nlb, so that an apply leaves it alone.
	Foreign bool
	// Handles are those of rules that are not of nlb.
	Handles []uint64
}

// Track is conntrack.
type Track struct {
	// Known says that its size is known.
	Known      bool
	Count, Max int
	// Counted says that its statistics are known, since the namespace came.
	Counted                       bool
	InsertFailed, Drop, EarlyDrop uint64
	// Listed says that its entries could be read.
	Listed bool
	// Uses has what it holds for a backend.
	Uses map[Key]Use
	// Gone is what it holds for backends that are no more.
	Gone Use
}

// Key names a backend.
type Key struct {
	Profile, Service string
	Address          lb.Endpoint
}

// Use is what conntrack holds for a backend.
type Use struct {
	// Entries counts by protocol, those of connections that are over included.
	Entries map[lb.Protocol]int
	// Live counts those that are not over.
	Live map[lb.Protocol]int
	// Unanswered counts live TCP and SCTP connections that the backend has not
	// answered, Silent such UDP flows. Own are the TCP and SCTP connections that it has
	// begun itself, those that have ended included; it has answered Met of them.
	// HalfOpen counts TCP connections whose clients have not completed them.
	Unanswered, Silent, Own, Met, HalfOpen int
	// Left is in how many seconds the established TCP connection is forgotten that
	// has been without a packet for longest; 0: there is none.
	Left int
}

// link finds a link by its name; nil where there is none.
func (h *Host) link(name string) *Link {
	i := slices.IndexFunc(h.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &h.Links[i]
}

// holder finds the link that has an address as its own.
func (h *Host) holder(a netip.Addr) *Link {
	if h.holders == nil {
		h.holders = map[netip.Addr]*Link{}
		for i := range slices.Backward(h.Links) {
			for _, own := range h.Links[i].Addrs {
				h.holders[own.Addr()] = &h.Links[i]
			}
		}
	}
	return h.holders[a]
}

// neighbour finds a link, not the loopback, that reaches an address directly,
// by the network of one of its addresses.
func (h *Host) neighbour(a netip.Addr) (*Link, netip.Prefix) {
	for i := range h.Links {
		if h.Links[i].Loopback {
			continue
		}
		for _, own := range h.Links[i].Addrs {
			if own.Contains(a) && !own.IsSingleIP() {
				return &h.Links[i], own.Masked()
			}
		}
	}
	return nil, netip.Prefix{}
}

// distant are addresses that nothing but a default route leads to: of networks
// that nobody has (RFC 7526, RFC 6666).
var distant = map[lb.Family]netip.Addr{
	lb.IPv4: netip.MustParseAddr("192.88.99.1"),
	lb.IPv6: netip.MustParseAddr("100::1"),
}

// uplink is the route to what is far away.
func (h *Host) uplink(f lb.Family) Route { return h.Routes[Question{To: distant[f]}] }
