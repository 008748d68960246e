package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	linkPing     = 10 * time.Second
	linkSilence  = 30 * time.Second // without a word or a pong, and the container is gone
	linkWrite    = 10 * time.Second
	linkOpening  = 10 * time.Second // from the upgrade to the first report
	maxNotice    = 4 << 20          // a report of thousands of sessions
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 2 * time.Second
	maxFarewell  = 2 * time.Second // for writing down what is still known when stopping
)

// linkState is where a link stands.
type linkState string

const (
	linkVerifying linkState = "verifying"
	linkDialling  linkState = "dialling"
	linkOpen      linkState = "open"
	linkLost      linkState = "lost"
)

func linkStates() []linkState {
	return []linkState{linkVerifying, linkDialling, linkOpen, linkLost}
}

// link is this replica's ownership of one life of one container, through as many sockets as
// that takes. It ends with the ownership.
type link struct {
	// set once in newLink
	links  *Links
	log    *slog.Logger
	id     string // the container's
	bootID string
	seq    int64 // ownerSeq
	by     state.Authority
	ctx    context.Context //nolint:containedctx // the link's own life, which stop ends
	stop   context.CancelCauseFunc
	poked  chan struct{} // holds one
	rec    *recorder
	env    *envelopes  // of a v1 container; else nil
	since  int64       // the revision of the container's record when the link began
	news   atomic.Bool // v1: clients have come or gone

	// owned by run
	state linkState
	left  bool // leave has done its work
}

func newLink(base context.Context, ls *Links, c *state.Container) *link {
	l := &link{
		links:  ls,
		log:    ls.log.With("container", c.ID, "ownerSeq", c.OwnerSeq),
		id:     c.ID,
		bootID: c.BootID,
		seq:    c.OwnerSeq,
		by:     state.Authority{Container: c.ID, OwnerSeq: c.OwnerSeq},
		poked:  make(chan struct{}, 1),
		since:  c.Rev,
	}
	if c.Protocol == wire.ProtocolV1 {
		l.env = newEnvelopes(ls.envMetrics, func() {
			l.news.Store(true)
			l.wake()
		})
	}
	l.ctx, l.stop = context.WithCancelCause(base)
	l.rec = newRecorder(l)
	return l
}

// wake has the link compare what is with what should be.
func (l *link) wake() {
	select {
	case l.poked <- struct{}{}:
	default:
	}
}

// run keeps the link until it is stopped.
func (l *link) run() {
	go l.rec.run()
	l.keep()
	why := context.Cause(l.ctx)
	l.rec.finish(0)
	l.enter("")
	l.stop(nil)
	if !errors.Is(why, errSuperseded) && !errors.Is(why, errShutdown) {
		l.log.Info("link given up", "error", why)
	}
	l.links.gone(l, why)
}

// keep verifies, dials and serves, again and again until the link is stopped.
func (l *link) keep() {
	backoff := newBackoff()
	said := ""
	for l.ctx.Err() == nil {
		l.enter(linkVerifying)
		to, err := l.verify(l.ctx)
		if err != nil {
			break // only for want of a context
		}
		l.enter(linkDialling)
		conn, err := l.dial(to.addr)
		if err != nil {
			if l.ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				l.log.Warn("link not opened: trying again", "error", err)
			}
			backoff.wait(l.ctx, nil)
			continue
		}
		l.enter(linkOpen)
		opened, err := l.serve(conn, to)
		if l.ctx.Err() != nil {
			break
		}
		l.log.Warn("link lost", "error", err)
		l.enter(linkLost)
		if !opened {
			backoff.wait(l.ctx, nil)
			continue
		}
		backoff, said = newBackoff(), ""
		// The leader asks ECS about the task at once. If the container lives, it registers by
		// itself, which makes another link of this one.
		l.rec.add(fact{kind: factLost, message: to.taskARN})
		if l.env != nil {
			backoff.wait(l.ctx, nil) // a v1 container never registers again
			continue
		}
		sleep(l.ctx, l.links.cfg.Redial)
	}
	if l.env != nil {
		l.finishV1()
	}
	l.leave()
}

// serve runs one socket of the link in the container's dialect.
func (l *link) serve(conn *websocket.Conn, to target) (opened bool, err error) {
	if l.env != nil {
		return newV1Line(l, conn, to).serve()
	}
	return newLine(l, conn, to).serve()
}

// leave writes down what is still known, and lets the container go if the replica stops.
func (l *link) leave() {
	if l.left || !errors.Is(context.Cause(l.ctx), errShutdown) {
		return
	}
	l.left = true
	l.rec.finish(maxFarewell)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), maxFarewell)
	defer cancel()
	err := l.links.cfg.Store.Disown(ctx, l.by)
	if err != nil && !errors.Is(err, state.ErrFenced) && !errors.Is(err, state.ErrNotFound) {
		l.log.Warn("container not handed over: its lease must run out", "error", err)
	}
}

