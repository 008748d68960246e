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

	// Peers that went away without a word: the kernel sends probes while nothing is under way to
	// them, and repeats what is. What it does then about no answer depends on which of them it
	// was doing when, and can take twice its time; so the keeper asks it for how long there was none.
	// The kernel's own limits are for who has no keeper.
	lostAfter         = 25 * time.Second
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	goneTimeout       = 30 * time.Second
)

// What a client that takes nothing any more is told, should it ever look.
const (
	stalledCode   = 1013
	stalledReason = "client too far behind"
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

// Config says what one side is told when the other vanishes without a close frame, and who
// looks after the tunnel meanwhile.
type Config struct {
	ClientGone  CloseFrame // told to the backend
	BackendGone CloseFrame // told to the client

	// WhyBackendGone, if set, is asked in the place of BackendGone, once the backend has
	// vanished. It may take a moment, a second at most, to find out.
	WhyBackendGone func() CloseFrame

	// PlainClient says that the client takes every frame for a message (see KnowsControl): it
	// gets no control frame of ours, and where the backend's close frame would come its stream ends.
	PlainClient bool

	Keeper *Keeper // nil: nobody; nothing is parked, no pings, no limit for stalled clients
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
	Opened              time.Time
	ToBackend, ToClient Flow
	LastActivity        time.Time // when anything but pings and pongs last passed; Opened, before any did
}

// Result is how a tunnel ended.
type Result struct {
	Stats
	FromClient  *CloseFrame // the close frame that the client sent; nil: none
	FromBackend *CloseFrame // the close frame that the backend sent; nil: none
	First       Side        // whose close frame, end or failure came first
	Err         error       // its failure, if it was one
	Stalled     bool        // it was closed because the client took nothing any more
}

// Tunnel is two joined peers. It owns their connections from New on.
type Tunnel struct {
	// set once in New
	cfg     Config
	started time.Time
	done    func(Result) // set once in Start

	active atomic.Int64 // time of the last movement, as a duration since started

	toBackend, toClient flow

	// the keeper's
	at    int  // where it is in its list
	tuned bool // the kernel looks after its connections, too

	isClosing atomic.Bool // closing is set; for who does not hold mu

	mu      sync.Mutex // guards the following, the flows' phases, and the setting of deadlines
	closing *CloseFrame
	closes  int  // close frames that have passed
	bounded bool // deadlines mean limits: no wish moves them
	stalled bool
	ended   bool // first and err are settled
	first   Side
	err     error
}

// New joins client and backend. Nothing moves before Start or Run.
func New(client, backend Peer, cfg Config) *Tunnel {
	t := &Tunnel{started: time.Now(), cfg: cfg}
	t.toBackend.init(t, Client, client, backend.Conn)
	t.toClient.init(t, Backend, backend, client.Conn)
	t.toBackend.back, t.toClient.back = &t.toClient, &t.toBackend
	return t
}

// Run is Start, and returns when the tunnel has ended.
func (t *Tunnel) Run() Result {
	result := make(chan Result, 1)
	t.Start(func(r Result) { result <- r })
	return <-result
}

// Start moves bytes until both directions have ended, then closes both connections and calls
// done, from another goroutine: that is the tunnel's last one. It must be called once.
func (t *Tunnel) Start(done func(Result)) {
	t.done = done
	if t.cfg.Keeper == nil {
		t.tune(goneTimeout)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.flows() {
		t.goLocked(f)
	}
	if t.cfg.Keeper != nil {
		t.cfg.Keeper.add(t)
	}
}

// tune has the kernel look after both connections.
func (t *Tunnel) tune(client time.Duration) {
	tune(t.toBackend.src, Client, client)
	tune(t.toClient.src, Backend, goneTimeout)
}

// clientTimeout is how long bytes to a client may remain unanswered. The kernel takes a client
// that answers and takes nothing for one that is gone: the keeper judges it first.
func clientTimeout(stall time.Duration) time.Duration { return max(goneTimeout, stall+5*time.Second) }

// flows are both directions, the client's first: what it is told at the end must not be
// overtaken by the backend's answer.
func (t *Tunnel) flows() [2]*flow { return [2]*flow{&t.toClient, &t.toBackend} }

// goLocked gives a flow that has none a goroutine. The tunnel's end waits for it.
func (t *Tunnel) goLocked(f *flow) {
	if f.phase == waiting || f.phase == parked {
		f.phase = running
		go t.guard(f)
	}
}

// parkLocked hands a flow over to the parking place, if it can.
func (t *Tunnel) parkLocked(f *flow) bool {
	k := t.cfg.Keeper
	if k == nil || f.source.raw == nil || t.closing != nil || t.bounded {
		return false
	}
	before := f.phase
	f.phase = parked
	if !k.parking.watch(f) {
		f.phase = before
		return false
	}
	return true
}

// answer is called by the goroutine of f when the keeper has called it. It tells whether the
// flow is parked now: then the goroutine must not touch it any more. A tunnel that is ending
// grants nothing.
//
// The wishes are taken together with the deadline that called for them being lifted: one made
// in between would leave its deadline and nothing to explain it.
func (t *Tunnel) answer(f *flow) (isParked, wantsPing bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wishes := f.wishes.Swap(0)
	if t.closing != nil || t.bounded {
		return false, false
	}
	_ = f.src.SetReadDeadline(time.Time{})
	wantsPing = wishes&wishPing != 0
	return !wantsPing && t.parkLocked(f), wantsPing
}

// call has a flow look at a wish, and tells whether there was a need to.
func (t *Tunnel) call(f *flow, wish uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing != nil || t.bounded || f.phase == over || f.phase == waiting || f.phase == parked && wish == wishPark {
		return false
	}
	f.wishes.Or(wish)
	if f.phase == parked {
		t.goLocked(f)
		return true
	}
	_ = f.src.SetReadDeadline(time.Unix(1, 0))
	return true
}

// wake gives a parked flow its goroutine back.
func (t *Tunnel) wake(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.phase == parked {
		t.goLocked(f)
	}
}

// Close ends the tunnel: each side gets a close frame with code and reason, if its stream
// stands between two frames, and then the end of its TCP stream. A zero code sends no frame.
// Close does not wait (Run returns within about two seconds), may be called at any time from
// any goroutine, and only the first call counts.
func (t *Tunnel) Close(code int, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeLocked(code, reason)
}

func (t *Tunnel) closeLocked(code int, reason string) {
	if t.closing != nil {
		return
	}
	t.closing = &CloseFrame{Code: code, Reason: reason}
	t.isClosing.Store(true)
	// The goroutine of each direction is the only writer to its destination, so it is woken
	// to write the frame itself: it alone knows whether it stands between frames.
	now := time.Now()
	for _, f := range t.flows() {
		_ = f.src.SetReadDeadline(now)
		_ = f.dst.SetWriteDeadline(now.Add(closeTimeout))
		if f.phase == parked {
			t.goLocked(f)
		}
	}
}

// stall closes the tunnel because the client takes nothing any more. That one side has said
// goodbye is no reason not to: the other one may never. A tunnel whose end is bounded needs it not.
func (t *Tunnel) stall() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing != nil || t.bounded {
		return
	}
	t.stalled = true
	t.closeLocked(stalledCode, stalledReason)
}

// lose ends the connection of a peer that is not there any more. All else follows from its end.
func (t *Tunnel) lose(f *flow) {
	t.end(f.from, fmt.Errorf("nothing was heard from the %s for %s", f.from, lostAfter))
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.phase != over {
		disconnect(f.src)
	}
}

// Stats gives the counts so far. It may be called at any time.
func (t *Tunnel) Stats() Stats {
	return Stats{
		Opened:       t.started,
		ToBackend:    t.toBackend.count(),
		ToClient:     t.toClient.count(),
		LastActivity: t.started.Add(time.Duration(t.active.Load())),
	}
}

// guard runs one direction, and turns a panic in it into the end of this tunnel alone.
func (t *Tunnel) guard(f *flow) {
	ended := true
	defer func() {
		if p := recover(); p != nil {
			t.end(Neither, fmt.Errorf("moving bytes from the %s: panic: %v", f.from, p))
			t.abort()
			ended = true
		}
		if ended {
			t.leave(f)
		}
	}()
	ended = f.run()
}

// leave is the end of a direction. The second one ends the tunnel.
func (t *Tunnel) leave(f *flow) {
	t.mu.Lock()
	f.phase = over
	last := t.toBackend.phase == over && t.toClient.phase == over
	t.mu.Unlock()
	if !last {
		return
	}
	t.abort()
	if t.cfg.Keeper != nil {
		t.cfg.Keeper.remove(t)
	}
	t.done(Result{
		Stats:       t.Stats(),
		FromClient:  t.toBackend.frames.close,
		FromBackend: t.toClient.frames.close,
		First:       t.first,
		Err:         t.err,
		Stalled:     t.stalled,
	})
}

// isLast tells whether the other direction is over.
func (t *Tunnel) isLast(f *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.back.phase == over
}

// abort closes both connections at once. To close one is to wait for whoever is using it, who may
// be writing to the other one or want the lock: he is sent away first, and the lock let go.
func (t *Tunnel) abort() {
	t.mu.Lock()
	t.bounded = true // nobody parks any more, nor moves the deadlines
	for _, f := range t.flows() {
		_ = f.src.SetDeadline(time.Unix(1, 0))
		if f.armed {
			t.cfg.Keeper.parking.forget(f)
			f.armed = false
		}
		if f.phase == parked {
			t.goLocked(f) // it finds its connection closed
		}
	}
	t.mu.Unlock()
	for _, f := range t.flows() {
		_ = f.src.Close()
	}
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
	t.boundLocked(f, d)
}

// boundBoth limits what either direction may still move, at once.
func (t *Tunnel) boundBoth(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.flows() {
		t.boundLocked(f, d)
	}
}

func (t *Tunnel) boundLocked(f *flow, d time.Duration) {
	again := t.bounded && f.limited && d >= drainTimeout // it has a limit that is no later
	t.bounded, f.limited = true, true
	if t.closing == nil && f.phase != over && !again {
		until := time.Now().Add(d)
		_ = f.src.SetReadDeadline(until)
		_ = f.dst.SetWriteDeadline(until)
		if f.phase == parked {
			t.goLocked(f)
		}
	}
}

// under is the connection that conn wraps, if it does.
func under(conn net.Conn) net.Conn {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return wrapped.NetConn()
	}
	return conn
}
