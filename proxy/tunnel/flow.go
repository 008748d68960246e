package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// flow is one direction of a tunnel. While bytes move, one goroutine runs it, which alone
// reads src and writes dst. While none do, it may be parked: it has no goroutine then.
type flow struct {
	// set once in New
	tunnel *Tunnel
	back   *flow // the other direction
	from   Side
	src    net.Conn
	dst    net.Conn

	bytes    atomic.Uint64
	messages atomic.Uint64
	broken   atomic.Bool   // src can no longer be written to: told by the other direction
	wishes   atomic.Uint32 // what the keeper asks of the goroutine
	sink     sink          // its blocked is for all

	// guarded by tunnel.mu
	phase   flowPhase
	armed   bool // the parking place knows src
	limited bool // what it may still move has a limit

	// owned by whoever runs the flow
	early   []byte
	source  source
	frames  scanner
	splicer *splicer
	// what accept met with, and is to do
	readErr, writeErr error
	discarding        bool

	watch watch // the keeper's
}

// flowPhase is where a flow stands.
type flowPhase uint8

const (
	waiting flowPhase = iota // not begun
	running                  // has a goroutine
	parked                   // has none; the parking place watches src
	over
)

// wishes of the keeper, as bits.
const (
	wishPark uint32 = 1 << iota // give the goroutine up until there is something to read
	wishPing                    // put a ping in
)

func (f *flow) init(t *Tunnel, from Side, src Peer, dst net.Conn) {
	f.tunnel, f.from, f.src, f.dst, f.early = t, from, src.Conn, dst, src.Early
	uncounted := -1
	if t.cfg.Keeper != nil { // while it runs it parks idle flows, and that finds a reset
		uncounted = t.cfg.Keeper.uncounted
	}
	f.source.init(src.Conn, uncounted, f)
	f.sink.init(dst)
	f.frames.masked = from == Client
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

// gone is what dst is told when src vanishes.
func (f *flow) gone() CloseFrame {
	cfg := &f.tunnel.cfg
	switch {
	case f.from == Client:
		return cfg.ClientGone
	case cfg.WhyBackendGone != nil:
		return cfg.WhyBackendGone()
	}
	return cfg.BackendGone
}

// errParked says that a flow has given its goroutine up.
var errParked = errors.New("parked")

// run moves bytes until src ends, dst fails, a limit has passed or the tunnel is closed, and
// then sees to the end of this direction. All that follows the end is bounded. It tells
// whether it has ended; otherwise it is parked.
func (f *flow) run() (ended bool) {
	readErr, writeErr := f.pump()
	if readErr == errParked { //nolint:errorlint // it is never wrapped
		return false
	}
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
		f.closeWrite()
	default:
		if errors.Is(readErr, io.EOF) {
			readErr = nil
		}
		f.tunnel.end(f.from, readErr)
		f.tunnel.bound(f.back, drainTimeout)
		if f.frames.open() {
			f.tell(f.gone())
		} else {
			f.closeWrite()
		}
	}
	return true
}

// pump moves bytes until one end fails, or the flow is parked: exactly one of the errors is
// not nil.
func (f *flow) pump() (readErr, writeErr error) {
	if len(f.early) > 0 && !f.tunnel.isClosing.Load() {
		early := f.early
		f.early = nil
		if err := f.move(early); err != nil {
			return nil, err
		}
	}
	for {
		if f.wishes.Load() != 0 {
			if parked, err := f.grant(); parked {
				return errParked, nil
			} else if err != nil {
				return nil, err
			}
		}
		err := f.source.feed()
		switch {
		case f.readErr != nil || f.writeErr != nil:
			return f.readErr, f.writeErr
		case f.wishes.Load() != 0 && errors.Is(err, os.ErrDeadlineExceeded):
			continue // it was the keeper who called
		case err != nil:
			return err, nil
		}
		if f.spliceable() {
			if moved, readErr, writeErr := f.splice(); moved && (readErr != nil || writeErr != nil) {
				if f.wishes.Load() != 0 && errors.Is(readErr, os.ErrDeadlineExceeded) {
					continue
				}
				return readErr, writeErr
			}
		}
	}
}

