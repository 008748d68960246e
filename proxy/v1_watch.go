package proxy

import (
	"context"
	"encoding/json"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// timesV1 watches the limits of a session that serves, or sleeps.
func (l *v1Line) timesV1(s *v1Session, r *state.Session, now time.Time) error {
	cfg := &l.links.cfg
	s.mu.Lock()
	attached, connected := len(s.clients), s.connected
	since, moved, grace, commanded := s.since, s.moved, s.graceUntil, s.commanded
	serving := s.state == v1Serving
	s.mu.Unlock()
	o := &s.order
	var reason state.Reason
	switch {
	case attached == 0 && connected && !r.KeepAlive && !grace.IsZero() && !now.Before(grace):
		reason = state.Disconnected
	case attached == 0 && !connected && r.Origin == state.OriginAPI && now.Sub(since) >= cfg.FirstConnect:
		reason = state.NotConnected
	case cfg.Idle > 0 && now.Sub(moved) >= cfg.Idle:
		reason = state.Idle
	}
	if reason != "" && !o.expired {
		o.expired = true
		l.rec.add(fact{kind: factEnd, session: s.id, bindRev: s.bindRev, reason: reason})
		return nil
	}
	// The first one after an adoption also finds out whether the container holds the session.
	due := commanded.IsZero() && o.adopted || (attached > 0 || r.KeepAlive) && now.Sub(later(commanded, since)) >= l.cfg.Keepalive
	due = due || o.verify && l.due(&o.probedAt, v1AskAgain, now)
	if serving && due {
		o.verify = false
		return s.probe()
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// empty tells whether a draining container seems to be empty, but for what its notes say.
func (l *v1Line) empty(c *state.Container, starting bool) bool {
	return c.Phase == state.Draining && c.DrainSeq == l.drainSeen && l.links.cfg.Mirror.Trouble() == "" &&
		c.DrainAck < c.DrainSeq && len(c.Slots) == 0 && !starting &&
		!l.unanswered() && l.health.Sessions == 0 && l.rested.holds(l.cfg.Settle)
}

// unanswered tells whether there is a CREATE without an answer.
func (l *v1Line) unanswered() bool {
	for _, s := range l.env.all() {
		if s.standing() == v1Starting {
			return true
		}
	}
	return false
}

// settleDrain acknowledges the order to drain if the container's notes are empty, too.
func (l *v1Line) settleDrain(count int) {
	c, ok := l.container()
	if ok && count == 0 && l.empty(c, false) {
		l.reportV1(c.DrainSeq, true)
	}
}

// v1Rest notes for how long the container has been empty.
type v1Rest struct{ since, last time.Time }

func (r *v1Rest) reset() { *r = v1Rest{} }

func (r *v1Rest) empty(at time.Time) {
	if r.since.IsZero() {
		r.since = at
	}
	r.last = at
}

// holds tells whether two looks, that far apart, have found it empty, and all between.
func (r *v1Rest) holds(apart time.Duration) bool {
	return !r.since.IsZero() && r.last.Sub(r.since) >= apart
}

// cpuMeter makes a load of the seconds of CPU that a container has used since its start.
type cpuMeter struct {
	seconds float64
	at      time.Time
	load    float64
}

func (m *cpuMeter) add(seconds float64, at time.Time) {
	if passed := at.Sub(m.at).Seconds(); !m.at.IsZero() && passed > 0 && seconds >= m.seconds {
		m.load = min(1, (seconds-m.seconds)/passed)
	}
	m.seconds, m.at = seconds, at
}

// reportV1 writes down what is known of the container and its clients.
func (l *v1Line) reportV1(drainAck int64, urgent bool) {
	now := time.Now()
	var sessions []wire.SessionReport
	for _, s := range l.env.all() {
		if r, ok := s.report(now); ok {
			sessions = append(sessions, r)
		}
	}
	report := state.Report{
		BootID: l.bootID, DrainAck: drainAck,
		Health: state.Health{CPU: l.cpu.load, Memory: l.memory, Sessions: l.health.Sessions},
	}
	if l.to.proven {
		report.Addr, report.TaskARN = l.to.addr, l.to.taskARN
	}
	l.reported = now
	l.rec.report(report, sessions, urgent)
	l.links.project(l.id, report.Health, sessions)
}

// finishV1 closes the clients at the link's end: their container is gone, or another replica
// serves it. What a container that is gone has written down goes with it.
func (l *link) finishV1() {
	c, known := l.links.cfg.Mirror.Container(l.id)
	gone := known && c.Phase == state.Gone
	if gone {
		l.env.cut(false)
	}
	l.env.finish()
	if !gone {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), recordTimeout)
	defer cancel()
	if err := l.links.cfg.V1.Slots.V1Forget(ctx, l.id); err != nil {
		l.log.Warn("notes of a container that is gone not removed", "error", err)
	}
}

// closingV1 is how clients of a v1 session are told of its end.
func closingV1(reason state.Reason) (code int, text string) {
	switch code = reason.CloseCode(); code {
	case closeBroken:
		return code, reasonLost
	case drainCode:
		return closeAway, reasonShutdown
	}
	return code, string(reason)
}

func errorNotice(session, why string) []byte {
	return encodeNotice(wire.NoticeV1{Type: wire.SessionError, SessionID: session, Error: why})
}

func timeoutNotice(session string) []byte {
	return encodeNotice(wire.NoticeV1{Type: wire.SessionTimeout, SessionID: session})
}

func encodeNotice(n wire.NoticeV1) []byte {
	text, err := json.Marshal(n)
	if err != nil {
		return nil // of strings and numbers; cannot be
	}
	return text
}
