//go:build linux

package main

// Rivals: rulesets that others write, for the same traffic.

import (
	"fmt"
	"strings"
)

// handMap is one map of services with a backend each, written by hand.
func handMap(services int) string {
	var b strings.Builder
	b.WriteString("table ip hand {\n\tmap to {\n\t\ttype ipv4_addr . inet_service : ipv4_addr . inet_service\n\t\telements = {\n")
	for i := range services {
		fmt.Fprintf(&b, "\t\t\t%s . %d : %s . %d,\n", after(firstVIP, i), listenPort, after(firstBackend, 3*i), backendPort)
	}
	b.WriteString(`		}
	}
	chain in { type nat hook prerouting priority dstnat; meta l4proto udp dnat to ip daddr . udp dport map @to; }
	chain out { type nat hook postrouting priority srcnat; masquerade; }
}
`)
	return b.String()
}

// cascade is services of three backends each as most people write them with
// iptables: a rule with a throw of dice for each backend, one after the other.
func cascade(services int) string {
	var b strings.Builder
	b.WriteString("*nat\n")
	for i := range services {
		for j := range 3 {
			fmt.Fprintf(&b, "-A PREROUTING -d %s/32 -p udp --dport %d%s\n", after(firstVIP, i), listenPort, dice(i, j))
		}
	}
	b.WriteString("-A POSTROUTING -j MASQUERADE\nCOMMIT\n")
	return b.String()
}

// chains is the same with a chain for each service.
func chains(services int) string {
	var b strings.Builder
	b.WriteString("*nat\n")
	for i := range services {
		fmt.Fprintf(&b, ":S%d - [0:0]\n", i)
	}
	for i := range services {
		fmt.Fprintf(&b, "-A PREROUTING -d %s/32 -p udp --dport %d -j S%d\n", after(firstVIP, i), listenPort, i)
		for j := range 3 {
			fmt.Fprintf(&b, "-A S%d -p udp%s\n", i, dice(i, j))
		}
	}
	b.WriteString("-A POSTROUTING -j MASQUERADE\nCOMMIT\n")
	return b.String()
}

// dice sends every third connection, every second of the others, and all that
// are left to the backends of a service.
func dice(service, backend int) string {
	match := ""
	if backend < 2 {
		match = fmt.Sprintf(" -m statistic --mode nth --every %d --packet 0", 3-backend)
	}
	return fmt.Sprintf("%s -j DNAT --to-destination %s:%d", match, after(firstBackend, 3*service+backend), backendPort)
}
