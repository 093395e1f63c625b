//go:build linux

package probe

// The kind grpc: Check of grpc.health.v1
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).

import (
	"cmp"
	"context"
	"io"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// grpc writes errors of connections to stderr, which servers can cause at will.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

// maxReply is the size of an answer, in bytes; that of Check has two.
const maxReply = 4 << 10

// overGRPC is the kind grpc: SERVING passes.
func overGRPC(ctx context.Context, t Target) Outcome {
	w := &way{TransportCredentials: insecure.NewCredentials()}
	if t.Check.TLS {
		config, err := clientTLS(t)
		if err != nil {
			return unable("grpc", "%s", err)
		}
		w.TransportCredentials = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		// The context that grpc gives ends with the dialing.
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			c, err := dial(ctx, t, "tcp")
			return c, w.note(err)
		}),
		grpc.WithTransportCredentials(w),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent("nlb"),
		grpc.WithMaxHeaderListSize(maxHeader),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
	}
	if t.Check.Host != "" {
		options = append(options, grpc.WithAuthority(t.Check.Host))
	}
	// passthrough: there is nothing to resolve.
	client, err := grpc.NewClient("passthrough:///"+t.At.String(), options...)
	if err != nil {
		return unable("grpc", "%s", err)
	}
	defer client.Close()
	request := &grpc_health_v1.HealthCheckRequest{Service: t.Check.Service}
	answer, err := grpc_health_v1.NewHealthClient(client).Check(ctx, request)
	switch {
	case err == nil && answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING:
		return passed("grpc", "SERVING")
	case err == nil:
		return wrong("grpc", "%s", answer.GetStatus())
	}
	if cause := w.cause(); cause != nil {
		return fault(ctx, "grpc", cause)
	}
	if ctx.Err() != nil {
		return fault(ctx, "grpc", ctx.Err())
	}
	s, _ := status.FromError(err)
	if strings.HasPrefix(s.Message(), "connection error") { // after the handshake
		return wrong("grpc", "the server does not speak gRPC")
	}
	return wrong("grpc", "%s: %s", s.Code(), s.Message())
}

// way is how grpc gets to the server. It keeps the first error on the way, of
// which grpc says but the text.
type way struct {
	credentials.TransportCredentials
	mu    sync.Mutex
	first error
}

// ClientHandshake is that of the credentials.
func (w *way) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, c)
	return secure, info, w.note(err)
}

// Clone is w itself: there is one connection.
func (w *way) Clone() credentials.TransportCredentials { return w }

func (w *way) note(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.first = cmp.Or(w.first, err)
	return err
}

func (w *way) cause() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}