// enter notes where the link stands; empty: nowhere any more.
func (l *link) enter(s linkState) {
	l.links.metrics.moveLink(l.state, s)
	l.state = s
}

// dial opens the control socket.
func (l *link) dial(addr string) (*websocket.Conn, error) {
	if l.env != nil {
		return l.dialV1(addr)
	}
	var conn *websocket.Conn
	var err error
	of := &state.Container{ID: l.id, BootID: l.bootID}
	for _, secret := range secrets(of, l.links.cfg.Secret, l.links.cfg.PreviousSecrets) {
		var status int
		if conn, status, err = l.dialWith(addr, secret); status != http.StatusUnauthorized {
			break
		}
	}
	return conn, err
}

// dialWith gives the status of a refusal too; zero if there was no answer.
func (l *link) dialWith(addr, secret string) (*websocket.Conn, int, error) {
	dialer := websocket.Dialer{NetDialContext: l.links.cfg.Dial, HandshakeTimeout: 5 * time.Second}
	conn, resp, err := dialer.DialContext(l.ctx, "ws://"+addr+wire.LinkPath, http.Header{
		"Authorization":     {"Bearer " + secret},
		wire.OwnerSeqHeader: {strconv.FormatInt(l.seq, 10)},
		wire.ReplicaHeader:  {l.links.cfg.Replica},
	})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil && resp != nil {
		return nil, resp.StatusCode, fmt.Errorf("dialling %s: refused with status %d", addr, resp.StatusCode)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("dialling %s: %w", addr, err)
	}
	return conn, 0, nil
}

// line is one socket of a link. Its fields are owned by serve, but for what read uses.
type line struct {
	*link
	conn *websocket.Conn
	to   target
	sent uint64 // the last order's number

	report    *wire.Report                  // the latest; nil: none yet
	reported  map[string]wire.SessionReport // what it lists, corrected by the notices since
	holds     map[string]*hold              // what this line has ordered and seen
	drainSeq  int64                         // the last DRAIN sent on this line
	undrained uint64                        // number of the last UNDRAIN; zero: none
	saidDrain bool                          // the store was told that the container drains by itself
}

func newLine(l *link, conn *websocket.Conn, to target) *line {
	return &line{link: l, conn: conn, to: to, reported: map[string]wire.SessionReport{}, holds: map[string]*hold{}}
}

// serve runs the socket until it fails or the link is stopped. opened tells whether the
// container has reported on it.
func (l *line) serve() (opened bool, err error) {
	notices := make(chan wire.Notice)
	over := make(chan struct{}) // tells read that nobody listens any more
	ended := make(chan struct{})
	var readErr error // set before ended is closed
	go func() {
		defer close(ended)
		readErr = l.read(notices, over)
	}()
	defer func() {
		close(over)
		_ = l.conn.Close()
		<-ended
	}()
	ping := time.NewTicker(linkPing)
	defer ping.Stop()
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-l.ctx.Done():
			l.leave()
			_ = l.conn.WriteControl(websocket.CloseMessage,
				websocket.FormatCloseMessage(websocket.CloseGoingAway, "no longer the owner"), time.Now().Add(time.Second))
			return l.report != nil, context.Cause(l.ctx)
		case <-ended:
			return l.report != nil, readErr
		case n := <-notices:
			err = l.heed(n)
		case <-l.poked:
		case <-sweep.C:
		case <-ping.C:
			err = l.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(linkWrite))
		}
		if err == nil {
			err = l.reconcile()
		}
		if err != nil {
			return l.report != nil, err
		}
	}
}

// read takes notices off the socket.
func (l *line) read(notices chan<- wire.Notice, over <-chan struct{}) error {
	l.conn.SetReadLimit(maxNotice)
	_ = l.conn.SetReadDeadline(time.Now().Add(linkOpening))
	alive := func() { _ = l.conn.SetReadDeadline(time.Now().Add(linkSilence)) }
	l.conn.SetPongHandler(func(string) error { alive(); return nil })
	for {
		_, text, err := l.conn.ReadMessage()
		if err != nil {
			return err
		}
		alive()
		var n wire.Notice
		if err := json.Unmarshal(text, &n); err != nil {
			return fmt.Errorf("reading a notice: %w", err)
		}
		select {
		case notices <- n:
		case <-over:
			return nil
		}
	}
}

// order sends one order, which it numbers.
func (l *line) order(o wire.Order) error {
	l.sent++
	o.N = l.sent
	_ = l.conn.SetWriteDeadline(time.Now().Add(linkWrite))
	if err := l.conn.WriteJSON(o); err != nil {
		return fmt.Errorf("sending %s: %w", o.Type, err)
	}
	return nil
}

// backoff is a growing, jittered pause.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: backoffFirst} }

// wait pauses, less long if ctx ends or early is ready.
func (b *backoff) wait(ctx context.Context, early <-chan struct{}) {
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer timer.Stop()
	b.next = min(2*b.next, backoffMost)
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-early:
	}
}

// sleep pauses for d, less long if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
