//go:build linux

package probe

// The pool: which checks are wanted when, and what came of them.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nlb/lb"
)

// Limits of a pool.
const (
	mostConnects = 8192 // under way at a time, if the process may have so many files
	mostCalls    = 4096
	mostBegun    = 256 // in one turn, so that answers are read in between
	mostBatch    = 256 // results that do not wait for more

	// gather is how long a result waits for others, unless the check was wanted at
	// once, and idle the longest wait between two turns.
	gather = 5 * time.Millisecond
	idle   = time.Second
)

// Key names a target. Its owner gives one to each, and to none the key of another
// one before it: so no result is taken for that of another.
type Key uint64

// Result is what came of one Start.
type Result struct {
	Key   Key
	Kind  lb.CheckKind
	Began time.Time
	Took  time.Duration
	// Late: this host was late with the check, or could not carry it out. A
	// failure says nothing of the server then; a success still does.
	Late bool
	Outcome
}

// Pool carries checks out, each once, at its moment. Its methods may be called from
// several goroutines, and do not wait.
type Pool struct {
	epoll   *os.File
	raw     syscall.RawConn
	fd      int // of epoll
	results chan []Result
	calling context.Context // ends with the pool
	end     context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	probes map[Key]*probe
	timers timers
	flying []*probe // plain connects that are under way, by file descriptor
	// Checks that one goroutine carries out by itself, and those that have one
	// each.
	connects, calls lane
	done            []Result // not handed over yet
	first           time.Time
	wake            time.Time // when the next turn is due
	turned          time.Time
}

// probe is one check that is wanted or under way.
type probe struct {
	key    Key
	target *Target
	lane   *lane
	// at is the next moment: when the check is due, or the deadline of a connect.
	at    time.Time
	place int // among the timers; -1: not there
	due   time.Time
	began time.Time
	fd    int                // of a connect under way; -1: none
	end   context.CancelFunc // of a call under way
	gone  bool               // nobody waits for it any more
	// urgent: it was wanted at once, since the kernel saw the server refuse.
	urgent bool
}

// lane is a way to carry checks out, with room for so many at a time.
type lane struct {
	queue      []*probe // due
	busy, most int
	full       time.Time // when it last had no room
}

func (l *lane) leave() {
	if l.busy == l.most {
		l.full = time.Now()
	}
	l.busy--
}

// Open makes a pool, and begins to turn. Close ends it.
func Open() (*Pool, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	// The epoll waits in the runtime's own one: no thread is blocked, and a read
	// deadline is the timer. Where that could not be, SetReadDeadline says so.
	_ = unix.SetNonblock(fd, true)
	p := &Pool{epoll: os.NewFile(uintptr(fd), "epoll"), fd: fd, results: make(chan []Result, 1), probes: map[Key]*probe{}, turned: time.Now()}
	p.raw, err = p.epoll.SyscallConn()
	if err = errors.Join(err, p.epoll.SetReadDeadline(p.turned)); err != nil {
		_ = p.epoll.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	files := openFiles()
	p.connects.most, p.calls.most = min(mostConnects, files/2), min(mostCalls, files/4)
	p.calling, p.end = context.WithCancel(context.Background())
	p.running.Go(p.run)
	return p, nil
}

// openFiles is how many files this process may have open.
func openFiles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}

// Results has what came of checks, in batches. One that is not taken soon grows;
// checks go on meanwhile.
func (p *Pool) Results() <-chan []Result { return p.results }

// Start has a target checked once, after a while, 0: at once. Whatever was to
// become of its key before is forgotten, unless its result is already under way. The
// target must not change.
func (p *Pool) Start(key Key, t *Target, after time.Duration) {
	due := time.Now().Add(after)
	pr := &probe{key: key, target: t, lane: &p.calls, at: due, due: due, fd: -1, urgent: after <= 0}
	if isPlain(t.Check) {
		pr.lane = &p.connects
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(key)
	p.probes[key] = pr
	p.timers.add(pr)
	p.wakeBy(due)
}

// Stop forgets a target. A result of it may still be under way.
func (p *Pool) Stop(key Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(key)
}

// Turned is when the pool last looked at what is due; it does so at least each
// second.
func (p *Pool) Turned() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turned
}

// Close ends all checks, and returns when none is under way.
func (p *Pool) Close() {
	p.end()
	p.mu.Lock()
	p.wakeBy(p.turned)
	p.mu.Unlock()
	p.running.Wait()
}

// drop forgets what is wanted of a key.
func (p *Pool) drop(key Key) {
	pr := p.probes[key]
	if pr == nil {
		return
	}
	delete(p.probes, key)
	pr.gone = true
	p.timers.remove(pr)
	if pr.end != nil {
		pr.end()
	}
	if pr.fd >= 0 {
		p.land(pr)
	}
}

func (p *Pool) finish(pr *probe, o Outcome) {
	if pr.gone {
		return
	}
	now, grace := time.Now(), pr.target.Check.Timeout/2
	due := pr.due
	if pr.lane.full.After(due) {
		due = pr.lane.full // that others were slow did not hurt it
	}
	o.Reason = tidy(o.Reason)
	if len(p.done) == 0 {
		p.first = now
	}
	if pr.urgent {
		p.first = p.turned.Add(-gather)
	}
	p.wakeBy(p.first.Add(gather))
	p.done = append(p.done, Result{
		Key: pr.key, Kind: pr.target.Check.Kind, Began: pr.began, Took: now.Sub(pr.began), Outcome: o,
		Late: o.Ours || pr.began.Sub(due) > grace || now.Sub(pr.began) > pr.target.Check.Timeout+grace,
	})
	p.drop(pr.key)
}

// isPlain: to connect is all.
func isPlain(c *lb.Check) bool { return c.Kind == lb.CheckTCP && c.Send == "" && c.Expect == "" }
