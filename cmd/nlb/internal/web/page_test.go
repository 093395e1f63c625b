//go:build linux

package web

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nlb/cmd/nlb/internal/agent/board"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/lbtest"
	"nlb/nft"
)

// snapshotOf is one of services, with so many connections of each backend.
func snapshotOf(connections uint64, services ...lb.Service) *view.Snapshot {
	of := view.Services{Profile: "shop"}
	for i := range services {
		services[i].Place()
		of.Services = append(of.Services, &services[i])
	}
	return view.SnapshotOf("nlb", 1, []view.Services{of}, view.Figures{
		Of:      func(string, *lb.Service, *lb.Backend) nft.Stats { return nft.Stats{Connections: connections, Live: 2} },
		Live:    true,
		Refused: func(string, *lb.Service) uint64 { return 3 },
	})
}

// some is a service of n backends, of which the last ones are down.
func some(name string, n, down int) lb.Service {
	s := lb.Service{Name: name, Health: []lb.Check{{Kind: lb.CheckTCP}}, Protocols: []lb.Protocol{lb.TCP}, Listen: lbtest.Fleet(1).Services[0].Listen}
	for _, b := range lbtest.Fleet(1).Services[0].Backends[:1] {
		for i := range n {
			b.Name, b.Standing = fmt.Sprint("b", i+1), lb.Standing{Verdict: lb.VerdictUp}
			if i >= n-down {
				b.Standing = lb.Standing{Verdict: lb.VerdictDown, Reason: "tcp: refused"}
			}
			b.Address.Addr = b.Address.Addr.Next()
			s.Backends = append(s.Backends, b)
		}
	}
	return s
}

// TestOverview: the first sentence says it all.
func TestOverview(t *testing.T) {
	drained := some("api", 2, 0)
	drained.Backends[0].Standing.Order, drained.Backends[0].Standing.By = lb.OrderDrain, "root"
	for _, tt := range []struct {
		services []lb.Service
		want     string
		troubles int
	}{
		{nil, "Nothing is balanced here.", 0},
		{[]lb.Service{some("web", 3, 0)}, "1 service, none in trouble.", 0},
		{[]lb.Service{some("mail", 2, 0), some("web", 3, 1)}, "2 services, 1 in trouble: shop/web has 2 of 3 up.", 1},
		{[]lb.Service{some("mail", 2, 1), some("web", 3, 3)}, "2 services, 2 in trouble, first shop/mail has 1 of 2 up.", 2},
		{[]lb.Service{drained}, "1 service, none in trouble.", 1},
	} {
		got := New(board.New("nlb", nil), nobody).overview(snapshotOf(0, tt.services...), nil)
		if got.Sentence != tt.want || len(got.Troubles) != tt.troubles {
			t.Errorf("got %q and %d that are not well, want %q and %d", got.Sentence, len(got.Troubles), tt.want, tt.troubles)
		}
	}
	open := snapshotOf(0, some("web", 2, 2))
	if is, what, trouble := serviceState(&open.Profiles[0].Services[0]); is != stateOpen || !trouble || !strings.Contains(what, "those that are down get connections") {
		t.Errorf("open: %v %q", is, what)
	}
	empty := some("web", 1, 0)
	empty.Backends[0].Weight = 0
	none := snapshotOf(0, empty)
	if is, what, trouble := serviceState(&none.Profiles[0].Services[0]); is != stateDown || !trouble || !strings.Contains(what, "no backend takes connections") {
		t.Errorf("empty: %v %q", is, what)
	}
}

// TestRows: many services come in parts, and are searched for.
func TestRows(t *testing.T) {
	var many []lb.Service
	for i := range 250 {
		many = append(many, some(fmt.Sprintf("s%03d", i), 1, 0))
	}
	all := snapshotOf(0, many...)
	s := New(board.New("nlb", nil), nobody)
	for _, tt := range []struct {
		query, first, found, previous, next string
		rows                                int
	}{
		{"", "shop/s000", "250 services, of which these are 1 to 100", "", "/?page=2#services", 100},
		{"page=3", "shop/s200", "250 services", "/?page=2#services", "", 50},
		{"page=-1", "shop/s000", "250 services, of which these are 1 to 100", "", "/?page=2#services", 100},
		{"page=99", "", "250 services", "/?page=98#services", "", 0},
		{"q=S24", "shop/s240", "10 services", "", "", 10},
		{"q=s", "shop/s000", "250 services, of which these are 1 to 100", "", "/?page=2&q=s#services", 100},
		{"q=%3Cscript%3E", "", "0 services", "", "", 0},
	} {
		query, err := url.ParseQuery(tt.query)
		must(t, err)
		got, first := s.overview(all, query), ""
		if len(got.Rows) > 0 {
			first = got.Rows[0].Name
		}
		if first != tt.first || got.Found != tt.found || got.Previous != tt.previous || got.Next != tt.next || len(got.Rows) != tt.rows {
			t.Errorf("%s: got %d from %s, %s, %q %q", tt.query, len(got.Rows), first, got.Found, got.Previous, got.Next)
		}
	}
}

