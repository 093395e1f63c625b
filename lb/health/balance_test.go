package health

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"nlb/lb"
)

// lasting says how long a connection lasts, in seconds.
type lasting func(r *rand.Rand, n int) float64

func exponential(mean float64) lasting {
	return func(r *rand.Rand, _ int) float64 { return r.ExpFloat64() * mean }
}

// everyNth are long connections among short ones.
func everyNth(n int, long, short float64) lasting {
	return func(_ *rand.Rand, i int) float64 {
		if i%n == 0 {
			return long
		}
		return short
	}
}

// pareto are connections of which few last very long.
func pareto(shape, least, most float64) lasting {
	return func(r *rand.Rand, _ int) float64 { return min(least*math.Pow(1-r.Float64(), -1/shape), most) }
}

// flow is a simulated service.
type flow struct {
	rate     float64 // new connections a second
	lasts    lasting
	slowness []float64 // of backends: how many times longer connections last there
	every    int       // seconds between looks; 0: nobody looks
	from     []int     // of backends: the second from which it is there
}

// simulate runs a service for a while over backends. For each second it calls each,
// with the live connections and the new ones.
func simulate(s *lb.Service, f flow, seconds int, each func(second int, live, arrived []int)) {
	r := rand.New(rand.NewPCG(1, 2))
	n := len(s.Backends)
	live, looked, arrived, ended := make([]int, n), make([]int, n), make([]int, n), make([]int, n)
	ends := make([][]int, seconds) // by second, backends
	cycle, next, count := []int(nil), 0, 0
	draw := func() {
		if c := s.Slots(s.Backends); !slices.Equal(c, cycle) {
			cycle, next = c, 0 // another rule begins anew
		}
	}
	for now := range seconds {
		for i := range s.Backends {
			s.Backends[i].State = lb.Up
			if len(f.from) > 0 && now < f.from[i] {
				s.Backends[i].State, s.Backends[i].Share = lb.Down, 0
			}
		}
		draw()
		for _, b := range ends[now] {
			live[b]--
			ended[b]++
		}
		clear(arrived)
		for range int(f.rate) + int(r.Float64()+f.rate-math.Floor(f.rate)) {
			b := cycle[next%len(cycle)]
			next++
			live[b]++
			arrived[b]++
			looked[b]++
			last := f.lasts(r, count)
			if f.slowness != nil {
				last *= f.slowness[b]
			}
			if end := now + 1 + int(last); end < seconds {
				ends[end] = append(ends[end], b)
			}
			count++
		}
		if f.every > 0 && now%f.every == 0 {
			balance(s, live, looked, ended)
			clear(looked)
			clear(ended)
		}
		each(now, live, arrived)
	}
}

// balance gives the backends that are up their shares.
func balance(s *lb.Service, live, arrived, ended []int) {
	var loads []Load
	var which []int
	for i := range s.Backends {
		if b := &s.Backends[i]; b.State == lb.Up {
			loads, which = append(loads, Load{Weight: b.Weight, Live: live[i], New: arrived[i], Ended: ended[i]}), append(which, i)
		}
	}
	for i, share := range Balance(loads) {
		s.Backends[which[i]].Share = share
	}
}

func leastConnections(weights ...int) *lb.Service {
	s := &lb.Service{Scheduler: lb.LeastConnections}
	for _, w := range weights {
		s.Backends = append(s.Backends, lb.Backend{Weight: w})
	}
	return s
}

// over is how much more than its part the fullest backend has, on average of the
// seconds after the first ones.
func over(s *lb.Service, f flow) float64 {
	const seconds, first = 600, 200
	sum, weight := 0., 0
	for i := range s.Backends {
		weight += s.Backends[i].Weight
	}
	simulate(s, f, seconds, func(now int, live, _ []int) {
		all, most := 0, 0.
		for i := range live {
			all += live[i]
		}
		for i := range live {
			most = max(most, float64(live[i])*float64(weight)/float64(all*s.Backends[i].Weight)-1)
		}
		if now >= first {
			sum += most
		}
	})
	return sum / (seconds - first)
}

