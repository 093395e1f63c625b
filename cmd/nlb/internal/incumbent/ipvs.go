//go:build linux

package incumbent

// IPVS: its services by generic netlink (linux/ip_vs.h), as the commands that would have
// made them.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The commands and attributes of IPVS that are used here, and flags of its services.
const (
	getService, getServer = 4, 8
	ofService, ofServer   = 1, 2

	serviceFamily, serviceProtocol, serviceAddress, servicePort, serviceMark = 1, 2, 3, 4, 5
	serviceScheduler, serviceFlags, serviceTimeout, serviceMask, serviceData = 6, 7, 8, 9, 11

	serverAddress, serverPort, serverForward, serverWeight, serverMost, serverFamily = 1, 2, 3, 4, 5, 11

	persistent, onePacket, firstFlag = 0x1, 0x4, 0x8
)

// hasIPVS reports whether this kernel has services of IPVS. To ask for its family of
// netlink could load its module.
func hasIPVS() bool {
	const heading = 3 // lines before the services
	services, err := os.ReadFile("/proc/self/net/ip_vs")
	return err == nil && strings.Count(string(services), "\n") > heading
}

// virtual are the services of IPVS in the network namespace of the calling thread, as
// ipvsadm -S -n prints them.
func virtual() (lines []string, err error) {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, fmt.Errorf("generic netlink: %w", err)
	}
	defer conn.Close()
	answers, err := ask(conn, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, 0, func(e *netlink.AttributeEncoder) { e.String(unix.CTRL_ATTR_FAMILY_NAME, "IPVS") })
	if err != nil || len(answers) == 0 {
		return nil, fmt.Errorf("netlink of IPVS: %w", err)
	}
	family := answers[0].short(unix.CTRL_ATTR_FAMILY_ID)
	services, err := ask(conn, family, getService, netlink.Dump, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return nil, fmt.Errorf("services of IPVS: %w", err)
	}
	services = inner(services, ofService, serviceMark, serviceFamily, serviceProtocol, serviceAddress, servicePort)
	for _, s := range services {
		name := s.name()
		lines = append(lines, s.command(name))
		servers, err := ask(conn, family, getServer, netlink.Dump, func(e *netlink.AttributeEncoder) { e.Bytes(unix.NLA_F_NESTED|ofService, s.key()) })
		if err != nil {
			return nil, fmt.Errorf("servers of IPVS: %w", err)
		}
		for _, d := range inner(servers, ofServer, serverFamily, serverAddress, serverPort) {
			lines = append(lines, d.server(name, s.short(serviceFamily)))
		}
	}
	return lines, nil
}

// inner are the attributes of an attribute of each answer, sorted: the kernel has no order.
func inner(answers []attributes, of uint16, by ...uint16) []attributes {
	var out []attributes
	for _, answer := range answers {
		if a, err := read(answer[of]); err == nil {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b attributes) int {
		for _, t := range by {
			if c := bytes.Compare(a[t], b[t]); c != 0 {
				return c
			}
		}
		return 0
	})
	return out
}

// attributes are those of a message, by their types.
type attributes map[uint16][]byte

// ask sends a command of generic netlink, and returns what it answers.
func ask(conn *netlink.Conn, family uint16, command uint8, flags netlink.HeaderFlags, put func(*netlink.AttributeEncoder)) ([]attributes, error) {
	e := netlink.NewAttributeEncoder()
	put(e)
	data, err := e.Encode()
	if err != nil {
		return nil, err
	}
	header := []byte{command, 1, 0, 0} // its version, and what is reserved
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: netlink.Request | flags},
		Data:   slices.Concat(header, data),
	})
	var out []attributes
	for _, m := range messages {
		if len(m.Data) < len(header) {
			continue
		}
		a, err := read(m.Data[len(header):])
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, err
}

func read(data []byte) (attributes, error) {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil, err
	}
	a := attributes{}
	for d.Next() {
		a[d.Type()] = d.Bytes()
	}
	return a, d.Err()
}

