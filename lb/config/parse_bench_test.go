package config

import (
	"fmt"
	"net/netip"
	"testing"

	"nlb/lb"
	"nlb/lb/lbtest"
)

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 64_000} {
		data := Write(lbtest.Fleet(n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("fleet.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTree compares the two ways to a tree.
func BenchmarkTree(b *testing.B) {
	text := string(Write(lbtest.Fleet(10_000)))
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if _, ok := readPlain(text); !ok {
				b.Fatal("declined")
			}
		}
	})
	b.Run("yaml", func(b *testing.B) {
		for b.Loop() {
			if _, err := readYAML("fleet.yaml", text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkConflicts(b *testing.B) {
	apart := lbtest.Fleet(64_000)
	together := lbtest.Fleet(64_000) // one address, a port each
	for i := range together.Services {
		l := &together.Services[i].Listen[0]
		l.Prefix = netip.MustParsePrefix("10.0.0.1/32")
		l.Ports = []lb.PortRange{{First: uint16(i + 1), Last: uint16(i + 1)}}
	}
	for name, p := range map[string]*lb.Profile{"addresses": apart, "ports": together} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if errs := lb.Conflicts([]*lb.Profile{p}); errs != nil {
					b.Fatal(errs)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		p := lbtest.Fleet(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Write(p)
			}
		})
	}
}
