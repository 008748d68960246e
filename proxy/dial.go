package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// NewDialer returns a DialFunc that reaches containers only: addresses within allowed, or any
// unicast address but loopback and link-local ones if allowed is empty. What is judged is the
// address that the socket is about to be connected to, after every look-up.
func NewDialer(allowed []netip.Prefix) tunnel.DialFunc {
	d := &net.Dialer{
		Timeout:   dialTimeout,
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
	return d.DialContext
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
