//go:build linux

package probe

// The turns of a pool: one goroutine begins what is due, reads what came of
// connects, and hands results over.

import (
	"container/heap"
	"context"
	"time"

	"golang.org/x/sys/unix"
)

func (p *Pool) run() {
	defer p.epoll.Close()
	events := make([]unix.EpollEvent, 512)
	for p.calling.Err() == nil {
		n, looked := p.wait(events)
		p.turn(events, n, looked)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.probes {
		p.drop(key)
	}
}

// wait returns when there are events, and at the moment of the next turn. Looked is
// just before it looked for the last time.
func (p *Pool) wait(events []unix.EpollEvent) (n int, looked time.Time) {
	ready := func(fd uintptr) bool {
		looked = time.Now()
		n, _ = unix.EpollWait(int(fd), events, 0)
		return n > 0
	}
	if err := p.raw.Read(ready); err != nil { // the deadline: it asks nothing then
		_ = p.raw.Control(func(fd uintptr) { ready(fd) })
	}
	return max(n, 0), looked
}

// turn does what there is to do. An answer that waits is none that is missing: so
// they come first, and no deadline has passed that was not over when it looked.
func (p *Pool) turn(events []unix.EpollEvent, n int, looked time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turned = time.Now()
	for _, e := range events[:n] {
		if pr := p.flying[e.Fd]; pr != nil {
			p.answered(pr, e.Events)
		}
	}
	next := p.turned.Add(idle)
	if n == len(events) {
		next = p.turned // more answers wait
	} else {
		p.expire(looked)
	}
	more := p.begin(&p.connects, p.connect)
	if p.begin(&p.calls, p.call) || more {
		next = p.turned
	}
	if len(p.timers) > 0 && p.timers[0].at.Before(next) {
		next = p.timers[0].at
	}
	if at := p.handOver(); !at.IsZero() && at.Before(next) {
		next = at
	}
	p.wake = next
	_ = p.epoll.SetReadDeadline(next)
}

// wakeBy has the next turn come no later. The deadline of a read holds for one that
// has begun, too.
func (p *Pool) wakeBy(at time.Time) {
	if at.Before(p.wake) {
		p.wake = at
		_ = p.epoll.SetReadDeadline(at)
	}
}

func (p *Pool) expire(now time.Time) {
	for len(p.timers) > 0 && !p.timers[0].at.After(now) {
		pr := p.timers[0]
		p.timers.remove(pr)
		if pr.fd >= 0 {
			p.finish(pr, failed("tcp", context.DeadlineExceeded))
		} else {
			pr.lane.queue = append(pr.lane.queue, pr)
		}
	}
}

// begin begins checks that are due, as many as there is room for, and says whether
// more could begin at once.
func (p *Pool) begin(l *lane, with func(*probe)) (more bool) {
	begun := 0
	for ; begun < mostBegun && l.busy < l.most && len(l.queue) > 0; begun++ {
		pr := l.queue[0]
		l.queue[0], l.queue = nil, l.queue[1:]
		if !pr.gone {
			with(pr)
		}
	}
	return l.busy < l.most && len(l.queue) > 0
}

// call carries out a check in a goroutine of its own.
func (p *Pool) call(pr *probe) {
	ctx, end := context.WithCancel(p.calling)
	pr.end = end
	pr.lane.busy++
	p.running.Go(func() {
		defer end()
		began := time.Now()
		ctx, end := context.WithDeadline(ctx, began.Add(pr.target.Check.Timeout))
		defer end()
		o := kinds[pr.target.Check.Kind](ctx, *pr.target)
		p.mu.Lock()
		defer p.mu.Unlock()
		pr.began = began
		pr.lane.leave()
		p.finish(pr, o)
		if len(pr.lane.queue) > 0 {
			p.wakeBy(began)
		}
	})
}

// handOver sends results that have waited for others long enough. Who takes them
// may be busy: then they wait on, until the moment that it returns.
func (p *Pool) handOver() (again time.Time) {
	if len(p.done) == 0 {
		return time.Time{}
	}
	if at := p.first.Add(gather); at.After(p.turned) && len(p.done) < mostBatch {
		return at
	}
	select {
	case p.results <- p.done:
		p.done = nil
		return time.Time{}
	default:
		return p.turned.Add(gather)
	}
}

// timers is a heap, the next moment first.
type timers []*probe

func (t *timers) add(pr *probe) { heap.Push(t, pr) }

func (t *timers) remove(pr *probe) {
	if pr.place >= 0 {
		heap.Remove(t, pr.place)
	}
}

// Len, Less, Swap, Push and Pop are what container/heap asks for.
func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i]; t[i].place, t[j].place = i, j }

func (t *timers) Push(x any) {
	pr := x.(*probe)
	pr.place = len(*t)
	*t = append(*t, pr)
}

func (t *timers) Pop() any {
	last := len(*t) - 1
	pr := (*t)[last]
	(*t)[last], *t = nil, (*t)[:last]
	pr.place = -1
	return pr
}
