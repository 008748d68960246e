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

// receiveBuffer bounds what the kernel takes from a container for a client that does not keep
// up: without it that grows to many megabytes. The kernel doubles it for its own needs.
const receiveBuffer = 1 << 20

// NewDialer returns a DialFunc that reaches containers only: addresses within allowed, or any
// unicast address but loopback and link-local ones if allowed is empty. What is judged is the
// address that the socket is connected to, after every look-up; the usual one, an address
// already, is looked up nowhere. A dial ends after dialTimeout, or at its context's deadline,
// and goes on until then, whoever has lost interest in it.
func NewDialer(allowed []netip.Prefix) tunnel.DialFunc {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		until := time.Now().Add(dialTimeout)
		if at, ok := ctx.Deadline(); ok && at.Before(until) {
			until = at
		}
		all, err := lookUp(ctx, addr, until)
		if err != nil {
			return nil, err
		}
		var failed error
		for i, to := range all {
			err := fmt.Errorf("refusing to dial %s: it is no address of a container", to)
			if mayDial(to.Addr(), allowed) {
				// One that is silent leaves the others their share of the time.
				now := time.Now()
				var conn net.Conn
				if conn, err = tunnel.Connect(ctx, to, receiveBuffer, now.Add(until.Sub(now)/time.Duration(len(all)-i))); err == nil {
					return conn, nil
				}
			}
			// Only if all refuse is the host said to.
			if failed == nil || errors.Is(failed, syscall.ECONNREFUSED) {
				failed = err
			}
		}
		return nil, failed
	}
}

// lookUp gives the addresses that a host and port stand for: at least one, unless that fails.
func lookUp(ctx context.Context, addr string, until time.Time) ([]netip.AddrPort, error) {
	if to, err := netip.ParseAddrPort(addr); err == nil {
		return []netip.AddrPort{to}, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("refusing to dial: %w", err)
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", addr, err)
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", addr, err)
	}
	all := make([]netip.AddrPort, len(found))
	for i, ip := range found {
		all[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return all, nil
}

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

// ours tells whether a dial failed for want of something on this side: it says nothing of whom it was
// for.
func ours(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, lack) {
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