// TestBalance: live connections become even where they do not by themselves.
func TestBalance(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []int
		flow    flow
		robin   float64 // percent over, at least, of round robin
		most    float64 // percent over
	}{
		{"every second one is long, of two", []int{1, 1}, flow{rate: 100, lasts: everyNth(2, 60, 1)}, 90, 3},
		{"every fourth one is long, of four", []int{1, 1, 1, 1}, flow{rate: 200, lasts: everyNth(4, 60, 2)}, 200, 6},
		{"few last very long", []int{1, 1, 1, 1}, flow{rate: 500, lasts: pareto(1.2, 1, 300)}, 2.5, 2.5},
		{"one server is slow", []int{1, 1, 1}, flow{rate: 300, lasts: exponential(10), slowness: []float64{1, 1, 2}}, 40, 3},
		{"one server is slow, by weight", []int{4, 2, 2, 1}, flow{rate: 500, lasts: exponential(10), slowness: []float64{1, 2, 1, 1}}, 50, 3},
		{"a server has come later", []int{1, 1, 1, 1}, flow{rate: 100, lasts: exponential(300), from: []int{0, 0, 0, 100}}, 5, 1},
		{"long ones", []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, flow{rate: 50, lasts: pareto(1.5, 20, 300)}, 5, 3},
		{"few connections", []int{1, 1, 1, 1}, flow{rate: 3, lasts: exponential(10)}, 20, 18}, // about 7 for each
		{"few connections, one slow server", []int{1, 1, 1, 1}, flow{rate: 3, lasts: exponential(30), slowness: []float64{1, 1, 1, 3}}, 60, 6},
		{"short ones", []int{1, 1, 1, 1}, flow{rate: 300, lasts: exponential(.5)}, 3, 8}, // nothing to win, and little lost
	} {
		robin := 100 * over(leastConnections(tt.weights...), tt.flow)
		tt.flow.every = 1
		least := 100 * over(leastConnections(tt.weights...), tt.flow)
		t.Logf("%-36s %4.1f %% over its part, round robin %5.1f %%", tt.name, least, robin)
		if robin < tt.robin || least > tt.most {
			t.Errorf("%s: %.1f %% over, round robin %.1f %%; want at most %v and at least %v", tt.name, least, robin, tt.most, tt.robin)
		}
		if tt.flow.rate < 50 {
			continue
		}
		tt.flow.every = 5 // many are looked at less often
		if seldom := 100 * over(leastConnections(tt.weights...), tt.flow); seldom > max(tt.most, robin/2, 4) {
			t.Errorf("%s: %.1f %% over with a look every 5 seconds, round robin %.1f %%", tt.name, seldom, robin)
		}
	}
}

// TestBalanceNewcomer: a backend that comes up beside full ones catches up, and
// has at most three times its part of the new connections meanwhile.
func TestBalanceNewcomer(t *testing.T) {
	const n, since = 10, 200
	from := make([]int, n)
	from[0] = since
	most, caught := 0., 0
	s := leastConnections(slices.Repeat([]int{1}, n)...)
	simulate(s, flow{rate: 200, lasts: exponential(100), every: 1, from: from}, 600, func(now int, live, came []int) {
		all, total := 0, 0
		for i := range live {
			all, total = all+came[i], total+live[i]
		}
		if now > since {
			most = max(most, float64(came[0]*n)/float64(all))
		}
		if caught == 0 && now > since && live[0]*n*10 > total*9 {
			caught = now - since
		}
	})
	t.Logf("at most %.1f times its part, even after %d s", most, caught)
	if most < 2 || most > 3.2 || caught == 0 || caught > 60 {
		t.Errorf("a newcomer has %.1f times its part and has caught up after %d s", most, caught)
	}
}

// TestBalanceShares: what the shares of some loads are.
func TestBalanceShares(t *testing.T) {
	for _, tt := range []struct {
		name  string
		loads []Load
		want  []uint8
	}{
		{"nothing", nil, []uint8{}},
		{"idle", []Load{{Weight: 1}, {Weight: 3}}, []uint8{16, 16}},
		{"even", []Load{{Weight: 1, Live: 10, New: 5, Ended: 2}, {Weight: 3, Live: 30, New: 15, Ended: 6}}, []uint8{16, 16}},
		{"one alone", []Load{{Weight: 5, Live: 7, New: 1}}, []uint8{16}},
		{"a little", []Load{{Weight: 1, Live: 110, New: 50}, {Weight: 1, Live: 90, New: 50}}, []uint8{15, 17}},
		{"by weight", []Load{{Weight: 1, Live: 30, New: 25}, {Weight: 3, Live: 50, New: 75}}, []uint8{14, 17}},
		{"much", []Load{{Weight: 1, Live: 1000, New: 50}, {Weight: 1, New: 50}}, []uint8{2, 32}},
		{"it ends sooner there", []Load{{Weight: 1, Live: 1000, New: 50, Ended: 75}, {Weight: 1, Live: 1000, New: 50, Ended: 25}}, []uint8{24, 8}},
		{"short ones", []Load{{Weight: 1, New: 1000, Ended: 1500}, {Weight: 1, New: 1000, Ended: 500}}, []uint8{16, 16}},
		{"nobody comes", []Load{{Weight: 1, Live: 1}, {Weight: 1}}, []uint8{12, 20}},
		{"a newcomer", slices.Concat([]Load{{Weight: 1}}, slices.Repeat([]Load{{Weight: 1, Live: 100, New: 1}}, 9)), []uint8{26, 7, 7, 7, 7, 7, 7, 7, 7, 7}},
	} {
		if got := Balance(tt.loads); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
