package formats

import (
	"strings"
	"testing"
)

// TestRepeated: what holds for many services is read a bounded number of times.
func TestRepeated(t *testing.T) {
	t.Parallel()
	const many = 20_000
	for format, text := range map[string]string{
		"haproxy": "defaults\n" + strings.Repeat("timeout client 1s\n", many) + strings.Repeat("listen a\n bind :80\n server a 10.0.0.1:80\n", many),
		"nginx":   "stream {\n" + strings.Repeat("allow 10.0.0.1;\n", many) + strings.Repeat("server { listen 80; proxy_pass 10.0.0.1:80; }\n", many) + "}\n",
		"keepalived": "virtual_server 203.0.113.1 80 {\n" + strings.Repeat("alpha\n", many) +
			strings.Repeat("real_server 10.0.0.1 80 {\n}\n", many) + "}\n",
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			_, err := Read(format, "text", []byte(text))
			if err == nil || !strings.Contains(err.Error(), "too much") {
				t.Errorf("%v, want that it is too much", err)
			}
		})
	}
}
