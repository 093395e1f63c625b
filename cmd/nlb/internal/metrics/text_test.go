//go:build linux

package metrics

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

// TestFormatOf: there is OpenMetrics for whoever wants it most, and else text: never
// what is no text.
func TestFormatOf(t *testing.T) {
	for accept, want := range map[string]expfmt.FormatType{
		"": expfmt.TypeTextPlain, "*/*": expfmt.TypeTextPlain, "text/html, */*;q=0.8": expfmt.TypeTextPlain,
		"application/openmetrics-text": expfmt.TypeOpenMetrics,
		"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2":        expfmt.TypeOpenMetrics,
		"text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9":                                                                        expfmt.TypeTextPlain,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;q=0.5": expfmt.TypeOpenMetrics,
	} {
		if got := FormatOf(http.Header{"Accept": {accept}}); got.FormatType() != want {
			t.Errorf("%q: got %s", accept, got)
		}
	}
}

// TestText: the same families in both formats.
func TestText(t *testing.T) {
	a := &Agent{Process: NewProcess(), Tally: func(lb.BackendID) *Tally { return nil }}
	a.Check(lb.CheckTCP, 2*time.Second, true, false, false)
	s := &view.Snapshot{Announced: []string{"203.0.113.10 on nlb0"}}
	service := view.ShownService{Profile: "a\"\\\nb", Service: &lb.Service{Name: "web"}, Refused: 3}
	service.Backends = []view.ShownBackend{{Backend: &lb.Backend{Name: "b1", Address: lb.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80}}}}
	s.Profiles = append(s.Profiles, view.ShownProfile{Services: []view.ShownService{service}})
	write := func(f expfmt.Format) string {
		var out strings.Builder
		if err := Write(&out, f, s, a, Filter{}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	text, open := write(Prometheus), write(FormatOf(http.Header{"Accept": {"application/openmetrics-text;version=1.0.0"}}))
	both := []string{
		"\nnlb_announced_address{address=\"203.0.113.10\",device=\"nlb0\"} 1\n",
		"\nnlb_service_refused_connections_total{profile=\"a\\\"\\\\\\nb\",service=\"web\"} 3\n",
		"\nnlb_backend_info{profile=\"a\\\"\\\\\\nb\",service=\"web\",backend=\"b1\",address=\"10.0.0.1:80\"} 1\n",
		"\nnlb_check_duration_seconds_bucket{check=\"tcp\",le=\"2.5\"} 1\n",
	}
	for _, want := range append(both, "\n# TYPE nlb_service_refused_connections_total counter\n", "le=\"1\"} 0\n") {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	for _, want := range append(both, "\n# TYPE nlb_service_refused_connections counter\n", "\n# TYPE nlb_checks counter\nnlb_checks_total{", "le=\"1.0\"} 0\n") {
		if !strings.Contains(open, want) {
			t.Errorf("there is no %q in\n%s", want, open)
		}
	}
	if !strings.HasSuffix(open, "\n# EOF\n") || strings.Contains(text, "EOF") {
		t.Error("OpenMetrics ends with # EOF, and nothing else does")
	}
}

type full struct{ n int }

func (f *full) Write([]byte) (int, error) { f.n++; return 0, errors.New("full") }

// TestWriteFails: once nobody reads any more, nothing more is written.
func TestWriteFails(t *testing.T) {
	f := &full{}
	s := &view.Snapshot{Profiles: []view.ShownProfile{{Services: make([]view.ShownService, 10_000)}}}
	for i := range s.Profiles[0].Services {
		s.Profiles[0].Services[i].Service = &lb.Service{Name: "web"}
	}
	if err := Write(f, Prometheus, s, nil, Filter{}); err == nil || f.n != 1 {
		t.Errorf("written %d times: %v", f.n, err)
	}
}
