package iptables

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"nlb/lb"
)

// forwards are n commands for one address each.
func forwards(n int, separator string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "iptables -t nat -A PREROUTING -d 203.0.%d.%d -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:%d%s", i>>8, i&255, 1+i, separator)
	}
	return b.String()
}

// ports are n rules for one address.
func ports(n int) string {
	var b strings.Builder
	b.WriteString("*nat\n")
	for i := range n {
		fmt.Fprintf(&b, "-A PREROUTING -d 203.0.113.1/32 -p tcp -m tcp --dport %d -j DNAT --to-destination 10.0.%d.%d:80\n", 1+i, i>>8, i&255)
	}
	return b.String() + "COMMIT\n"
}

// TestNoise: a text that is nothing ends after some errors.
func TestNoise(t *testing.T) {
	for name, line := range map[string]string{
		"words":     "blah blah",
		"addresses": "-A PREROUTING -d 1.2.3.4.5 -j DNAT --to-destination 10.0.0.1",
	} {
		_, err := Import("noise", []byte("*nat\n"+strings.Repeat(line+"\n", 20_000)))
		if errs, ok := errors.AsType[lb.Errors](err); !ok || len(errs) != 50 {
			t.Errorf("%s: %d errors", name, len(errs))
		}
	}
}

// TestManyForwards: thousands of rules for one address or port each are parted at
// once; the steps that this takes are bounded.
func TestManyForwards(t *testing.T) {
	const n = 2000
	for name, text := range map[string]string{
		"addresses": forwards(n, "\n"), "one line": forwards(n, ";"),
		"ports": ports(n),
	} {
		m, err := Import("forwards", []byte(text))
		if err != nil || len(m.Profile.Services) != n || !m.Complete() {
			t.Errorf("%s: %v, %d services", name, err, len(m.Profile.Services))
		}
	}
}

func BenchmarkForwards(b *testing.B) {
	for name, text := range map[string]string{"lines": forwards(40_000, "\n"), "line": forwards(40_000, ";")} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if m, err := Import("forwards", []byte(text)); err != nil || len(m.Profile.Services) != 40_000 {
					b.Fatal(err)
				}
			}
		})
	}
}