func (a attributes) short(of uint16) uint16 { return uint16(a.number(of)) }

// number is one in the order of the host; 0 where there is none.
func (a attributes) number(of uint16) uint32 {
	switch b := a[of]; {
	case len(b) >= 4:
		return binary.NativeEndian.Uint32(b)
	case len(b) >= 2:
		return uint32(binary.NativeEndian.Uint16(b))
	}
	return 0
}

// port is in the order of the network.
func (a attributes) port(of uint16) uint16 {
	if b := a[of]; len(b) >= 2 {
		return uint16(b[0])<<8 | uint16(b[1])
	}
	return 0
}

// endpoint is an address, and a port of it, as ipvsadm writes them.
func (a attributes) endpoint(family, address, port uint16) string {
	size := 4
	if family == unix.AF_INET6 {
		size = 16
	}
	b := a[address]
	ip, _ := netip.AddrFromSlice(b[:min(size, len(b))])
	return netip.AddrPortFrom(ip, a.port(port)).String()
}

// key is what says which service is meant.
func (a attributes) key() []byte {
	e := netlink.NewAttributeEncoder()
	for _, t := range []uint16{serviceFamily, serviceProtocol, serviceAddress, servicePort, serviceMark} {
		if b, ok := a[t]; ok {
			e.Bytes(t, b)
		}
	}
	b, _ := e.Encode() // of attributes that came in a message
	return b
}

// name are the options that say which service is meant.
func (a attributes) name() string {
	if mark := a.number(serviceMark); mark != 0 {
		if a.short(serviceFamily) == unix.AF_INET6 {
			return fmt.Sprintf("-f %d -6", mark)
		}
		return fmt.Sprintf("-f %d", mark)
	}
	option := map[uint16]string{unix.IPPROTO_TCP: "-t", unix.IPPROTO_UDP: "-u", unix.IPPROTO_SCTP: "--sctp-service"}[a.short(serviceProtocol)]
	return option + " " + a.endpoint(a.short(serviceFamily), serviceAddress, servicePort)
}

// command makes a service.
func (a attributes) command(name string) string {
	text := "-A " + name + " -s " + unix.ByteSliceToString(a[serviceScheduler])
	flags := a.number(serviceFlags)
	if flags&persistent != 0 {
		text += fmt.Sprintf(" -p %d", a.number(serviceTimeout))
		mask := a[serviceMask]
		switch v6 := a.short(serviceFamily) == unix.AF_INET6; {
		case v6 && a.number(serviceMask) != 128:
			text += fmt.Sprintf(" -M %d", a.number(serviceMask))
		case !v6 && len(mask) == 4 && string(mask) != "\xff\xff\xff\xff":
			text += " -M " + netip.AddrFrom4([4]byte(mask)).String()
		}
	}
	if flags&onePacket != 0 {
		text += " -o"
	}
	if engine := unix.ByteSliceToString(a[serviceData]); engine != "" {
		text += " --pe " + engine
	}
	var own []string
	for i := range 3 {
		if flags&(firstFlag<<i) != 0 {
			own = append(own, fmt.Sprintf("flag-%d", i+1))
		}
	}
	if own != nil {
		text += " -b " + strings.Join(own, ",")
	}
	return text
}

// server makes a server of a service.
func (a attributes) server(name string, family uint16) string {
	if own := a.short(serverFamily); own != 0 { // since Linux 3.18
		family = own
	}
	// The way of packets: masquerading, this host itself, a tunnel, a direct route.
	forward := []string{"-m", "-m", "-i", "-g"}[a.number(serverForward)&3]
	text := fmt.Sprintf("-a %s -r %s %s -w %d", name, a.endpoint(family, serverAddress, serverPort), forward, a.number(serverWeight))
	if most := a.number(serverMost); most != 0 {
		text += fmt.Sprintf(" -x %d", most)
	}
	return text
}
