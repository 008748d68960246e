package main

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

// newOwners makes the part that knows the other replicas and takes over from those that died.
func newOwners(o options, store proxy.OwnerStore, mirror proxy.OwnerMirror, reg prometheus.Registerer) *proxy.Owners {
	addr := o.replicaAddr
	if addr == "" {
		addr = peerAddress(o.listener.Addr(), interfaceAddresses())
	}
	return proxy.NewOwners(proxy.OwnersConfig{
		Replica: o.replica, Addr: addr, Version: o.version, Store: store, Mirror: mirror,
		Dial: proxy.NewDialer(o.containerCIDRs), DialPeer: peerDialer(), Log: o.log, Registerer: reg,
	})
}

// newPeers makes the part that passes clients on to other replicas.
func newPeers(o options, owners *proxy.Owners, keys containerKeys, reg prometheus.Registerer) *proxy.Tunnels {
	return proxy.NewTunnels(proxy.TunnelsConfig{
		Addr: owners.Locate,
		Ticket: func(replica string, a proxy.Access) (string, error) {
			return keys.Ticket(replica, a.SessionID, a.UserID)
		},
		Dial: peerDialer(), Log: o.log, Registerer: reg,
	})
}

// peerDialer reaches replicas: wherever unicast leads, but no metadata endpoint.
func peerDialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	return proxy.NewDialer([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
}

// peerAddress is where other replicas reach a listener, as far as this can be told without
// configuration: its own address, or the first of this machine's if it listens on all.
func peerAddress(listener net.Addr, own []netip.Addr) string {
	to, err := netip.ParseAddrPort(listener.String())
	if err != nil {
		return ""
	}
	addr := to.Addr().Unmap()
	if addr.IsUnspecified() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		for _, a := range own {
			if a.Is4() && a.IsGlobalUnicast() {
				addr = a
				break
			}
		}
	}
	return net.JoinHostPort(addr.String(), strconv.Itoa(int(to.Port())))
}

func interfaceAddresses() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own
}

// fixedProtocol is what containers of the pool speak, for the relay; nil: whatever those speak
// that are there.
func fixedProtocol(dialect state.Dialect) func() int {
	if n := dialect.Fixed(); n != 0 {
		return func() int { return n }
	}
	return nil
}
