package resolve

// When names are asked for, and which answers are told: in a bubble, without
// sockets.

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nlb/lb"
	"nlb/lb/names"
)

// script is a lookup that finds what a test says, and knows when it was asked.
type script struct {
	mu    sync.Mutex
	finds found
	asked []time.Time
}

func (s *script) look(context.Context, lb.Host, memory) found {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Now())
	return s.finds
}

func (s *script) set(f found) {
	s.mu.Lock()
	s.finds = f
	s.mu.Unlock()
}

// pauses are the times between lookups so far.
func (s *script) pauses() (out []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i < len(s.asked); i++ {
		out = append(out, s.asked[i].Sub(s.asked[i-1]))
	}
	return out
}

func at(addrs ...string) []names.Record {
	var out []names.Record
	for _, a := range addrs {
		out = append(out, names.Record{Addr: netip.MustParseAddr(a)})
	}
	return out
}

// none fails the test where there is an answer.
func none(t *testing.T, r *Resolver) {
	t.Helper()
	synctest.Wait()
	select {
	case a := <-r.Answers():
		t.Errorf("there is news: %+v", a)
	default:
	}
}

// TestFollow: news, and nothing but news; what was found holds for ever.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{finds: found{records: at("10.0.0.1"), ttl: time.Minute}}
		r := follower(s.look)
		defer r.Close()
		web := host("web.example")
		r.Set([]lb.Host{web})
		expect := func(records []names.Record, stale bool, err error) Answer {
			t.Helper()
			a := <-r.Answers()
			if a.Host != web || len(a.Records) != len(records) || a.Records[0] != records[0] || a.Stale != stale || !errors.Is(a.Err, err) {
				t.Errorf("got %+v, want %v, stale %v, %v", a, records, stale, err)
			}
			if stale == a.Since.IsZero() || !a.Next.After(time.Now()) {
				t.Errorf("since %v, next %v", a.Since, a.Next)
			}
			return a
		}
		expect(at("10.0.0.1"), false, nil)
		time.Sleep(time.Hour)
		none(t, r)
		s.set(found{records: at("10.0.0.2"), ttl: time.Minute})
		expect(at("10.0.0.2"), false, nil)

		// It is there no more, which is told once.
		s.set(found{err: errNothing, ttl: longestTTL})
		since := expect(at("10.0.0.2"), true, errNothing).Since
		time.Sleep(30 * 24 * time.Hour)
		none(t, r)
		// Another reason for the same state is no news, and neither is the time.
		s.set(found{err: errLate, ttl: longestTTL})
		time.Sleep(time.Hour)
		none(t, r)
		// A part that is new, with a part that is stale.
		s.set(found{records: at("10.0.0.3"), ttl: time.Minute, stale: true, err: errLate})
		if a := expect(at("10.0.0.3"), true, errLate); a.Since != since {
			t.Errorf("stale since %v, want %v", a.Since, since)
		}
		s.set(found{records: at("10.0.0.3"), ttl: time.Minute})
		expect(at("10.0.0.3"), false, nil)
	})
}

// TestUnresolved: the first answer comes, whatever it says.
func TestUnresolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{finds: found{err: errLate, ttl: longestTTL}}
		r := follower(s.look)
		defer r.Close()
		r.Set([]lb.Host{host("web.example")})
		if a := <-r.Answers(); a.Err != errLate || a.Stale || a.Records != nil {
			t.Errorf("got %+v", a)
		}
		time.Sleep(time.Hour)
		none(t, r)
		s.set(found{records: at("10.0.0.1"), ttl: time.Minute})
		if a := <-r.Answers(); a.Err != nil || a.Stale || len(a.Records) != 1 {
			t.Errorf("got %+v", a)
		}
	})
}

// TestPace: a TTL within its bounds; failures are asked for again soon, and then
// less often.
func TestPace(t *testing.T) {
	const s = time.Second
	ok := at("10.0.0.1")
	for _, tt := range []struct {
		name  string
		finds found
		want  []time.Duration // a tenth may be added
	}{
		{"TTL", found{records: ok, ttl: 90 * s}, []time.Duration{90 * s, 90 * s, 90 * s}},
		{"TTL 0", found{records: ok}, []time.Duration{5 * s, 5 * s}},
		{"a long TTL", found{records: ok, ttl: time.Hour}, []time.Duration{600 * s, 600 * s}},
		{"failure", found{err: errLate, ttl: longestTTL}, []time.Duration{5 * s, 10 * s, 20 * s, 40 * s, 60 * s, 60 * s}},
		{"half a failure", found{records: ok, ttl: 30 * s, stale: true, err: errLate}, []time.Duration{5 * s, 10 * s, 20 * s, 30 * s, 30 * s}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := &script{finds: tt.finds}
				r := follower(script.look)
				defer r.Close()
				r.Set([]lb.Host{host("web.example")})
				<-r.Answers()
				time.Sleep(24 * time.Hour)
				got := script.pauses()
				for i, want := range tt.want {
					if got[i] < want || got[i] > want+want/10 {
						t.Errorf("pause %d: got %v, want %v", i, got[i], want)
					}
				}
			})
		})
	}
}

// TestSet: a name that stays goes on undisturbed; one that goes is not asked for
// any more, and begins anew when it returns.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{finds: found{records: at("10.0.0.1"), ttl: time.Minute}}
		r := follower(s.look)
		web, api := host("web.example"), host("srv:_http._tcp.web.example")
		r.Set([]lb.Host{web})
		<-r.Answers()
		r.Set([]lb.Host{web, api, api})
		if a := <-r.Answers(); a.Host != api {
			t.Errorf("got %+v", a)
		}
		none(t, r)
		if n := len(s.asked); n != 2 {
			t.Errorf("asked %d times, want 2", n)
		}
		r.Set(nil)
		time.Sleep(time.Hour)
		if n := len(s.asked); n != 2 {
			t.Errorf("asked %d times, want 2", n)
		}
		s.set(found{err: errLate, ttl: longestTTL})
		r.Set([]lb.Host{web})
		if a := <-r.Answers(); a.Stale || a.Records != nil {
			t.Errorf("it remembers: %+v", a)
		}
		s.set(found{records: at("10.0.0.1"), ttl: time.Minute})
		time.Sleep(time.Minute) // nobody takes the answer
		r.Close()
		r.Set([]lb.Host{api}) // too late
		none(t, r)
	})
}
