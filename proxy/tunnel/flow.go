package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// flow is one direction of a tunnel. One goroutine runs it; that alone reads src and writes dst.
type flow struct {
	// set once in New
	tunnel *Tunnel
	back   *flow // the other direction
	from   Side
	src    net.Conn
	dst    net.Conn
	gone   func() CloseFrame // told to dst when src vanishes

	bytes    atomic.Uint64
	messages atomic.Uint64
	broken   atomic.Bool // src can no longer be written to: told by the other direction

	// owned by run
	early  []byte
	source *source
	frames scanner
}

func newFlow(t *Tunnel, from Side, src Peer, dst net.Conn, gone func() CloseFrame) *flow {
	return &flow{
		tunnel: t,
		from:   from,
		src:    src.Conn,
		dst:    dst,
		gone:   gone,
		early:  src.Early,
		source: newSource(src.Conn),
		frames: scanner{masked: from == Client},
	}
}

func (f *flow) count() Flow {
	return Flow{Bytes: f.bytes.Load(), Messages: f.messages.Load()}
}

// to is the side that f writes to.
func (f *flow) to() Side {
	if f.from == Client {
		return Backend
	}
	return Client
}

// run moves bytes until src ends, dst fails, a limit has passed or the tunnel is closed, and
// then sees to the end of this direction. All that follows the end is bounded.
func (f *flow) run() {
	readErr, writeErr := f.pump()
	closing := f.tunnel.closeFrame()
	timeout := errors.Is(readErr, os.ErrDeadlineExceeded)
	switch {
	case closing != nil:
		if writeErr == nil {
			f.tell(*closing)
		}
		f.discard()
	case writeErr != nil:
		// dst is lost. The other direction finds out what it has still sent, tells src, and
		// src's answer is read here: a socket closed over unread bytes is reset, and its peer
		// would lose the close frame.
		f.tunnel.end(f.to(), writeErr)
		f.back.broken.Store(true)
		f.tunnel.bound(f.back, closeTimeout)
		f.discard()
	case timeout && !f.broken.Load():
		// The other direction ended and this one has had its time.
		closeWrite(f.dst)
	default:
		if errors.Is(readErr, io.EOF) {
			readErr = nil
		}
		f.tunnel.end(f.from, readErr)
		f.tunnel.bound(f.back, drainTimeout)
		if f.frames.open() {
			f.tell(f.gone())
		} else {
			closeWrite(f.dst)
		}
	}
}

// pump moves bytes until one end fails: exactly one of the errors is not nil.
func (f *flow) pump() (readErr, writeErr error) {
	if len(f.early) > 0 {
		early := f.early
		f.early = nil
		if err := f.move(early); err != nil {
			return nil, err
		}
	}
	for {
		buf, n, err := f.source.next()
		if err != nil {
			return err, nil
		}
		err = f.move(buf[:n])
		release(buf)
		if err != nil {
			return nil, err
		}
	}
}

// move writes p to dst and takes note of what was written.
func (f *flow) move(p []byte) error {
	n, err := f.dst.Write(p)
	closed := f.frames.close != nil
	f.frames.scan(p[:n])
	f.bytes.Add(uint64(n))
	f.messages.Store(f.frames.messages)
	f.tunnel.active.Store(int64(time.Since(f.tunnel.started)))
	if !closed && f.frames.close != nil {
		f.closed()
	}
	return err
}

// closed is called once a close frame has passed: whose comes first has ended the tunnel. When both sides have sent theirs, there is
// nothing to come but the ends of the streams, which the server side owes first.
func (f *flow) closed() {
	f.tunnel.end(f.from, nil)
	f.tunnel.mu.Lock()
	f.tunnel.closes++
	both := f.tunnel.closes == 2
	f.tunnel.mu.Unlock()
	if both {
		f.tunnel.bound(f, drainTimeout)
		f.tunnel.bound(f.back, drainTimeout)
	}
}

// tell writes a close frame to dst, if there is one and dst's stream is open to it, and then
// ends the stream.
func (f *flow) tell(c CloseFrame) {
	if c.Code != 0 && f.frames.open() {
		_ = f.dst.SetWriteDeadline(time.Now().Add(closeTimeout))
		_, _ = f.dst.Write(encodeClose(c, f.to() == Backend))
	}
	closeWrite(f.dst)
}

// discard reads src to its end, for a bounded time.
func (f *flow) discard() {
	_ = f.src.SetReadDeadline(time.Now().Add(closeTimeout))
	for {
		buf, _, err := f.source.next()
		if err != nil {
			return
		}
		release(buf)
	}
}

// closeWrite ends the stream towards conn's peer, who may still send. A connection that
// cannot do so is closed at the end of the tunnel.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
