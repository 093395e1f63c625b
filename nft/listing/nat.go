//go:build linux

package listing

// NAT: where registers say that connections go.

import (
	"bytes"

	"golang.org/x/sys/unix"

	"nlb/nft/wire"
)

// Flags of NAT (linux/netfilter/nf_nat.h).
const (
	natRandom     = 1 << 2
	natPersistent = 1 << 3
	natFully      = 1 << 4
)

func natFlags(n uint32) []string {
	out := []string{}
	if n&(natRandom|natFully) != 0 {
		out = append(out, "random")
	}
	if n&natPersistent != 0 {
		out = append(out, "persistent")
	}
	return out
}

// ports are those in two registers.
func (p *program) ports(low, high uint32) any {
	first := p.registers[at(low)]
	last := first
	if high != 0 {
		last = p.registers[at(high)]
	}
	if first.elements != nil {
		return first.mapped(func(data []byte) any { return value(big, data[:min(2, len(data))]) })
	}
	if len(first.data) < 2 || len(last.data) < 2 {
		return object{"of this kind": nil}
	}
	return between(big, first.data[:2], last.data[:2])
}

func (p *program) nat(b []byte) {
	num := func(typ uint16) uint32 { return wire.Uint32(wire.Attr(b, typ)) }
	n := object{"family": map[uint32]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6"}[num(unix.NFTA_NAT_FAMILY)], "flags": natFlags(num(unix.NFTA_NAT_FLAGS))}
	size := 4
	if n["family"] == "ip6" {
		size = 16
	}
	addr, port := num(unix.NFTA_NAT_REG_ADDR_MIN), num(unix.NFTA_NAT_REG_PROTO_MIN)
	o := p.registers[at(addr)]
	joined := addr != 0 && port != 0 && o.elements != nil && at(port) == at(addr)+uint32(size/4) // both are of the map
	switch {
	case addr == 0:
	case o.elements != nil:
		n["addr"] = o.mapped(func(data []byte) any {
			if len(data) < size || joined && len(data) < size+2 {
				return nil
			}
			if joined {
				return object{"concat": []any{value(address, data[:size]), value(big, data[size:size+2])}}
			}
			return value(address, data[:size])
		})
	default:
		last := p.registers[at(max(addr, num(unix.NFTA_NAT_REG_ADDR_MAX)))]
		if num(unix.NFTA_NAT_REG_ADDR_MAX) == 0 {
			last = o
		}
		n["addr"] = between(address, o.data, last.data)
	}
	if addr != 0 && n["addr"] == nil {
		n["addr"] = object{"of this kind": nil}
	}
	if port != 0 && !joined {
		n["port"] = p.ports(port, num(unix.NFTA_NAT_REG_PROTO_MAX))
	}
	p.say(map[bool]string{true: "dnat", false: "snat"}[num(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT], n)
}

// xtMatch is a match of iptables-nft.
func (p *program) xtMatch(name string, rev uint32, info []byte) {
	port := operand{expr: object{"payload": object{"protocol": "th", "field": "dport"}}, kind: big, n: 2}
	switch {
	case name == "comment":
		p.comment = wire.Text(info)
	case name == "tcp" && len(info) >= 12 && bytes.Equal(info[8:12], []byte{0, 0, 0, 0}) && everyPort(info[:4]),
		name == "udp" && len(info) >= 9 && info[8] == 0 && everyPort(info[:4]):
		// struct xt_tcp, xt_udp: spts[2], dpts[2], then flags that are 0 here
		if !everyPort(info[4:8]) {
			p.match("==", port, object{"range": []any{host.Uint16(info[4:]), host.Uint16(info[6:])}})
		}
	case name == "statistic" && len(info) >= 16:
		p.statistic(info)
	case name == "mark" && rev == 1 && len(info) >= 9, name == "connmark" && rev == 1 && len(info) >= 9: // mark, mask, invert
		o := keyed(map[bool]string{true: "meta", false: "ct"}[name == "mark"], operand{expr: "mark"})
		o.expr = object{"&": []any{o.expr, host.Uint32(info[4:])}}
		p.match(map[bool]string{true: "!=", false: "=="}[info[8] != 0], o, host.Uint32(info))
	default:
		p.say("xt", object{"type": "match", "name": name})
	}
}

func everyPort(b []byte) bool { return host.Uint16(b) == 0 && host.Uint16(b[2:]) == 65535 }

// statistic is struct xt_statistic_info: mode, flags, then a probability, or every,
// packet, count.
func (p *program) statistic(info []byte) {
	const nth, inverted = 1, 1
	op := map[bool]string{true: "!=", false: "=="}[host.Uint16(info[2:])&inverted != 0]
	if host.Uint16(info) == nth {
		every := host.Uint32(info[4:]) + 1
		p.match(op, operand{expr: object{"numgen": object{"mode": "inc", "mod": every, "offset": 0}}}, host.Uint32(info[8:]))
		return
	}
	op = map[string]string{"==": "<", "!=": ">="}[op]
	p.match(op, operand{expr: object{"numgen": object{"mode": "random", "mod": uint32(1) << 31, "offset": 0}}}, host.Uint32(info[4:]))
}

// xtTarget is a target of iptables-nft.
func (p *program) xtTarget(name string, rev uint32, info []byte) {
	switch {
	case (name == "DNAT" || name == "SNAT" || name == "REDIRECT") && p.xtNAT(name, rev, info):
	case name == "MASQUERADE" && len(info) >= 8: // as in xtNAT
		flags := info[map[string]int{"ip": 4, "ip6": 0}[p.family]:]
		p.say("masquerade", object{"flags": natFlags(host.Uint32(flags))})
	case name == "MARK" && rev == 2 && len(info) >= 8 && host.Uint32(info[4:]) == 1<<32-1: // mark, mask
		p.say("mangle", object{"key": object{"meta": object{"key": "mark"}}, "value": host.Uint32(info)})
	case name == "TCPMSS" || name == "CHECKSUM" || name == "LOG":
	default:
		p.say("xt", object{"type": "target", "name": name})
	}
}

// xtNAT reads struct nf_nat_range(2): flags, two addresses of 16 bytes, two ports, and in
// range2 a base; and for IPv4 nf_nat_ipv4_multi_range_compat: how many, then flags, two
// addresses of 4 bytes and two ports.
func (p *program) xtNAT(name string, rev uint32, info []byte) bool {
	const mapsAddresses, mapsPorts, offset = 1, 2, 1 << 5
	size, base := 16, 4
	if p.family == "ip" && (name == "DNAT" && rev == 0 || name == "SNAT" && rev == 0 || name == "REDIRECT" && rev == 0) {
		size, base = 4, 8
	}
	if len(info) < base+2*size+4 {
		return false
	}
	flags := host.Uint32(info[base-4:])
	used := 4
	if p.family == "ip6" {
		used = 16
	}
	if flags&offset != 0 {
		return false
	}
	n := object{"family": p.family, "flags": natFlags(flags)}
	if flags&mapsAddresses != 0 {
		n["addr"] = between(address, info[base:base+used], info[base+size:base+size+used])
	}
	if flags&mapsPorts != 0 {
		ports := info[base+2*size:]
		n["port"] = between(big, ports[:2], ports[2:4])
	}
	if name == "REDIRECT" {
		delete(n, "addr")
	}
	p.say(map[string]string{"DNAT": "dnat", "SNAT": "snat", "REDIRECT": "redirect"}[name], n)
	return true
}
