package config

import (
	"testing"

	"nlb/lb"
)

// TestTexts: values of several parts print as they are read.
func TestTexts(t *testing.T) {
	for _, s := range []string{
		"203.0.113.10:80", "203.0.113.10:80,443,8000-8010", "203.0.113.10:*", "10.9.0.0/16:53", "0.0.0.0/0:80",
		":80", ":*", "[2001:db8::1]:80", "[2001:db8::/32]:1-65535", "[::/0]:80",
	} {
		if l, p := parseListen(s); p != nil || l.String() != s {
			t.Errorf("listen %s is %v, %v", s, l, p)
		}
	}
	for _, s := range []string{"10.0.0.11:8080", "10.0.0.11", "[2001:db8::1]:80", "2001:db8::1"} {
		if e, p := parseEndpoint(s, "backend", endpointForms); p != nil || e.String() != s || !canonical(e, s) {
			t.Errorf("endpoint %s is %v, %v", s, e, p)
		}
	}
	for _, s := range []string{"web:8080", "web", "web.example.", "a-1_b.example:1", "srv:_http._tcp.web.example", "srv:web.service.consul", "localhost:80"} {
		h, e, p := parseBackend(s)
		if b := (lb.Backend{Host: h, Address: e}); p != nil || b.Where() != s {
			t.Errorf("backend %s is %s, %v", s, b.Where(), p)
		}
	}
}
