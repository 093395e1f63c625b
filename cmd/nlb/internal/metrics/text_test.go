//go:build linux

package metrics

import (
	"errors"
	"strings"
	"testing"
)

func TestFormatOf(t *testing.T) {
	for accept, want := range map[string]Format{
		"": Prometheus, "*/*": Prometheus, "text/plain": Prometheus, "text/html, */*;q=0.8": Prometheus,
		"application/openmetrics-text": OpenMetrics,
		"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2": OpenMetrics,
		"text/plain, application/openmetrics-text; q=0.9": Prometheus,
		"application/openmetrics-text;q=0":                Prometheus,
		"application/openmetrics-text;q=x":                Prometheus,
	} {
		if got := FormatOf(accept); got != want {
			t.Errorf("%q: got %v", accept, got)
		}
	}
}

// TestText: the same families in both formats.
func TestText(t *testing.T) {
	var h Histogram
	h.Observe(2e9)
	write := func(f Format) string {
		var out strings.Builder
		w := &writer{w: &out, format: f}
		w.family("a_b", counter, "How many.")
		w.sample("")
		w.label("x", "\"\\\n")
		w.label("y", "z")
		w.value(3)
		w.family("c", info, "What.")
		w.labelled([]byte(`v="1"`), 1)
		w.single("d_seconds", gauge, "How long.", 0.25)
		w.family("e", histogram, "All.")
		w.histogram(&h, "k", "v")
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	text, open := write(Prometheus), write(OpenMetrics)
	for _, want := range []string{
		"# HELP a_b_total How many.\n# TYPE a_b_total counter\na_b_total{x=\"\\\"\\\\\\n\",y=\"z\"} 3\n# HELP c_info What.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n",
		"\nd_seconds 0.25\n", "e_bucket{k=\"v\",le=\"1\"} 0\n", "e_bucket{k=\"v\",le=\"2.5\"} 1\n", "e_bucket{k=\"v\",le=\"+Inf\"} 1\ne_sum{k=\"v\"} 2\ne_count{k=\"v\"} 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	for _, want := range []string{"# TYPE a_b counter\na_b_total{", "# TYPE c info\nc_info{", `le="1.0"} 0`} {
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
	w := &writer{w: f}
	for range 10_000 {
		w.single("a", gauge, "Something that is long enough.", 1)
	}
	if err := w.end(); err == nil || f.n != 1 {
		t.Errorf("written %d times: %v", f.n, err)
	}
}