// accept takes what was read. It tells false if whoever feeds is to come back: for something has
// to be done, or may be over, and a reset shows when it reads anew.
func (f *flow) accept(p []byte) bool {
	switch {
	case f.discarding:
		return false
	case f.tunnel.isClosing.Load():
		// What came after Close may be the answer to the close frame that the other direction
		// has sent by then: this side is to get ours.
		f.readErr = os.ErrDeadlineExceeded
		return false
	}
	f.writeErr = f.move(p)
	return f.writeErr == nil && !f.spliceable() && f.frames.close == nil
}

// spliceable tells whether so much of a frame is to come that the kernel should move it.
func (f *flow) spliceable() bool { return f.frames.left >= spliceMin && !f.frames.malformed }

// grant does what the keeper wishes.
func (f *flow) grant() (parked bool, writeErr error) {
	parked, wantsPing := f.tunnel.answer(f)
	if wantsPing && f.frames.open() {
		_, writeErr = f.sink.write(ping[:])
	}
	return parked, writeErr
}

// move writes p to dst and takes note of what was written. Whoever says goodbye is noted before
// dst can hear of it and answer. Once a write has failed nothing is ever put into the stream,
// so that it does not matter that frames were followed further than they were written.
func (f *flow) move(p []byte) error {
	closed := f.frames.close != nil
	f.frames.scan(p)
	closes := !closed && f.frames.close != nil
	if closes {
		f.tunnel.end(f.from, nil)
	}
	mute := closes && f.plain()
	if mute {
		// A frame that began in what was written before stays without its end.
		p = p[:max(0, len(p)-f.frames.beyond-f.frames.closeSize)]
	}
	n, err := f.sink.write(p)
	f.note(n)
	switch {
	case mute:
		f.closeWrite()
		f.tunnel.boundBoth(drainTimeout)
	case closes:
		f.closed()
	}
	return err
}

// plain tells whether dst takes control frames for messages.
func (f *flow) plain() bool { return f.tunnel.cfg.PlainClient && f.to() == Client }

// passed takes note of n bytes of payload that were written without coming here.
func (f *flow) passed(n int) {
	if n > 0 {
		f.frames.skip(uint64(n))
		f.note(n)
	}
}

// note counts what has passed.
func (f *flow) note(n int) {
	f.bytes.Add(uint64(n))
	if m := f.frames.messages; m != f.messages.Load() {
		f.messages.Store(m)
	}
	if f.frames.lively {
		f.frames.lively = false
		f.tunnel.active.Store(int64(time.Since(f.tunnel.started)))
	}
}

// closed is called once a close frame has passed. When both sides have sent theirs, there is
// nothing to come but the ends of the streams, which the server side owes first.
func (f *flow) closed() {
	f.tunnel.mu.Lock()
	f.tunnel.closes++
	both := f.tunnel.closes == 2
	f.tunnel.mu.Unlock()
	if both {
		f.tunnel.boundBoth(drainTimeout)
	}
}

// tell writes a close frame to dst, if there is one and dst's stream is open to it, and then
// ends the stream.
func (f *flow) tell(c CloseFrame) {
	if c.Code != 0 && f.frames.open() && !f.plain() {
		_ = f.dst.SetWriteDeadline(time.Now().Add(closeTimeout))
		_, _ = f.sink.write(encodeClose(c, f.to() == Backend))
	}
	f.closeWrite()
}

// discard reads src to its end, for a bounded time.
func (f *flow) discard() {
	_ = f.src.SetReadDeadline(time.Now().Add(closeTimeout))
	f.discarding = true
	for f.source.feed() == nil {
	}
}

// closeWrite ends the stream towards dst's peer, who may still send. A connection that cannot
// do so is closed at the end of the tunnel, and so are both if the other direction is over.
func (f *flow) closeWrite() {
	if f.tunnel.isLast(f) {
		return
	}
	if half, ok := f.dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
