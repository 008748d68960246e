//go:build !linux

package tunnel

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Socket is a connection of package net's here.
type Socket struct{ *net.TCPConn }

// Connect opens a connection to an address. It waits no longer than until.
func Connect(ctx context.Context, to netip.AddrPort, _ int, until time.Time) (*Socket, error) {
	conn, err := (&net.Dialer{Deadline: until, KeepAlive: -1}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return &Socket{conn.(*net.TCPConn)}, nil
}
