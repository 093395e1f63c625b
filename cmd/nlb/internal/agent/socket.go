//go:build linux

package agent

// The socket of an agent: requests come in by HTTP over it. Whoever may write to it
// may give orders; its mode says who that is.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/view"
	"nlb/cmd/nlb/internal/web"
	"nlb/lb"
)

const (
	mostConnections = 128
	maxBody         = 64 << 10
	maxHeader       = 16 << 10
	requestTime     = 5 * time.Second  // to send a request
	replyTime       = 30 * time.Second // to have the answer to it
)

// ErrRunning says that the socket has an agent behind it already.
var ErrRunning = errors.New("another agent is running")

// SocketOf is the socket of the agent of a table.
func SocketOf(table string) string { return "/run/nlb/" + table + ".sock" }

// Socket takes requests.
type Socket struct {
	// Requests are to be replied to.
	Requests chan Request

	done     chan struct{}
	server   *http.Server
	listener *net.UnixListener
	lock     *os.File
	end      func() error
}

// Listen makes the socket, mode 0660, and the folder that it is in. One that a dead
// agent left is replaced. What others are to answer goes to show. Errors: ErrRunning,
// and those of the system.
func Listen(path string, show func(web.Ask) http.Handler, log *slog.Logger) (*Socket, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("%s is no socket", path)
	}
	lock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	l, err := listen(path)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := &Socket{Requests: make(chan Request), done: make(chan struct{}), listener: l, lock: lock}
	s.end = sync.OnceValue(s.close)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.handle(AskHealth))
	mux.HandleFunc("GET /v1/status", s.handle(AskStatus))
	mux.HandleFunc("GET /v1/backend", s.handle(AskBackend)) // ?name=shop/web/b1
	mux.HandleFunc("GET /v1/serving", s.handle(AskServing)) // ?name=shop/web
	mux.HandleFunc("POST /v1/reload", s.handle(AskReload))
	mux.HandleFunc("POST /v1/orders", s.handle(AskOrder))
	mux.Handle("GET /", show(s.known))
	s.server = &http.Server{
		Handler: http.NewCrossOriginProtection().Handler(mux), MaxHeaderBytes: maxHeader, ReadTimeout: requestTime, IdleTimeout: requestTime, WriteTimeout: requestTime + replyTime,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peer{}, c.RemoteAddr().(peer).uid)
		},
	}
	go func() { _ = s.server.Serve(netutil.LimitListener(listener{l}, mostConnections)) }()
	return s, nil
}

// Close ends the socket, and what was asked and not yet answered.
func (s *Socket) Close() error { return s.end() }

func (s *Socket) close() error {
	close(s.done)
	err := s.server.Close()
	_ = s.listener.Close() // the server may not have begun to know it
	return errors.Join(err, s.lock.Close())
}

// lockSocket makes sure that one agent at a time takes a socket: the lock is free
// when its process ends, however it ends.
func lockSocket(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrRunning)
	}
	return lock, nil
}

// listen makes the socket in place of a dead one.
func listen(path string) (*net.UnixListener, error) {
	if _, err := os.Lstat(path); err == nil {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", path, ErrRunning)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	// Nobody may connect before the mode is what it shall be.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l.(*net.UnixListener), nil
}

// listener accepts connections of users that are known.
type listener struct{ *net.UnixListener }

// conn is a connection, whose other end has the user as its address.
type conn struct {
	net.Conn
	peer peer
}

// RemoteAddr is the user.
func (c conn) RemoteAddr() net.Addr { return c.peer }

// peer is a user who has made a connection, and the key of one in a context.
type peer struct{ uid uint32 }

// Network and String are what net.Addr asks for.
func (peer) Network() string  { return "unix" }
func (p peer) String() string { return fmt.Sprintf("uid%d", p.uid) }

// Accept waits for a connection.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := uidOf(c); err == nil {
			return conn{c, peer{uid}}, nil
		}
		c.Close() // it has gone already
	}
}

// uidOf is who is at the other end (SO_PEERCRED, unix(7)).
func uidOf(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return 0, errors.Join(e, err)
	}
	return cred.Uid, nil
}

// nameOf is a user's name as lb.Standing.By takes it, or uid and a number.
func nameOf(uid uint32) string {
	number := fmt.Sprintf("uid%d", uid)
	u, err := user.LookupId(fmt.Sprint(uid))
	if err != nil || u.Username == "" || len(u.Username) > lb.MaxBy {
		return number
	}
	strange := func(r rune) bool {
		return !('a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r))
	}
	if strings.ContainsFunc(u.Username, strange) {
		return number
	}
	return u.Username
}

// handle asks the owner, and writes what it replies.
func (s *Socket) handle(ask Ask) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := Request{Ask: ask, UID: r.Context().Value(peer{}).(uint32)}
		q.By = nameOf(q.UID)
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		switch {
		case err != nil:
			err = &RefusedError{Message: "the request cannot be read: " + err.Error(), Hint: "want at most 64 KiB, within 5 s"}
		case ask == AskOrder:
			q.Order, err = ParseOrder(body)
		case ask == AskBackend && len(body) == 0:
			q.Order, err = NewOrder("enable", r.URL.Query().Get("name"), "")
		case ask == AskServing && len(body) == 0:
			q.Order.Profile = r.URL.Query().Get("name")
		case len(body) > 0:
			err = &RefusedError{Message: r.Method + " " + r.URL.Path + " takes no body"}
		}
		if err != nil {
			respond(w, Reply{Err: err})
			return
		}
		respond(w, s.ask(r.Context(), q))
	}
}

// known asks what is known of the backends of a service, by their names.
func (s *Socket) known(ctx context.Context, profile, service string) (map[string]*view.Known, error) {
	r := s.ask(ctx, Request{Ask: AskService, Order: Order{Profile: profile, Service: service}})
	known, _ := r.Value.(map[string]*view.Known)
	return known, r.Err
}

// ask has the owner reply.
func (s *Socket) ask(ctx context.Context, q Request) Reply {
	reply := make(chan Reply, 1)
	q.Reply = reply
	ctx, cancel := context.WithTimeout(ctx, replyTime)
	defer cancel()
	select {
	case s.Requests <- q:
	case <-s.done:
		return Reply{Err: errStopped}
	case <-ctx.Done():
		return Reply{Err: errBusy}
	}
	select {
	case r := <-reply:
		return r
	case <-s.done:
		return Reply{Err: errStopped}
	case <-ctx.Done():
		return Reply{Err: errBusy}
	}
}

var (
	errStopped = errors.New("the agent stops")
	errBusy    = errors.New("the agent does not answer")
)

// respond writes a reply: 200 and its value, 400 where whoever asked is at fault,
// 503 where the agent cannot, else 500.
func respond(w http.ResponseWriter, r Reply) {
	refused, ok := errors.AsType[*RefusedError](r.Err)
	switch {
	case r.Err == nil:
		web.Answer(w, http.StatusOK, r.Value)
	case ok:
		web.Answer(w, http.StatusBadRequest, refused)
	case errors.Is(r.Err, errStopped), errors.Is(r.Err, errBusy):
		web.Answer(w, http.StatusServiceUnavailable, RefusedError{Message: r.Err.Error()})
	default:
		web.Answer(w, http.StatusInternalServerError, RefusedError{Message: r.Err.Error()})
	}
}
