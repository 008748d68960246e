package tunnel

import (
	"net"
	"net/netip"
	"syscall"
	"time"
)

// ConnectAfterForTest is Connect, which does something else for a while before it waits.
func ConnectAfterForTest(to netip.AddrPort, pause, limit time.Duration) (*Socket, error) {
	s, err := begin(to, 1<<20)
	if err != nil {
		return nil, err
	}
	<-time.After(pause)
	return s, s.connected(time.Now().Add(limit))
}

// TakenForTest is how many bytes the client has taken in all.
func (t *Tunnel) TakenForTest() uint64 { return acknowledged(t.toClient.dst) }

// ClosingForTest tells whether the tunnel has been closed from here.
func (t *Tunnel) ClosingForTest() bool { return t.isClosing.Load() }

// LookForTest has the keeper look once.
func (k *Keeper) LookForTest() { k.look() }

// TunedForTest is how long the kernel lets what is sent to either side remain unanswered, and whether it
// sends probes to both.
func (t *Tunnel) TunedForTest() (client, backend time.Duration, probes bool) {
	option := func(conn net.Conn, level, name int) (value int) {
		_ = rawConn(conn).Control(func(fd uintptr) { value, _ = syscall.GetsockoptInt(int(fd), level, name) })
		return value
	}
	answer := func(conn net.Conn) time.Duration {
		return time.Duration(option(conn, syscall.IPPROTO_TCP, tcpUserTimeout)) * time.Millisecond
	}
	asks := func(conn net.Conn) bool { return option(conn, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) == 1 }
	up, down := t.toBackend.src, t.toClient.src
	return answer(up), answer(down), asks(up) && asks(down)
}

type takerFunc func(p []byte) bool

func (f takerFunc) accept(p []byte) bool { return f(p) }

// FeedForTest is what feeds a flow, and tells once that has ended how often it tried to read.
func FeedForTest(conn net.Conn, uncounted int, take func(p []byte) bool) (feed func() error, tries func() int) {
	var s source
	n := 0
	s.init(conn, uncounted, takerFunc(take))
	try := s.try
	s.try = func(fd uintptr) bool {
		n++
		return try(fd)
	}
	return s.feed, func() int { return n }
}

// LowWaterForTest is how much of a frame is waited for at once after pieces of it have come, the
// first of them at once, and each other one after a wait of some length.
func LowWaterForTest(left uint64, wait time.Duration, pieces ...int) uint64 {
	var p pace
	now := time.Now()
	for i, n := range pieces {
		if i > 0 {
			p.waited = true
			now = now.Add(wait)
		}
		p.count(n, now)
	}
	return p.lowWater(left, now)
}
