//go:build linux

package agent

// The client: how other commands ask a running agent.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"syscall"
	"time"

	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
	"nlb/lb/announce"
)

// ErrNoAgent says that nobody is behind a socket.
var ErrNoAgent = errors.New("no agent is running")

const (
	// maxAnswer bounds an answer.
	maxAnswer = 256 << 20
	// findTime is how long an agent has to say that it is there. One that applies the
	// largest profiles says it a few seconds later.
	findTime = 5 * time.Second
)

// Client asks one agent.
type Client struct {
	path string
	http http.Client
}

// Dial is the way to the agent behind a socket. Nothing is sent yet.
func Dial(path string) *Client {
	return &Client{path: path, http: http.Client{
		Timeout: requestTime + replyTime,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Order gives an order, and returns what was done. Errors: ErrNoAgent,
// *RefusedError, and those of the connection.
func (c *Client) Order(ctx context.Context, o Order) (Done, error) {
	return get[Done](ctx, c, http.MethodPost, "/v1/orders", o)
}

// Status asks how the agent is, for a Status or a value that has more fields.
// Errors are those of Order.
func (c *Client) Status(ctx context.Context, into any) error {
	return c.do(ctx, http.MethodGet, "/v1/status", nil, into)
}

// Backend asks what is known of a backend: shop/web/b1. Errors are those of Order.
func (c *Client) Backend(ctx context.Context, name string) (*view.Known, error) {
	return get[*view.Known](ctx, c, http.MethodGet, "/v1/backend?name="+url.QueryEscape(name), nil)
}

// Serving asks which services have somebody to serve: of shop, of shop/web, or of all
// where the name is empty. Errors are those of Order.
func (c *Client) Serving(ctx context.Context, name string) (announce.Health, error) {
	return get[announce.Health](ctx, c, http.MethodGet, "/v1/serving?name="+url.QueryEscape(name), nil)
}

// get sends a request, and returns the value of the answer.
func get[T any](ctx context.Context, c *Client, method, path string, body any) (value T, err error) {
	err = c.do(ctx, method, path, body, &value)
	return value, err
}

// do sends a request, and reads the answer.
func (c *Client) do(ctx context.Context, method, path string, body, into any) error {
	text, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: the answer of the agent: %w", c.path, err)
	}
	return nil
}

// ask sends a request, and returns the answer as it is.
func (c *Client) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://nlb"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%s: %w", c.path, ErrNoAgent)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", c.path, cause(err))
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	if answer.StatusCode != http.StatusOK {
		refused := &RefusedError{}
		if json.Unmarshal(text, refused) != nil || refused.Message == "" {
			return nil, fmt.Errorf("%s: the agent answered %s", c.path, answer.Status)
		}
		if answer.StatusCode != http.StatusBadRequest {
			return nil, fmt.Errorf("%s: %s", c.path, refused.Message)
		}
		return nil, refused
	}
	return text, nil
}

// cause is an error without what the HTTP client says of its request.
func cause(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; root may use it, and the group of the socket", fs.ErrPermission)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the agent does not answer in time")
	}
	return err
}

// Find is the way to the agent of a table of this network namespace, and how it
// is. Errors: ErrNoAgent, also where the one behind the socket is of another table or
// namespace, and those of Order.
func Find(ctx context.Context, socket, table string) (*Client, Status, error) {
	c := Dial(socket)
	var s Status
	brief, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	if err := c.Status(brief, &s); err != nil {
		return nil, s, err
	}
	if s.Table != table || s.Namespace != namespace() {
		return nil, s, fmt.Errorf("%s: %w for table inet %s of this network namespace", socket, ErrNoAgent, table)
	}
	return c, s, nil
}

// MayApply makes sure that no profile is one that a running agent keeps, in this
// table and network namespace, and with prune that it keeps none at all; else the error is
// a *RefusedError. An agent that cannot be asked keeps nobody from it, but is noted.
func MayApply(ctx context.Context, socket, table string, profiles []*lb.Profile, prune bool, note Note) error {
	s := kept(ctx, socket, table, note)
	for _, p := range profiles {
		switch {
		case !slices.Contains(s.Profiles, p.Name):
		case s.Fleet:
			return &RefusedError{Message: "nlb run has " + p.Name + " from its fleet; push it", Hint: "nlb push, for all nodes of the fleet"}
		default:
			return &RefusedError{Message: "nlb run keeps " + p.Name + "; reload it", Hint: "systemctl reload nlb-agent, or change its files: they are read then"}
		}
	}
	if prune {
		return s.mayRemove(nil)
	}
	return nil
}

// MayFlush is MayApply for a flush of these profiles; none: of all.
func MayFlush(ctx context.Context, socket, table string, names []string, note Note) error {
	s := kept(ctx, socket, table, note)
	return s.mayRemove(names)
}

// Note tells people of something that is no error, in the words of fmt.Sprintf.
type Note func(format string, args ...any)

// kept is how the agent is whose profiles count; empty: there is none.
func kept(ctx context.Context, socket, table string, note Note) (s Status) {
	_, s, err := Find(ctx, socket, table)
	if err == nil {
		return s
	}
	if !errors.Is(err, ErrNoAgent) && ctx.Err() == nil {
		note("nlb run cannot be asked what it keeps, and may undo this: %v", err)
	}
	return Status{}
}

// mayRemove makes sure that the agent keeps none of these profiles, which it would put
// back. Without names, it must keep no profile at all.
func (s *Status) mayRemove(names []string) error {
	for _, name := range s.Profiles {
		switch {
		case len(names) > 0 && !slices.Contains(names, name):
		case s.Fleet:
			return &RefusedError{Message: "nlb run has " + name + " from its fleet, and would put it back", Hint: "nlb push --remove " + name + ", for all nodes; or systemctl stop nlb-agent before"}
		default:
			return &RefusedError{Message: "nlb run keeps " + name + ", and would put it back", Hint: "systemctl stop nlb-agent before; or take its file away: then nlb run removes it"}
		}
	}
	return nil
}

// Unkept are the profiles that no running agent keeps, in this table and network
// namespace: all of them, where no agent can be asked.
func Unkept(ctx context.Context, socket, table string, profiles []*lb.Profile) []*lb.Profile {
	_, s, err := Find(ctx, socket, table)
	if err != nil {
		return profiles
	}
	return slices.DeleteFunc(slices.Clone(profiles), func(p *lb.Profile) bool { return slices.Contains(s.Profiles, p.Name) })
}

// KnownOf asks the agent of a table of this network namespace what it knows of a
// backend: shop/web/b1; nil: why that is not known.
func KnownOf(ctx context.Context, socket, table, backend string) (known *view.Known, unknown string) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, _, err := Find(ctx, socket, table)
	if err == nil {
		known, err = c.Backend(ctx, backend)
	}
	refused, _ := errors.AsType[*RefusedError](err)
	switch {
	case err == nil:
		return known, ""
	case errors.Is(err, ErrNoAgent):
		return nil, ErrNoAgent.Error()
	case refused != nil:
		return nil, "nlb run does not keep it"
	}
	return nil, err.Error()
}

// namespace names the network namespace of this thread: net:[4026531840].
func namespace() string {
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return ""
	}
	return name
}
