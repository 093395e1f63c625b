package firewall

// Legacy: the tables of iptables-legacy and ip6tables-legacy, which nftables
// does not show. They are read as iptables reads them: getsockopt(2) with
// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES (linux/netfilter_ipv4/ip_tables.h,
// linux/netfilter/x_tables.h).

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LegacyNames are the legacy tables that are loaded in the network namespace
// of the calling thread; procNet is /proc/thread-self/net. Reading a table
// that is not among them would load it. An error is fs.ErrPermission without
// root.
func LegacyNames(procNet string) (v4, v6 []string, err error) {
	read := func(name string) []string {
		b, e := os.ReadFile(procNet + "/" + name)
		if e != nil && !errors.Is(e, os.ErrNotExist) {
			err = e
		}
		return strings.Fields(string(b))
	}
	v4, v6 = read("ip_tables_names"), read("ip6_tables_names")
	return v4, v6, err
}

// ReadLegacy reads the loaded legacy tables of the network namespace of the
// calling thread. It takes CAP_NET_ADMIN.
func ReadLegacy(procNet string) ([]*Table, error) {
	v4, v6, err := LegacyNames(procNet)
	if err != nil {
		return nil, err
	}
	var out []*Table
	for _, of := range []struct {
		layout xtLayout
		names  []string
	}{{xt4, v4}, {xt6, v6}} {
		for _, name := range of.names {
			info, entries, err := of.layout.fetch(name)
			if err != nil {
				return nil, fmt.Errorf("read legacy table %s: %w", name, err)
			}
			if t, ok := of.layout.table(name, info, entries); ok {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// xtLayout is where the parts of an entry are: struct ipt_entry, ip6t_entry.
type xtLayout struct {
	family               string
	goesTo               byte // IPT_F_GOTO, IP6T_F_GOTO
	domain, level        int
	addr                 int // bytes of an address; source, destination and their masks come first
	proto, flags, invert int // invert: invflags
	targetAt, nextAt     int // target_offset, next_offset
	head                 int // where matches begin
}

var (
	xt4 = xtLayout{"ip", 2, unix.AF_INET, unix.SOL_IP, 4, 80, 82, 83, 88, 90, 112}
	xt6 = xtLayout{"ip6", 4, unix.AF_INET6, unix.SOL_IPV6, 16, 128, 131, 132, 140, 142, xtAligned(148) + 16}

	xtHeadSize = xtAligned(xtTableName + 4) // struct ipt_get_entries: name, size
)

// xtAligned is where a structure goes on that has 64-bit counters next: they are
// aligned to 8 bytes, but to 4 on 32-bit x86.
func xtAligned(n int) int {
	align := 8
	if runtime.GOARCH == "386" {
		align = 4
	}
	return (n + align - 1) &^ (align - 1)
}

const (
	xtGetInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	xtGetEntries = 65

	xtTableName = 32 // XT_TABLE_MAXNAMELEN
	xtInfoSize  = xtTableName + 4 + 5*4 + 5*4 + 4 + 4
)

// fetch asks the kernel for a table.
func (x xtLayout) fetch(name string) (info, entries []byte, err error) {
	fd, err := unix.Socket(x.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	info = make([]byte, xtInfoSize)
	copy(info[:xtTableName-1], name)
	if err := getsockopt(fd, x.level, xtGetInfo, info); err != nil {
		return nil, nil, err
	}
	size := host.Uint32(info[xtInfoSize-4:])
	buf := make([]byte, xtHeadSize+int(size))
	copy(buf[:xtTableName-1], name)
	host.PutUint32(buf[xtTableName:], size)
	if err := getsockopt(fd, x.level, xtGetEntries, buf); err != nil {
		return nil, nil, err
	}
	return info, buf[xtHeadSize:], nil
}

func getsockopt(fd, level, option int, buf []byte) error {
	n := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// priorities of the hooks, by table (linux/netfilter_ipv4.h).
var xtPriorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

// table makes a table of the kernel's bytes; false where they make no sense.
func (x xtLayout) table(name string, info, b []byte) (*Table, bool) {
	t := &Table{Family: x.family, Name: name, Legacy: true, Chains: map[string]*Chain{}}
	field := func(i int) int { return int(host.Uint32(info[xtTableName+4*i:])) }
	valid := field(0)
	hooks := []string{"prerouting", "input", "forward", "output", "postrouting"}
	starts := map[int]*Chain{}     // where chains begin
	underflows := map[int]*Chain{} // where the policies of base chains are
	for i, hook := range hooks {
		if valid&(1<<i) == 0 {
			continue
		}
		c := &Chain{Name: strings.ToUpper(hook), Base: &Base{Type: "filter", Hook: hook, Priority: xtPriorities[name]}}
		if name == "nat" {
			c.Base.Type, c.Base.Priority = "nat", -100
			if hook == "postrouting" || hook == "input" {
				c.Base.Priority = 100
			}
		}
		t.Chains[c.Name] = c
		starts[field(1+i)] = c
		underflows[field(6+i)] = c
	}
	var current *Chain
	jumps := map[int]string{} // chains that are jumped to, by where their rules begin
	for at := 0; at+x.head <= len(b); {
		next := int(host.Uint16(b[at+x.nextAt:]))
		target := int(host.Uint16(b[at+x.targetAt:]))
		if next < x.head || at+next > len(b) || target < x.head || target+xtTargetHead > next {
			return nil, false
		}
		if c := starts[at]; c != nil {
			current = c
		}
		e := b[at : at+next]
		kind := cString(e[target+2 : target+2+29])
		switch {
		case kind == "ERROR":
			// A chain of its own begins behind it; the last one ends the table.
			current = &Chain{Name: cString(e[target+xtTargetHead:])}
			jumps[at+next] = current.Name
			if at+next < len(b) {
				t.Chains[current.Name] = current
			}
		case underflows[at] != nil && current == underflows[at]:
			current.Base.Drop = kind == "" && x.verdict(e, target) == Drop
		case current != nil:
			r := x.rule(e, target, kind)
			r.Number = uint64(len(current.Rules) + 1)
			current.Rules = append(current.Rules, r)
		}
		at += next
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Action == Jump || r.Action == Goto {
				r.Target = jumps[int(host.Uint32([]byte(r.Target)))]
			}
		}
	}
	return t, true
}

const xtTargetHead = 32 // struct xt_entry_target: size, name, revision

func (x xtLayout) verdict(e []byte, target int) Action {
	if target+xtTargetHead+4 > len(e) {
		return Anything
	}
	return xtVerdict(int32(host.Uint32(e[target+xtTargetHead:])))
}

// rule reads an entry. The target of a jump is where the chain begins, as the
// 4 bytes of the kernel, until all chains are known.
func (x xtLayout) rule(e []byte, target int, kind string) Rule {
	r := Rule{Conditions: x.conditions(e)}
	for at := x.head; at+xtTargetHead <= target; {
		size := int(host.Uint16(e[at:]))
		if size < xtTargetHead || at+size > target {
			r.Conditions = append(r.Conditions, unknown)
			break
		}
		r.Conditions = append(r.Conditions, xtMatch(cString(e[at+2:at+31]), uint32(e[at+31]), e[at+xtTargetHead:at+size])...)
		at += size
	}
	switch {
	case kind != "":
		r.Action, r.Mark = xtTarget(kind), xtMark(kind, uint32(e[target+31]), e[target+xtTargetHead:])
		r.Untracks = xtUntracks(kind, e[target+xtTargetHead:])
	case target+xtTargetHead+4 > len(e):
		r.Action = Anything
	case int32(host.Uint32(e[target+xtTargetHead:])) >= 0:
		r.Action = Jump
		if e[x.flags]&x.goesTo != 0 {
			r.Action = Goto
		}
		r.Target = string(e[target+xtTargetHead : target+xtTargetHead+4])
	default:
		r.Action = x.verdict(e, target)
	}
	return r
}

// conditions reads struct ipt_ip and ip6t_ip6: addresses with masks, names of
// links with masks, the protocol, and what is inverted.
func (x xtLayout) conditions(e []byte) []Condition {
	const notIn, notOut, notSrc, notDst, fragment, notProto = 1, 2, 8, 16, 32, 64
	var out []Condition
	inverted := e[x.invert]
	add := func(f Field, v, mask []byte, not bool) {
		if len(bytes.Trim(mask, "\x00")) > 0 {
			out = append(out, Condition{
				Fields: []Field{f}, Mask: mask, Not: not, Ranges: []Range{single(masked(v, mask))},
			})
		}
	}
	n := x.addr
	add(Field{SrcAddr, 0, n}, e[:n], e[2*n:3*n], inverted&notSrc != 0)
	add(Field{DstAddr, 0, n}, e[n:2*n], e[3*n:4*n], inverted&notDst != 0)
	links := e[4*n:]
	add(Field{InName, 0, unix.IFNAMSIZ}, links[:16], links[32:48], inverted&notIn != 0)
	add(Field{OutName, 0, unix.IFNAMSIZ}, links[16:32], links[48:64], inverted&notOut != 0)
	if proto := host.Uint16(e[x.proto:]); proto != 0 {
		out = append(out, Condition{Fields: []Field{{L4Proto, 0, 1}}, Not: inverted&notProto != 0, Ranges: []Range{single([]byte{byte(proto)})}})
	}
	if x.family == "ip" && e[x.flags]&1 != 0 || inverted&fragment != 0 {
		out = append(out, unknown) // fragments
	}
	return out
}

func masked(v, mask []byte) []byte {
	out := bytes.Clone(v)
	for i := range out {
		out[i] &= mask[i]
	}
	return out
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
