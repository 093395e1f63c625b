package formats

import (
	"strings"
	"testing"
)

// TestRepeated: what holds for many services is read a bounded number of times.
func TestRepeated(t *testing.T) {
	t.Parallel()
	const many = 5_000
	texts := map[string]string{
		"haproxy":           "defaults\n" + strings.Repeat("timeout client 1s\n", many) + strings.Repeat("listen a\n bind :80\n server a 10.0.0.1:80\n", many),
		"nginx":             "stream {\n" + strings.Repeat("allow 10.0.0.1;\n", many) + strings.Repeat("server { listen 80; proxy_pass 10.0.0.1:80; }\n", many) + "}\n",
		"haproxy ACLs":      "listen a\n bind :80\n acl a src" + strings.Repeat(" 10.0.0.1", many) + strings.Repeat("\n tcp-request connection reject if a", many),
		"nginx files":       "# configuration file /nginx.conf:\nstream {\n" + strings.Repeat("include /x;\n", many) + "}\n# configuration file /x:\n" + strings.Repeat("alpha;\n", many),
		"keepalived group":  "virtual_server_group g {\n" + strings.Repeat("192.0.2.0-192.0.2.255 80\n", many) + "}\nvirtual_server group g {\n}\n",
		"keepalived checks": "virtual_server 203.0.113.1 80 {\nreal_server 10.0.0.1 80 {\n" + strings.Repeat("TCP_CHECK {\n}\n", many) + "}\n}\n",
		"keepalived": "virtual_server 203.0.113.1 80 {\n" + strings.Repeat("alpha\n", many) +
			strings.Repeat("real_server 10.0.0.1 80 {\n}\n", many) + "}\n",
	}
	if testing.Short() { // these are read for a second
		delete(texts, "keepalived group")
		delete(texts, "nginx files")
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			format, _, _ := strings.Cut(name, " ")
			_, err := Read(format, "text", []byte(text))
			if err == nil || !strings.Contains(err.Error(), "too much") {
				t.Errorf("%v, want that it is too much", err)
			}
		})
	}
}
