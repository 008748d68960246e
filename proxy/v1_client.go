package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// What one client of a v1 session may cost.
const (
	maxClientMessage = 64 << 20 // containers' own limit is 100 MiB, and takes the whole link down
	maxEarly         = 1 << 20  // of messages sent before the session is ready
	maxAsked         = 32       // commands without an answer, before a client is not read any more
	maxQueued        = 1 << 20  // bytes waiting for a client, before it is not read any more
	maxBehind        = 64 << 20 // bytes waiting for a client, before it is closed
	maxKept          = 64 << 10 // of a buffer that is used again

	clientWrite    = 5 * time.Minute // for one message: as much as 40 MiB may take
	clientFarewell = 2 * time.Second
	clientPing     = 25 * time.Second // keeps load balancers from cutting quiet connections
)

// What v1 clients are told when they are closed.
const (
	closeAway     = 1001
	closeBroken   = 1011
	closeOverload = 1013

	reasonShutdown = "Proxy shutting down"
	reasonLost     = "Container disconnected"
	reasonBehind   = "too far behind"
	reasonEarly    = "too much was sent before the session was ready"
)

// v1Client is the socket of one client of a v1 session. Its reader is the goroutine of its
// request; what it is sent waits in a queue, so that nobody waits for a slow client but itself.
type v1Client struct {
	// set once in newV1Client
	conn    *websocket.Conn
	scratch *sync.Pool // *[]byte
	opened  time.Time
	over    chan struct{} // closed at the client's end

	remote atomic.Pointer[moved] // the replica that serves the client in our stead; nil: none

	// placing orders what the client has sent: whoever holds it passes messages on.
	placing sync.Mutex
	place   place    // guarded by placing; nil: the session is not ready
	early   [][]byte // guarded by placing
	earlyN  int      // guarded by placing: bytes

	mu      sync.Mutex // guards the following
	room    *sync.Cond // signalled when the client may be read again, or is at its end
	queue   []queued
	head    int // index of the first in queue that is not sent
	bytes   int // waiting in queue
	asked   int // commands without an answer
	writing bool
	ending  *closing
	gone    bool // the socket is closed
	told    bool // over is closed
}

// place is where the messages of a client go.
type place interface {
	// pass takes a message that is valid JSON. It may wait for room.
	pass(c *v1Client, text []byte)
}

// queued is a message that waits for its client. A frame may be replaced by a newer one.
type queued struct {
	text  []byte
	frame bool
}

// closing is a close frame that the client is to get.
type closing struct {
	code   int
	reason string
}

func newV1Client(conn *websocket.Conn, scratch *sync.Pool) *v1Client {
	c := &v1Client{conn: conn, scratch: scratch, opened: time.Now(), over: make(chan struct{})}
	c.room = sync.NewCond(&c.mu)
	conn.SetReadLimit(maxClientMessage)
	c.forwardControls()
	return c
}

// send queues a message for the client. It never waits. text must not be changed after.
func (c *v1Client) send(text []byte, frame bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.ending != nil {
		return
	}
	if frame {
		c.dropFrame()
	}
	c.queue = append(c.queue, queued{text: text, frame: frame})
	c.bytes += len(text)
	if c.bytes > maxBehind {
		c.endLocked(closeOverload, reasonBehind, true)
		return
	}
	c.flushLocked()
}

// dropFrame takes the frame that still waits out of the queue. c.mu is held.
func (c *v1Client) dropFrame() {
	for i := len(c.queue) - 1; i >= c.head; i-- {
		if !c.queue[i].frame {
			continue
		}
		c.bytes -= len(c.queue[i].text)
		if i == len(c.queue)-1 {
			c.queue = c.queue[:i]
		} else {
			c.queue[i] = queued{} // an empty text is not sent
		}
		return
	}
}

// end has the client closed with a code, after what is queued, or at once.
func (c *v1Client) end(code int, reason string, discard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(code, reason, discard)
}

func (c *v1Client) endLocked(code int, reason string, discard bool) {
	if c.gone || c.ending != nil {
		return
	}
	if discard {
		c.queue, c.head, c.bytes = nil, 0, 0
	}
	c.ending = &closing{code: code, reason: reason}
	if c.remote.Load() == nil { // else another replica's frames are on their way to it
		c.flushLocked()
	}
	c.overLocked()
	// A client that takes nothing any more, or never answers, is not waited for.
	time.AfterFunc(clientFarewell, func() { _ = c.conn.Close() })
}

// overLocked lets go of everybody who waits for the client. c.mu is held.
func (c *v1Client) overLocked() {
	c.room.Broadcast()
	if !c.told {
		c.told = true
		close(c.over)
	}
}

// flushLocked has the queue written, unless that goes on already. c.mu is held.
func (c *v1Client) flushLocked() {
	if !c.writing {
		c.writing = true
		go c.flush()
	}
}

