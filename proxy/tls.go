package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// NewTLSDialer returns a DialFunc that speaks TLS on what dial opens: containers then speak
// https and wss. cfg must name the server, since containers are dialled by address.
func NewTLSDialer(dial tunnel.DialFunc, cfg *tls.Config) tunnel.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		// http.Transport dials without a deadline, and goes on after whoever asked has given up;
		// other callers' may be one that nothing happens at.
		until := time.Now().Add(dialTimeout)
		if at, ok := ctx.Deadline(); ok && at.Before(until) {
			until = at
		}
		ctx, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("speaking TLS to %s: %w", addr, err)
		}
		return secure, nil
	}
}
