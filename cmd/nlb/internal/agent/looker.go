//go:build linux

package agent

// Looker: what is balanced, by the agent that keeps all of it, or else by the kernel.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/nft"
)

// Looker takes snapshots of a table. It is not safe for concurrent use.
type Looker struct {
	socket, table string
	engine        *engine.Engine // nil: the kernel was not asked yet
	known         uint64         // how often what the agent shows had changed at the last look
	trouble       string         // of the agent, then
}

// NewLooker is one that has asked nobody yet. socket is that of the table's agent.
func NewLooker(socket, table string) *Looker { return &Looker{socket: socket, table: table} }

// Close ends its conversation with the kernel.
func (l *Looker) Close() error {
	if l.engine == nil {
		return nil
	}
	return l.engine.Close()
}

const (
	// askTime is how long an agent has to say how it is, until the kernel is asked.
	askTime = time.Second
	// longestWait is the longest that an agent waits for a change.
	longestWait = 20 * time.Second
)

// Snapshot is what is balanced, with figures of now; unknown is why live connections are
// not known. The agent is asked for it where the table has what the agent keeps and
// nothing else, and it is this program; in all other cases, and where it does not answer,
// the kernel. Errors are those of the kernel.
func (l *Looker) Snapshot(ctx context.Context) (snapshot *view.Snapshot, unknown, err error) {
	l.trouble = ""
	snapshot, asked := l.ofAgent(ctx)
	if asked != nil {
		snapshot, unknown, err = l.ofKernel()
	}
	if e, ok := errors.AsType[*engine.Error](err); ok && errors.Is(asked, fs.ErrPermission) {
		e.Hint += "; or join the group of the agent's socket, " + l.socket
	}
	if err == nil {
		snapshot.Announced, snapshot.Trouble = engine.Announced(l.table), l.trouble
	}
	return snapshot, unknown, err
}

// Wait returns after a time, or once the agent shows something else than it did at the
// last Snapshot.
func (l *Looker) Wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for ctx.Err() == nil {
		text, err := Dial(l.socket).ask(ctx, http.MethodGet, fmt.Sprintf("/v1/changes?known=%d&within=%s", l.known, d), nil)
		n, bad := strconv.ParseUint(string(text), 10, 64)
		switch {
		case err != nil, bad != nil:
			<-ctx.Done() // no agent says more
		case n != l.known:
			l.known = n
			return
		}
	}
}

// ofAgent is what the agent shows. An error says that the kernel is to be asked.
func (l *Looker) ofAgent(ctx context.Context) (*view.Snapshot, error) {
	brief, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, s, err := Find(brief, l.socket, l.table)
	if err != nil {
		return nil, err
	}
	l.known, l.trouble = s.Changes, s.Trouble
	if !s.Alone || s.Program != program() {
		return nil, errors.New("the agent does not have all of it")
	}
	text, err := c.ask(ctx, http.MethodGet, "/v1/snapshot", nil)
	if err != nil {
		return nil, err
	}
	out := &view.Snapshot{}
	return out, out.UnmarshalBinary(text)
}

func (l *Looker) ofKernel() (snapshot *view.Snapshot, unknown, err error) {
	if l.engine == nil {
		if l.engine, err = engine.Open(l.table); err != nil {
			return nil, nil, err
		}
	}
	e := l.engine
	state, err := e.State()
	if err != nil {
		return nil, nil, err
	}
	var usage nft.Usage
	if len(state.Profiles) > 0 { // else there is nothing to count
		usage, unknown = e.Usage(state)
	}
	should := e.Offloading(state.Profiles, state.Offload())
	return view.NewSnapshot(state, usage, func(s *lb.Service) view.Offloaded {
		by, note := should.Of(s, state.Offload())
		return view.Offloaded{By: by, Note: note}
	}), unknown, nil
}

// program stands for the file of this program: another one may carry snapshots
// otherwise.
func program() string {
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d bytes of %d", info.Size(), info.ModTime().UnixNano())
}

// carry answers commands of this program, with what next does not: /v1/snapshot is a
// snapshot of now, /v1/changes waits until what is shown has changed.
func (a *agent) carry(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET /v1/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		var b []byte
		s, err := a.board.Fresh()
		if err == nil {
			b, err = s.MarshalBinary()
		}
		if err != nil {
			respond(w, Reply{Err: err})
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(b) // whoever asked may have gone
	})
	mux.HandleFunc("GET /v1/changes", func(w http.ResponseWriter, r *http.Request) {
		known, err := strconv.ParseUint(r.URL.Query().Get("known"), 10, 64)
		d, bad := time.ParseDuration(r.URL.Query().Get("within"))
		if err != nil || bad != nil {
			respond(w, Reply{Err: &RefusedError{Message: "want known=NUMBER&within=TIME"}})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), min(d, longestWait))
		defer cancel()
		fmt.Fprint(w, a.board.Await(ctx, known))
	})
	return mux
}
