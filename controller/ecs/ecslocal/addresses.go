package ecslocal

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// addresses gives every task an address of its own out of a part of 127.0.0.0/8.
type addresses struct {
	first, last netip.Addr

	mu    sync.Mutex // guards the fields below
	next  netip.Addr // where the search begins, so that an address rests before it is used again
	taken map[netip.Addr]bool
}

// newAddresses excludes the network's own address, the one after it (127.0.0.1 in the usual
// case, which is everybody's) and the last.
func newAddresses(network netip.Prefix) *addresses {
	first := network.Masked().Addr().Next().Next()
	octets := network.Masked().Addr().As4()
	host := uint32(1)<<(32-network.Bits()) - 2 // the last address is excluded
	for i := 3; i >= 0; i-- {
		octets[i] |= byte(host)
		host >>= 8
	}
	return &addresses{first: first, last: netip.AddrFrom4(octets), next: first, taken: make(map[netip.Addr]bool)}
}

// A lease is an address that is one task's until it is released.
type lease struct {
	addr  netip.Addr
	owner *addresses

	// claim holds the UDP port of the container's number for as long as the lease lasts. No
	// container wants it; it keeps two endpoints on one machine from giving out one address.
	claim net.PacketConn
}

// take finds an address on which nobody listens at port.
func (a *addresses) take(port int) (*lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var last error
	begin := a.next
	for addr, round := begin, false; !round; {
		if !a.taken[addr] {
			claim, err := claimPort(addr, port)
			if err == nil {
				a.taken[addr] = true
				a.next = a.after(addr)
				return &lease{addr: addr, owner: a, claim: claim}, nil
			}
			last = err
		}
		addr = a.after(addr)
		round = addr == begin
	}
	if last == nil {
		return nil, fmt.Errorf("no free address between %s and %s: %d are in use; end some tasks", a.first, a.last, len(a.taken))
	}
	return nil, fmt.Errorf("no free address between %s and %s with port %d (on macOS add them: ifconfig lo0 alias …): %w", a.first, a.last, port, last)
}

// after gives the address after addr, around the end.
func (a *addresses) after(addr netip.Addr) netip.Addr {
	if addr == a.last {
		return a.first
	}
	return addr.Next()
}

// claimPort proves that nobody listens there and claims the address for this endpoint.
func claimPort(addr netip.Addr, port int) (net.PacketConn, error) {
	at := net.JoinHostPort(addr.String(), strconv.Itoa(port))
	listener, err := net.Listen("tcp4", at)
	if err != nil {
		return nil, err
	}
	if err := listener.Close(); err != nil {
		return nil, err
	}
	return net.ListenPacket("udp4", at)
}

// release gives the address back. Repeated, it does nothing.
func (l *lease) release() {
	l.owner.mu.Lock()
	defer l.owner.mu.Unlock()
	if l.claim == nil {
		return
	}
	_ = l.claim.Close() // nothing was ever sent on it
	l.claim = nil
	delete(l.owner.taken, l.addr)
}

// loopbackHost tells whether a Host header names loopback by its address or as localhost.
func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}