// TestHistory: rates are what was counted between two samples; who is new has none.
func TestHistory(t *testing.T) {
	var h history
	at := time.Unix(0, 0)
	h.add(sample{at, snapshotOf(100, some("web", 2, 0))})
	if got := h.service("shop", "web"); len(got) != 0 {
		t.Errorf("after one sample: %v", got)
	}
	h.add(sample{at.Add(5 * time.Second), snapshotOf(150, some("web", 2, 0), some("mail", 1, 0))})
	if got := fmt.Sprint(h.service("shop", "web"), h.service("shop", "mail")); got != "[20] []" {
		t.Errorf("after two: %s", got)
	}
	h.add(sample{at.Add(10 * time.Second), snapshotOf(20, some("web", 2, 0))}) // counted anew
	if got := fmt.Sprint(h.service("shop", "web")); got != "[]" {
		t.Errorf("counted anew: %s", got)
	}
	for i := range 2 * mostSamples {
		h.add(sample{at.Add(time.Duration(i+3) * sampleEvery), snapshotOf(uint64(20+50*(i+1)), some("web", 2, 0))})
	}
	if got := h.service("shop", "web"); len(got) != mostSamples || got[0] != 20 {
		t.Errorf("later: %v", got)
	}
	id := lb.BackendID{Profile: "shop", Service: "web", Address: some("web", 1, 0).Backends[0].Address}
	if got, ok := h.backend(id); got != 10 || !ok {
		t.Errorf("a backend has %v", got)
	}
	l := lineOf([]float32{0, 50, 100})
	if l.Points != "580,78.0 590,40.5 600,3.0" || l.Words != "New connections a second over the last 15s: now 100, at most 100." {
		t.Errorf("the line is %+v", l)
	}
}

// TestHistoryEnds: nobody counts when nobody has looked for a while.
func TestHistoryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{board: board.New("nlb", nil)}
		h.look()
		h.look()
		time.Sleep(lookedFor - time.Second)
		h.look()
		time.Sleep(lookedFor - time.Second)
		if h.mu.Lock(); !h.running {
			t.Error("it ends while somebody looks")
		}
		h.mu.Unlock()
		time.Sleep(time.Minute)
		if h.mu.Lock(); h.running {
			t.Error("it does not end")
		}
		h.mu.Unlock()
		h.look()
		h.close() // or the bubble would not end
		time.Sleep(sampleEvery)
	})
}

// TestAsker: whoever asks too often hears the last answer.
func TestAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		a := &asker{ask: func(context.Context, string, string) (map[string]*view.Known, error) {
			n++
			return map[string]*view.Known{"b": {Reason: fmt.Sprint(n)}}, nil
		}}
		for range 10 {
			if got := a.of(t.Context(), "shop", "web")["b"].Reason; got != "1" {
				t.Errorf("got answer %s", got)
			}
		}
		time.Sleep(askEvery)
		if got := a.of(t.Context(), "shop", "web")["b"].Reason; got != "2" {
			t.Errorf("later: got answer %s", got)
		}
		for i := range 3 * mostAsked {
			a.of(t.Context(), "shop", fmt.Sprint(i))
		}
		if len(a.answers) > mostAsked {
			t.Errorf("%d answers are kept", len(a.answers))
		}
	})
}

// TestPages: what comes from outside is text, and the parts of a page are there.
func TestPages(t *testing.T) {
	t.Parallel()
	b := applied(t, shop)
	b.Log(slog.New(slog.DiscardHandler)).Warn("down", "backend", "<script>alert(1)</script>", "reason", `"><img src=x>`)
	h := New(b, func(context.Context, string, string) (map[string]*view.Known, error) {
		return map[string]*view.Known{"b3": {Verdict: "down", Checks: []view.Check{{Check: "tcp", At: "<b>", Past: "++-~"}}}}, nil
	}).Handler()
	for _, tt := range []struct {
		path string
		code int
		has  []string
	}{
		{"/", 200, []string{"2 services, 1 in trouble: shop/web has 2 of 3 up.", `<a href="/service/shop/web">`, `<caption>2 services</caption>`}},
		{"/?q=%22%3E%3Cscript%3E", 200, []string{`value="&#34;&gt;&lt;script&gt;"`}},
		{"/service/shop/web", 200, []string{"it gets no new connections: its checks fail (tcp: refused)", "of the last 4 1 failed, 1 were late", "tcp &lt;b&gt;", "deny 10.9.0.0/16", "nlb drain shop/web/b1 --for 30m"}},
		{"/service/shop/nosuch", 404, []string{"shop/nosuch is not kept here."}},
		{"/service/%3Cscript%3E/x", 404, []string{"&lt;script&gt;/x is not kept here."}},
		{"/events", 200, []string{"&lt;script&gt;alert(1)", "reason: &#34;&gt;&lt;img src=x&gt;"}},
		{"/style.css", 200, nil},
		{"/script.js", 200, nil},
		{"/icon.svg", 200, nil},
	} {
		code, _, text := get(t, h, tt.path)
		if code != tt.code {
			t.Errorf("%s: got %d", tt.path, code)
		}
		for _, part := range tt.has {
			if !bytes.Contains(text, []byte(part)) {
				t.Errorf("%s has no %q", tt.path, part)
			}
		}
		if strings.HasPrefix(tt.path, "/service") && t.Failed() {
			t.Logf("%s", text)
		}
	}
	b.Say("Keeps what was read before: 1 error. Balances shop.")
	b.Counts.Keeps.Store(true)
	if _, _, text := get(t, h, "/"); !bytes.Contains(text, []byte(`role="alert"`)) || !bytes.Contains(text, []byte("Keeps what was read before")) {
		t.Error("a mistake in the files is not seen")
	}
	for _, view := range []string{"https://evil.example/", "//evil.example/", "%zz"} {
		if code, _, _ := get(t, h, "/live?view="+url.QueryEscape(view)); code != http.StatusBadRequest {
			t.Errorf("the view %s: got %d", view, code)
		}
	}
}

