package proxy

import (
	"context"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// maxGathered bounds what waits to be written to a container, in bytes. A single larger
// message is taken all the same, once nothing else waits.
const maxGathered = 256 << 10

// quietFor is how long nothing was written before a write goes out at once: there is nobody
// to gather with, and the scheduler's turn would only cost time.
const quietFor = 60 * time.Microsecond

// gathering is a connection whose writes are gathered: what all clients of a container have to
// say before its turn comes goes out in one call of the system, which costs more than all that
// is done to their messages before. A write that failed is told to the next one, and to whoever
// reads the connection.
type gathering struct {
	net.Conn

	mu       sync.Mutex // guards the following
	room     *sync.Cond // signalled when pending was taken
	written  time.Time  // the last call of Write
	pending  []byte
	spare    []byte // pending's next buffer
	flushing bool
	failed   error
}

// gather makes a dialler whose connections gather their writes.
func gather(dial tunnel.DialFunc) tunnel.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		g := &gathering{Conn: conn}
		g.room = sync.NewCond(&g.mu)
		return g, nil
	}
}

// Write implements net.Conn. It may return before p is written, and keeps none of it.
func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.failed == nil && len(g.pending) > 0 && len(g.pending)+len(p) > maxGathered {
		g.room.Wait()
	}
	if g.failed != nil {
		return 0, g.failed
	}
	now := time.Now()
	quiet := now.Sub(g.written) > quietFor
	g.written = now
	if quiet && !g.flushing && len(g.pending) == 0 {
		return g.writeNow(p)
	}
	g.pending = append(g.pending, p...)
	if !g.flushing {
		g.flushing = true
		go g.flush()
	}
	return len(p), nil
}

// writeNow writes past the queue, which is empty. g.mu is held, but not while it writes.
func (g *gathering) writeNow(p []byte) (int, error) {
	g.flushing = true
	g.mu.Unlock()
	_ = g.Conn.SetWriteDeadline(time.Now().Add(linkWrite))
	n, err := g.Conn.Write(p)
	g.mu.Lock()
	g.failed = err
	g.flushing = err == nil && len(g.pending) > 0
	if g.flushing {
		go g.flush()
	}
	g.room.Broadcast()
	return n, err
}

// SetWriteDeadline implements net.Conn. Each call of the system has a deadline of its own.
func (g *gathering) SetWriteDeadline(time.Time) error { return nil }

// flush writes until nothing waits.
func (g *gathering) flush() {
	// Whoever is ready to run may have something to add: the scheduler would else run this
	// goroutine before them.
	runtime.Gosched()
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.pending) > 0 && g.failed == nil {
		out := g.pending
		g.pending, g.spare = g.spare[:0], nil
		g.mu.Unlock()
		_ = g.Conn.SetWriteDeadline(time.Now().Add(linkWrite))
		_, err := g.Conn.Write(out)
		g.mu.Lock()
		if cap(out) <= maxKept {
			g.spare = out
		}
		g.failed = err
		g.room.Broadcast()
	}
	g.flushing = false
}
