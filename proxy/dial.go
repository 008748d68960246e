package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// NewDialer returns a DialFunc that reaches containers only: addresses within allowed, or any
// unicast address but loopback and link-local ones if allowed is empty. What is judged is the
// address that the socket is about to be connected to, after every look-up.
func NewDialer(allowed []netip.Prefix) tunnel.DialFunc {
	d := &net.Dialer{
		KeepAlive: -1, // a tunnel sets its own
		Control: func(_, address string, raw syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("refusing to dial: %w", err)
			}
			if !mayDial(to.Addr(), allowed) {
				return fmt.Errorf("refusing to dial %s: it is no address of a container", to)
			}
			limitReceive(raw)
			return nil
		},
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		until := time.Now().Add(dialTimeout)
		if at, ok := ctx.Deadline(); ok && at.Before(until) {
			until = at
		}
		return d.DialContext(deadlineOnly{ctx, until}, network, addr)
	}
}

// deadlineOnly is a context that ends by its deadline and in no other way: the dialler then
// needs no goroutine that waits for the end. A dial goes on for dialTimeout at most, whoever
// has lost interest in it.
type deadlineOnly struct {
	context.Context //nolint:containedctx // it is one
	until           time.Time
}

func (c deadlineOnly) Deadline() (time.Time, bool) { return c.until, true }
func (c deadlineOnly) Done() <-chan struct{}       { return nil }
func (c deadlineOnly) Err() error                  { return nil }

// mayDial tells whether a container may be there.
func mayDial(addr netip.Addr, allowed []netip.Prefix) bool {
	// A zone, or IPv4 in the guise of IPv6, is how filters are got around; ECS names neither.
	if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
		return false
	}
	// The metadata endpoints of a host are link-local. No configuration opens these.
	if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() ||
		addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	if len(allowed) == 0 {
		return !addr.IsLoopback()
	}
	for _, p := range allowed {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Refuses returns a look at whether nothing listens at an address: the machine there has
// refused a connection. Silence, or anything else that goes wrong, is no refusal.
func Refuses(dial tunnel.DialFunc) func(ctx context.Context, addr string) bool {
	return func(ctx context.Context, addr string) bool {
		conn, err := dial(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}
}