// TestLive: an open page is made again when something has changed.
func TestLive(t *testing.T) {
	t.Parallel()
	b := applied(t, shop)
	server := httptest.NewServer(New(b, nobody).Handler())
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/live?view=%2Fevents", nil)
	must(t, err)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	log := b.Log(slog.New(slog.DiscardHandler))
	lines := bufio.NewScanner(answer.Body)
	log.Warn("the first thing")
	for _, want := range []string{"the first thing", "the second thing"} {
		for lines.Scan() && !strings.Contains(lines.Text(), want) {
			if !strings.HasPrefix(lines.Text(), "data: ") && !strings.HasPrefix(lines.Text(), "event: main") && lines.Text() != "" {
				t.Errorf("the stream has %q", lines.Text())
			}
		}
		must(t, lines.Err())
		log.Warn("the second thing")
	}
}

// TestScript: it is small, and asks nobody else.
func TestScript(t *testing.T) {
	text, err := assets.ReadFile("assets/script.js")
	must(t, err)
	if n := bytes.Count(text, []byte("\n")); n > 400 {
		t.Errorf("the script has %d lines", n)
	}
	for _, name := range []string{"page.html", "overview.html", "service.html", "events.html", "style.css", "script.js"} {
		text, err := assets.ReadFile("assets/" + name)
		must(t, err)
		for _, no := range []string{"http:", "https:", "src=\"//", "style=", "onclick", "innerHTML", "eval("} {
			if bytes.Contains(text, []byte(no)) {
				t.Errorf("%s has %s", name, no)
			}
		}
	}
}

// TestUntrackedPage: of a service whose connections nobody tracks, the page says what its
// packets are, and no connections.
func TestUntrackedPage(t *testing.T) {
	for with, untracked := range map[string]func(*lb.Service){
		"mode: dsr":          func(s *lb.Service) { s.Mode = lb.DSR },
		"mode: tunnel":       func(s *lb.Service) { s.Mode = lb.Tunnel },
		"balance: datagrams": func(s *lb.Service) { s.Balance = lb.Datagrams },
	} {
		direct := some("web", 2, 0)
		untracked(&direct)
		shown := snapshotOf(5, direct)
		server := New(board.New("nlb", nil), nobody)
		server.history.add(sample{time.Unix(0, 0), shown})
		server.history.add(sample{time.Unix(1, 0), snapshotOf(9, direct)})
		one := server.service(t.Context(), &shown.Profiles[0].Services[0])
		if want := "With " + with + " the kernel tracks no connections. It counts packets: b1 0, b2 0."; one.Line.Words != want || one.Line.Points != "" {
			t.Errorf("got %+v", one.Line)
		}
		if b := one.Backends[0]; b.Live != "–" || b.Rate != "–" {
			t.Errorf("live %s, new %s", b.Live, b.Rate)
		}
		if row := server.overview(shown, nil).Rows[0]; row.Live != "–" || row.Rate != "–" {
			t.Errorf("of all: live %s, new %s", row.Live, row.Rate)
		}
	}
}

// TestAnnounced: the page says which addresses this host announces.
func TestAnnounced(t *testing.T) {
	b := applied(t, shop)
	_, _, text := get(t, New(b, nobody).Handler(), "/")
	if strings.Contains(string(text), "announces") {
		t.Error("it announces nothing")
	}
	all := snapshotOf(0, some("web", 1, 0))
	all.Announced = []string{"203.0.113.10 on nlb0", "2001:db8::10 on nlb0"}
	if got := New(b, nobody).overview(all, nil).Announced; got != "203.0.113.10 on nlb0, 2001:db8::10 on nlb0" {
		t.Errorf("got %q", got)
	}
}
