package iptables

// Names and comments of services.

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/iptables/syntax"
)

// kubernetes is how kube-proxy names a service in a comment:
// namespace/name:port.
var kubernetes = regexp.MustCompile(`(?:^|[" ])([a-z0-9-]+)/([a-z0-9.-]+)(?::([a-z0-9-]+))?(?:$|[" ])`)

// endpoint is how kube-proxy names a chain of nft:
// endpoint-HASH-namespace/name/protocol/port__address/port.
var endpoint = regexp.MustCompile(`^endpoint-[A-Z0-9]{8}-([a-z0-9-]+)/([a-z0-9.-]+)/[a-z]+/([a-z0-9-]*)__`)

// ownChains are chains whose names say nothing of a service.
var ownChains = regexp.MustCompile(`^(PREROUTING|OUTPUT|POSTROUTING|DOCKER|KUBE-.*|CNI-.*|NAT|LB|LOADBALANCE.*|(?i:prerouting|output|dstnat))$`)

// name is what a service is called: as the comments of its rules say, or their
// chain, or by protocol and port.
func (t *translator) name(c *candidate, s *lb.Service) string {
	rules := c.those(matched)
	var comments []string
	for _, r := range rules {
		if m := kubernetes.FindStringSubmatch(r.Comment); m != nil && r.Table == "nat" && strings.HasPrefix(r.Chain, "KUBE-") {
			return strings.Trim(strings.Join(m[1:], "-"), "-")
		}
		_, marks := r.Target.(syntax.SetMark)
		if (r.Balances() || marks && r.Table == "mangle") && r.Comment != "" {
			comments = append(comments, r.Comment)
		}
	}
	if name := importer.Name(strings.TrimPrefix(shared(comments), "FARM_")); name != "" {
		return name
	}
	for _, r := range rules {
		name := r.Chain
		if words := strings.Fields(name); len(words) > 2 { // of nft: family, table, chain
			name = words[2]
		}
		if m := endpoint.FindStringSubmatch(name); m != nil {
			return strings.Join(m[1:], "-")
		}
		if r.Balances() && !ownChains.MatchString(name) {
			for _, before := range []string{"IPTLB_NAT_", "IPTLB_"} {
				name = strings.TrimPrefix(name, before)
			}
			return strings.ToLower(importer.Name(name))
		}
	}
	return importer.PortName(s.Protocols, s.Listen[0].Ports, t.set.Family == lb.IPv6)
}

// shared is what texts have in common at their beginning, without the number
// that may follow.
func shared(texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	first := texts[0]
	for _, s := range texts[1:] {
		for !strings.HasPrefix(s, first) {
			first = first[:len(first)-1]
		}
	}
	if len(texts) > 1 || strings.HasPrefix(strings.TrimSpace(first), "FARM_") {
		first = strings.TrimRight(strings.TrimSpace(first), "0123456789_-:#/ ")
	}
	return strings.TrimSpace(first)
}

// maxShares is how many shares a comment lists.
const maxShares = 8

// notes are the comments of a service: where it comes from, and what the rules
// gave.
func (t *translator) notes(c *candidate, s *lb.Service) []string {
	var lines []int
	for _, r := range c.those(matched) {
		lines = append(lines, r.Place.Line)
	}
	out := []string{importer.LineList(lines)}
	main := c.classes[0]
	text, equal := c.shares(s)
	lost := main.parts[unbalanced]+main.parts[dropped] > 0
	if len(s.Backends) > 1 && (!equal || lost) {
		out = append(out, "the rules gave "+text)
	}
	if off := c.off(s); off > 1e-5 {
		out = append(out, "weights are within "+percent(off)+" of what the rules gave")
	}
	return out
}

// shares lists what the backends of a service got; equal: they all got the same,
// as far as weights go.
func (c *candidate) shares(s *lb.Service) (text string, equal bool) {
	got, main := c.got(s), c.classes[0]
	equal = true
	var parts []string
	for i, b := range s.Backends {
		equal = equal && b.Weight == s.Backends[0].Weight
		if len(s.Backends) <= maxShares {
			parts = append(parts, b.Name+" "+percent(got[i]))
		}
	}
	if len(s.Backends) > maxShares {
		parts = append(parts, fmt.Sprintf("%d backends %s to %s", len(got), percent(slices.Min(got)), percent(slices.Max(got))))
	}
	if p := main.parts[dropped]; p > 0 {
		parts = append(parts, "dropped "+percent(p))
	}
	if p := main.parts[unbalanced]; p > 0 {
		parts = append(parts, "no backend "+percent(p))
	}
	return strings.Join(parts, ", "), equal
}

// got are the shares that the backends of a service got.
func (c *candidate) got(s *lb.Service) []float64 {
	at := map[lb.Endpoint]float64{}
	for _, o := range c.classes[0].outcomes {
		if o.fate == balanced {
			at[c.at[o.to]] += o.share.real
		}
	}
	out := make([]float64, len(s.Backends))
	for i, b := range s.Backends {
		out[i] = at[b.Address]
	}
	return out
}

// off is how far the weights are from the shares, relative to them.
func (c *candidate) off(s *lb.Service) float64 {
	got := c.got(s)
	sum, weights := 0.0, 0
	for i, g := range got {
		sum += g
		weights += s.Backends[i].Weight
	}
	worst := 0.0
	for i, g := range got {
		if g > 0 && weights > 0 {
			worst = max(worst, math.Abs(float64(s.Backends[i].Weight)/float64(weights)-g/sum)/(g/sum))
		}
	}
	return worst
}

// percent is a share as people write it: 25 %, 18.75 %, 0.4 %.
func percent(p float64) string {
	p *= 100
	digits := 2
	if p < 0.01 {
		digits = 5
	}
	text := strconv.FormatFloat(p, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + " %"
}
