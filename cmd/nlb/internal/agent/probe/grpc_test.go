//go:build linux

package probe

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"nlb/integration/netlab/netlabtest"
	"nlb/lb"
)

// serveHealth has the service "good", which works, and "bad", which does not. It
// passes the authorities that it is asked for on.
func serveHealth(t *testing.T, host string, authorities chan<- string, options ...grpc.ServerOption) (at string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	netlabtest.Must(t, err)
	options = append(options, grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if m, ok := metadata.FromIncomingContext(ctx); ok && authorities != nil {
			authorities <- m[":authority"][0]
		}
		return next(ctx, r)
	}))
	s := grpc.NewServer(options...)
	h := health.NewServer()
	h.SetServingStatus("good", grpc_health_v1.HealthCheckResponse_SERVING)
	h.SetServingStatus("bad", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	ca, leaf := authority(t, nil)
	other, _ := authority(t, nil)
	over := grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"h2"}}))
	onBoth(t, func(t *testing.T, host string) {
		plain, secure := serveHealth(t, host, nil), serveHealth(t, host, nil, over)
		bare := grpc.NewServer()
		t.Cleanup(bare.Stop)
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		netlabtest.Must(t, err)
		go func() { _ = bare.Serve(l) }()
		serving := Outcome{OK: true, Reason: "grpc: SERVING"}
		for _, tt := range []struct {
			name  string
			at    string
			check lb.Check
			want  Outcome
		}{
			{"server", plain, lb.Check{}, serving},
			{"service", plain, lb.Check{Service: "good"}, serving},
			{"bad", plain, lb.Check{Service: "bad"}, Outcome{Reason: "grpc: NOT_SERVING"}},
			{"unknown", plain, lb.Check{Service: "other"}, Outcome{Reason: "grpc: NotFound: unknown service"}},
			{"without health", l.Addr().String(), lb.Check{}, Outcome{Reason: "grpc: Unimplemented: unknown service ..."}},
			{"tls", secure, lb.Check{TLS: true}, serving},
			{"verified", secure, lb.Check{TLS: true, Verify: ca, Service: "good"}, serving},
			{"by name", secure, lb.Check{TLS: true, Verify: ca, Host: "www.example"}, serving},
			{"other name", secure, lb.Check{TLS: true, Verify: ca, Host: "www.other"}, Outcome{Reason: "grpc: certificate is for another name"}},
			{"other authority", secure, lb.Check{TLS: true, Verify: other}, Outcome{Reason: "grpc: certificate of unknown authority"}},
			{"no file", secure, lb.Check{TLS: true, Verify: "/nowhere"}, Outcome{Ours: true, Reason: "grpc: the CA file cannot be read"}},
			{"plain on tls", plain, lb.Check{TLS: true}, Outcome{Reason: "grpc: the server does not speak TLS"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				tt.check.Kind = lb.CheckGRPC
				wantOutcome(t, carry(t, tt.check, tt.at, generous), tt.want)
			})
		}
	})
}

func TestGRPCAuthority(t *testing.T) {
	authorities := make(chan string, 1)
	at := serveHealth(t, "127.0.0.1", authorities)
	for host, want := range map[string]string{"": at, "www.example": "www.example"} {
		carry(t, lb.Check{Kind: lb.CheckGRPC, Host: host}, at, generous)
		if got := <-authorities; got != want {
			t.Errorf("host %q: the server was asked for %q, want %q", host, got, want)
		}
	}
}
