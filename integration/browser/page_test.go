//go:build linux

package browser

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// TestServerDies: what a person sees who has the page open when a server dies and comes
// back, without doing anything. What they have opened stays open.
func TestServerDies(t *testing.T) {
	b := start(t, profile)
	all, one := b.visit("/"), b.visit("/service/shop/web")
	all.sees("h1", "4 services, none in trouble.")
	all.sees("#live", "live")
	one.sees("h1", "shop/web: all 3 backends up.")
	one.do(chromedp.Evaluate(`document.querySelector("details").open = true`, nil))
	all.keep("overview-well")
	b.kill("127.0.0.1:8083")
	all.sees("h1", "4 services, 1 in trouble: shop/web has 2 of 3 up.")
	all.sees(".troubles", "▲ in part shop/web 2 of 3 up")
	all.keep("overview-down")
	one.sees("h1", "shop/web: 2 of 3 up.")
	one.sees("tbody tr:nth-child(3)", "✖ down")
	one.sees("tbody tr:nth-child(3)", "it gets no new connections: its checks fail (tcp: refused)")
	one.sees(".way", "✖ b3 0%")
	one.keep("service-down")
	if !evaluate[bool](one, `document.querySelector("details").open`) {
		t.Error("what was opened is closed again")
	}
	if got := evaluate[string](one, `document.querySelector("tbody tr:nth-child(3) svg").getAttribute("aria-label")`); !strings.HasPrefix(got, "tcp 127.0.0.1:8083: failed ") {
		t.Errorf("the strip is called %q", got)
	}
	b.serve("127.0.0.1:8083")
	all.sees("h1", "4 services, none in trouble.")
	one.sees("tbody tr:nth-child(3)", "● up")
	events := b.visit("/events")
	events.sees("tbody", "▲ warn down shop/web/b3 reason: tcp: refused")
	events.keep("events")
}

// TestOrder: an order is seen as what it is, and is no trouble.
func TestOrder(t *testing.T) {
	b := start(t, profile)
	one := b.visit("/service/shop/web")
	one.sees("h1", "all 3 backends up")
	out, err := exec.Command(nlb, "drain", "--socket", b.socket, "shop/web/b1", "--for", "1h").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	one.sees("h1", "shop/web: 1 order in force.")
	one.sees("tbody tr:nth-child(1)", "◐ draining")
	all := b.visit("/")
	all.sees("h1", "4 services, none in trouble.")
	all.sees(".troubles", "shop/web 1 order in force")
}

// TestTabs: seven tabs at a time, where browsers allow six connections to a host: those
// that are hidden have none.
func TestTabs(t *testing.T) {
	b := start(t, profile)
	var tabs []*tab
	for range 7 {
		tabs = append(tabs, b.visit("/"))
	}
	for i, tab := range tabs {
		tab.sees("#live", "live")
		if i > 0 && !strings.Contains(tabs[i-1].reads("#live"), "paused") {
			t.Errorf("tab %d goes on while it is hidden: %s", i-1, tabs[i-1].reads("#live"))
		}
	}
	b.kill("127.0.0.1:8083")
	for _, tab := range tabs {
		tab.sees("h1", "1 in trouble")
	}
}

// TestNoScript: without JavaScript it is the same page, made by the server.
func TestNoScript(t *testing.T) {
	b := start(t, profile)
	b.kill("127.0.0.1:8083")
	off := emulation.SetScriptExecutionDisabled(true)
	one := b.visit("/", off)
	b.eventually("the server's page says so", func() bool {
		one.do(chromedp.Reload())
		return strings.Contains(one.reads("h1"), "shop/web has 2 of 3 up")
	})
	one.sees("#live", "as of the last load")
	one.do(chromedp.SendKeys("#q", "mail\r", chromedp.ByQuery), chromedp.WaitVisible(`input[value="mail"]`, chromedp.ByQuery))
	if got := one.reads("tbody"); !strings.Contains(got, "shop/mail") || strings.Contains(got, "shop/web") {
		t.Errorf("a search finds %q", got)
	}
	one.do(chromedp.Click(`tbody a[href="/service/shop/mail"]`, chromedp.ByQuery), chromedp.WaitVisible("#backends", chromedp.ByQuery))
	one.sees(".way", "deny 10.9.0.0/16")
	one.keep("no-script")
	missing := b.visit("/service/shop/nosuch", off)
	missing.sees("h1", "shop/nosuch is not kept here.")
}

// TestSearch: a search goes along with what is typed, and the focus stays where it is.
func TestSearch(t *testing.T) {
	b := start(t, profile)
	one := b.visit("/")
	one.sees("#live", "live")
	one.do(chromedp.SendKeys("#q", "10.0.0.12", chromedp.ByQuery))
	one.sees("caption", "1 service")
	if got := one.reads("tbody"); !strings.Contains(got, "shop/mail") || strings.Contains(got, "shop/web") {
		t.Errorf("a search finds %q", got)
	}
	if got := evaluate[string](one, `document.activeElement.id + " " + document.activeElement.value`); got != "q 10.0.0.12" {
		t.Errorf("the focus is at %q", got)
	}
}

