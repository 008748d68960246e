package agent

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

const (
	linkSilence    = 30 * time.Second // the service pings; so long without a word and it is gone
	linkWrite      = 10 * time.Second
	reportInterval = 5 * time.Second
	reportDelay    = 20 * time.Millisecond // several changes make one report
	maxOrder       = 4 << 20
	maxQueued      = 4096 // notices; a replica so far behind is not reading
)

// link is one control socket to the replica that owns this container.
type link struct {
	// set once in serveLink
	agent *agent
	conn  *websocket.Conn
	seq   int64 // the owner's
	wake  chan struct{}
	done  chan struct{} // closed when the link is to end

	mu       sync.Mutex // guards the following
	queue    []wire.Notice
	reportAt time.Time // when the next report is due
	ended    bool
	code     int // of the close frame
	reason   string
}

// serveLink takes a replica's control socket and reads orders until it ends.
func (a *agent) serveLink(w http.ResponseWriter, r *http.Request) {
	if !a.reg.authorized(r) {
		refuse(w, http.StatusUnauthorized, "unauthorized", "the link secret is missing or wrong")
		return
	}
	seq, err := strconv.ParseInt(r.Header.Get(wire.OwnerSeqHeader), 10, 64)
	if err != nil || seq < 0 {
		refuse(w, http.StatusBadRequest, "bad_owner_seq", wire.OwnerSeqHeader+" must be a number that is not negative")
		return
	}
	if !a.obeys(seq) {
		refuse(w, http.StatusConflict, "superseded", "another replica owns this container by now")
		return
	}
	up := websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		CheckOrigin:      func(r *http.Request) bool { return r.Header.Get("Origin") == "" },
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	l := &link{
		agent: a, conn: conn, seq: seq,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if !a.adopt(l) {
		_ = conn.WriteControl(websocket.CloseMessage,
			websocket.FormatCloseMessage(closePolicy, "superseded"), time.Now().Add(time.Second))
		_ = conn.Close()
		return
	}
	replica := r.Header.Get(wire.ReplicaHeader)
	if !validID(replica) {
		replica = ""
	}
	a.log.Info("link opened", "replica", replica, "ownerSeq", seq)
	written := make(chan struct{})
	a.owned.Go(func() {
		defer close(written)
		l.write()
	})
	err = l.read()
	l.close(0, "")
	<-written
	_ = conn.Close()
	a.dropLink(l)
	a.log.Info("link closed", "replica", replica, "ownerSeq", seq, "error", err.Error())
}

// obeys tells whether an owner of that sequence is the latest so far.
func (a *agent) obeys(seq int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return seq >= a.ownerSeq
}

// adopt makes l the link and ends the one before. The new owner first hears of the sessions
// that have ended lately, since the old one may not have, then gets the full report.
func (a *agent) adopt(l *link) bool {
	a.mu.Lock()
	if l.seq < a.ownerSeq || a.over {
		a.mu.Unlock()
		return false
	}
	old := a.link
	a.link, a.ownerSeq, a.ack = l, l.seq, 0
	a.forgetOldLocked(time.Now())
	for id, t := range a.ended {
		l.send(t.notice(id))
	}
	l.report(0)
	a.reg.setLinked(true)
	a.mu.Unlock()
	if old != nil {
		old.close(closePolicy, "superseded")
	}
	return true
}

func (a *agent) dropLink(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link == l {
		a.link = nil
		a.reg.setLinked(false)
	}
}

// closeLink ends the link for good, after what is still queued and a last report. There will
// be no other, nor any request.
func (a *agent) closeLink() {
	a.mu.Lock()
	a.over = true
	l := a.link
	a.mu.Unlock()
	if l != nil {
		l.report(0)
		l.close(closeAway, "the container has stopped")
	}
}

// notifyLocked sends n if there is a link. The next link's report makes up for it otherwise.
func (a *agent) notifyLocked(n wire.Notice) {
	if a.link != nil {
		a.link.send(n)
	}
}

func (a *agent) reportSoonLocked() {
	if a.link != nil {
		a.link.report(reportDelay)
	}
}

// reportSoon has a report sent, together with whatever changes next.
func (a *agent) reportSoon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reportSoonLocked()
}

// read obeys orders until the link ends; it gives the reason.
func (l *link) read() error {
	l.conn.SetReadLimit(maxOrder)
	alive := func() { _ = l.conn.SetReadDeadline(time.Now().Add(linkSilence)) }
	alive()
	answer := l.conn.PingHandler()
	l.conn.SetPingHandler(func(data string) error {
		alive()
		return answer(data)
	})
	for {
		var o wire.Order
		if err := l.conn.ReadJSON(&o); err != nil {
			return err
		}
		alive()
		if !l.agent.obey(l, o) {
			return websocket.ErrCloseSent // superseded
		}
	}
}

// send queues a notice.
func (l *link) send(n wire.Notice) {
	l.mu.Lock()
	full := len(l.queue) >= maxQueued
	if !full && !l.ended {
		l.queue = append(l.queue, n)
	}
	l.mu.Unlock()
	if full {
		l.close(closeFailed, "too far behind")
		return
	}
	l.signal()
}

// report has a report sent within d.
func (l *link) report(d time.Duration) {
	at := time.Now().Add(d)
	l.mu.Lock()
	if l.reportAt.IsZero() || at.Before(l.reportAt) {
		l.reportAt = at
	}
	l.mu.Unlock()
	l.signal()
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// close ends the link after what is queued. A zero code sends nothing more: the peer is gone.
func (l *link) close(code int, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended, l.code, l.reason = true, code, reason
	close(l.done)
}

// write is the only writer of messages. A report is made at the moment when it is written,
// so it never contradicts a notice that precedes it.
func (l *link) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-timer.C:
		case <-l.done:
			l.finish()
			return
		}
		next, err := l.flush()
		if err != nil {
			_ = l.conn.Close() // ends the reader
			<-l.done
			return
		}
		timer.Reset(time.Until(next))
	}
}

// flush writes what is due, and tells when the next report will be.
func (l *link) flush() (time.Time, error) {
	now := time.Now()
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	due := !l.reportAt.After(now)
	if due {
		l.reportAt = now.Add(reportInterval)
	}
	next := l.reportAt
	l.mu.Unlock()
	for _, n := range queue {
		if err := l.put(n); err != nil {
			return next, err
		}
	}
	if !due {
		return next, nil
	}
	report := l.agent.report()
	return next, l.put(wire.Notice{Type: wire.ReportState, Report: &report})
}

func (l *link) put(n wire.Notice) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(linkWrite))
	return l.conn.WriteJSON(n)
}

// finish writes what is left and the close frame, and ends the reader within a second.
func (l *link) finish() {
	l.mu.Lock()
	code, reason := l.code, l.reason
	l.mu.Unlock()
	if code == 0 {
		return
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if code == closeAway {
		_, _ = l.flush()
	}
	_ = l.conn.WriteControl(websocket.CloseMessage,
		websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
	_ = l.conn.SetReadDeadline(time.Now().Add(time.Second))
}
