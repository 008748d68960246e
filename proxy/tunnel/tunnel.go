// Package tunnel joins two WebSocket connections after their handshakes: it makes and checks
// the handshakes, and then moves bytes, not messages. Nothing is re-framed, re-masked or
// parsed beyond frame headers; a slow reader stops its sender through TCP and nothing else.
//
// The relay uses it between a client and a container, the agent between the relay and a
// browser. It knows nothing of sessions and decides nothing about them.
package tunnel

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// drainTimeout bounds what may still flow one way after the other way has ended: enough
	// for a last answer, short enough that a vanished peer's socket is not kept.
	drainTimeout = 5 * time.Second
	// closeTimeout bounds writing a close frame of ours, and then waiting for the peer's end.
	closeTimeout = time.Second
)

// Peer is one end of a tunnel: a connection whose WebSocket handshake is done.
type Peer struct {
	Conn  net.Conn
	Early []byte // bytes already read from Conn that belong to the stream
}

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// CloseFrame is what a WebSocket close frame says. A Code of 1005 stands for a frame without
// a code; as an input, a zero Code means no frame at all.
type CloseFrame struct {
	Code   int
	Reason string
}

// Config says what one side is told when the other vanishes without a close frame.
type Config struct {
	ClientGone  CloseFrame // told to the backend
	BackendGone CloseFrame // told to the client

	// WhyBackendGone, if set, is asked in the place of BackendGone, once the backend has
	// vanished. It may take a moment, a second at most, to find out.
	WhyBackendGone func() CloseFrame
}

// Side names an end of a tunnel.
type Side string

// The sides.
const (
	Neither Side = ""        // Close ended the tunnel
	Client  Side = "client"  // the accepted end: its frames are masked
	Backend Side = "backend" // the dialled end
)

// Flow counts what went one way.
type Flow struct {
	Bytes, Messages uint64
}

// Stats is what a tunnel has moved so far.
type Stats struct {
	ToBackend, ToClient Flow
	LastActivity        time.Time // when bytes last moved either way; the start, before any did
}

// Result is how a tunnel ended.
type Result struct {
	Stats
	FromClient  *CloseFrame // the close frame that the client sent; nil: none
	FromBackend *CloseFrame // the close frame that the backend sent; nil: none
	First       Side        // whose close frame, end or failure came first
	Err         error       // its failure, if it was one
}

// Tunnel is two joined peers. It owns their connections from New on.
type Tunnel struct {
	// set once in New
	toBackend, toClient *flow

	started time.Time
	active  atomic.Int64 // time of the last movement, as a duration since started

	mu      sync.Mutex // guards the following, and the setting of deadlines
	closing *CloseFrame
	closes  int  // close frames that have passed
	ended   bool // first and err are settled
	first   Side
	err     error
}

// New joins client and backend. Nothing moves before Run.
func New(client, backend Peer, cfg Config) *Tunnel {
	t := &Tunnel{started: time.Now()}
	if cfg.WhyBackendGone == nil {
		cfg.WhyBackendGone = func() CloseFrame { return cfg.BackendGone }
	}
	t.toBackend = newFlow(t, Client, client, backend.Conn, func() CloseFrame { return cfg.ClientGone })
	t.toClient = newFlow(t, Backend, backend, client.Conn, cfg.WhyBackendGone)
	t.toBackend.back, t.toClient.back = t.toClient, t.toBackend
	return t
}

// Run moves bytes until both directions have ended, then closes both connections. It leaves
// no goroutine behind. It must be called exactly once.
func (t *Tunnel) Run() Result {
	keepAlive(t.toBackend.src)
	keepAlive(t.toClient.src)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.guard(t.toClient)
	}()
	t.guard(t.toBackend)
	<-done
	t.abort()
	return Result{
		Stats:       t.Stats(),
		FromClient:  t.toBackend.frames.close,
		FromBackend: t.toClient.frames.close,
		First:       t.first,
		Err:         t.err,
	}
}

// Close ends the tunnel: each side gets a close frame with code and reason, if its stream
// stands between two frames, and then the end of its TCP stream. A zero code sends no frame.
// Close does not wait (Run returns within about two seconds), may be called at any time from
// any goroutine, and only the first call counts.
func (t *Tunnel) Close(code int, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing != nil {
		return
	}
	t.closing = &CloseFrame{Code: code, Reason: reason}
	// The goroutine of each direction is the only writer to its destination, so it is woken
	// to write the frame itself: it alone knows whether it stands between frames.
	// The client's comes first: the backend's answer to its own must not overtake it.
	now := time.Now()
	for _, f := range []*flow{t.toClient, t.toBackend} {
		_ = f.src.SetReadDeadline(now)
		_ = f.dst.SetWriteDeadline(now.Add(closeTimeout))
	}
}

// Stats gives the counts so far. It may be called at any time.
func (t *Tunnel) Stats() Stats {
	return Stats{
		ToBackend:    t.toBackend.count(),
		ToClient:     t.toClient.count(),
		LastActivity: t.started.Add(time.Duration(t.active.Load())),
	}
}

// guard runs one direction, and turns a panic in it into the end of this tunnel alone.
func (t *Tunnel) guard(f *flow) {
	defer func() {
		if p := recover(); p != nil {
			t.end(Neither, fmt.Errorf("moving bytes from the %s: panic: %v", f.from, p))
			t.abort()
		}
	}()
	f.run()
}

// abort closes both connections at once.
func (t *Tunnel) abort() {
	_ = t.toBackend.src.Close()
	_ = t.toClient.src.Close()
}

// end records the first end of the tunnel; later ones follow from it.
func (t *Tunnel) end(side Side, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.closing != nil {
		return
	}
	t.ended, t.first, t.err = true, side, err
}

// closeFrame gives what Close was called with; nil: it was not.
func (t *Tunnel) closeFrame() *CloseFrame {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closing
}

// bound limits what f may still move to d from now. After Close it leaves that one's tighter
// limits.
func (t *Tunnel) bound(f *flow, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing != nil {
		return
	}
	until := time.Now().Add(d)
	_ = f.src.SetReadDeadline(until)
	_ = f.dst.SetWriteDeadline(until)
}

// keepAlive finds peers that went away without a word: within about 30 s.
func keepAlive(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
		})
	}
}