// TestWindows: narrow, dark, and without motion.
func TestWindows(t *testing.T) {
	b := start(t, profile)
	b.kill("127.0.0.1:8083")
	for _, path := range []string{"/", "/service/shop/web", "/events"} {
		narrow := b.visit(path, size(360, 740))
		narrow.sees("#live", "live")
		if wide := evaluate[int](narrow, `document.documentElement.scrollWidth`); wide > 360 {
			t.Errorf("%s: the page is %d wide in a window of 360", path, wide)
		}
		narrow.keep("narrow" + strings.ReplaceAll(path, "/", "-"))
	}
	dark := b.visit("/service/shop/web", emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: "dark"}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}))
	dark.sees("h1", "2 of 3 up")
	if got := evaluate[string](dark, `getComputedStyle(document.body).backgroundColor`); got != "rgb(20, 23, 27)" {
		t.Errorf("dark is %s", got)
	}
	if got := evaluate[string](dark, `(() => { const e = document.querySelector("td"); e.classList.add("fresh"); return getComputedStyle(e).animationName; })()`); got != "none" {
		t.Errorf("without motion it moves: %s", got)
	}
	dark.keep("dark")
}

// faults are what is hard to use in a page, whoever uses it: names, headers of tables,
// contrast (WCAG 2.2, 1.4.3), order of headings.
const faults = `(() => {
	const out = [];
	for (const e of document.querySelectorAll("a, button, input, summary, [role=img], [role=region], nav, section")) {
		const by = e.getAttribute("aria-labelledby");
		const name = e.getAttribute("aria-label") || by && document.getElementById(by)?.textContent || e.textContent || e.labels?.[0]?.textContent;
		if (!name || !name.trim()) out.push("no name: " + e.outerHTML.slice(0, 80));
	}
	for (const t of document.querySelectorAll("table")) {
		if (!t.caption) out.push("a table without a caption");
		for (const h of t.querySelectorAll("th")) if (!h.scope) out.push("a header without a scope: " + h.textContent);
		for (const r of t.tBodies[0].rows) if (!r.querySelector("th[scope=row]")) out.push("a row without a header: " + r.textContent);
	}
	const ids = Array.from(document.querySelectorAll("[id]"), (e) => e.id);
	if (new Set(ids).size !== ids.length) out.push("an id twice: " + ids);
	if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1 || !document.documentElement.lang) out.push("one h1, one main, and a language");
	const canvas = document.createElement("canvas").getContext("2d");
	const rgb = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
	const light = (c) => { const [r, g, b] = Array.from(c).map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
	const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255]; };
	for (const e of document.querySelectorAll("main *, header *")) {
		if (!Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length || e.closest("svg")) continue;
		const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
		const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (contrast < 4.5) out.push("contrast " + contrast.toFixed(1) + ": " + e.outerHTML.slice(0, 80));
	}
	return out.join("\n");
})()`

// TestUse: names, headers and contrast, in light and dark; all of it by keyboard.
func TestUse(t *testing.T) {
	b := start(t, profile)
	b.kill("127.0.0.1:8083")
	for _, scheme := range []string{"light", "dark"} {
		media := emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}})
		for _, path := range []string{"/", "/service/shop/web", "/service/shop/mail", "/events", "/service/shop/nosuch"} {
			one := b.visit(path, media)
			one.sees("#live", "live")
			if path == "/" {
				one.sees("h1", "1 in trouble")
			}
			if got := evaluate[string](one, faults); got != "" {
				t.Errorf("%s, %s:\n%s", path, scheme, got)
			}
		}
	}
	one := b.visit("/")
	one.sees("#live", "live")
	one.do(chromedp.KeyEvent("\t"))
	if got := evaluate[string](one, `document.activeElement.className`); got != "skip" {
		t.Errorf("the first stop of the keyboard is %q", got)
	}
	one.do(chromedp.KeyEvent("\r"))
	if got := evaluate[string](one, `document.activeElement.id`); got != "main" {
		t.Errorf("it leads to %q", got)
	}
}

// TestRefused: the page breaks no rule that it was sent with, and a page of another site
// gets nothing of it.
func TestRefused(t *testing.T) {
	b := start(t, profile)
	one := b.visit("/", chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument(`window.broken = []; document.addEventListener("securitypolicyviolation", (e) => window.broken.push(e.violatedDirective + " " + e.blockedURI));`).Do(ctx)
		return err
	}))
	one.sees("#live", "live")
	if got := evaluate[string](one, `window.broken.join()`); got != "" {
		t.Errorf("it breaks its own rules: %s", got)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	other := b.foreign(l)
	if got := evaluate[string](other, fmt.Sprintf(`fetch(%q).then((r) => r.text(), () => "refused")`, b.url+"/v1/show")); got != "refused" {
		t.Errorf("another site reads %.80s", got)
	}
}

// TestMany: 10,000 services are no trouble for the page. It tells when the first paint comes.
func TestMany(t *testing.T) {
	var yaml strings.Builder
	yaml.WriteString("profile: big\nservices:\n")
	for i := range 10_000 {
		fmt.Fprintf(&yaml, "  - {name: s%d, listen: '203.0.%d.%d:80', backends: ['10.1.%[2]d.%[3]d:80', '10.2.%[2]d.%[3]d:80', '10.3.%[2]d.%[3]d:80']}\n", i, i>>8, i&255)
	}
	b := start(t, yaml.String())
	one := b.visit("/")
	one.sees("h1", "10000 services, none in trouble.")
	var paints []string
	for range 5 {
		one.do(chromedp.Reload())
		one.sees("#live", "live")
		paints = append(paints, fmt.Sprintf("%.0f", evaluate[float64](one, `performance.getEntriesByName("first-contentful-paint")[0].startTime`)))
	}
	t.Logf("first paints after %s ms; wanted: 500", strings.Join(paints, ", "))
	one.do(chromedp.SendKeys("#q", "s9999", chromedp.ByQuery))
	one.sees("caption", "1 service")
	one.keep("many")
}