// flush writes until nothing waits. Between messages there is no goroutine for it: quiet
// clients are many.
func (c *v1Client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.gone {
			return
		}
		if c.head == len(c.queue) {
			c.queue, c.head = c.queue[:0], 0
			if cap(c.queue) > 2*maxAsked {
				c.queue = nil
			}
			if e := c.ending; e != nil {
				c.mu.Unlock()
				_ = c.conn.WriteControl(websocket.CloseMessage,
					websocket.FormatCloseMessage(e.code, e.reason), time.Now().Add(clientFarewell))
				c.mu.Lock()
				return // writing stays: nothing follows a close frame
			}
			c.writing = false
			return
		}
		q := c.queue[c.head]
		c.queue[c.head] = queued{}
		if c.head++; c.head >= 2*maxAsked && 2*c.head >= len(c.queue) {
			c.queue = append([]queued(nil), c.queue[c.head:]...)
			c.head = 0
		}
		if len(q.text) == 0 {
			continue
		}
		c.mu.Unlock()
		_ = c.conn.SetWriteDeadline(time.Now().Add(clientWrite))
		err := c.conn.WriteMessage(websocket.TextMessage, q.text)
		c.mu.Lock()
		if err != nil {
			c.gone = true
			_ = c.conn.Close() // its reader finds out
			c.overLocked()
			return
		}
		if c.bytes >= len(q.text) { // else the queue was discarded meanwhile
			c.bytes -= len(q.text)
		}
		c.room.Broadcast()
	}
}

// await waits until the client may be read again. It is false at the client's end.
func (c *v1Client) await() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.gone && c.ending == nil && (c.asked >= maxAsked || c.bytes >= maxQueued) {
		c.room.Wait()
	}
	return !c.gone && c.ending == nil
}

// ask counts a command that wants an answer; answered takes it back.
func (c *v1Client) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
}

func (c *v1Client) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked--
	c.room.Broadcast()
}

func (c *v1Client) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// ping keeps the connection in use. A client that is being written to needs none.
func (c *v1Client) ping() {
	c.mu.Lock()
	busy := c.writing || c.gone || c.ending != nil
	c.mu.Unlock()
	if !busy {
		_ = c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(100*time.Millisecond))
	}
}

// read passes on what the client sends until its end. clean tells that it said goodbye.
func (c *v1Client) read(m *envelopeMetrics) (clean bool, err error) {
	for {
		kind, r, err := c.conn.NextReader()
		if err != nil {
			return isGoodbye(err), err
		}
		buf, _ := c.scratch.Get().(*[]byte)
		text, err := readAll(r, (*buf)[:0], nil)
		if err == nil {
			m.fromClient(len(text))
			err = c.take(kind, text, m)
		}
		if cap(text) <= maxKept {
			*buf = text
			c.scratch.Put(buf)
		}
		if err != nil {
			return isGoodbye(err), err
		}
	}
}

func isGoodbye(err error) bool {
	var closed *websocket.CloseError
	return errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure
}

// take passes one message on, or keeps it until there is a place for it.
func (c *v1Client) take(kind int, text []byte, m *envelopeMetrics) error {
	switch what := judge(text); {
	case what == notUTF8 && kind == websocket.TextMessage:
		c.end(websocket.CloseInvalidFramePayloadData, "not UTF-8", false)
		return nil
	case what != goodJSON:
		m.ignored(what)
		return nil
	}
	c.placing.Lock()
	defer c.placing.Unlock()
	if c.place != nil {
		c.place.pass(c, text)
		return nil
	}
	if c.earlyN+len(text) > maxEarly {
		c.end(closeOverload, reasonEarly, false)
		return nil
	}
	c.early = append(c.early, append([]byte(nil), text...))
	c.earlyN += len(text)
	return nil
}

// settle gives the client a place, to which goes what it has sent until now. The goroutine
// that reads the client waits meanwhile.
func (c *v1Client) settle(p place) {
	c.placing.Lock()
	defer c.placing.Unlock()
	for _, text := range c.early {
		p.pass(c, text)
	}
	c.early, c.earlyN = nil, 0
	c.place = p
}

// close ends the socket.
func (c *v1Client) close() {
	c.mu.Lock()
	c.gone = true
	c.queue, c.head, c.bytes = nil, 0, 0
	c.overLocked()
	c.mu.Unlock()
	_ = c.conn.Close()
}

// readAll reads r into buf, which grows as needed. progress is called now and then; nil: not.
func readAll(r io.Reader, buf []byte, progress func()) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), max(2*cap(buf), 4096))
			copy(grown, buf)
			buf = grown
			if progress != nil {
				progress()
			}
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// readyNotice is what a client is told when its session has a browser.
func readyNotice(session string) []byte {
	return []byte(`{"type":"` + wire.ClientReady + `","sessionId":"` + session + `"}`)
}

// ended tells whether the client is at its end.
func (c *v1Client) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone || c.ending != nil
}

// wasEnded tells whether the service has closed the client.
func (c *v1Client) wasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending != nil
}
