//go:build linux

package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/engine"
	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// promtool has Prometheus' own tool read a text.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	netlabtest.Needs(t, "promtool")
	c := exec.CommandContext(t.Context(), "promtool", args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil || stdin != "" && len(out) > 0 {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestMetrics: Prometheus' own tool has nothing against what comes, and values are those
// of the kernel and the agent.
func TestMetrics(t *testing.T) {
	t.Parallel()
	b := applied(t, shop)
	c := b.Counts
	c.Applies.Observe(0.03)
	c.Applies.Observe(3600)
	c.Check(lb.CheckHTTP, 2*time.Millisecond, true, false, false)
	c.Check(lb.CheckHTTP, time.Second, false, true, false)
	c.Check(lb.CheckHTTP, 0, false, true, true)
	c.Check(lb.CheckHTTP, time.Second, false, false, false)
	c.Reloaded.Add(2)
	c.Keeps.Store(true)
	known, err := b.Snapshot()
	must(t, err)
	web := known.Profiles[0].Services[1]
	b.Tally(lb.BackendID{Profile: "shop", Service: "web", Address: web.Backends[2].Address}).Failures.Add(7)
	h := New(b, nobody).Handler()
	_, header, text := get(t, h, "/metrics")
	promtool(t, string(text), "check", "metrics")
	if kind := header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4; charset=utf-8") {
		t.Errorf("of type %s", kind)
	}
	for _, line := range []string{
		`nlb_reloads_total{result="applied"} 2`,
		"nlb_reload_last_successful 0",
		"nlb_kernel_in_sync 1",
		`nlb_apply_duration_seconds_bucket{services="all",le="0.025"} 0`,
		`nlb_apply_duration_seconds_bucket{services="all",le="0.05"} 1`,
		`nlb_apply_duration_seconds_bucket{services="all",le="10"} 1`,
		`nlb_apply_duration_seconds_bucket{services="all",le="+Inf"} 2`,
		`nlb_apply_duration_seconds_sum{services="all"} 3600.03`,
		`nlb_checks_total{check="http",result="passed"} 1`,
		`nlb_checks_total{check="http",result="failed"} 1`,
		`nlb_checks_total{check="http",result="late"} 1`,
		`nlb_checks_total{check="http",result="unable"} 1`,
		`nlb_check_duration_seconds_count{check="http"} 3`,
		`nlb_service_backends{profile="shop",service="web"} 3`,
		`nlb_service_backends_up{profile="shop",service="web"} 2`,
		`nlb_service_open{profile="shop",service="web"} 0`,
		`nlb_service_refused_connections_total{profile="shop",service="web"} 0`,
		`nlb_backend_info{profile="shop",service="web",backend="b2",address="10.0.0.12:80"} 1`,
		`nlb_backend_up{profile="shop",service="web",backend="b3"} 0`,
		`nlb_backend_weight{profile="shop",service="web",backend="b2"} 3`,
		`nlb_backend_weight{profile="shop",service="web",backend="b3"} 0`,
		`nlb_backend_live_connections{profile="shop",service="web",backend="b2"} 0`,
		`nlb_backend_connections_total{profile="shop",service="web",backend="b2"} 0`,
		`nlb_backend_check_failures_total{profile="shop",service="web",backend="b3"} 7`,
		fmt.Sprintf(`nlb_backend_last_change_timestamp_seconds{profile="shop",service="web",backend="b3"} %d`, web.Backends[2].Standing.Since.Unix()),
	} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("there is no %s", line)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
	for query, has := range map[string][2]bool{"?level=service": {true, false}, "?profile=store": {false, false}, "?profile=shop": {true, true}} {
		_, _, text := get(t, h, "/metrics"+query)
		promtool(t, string(text), "check", "metrics")
		if got := [2]bool{strings.Contains(string(text), "nlb_service_backends{"), strings.Contains(string(text), "nlb_backend_up{")}; got != has {
			t.Errorf("%s has %v", query, got)
		}
	}
	if code, _, _ := get(t, h, "/metrics?level=all"); code != http.StatusBadRequest {
		t.Errorf("an unknown level: %d", code)
	}
}

// TestMetricsEarly: an agent that has applied nothing yet has metrics of itself.
func TestMetricsEarly(t *testing.T) {
	code, _, text := get(t, New(board.New("nlb", nil), nobody).Handler(), "/metrics")
	if code != 200 || !strings.Contains(string(text), "nlb_build_info{") || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("got %d %s", code, text)
	}
}

// TestAlerts: the alerts fire when they should, and the alerts and the dashboard ask for
// what there is.
func TestAlerts(t *testing.T) {
	t.Parallel()
	const rules, dashboard = "../../../../packaging/prometheus/nlb.rules.yml", "../../../../packaging/grafana/nlb.json"
	promtool(t, "", "check", "rules", rules)
	promtool(t, "", "test", "rules", "testdata/alerts.yml")
	b := applied(t, shop)
	b.Counts.Check(lb.CheckTCP, time.Second, true, false, false)
	_, _, text := get(t, New(b, nobody).Handler(), "/metrics")
	for _, file := range []string{rules, dashboard} {
		asks, err := os.ReadFile(file)
		must(t, err)
		names := regexp.MustCompile(`\bnlb_\w+`).FindAllString(string(asks), -1)
		if len(names) == 0 || file == dashboard && !json.Valid(asks) {
			t.Errorf("%s asks for nothing", file)
		}
		for _, name := range names {
			if !strings.Contains(string(text), "\n"+name+"{") && !strings.Contains(string(text), "\n"+name+" ") {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
	}
}

// BenchmarkScrape is one of all metrics: figures are read from the kernel anew. Wanted
// of 10,000 services with three backends each: at most 150 ms, and 30 MiB.
func BenchmarkScrape(b *testing.B) {
	for _, services := range []int{100, 10_000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			var yaml strings.Builder
			yaml.WriteString("profile: big\nservices:\n")
			for i := range services {
				fmt.Fprintf(&yaml, "  - {name: s%d, listen: '203.0.%d.%d:80', backends: ['10.1.%[2]d.%[3]d:80', '10.2.%[2]d.%[3]d:80', '10.3.%[2]d.%[3]d:80']}\n", i, i>>8, i&255)
			}
			shown := applied(b, yaml.String())
			profiles := profilesOf(b, yaml.String())
			numbers := engine.NumbersOf(profiles)
			server := httptest.NewServer(New(shown, nobody).Handler())
			defer server.Close()
			b.ReportAllocs()
			size, spent, least := int64(0), time.Duration(0), time.Hour
			for b.Loop() {
				b.StopTimer()
				shown.Set(profiles, numbers)
				time.Sleep(1100 * time.Millisecond) // the figures are too old then
				b.StartTimer()
				before, began := processorTime(b), time.Now()
				answer, err := http.Get(server.URL + "/metrics")
				must(b, err)
				size, err = io.Copy(io.Discard, answer.Body)
				must(b, err, answer.Body.Close())
				spent, least = spent+processorTime(b)-before, min(least, time.Since(began))
			}
			b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op") // of both ends
			b.ReportMetric(float64(least.Milliseconds()), "least-ms")               // by the clock
			b.ReportMetric(float64(size)/(1<<20), "MiB/answer")
		})
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var r unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
