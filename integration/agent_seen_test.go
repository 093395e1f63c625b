package integration

// The agent as others see it: a Prometheus that watches it.

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// TestAgentAlerts: a real Prometheus reads the metrics, as OpenMetrics; its alert fires
// when a server is killed, and is over when the server is back, and another one fires
// when the agent is gone.
func TestAgentAlerts(t *testing.T) {
	t.Parallel()
	if !*netlabtest.Full {
		t.Skip("SKIPPED, NOT PROVED: it takes 15 seconds; -full does")
	}
	for _, program := range []string{"prometheus", "promtool"} {
		netlabtest.Needs(t, program)
	}
	b := newBed(t)
	dying := b.serve("10.2.0.11")
	b.serve("10.2.0.12")
	a := b.agent("profile: shop\nservices: [{name: web, listen: \"203.0.113.10:80\", health: {check: tcp, interval: 200ms}, backends: [{name: b1, address: \"10.2.0.11:8080\"}, {name: b2, address: \"10.2.0.12:8080\"}]}]\n", "--listen", "127.0.0.1:9469")
	rules, err := os.ReadFile("../packaging/prometheus/nlb.rules.yml")
	b.Check(err)
	text := strings.ReplaceAll(string(rules), "for: 1m", "for: 1s") // nobody waits that long here
	dir := t.TempDir()
	b.Check(os.WriteFile(filepath.Join(dir, "nlb.rules.yml"), []byte(text), 0o644))
	b.Check(os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [nlb.rules.yml]\nscrape_configs: [{job_name: nlb, static_configs: [{targets: [\"127.0.0.1:9469\"]}]}]\n"), 0o644))
	p := b.Command(b.Balancer, "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:9090")
	var log journal
	p.Stderr = &log
	b.Check(p.Start())
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		_ = p.Wait()
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", log.String())
		}
	})
	ask := func(query string) string {
		out, _ := b.Command(b.Balancer, "promtool", "query", "instant", "http://127.0.0.1:9090", query).CombinedOutput()
		return string(out)
	}
	b.eventually("Prometheus reads the metrics", func() bool { return strings.Contains(ask("nlb_backend_up"), `backend="b1"`) })
	const fires = `ALERTS{alertname="NlbBackendDown",alertstate="firing"}`
	if got := ask(fires); strings.Contains(got, "b1") {
		t.Errorf("it fires before anything has happened: %s", got)
	}
	dying.Close()
	b.eventually("the alert fires", func() bool { return strings.Contains(ask(fires), `backend="b1"`) })
	b.serve("10.2.0.11")
	b.becomes(lb.Up, "web", "10.2.0.11")
	b.eventually("the alert is over", func() bool { return !strings.Contains(ask(fires), "b1") })
	if got := ask("nlb_backend_state_changes_total"); !strings.Contains(got, `backend="b1"`) || !strings.Contains(got, "=> 2 ") {
		t.Errorf("changes: %s", got)
	}
	b.Check(a.end(syscall.SIGTERM))
	b.eventually("the agent is gone", func() bool {
		return strings.Contains(ask(`ALERTS{alertname="NlbAgentGone",alertstate="firing"}`), "firing")
	})
}
