package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

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
		if at, ok := ctx.Deadline(); ok { // which may be one that nothing happens at
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, at)
			defer cancel()
		}
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("speaking TLS to %s: %w", addr, err)
		}
		return secure, nil
	}
}
