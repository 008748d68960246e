package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// deadlineSlack is how much longer than ordered a session may live. The service keeps the
// deadline; this only bounds what is left behind if there is no service any more.
const deadlineSlack = 60 * time.Second

// exitTimeout is how long a browser may take from closing its sockets to its end: clients wait
// for the word.
const exitTimeout = time.Second

// ending says why a session ends, and what its clients are told.
type ending struct {
	reason   string // state.Reason's words
	code     int    // the close frame's
	message  string // for a person
	err      error  // it never was ready
	replaced bool   // a later binding has its place: nobody waits for the end of this one
}

// session is one session held by this container: starting, ready, ending, and then gone.
type session struct {
	// set once in newSession
	agent   *agent
	id      string
	bindRev int64
	want    settings
	ordered time.Time
	before  *session // an earlier binding of the same session, to be gone first
	ctx     context.Context
	cancel  context.CancelFunc
	settled chan struct{} // closed when the session is no longer starting
	done    chan struct{} // closed when nothing of it is left
	wake    chan struct{} // what it waits for has changed

	mu        sync.Mutex // guards the following
	phase     string
	limits    wire.Limits
	deadline  time.Time // zero: none
	readyAt   time.Time
	cold      bool
	browser   *browser
	why       *ending // set from ending on
	tunnels   map[*tunnel.Tunnel]struct{}
	connected bool
	moved     time.Time // when bytes last moved through a tunnel that is closed by now
	grace     time.Time // when it ends for want of a client; zero: not running
}

func newSession(a *agent, o wire.Order, want settings, before *session) *session {
	ctx, cancel := context.WithCancel(context.Background()) // ends with the session: see end
	s := &session{
		agent: a, id: o.SessionID, bindRev: o.BindRev, want: want, before: before,
		ordered: time.Now(), ctx: ctx, cancel: cancel,
		settled: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		phase: wire.Starting, tunnels: map[*tunnel.Tunnel]struct{}{},
	}
	if o.Limits != nil {
		s.limits = *o.Limits
	}
	s.deadline = deadline(s.limits)
	return s
}

func deadline(l wire.Limits) time.Time {
	if l.Remaining <= 0 {
		return time.Time{}
	}
	return time.Now().Add(ms(l.Remaining) + deadlineSlack)
}

// ms turns the wire's milliseconds into a duration, however large.
func ms(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond) / 4
	return time.Duration(min(n, most)) * time.Millisecond
}

// run is the session's life.
func (s *session) run() {
	defer close(s.done)
	defer s.cancel()
	if s.before != nil {
		<-s.before.done
		s.before = nil
	}
	b, cold, err := s.agent.pool.take(s.ctx, s.want)
	if err != nil {
		s.end(ending{err: err})
	} else if s.serve(b, cold) {
		s.watch(b)
	}
	e := s.closeTunnels()
	if b != nil {
		b.kill()
	}
	s.agent.forget(s, e)
}

// serve opens the session to clients, unless it is to end already.
func (s *session) serve(b *browser, cold bool) bool {
	s.mu.Lock()
	if s.why != nil {
		s.mu.Unlock()
		return false
	}
	now := time.Now()
	s.phase, s.browser, s.cold, s.readyAt, s.moved = wire.Serving, b, cold, now, now
	close(s.settled)
	s.mu.Unlock()
	a := s.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := s.readyNotice(); ok {
		a.notifyLocked(n)
		a.log.Info("session ready", "session", s.id, "cold", n.Cold, "took", time.Duration(n.StartMS)*time.Millisecond)
	}
	return true
}

// readyNotice is the answer to CREATE_SESSION, if the session is ready.
func (s *session) readyNotice() (wire.Notice, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Notice{
		Type: wire.SessionReady, SessionID: s.id, BindRev: s.bindRev,
		Cold: s.cold, StartMS: s.readyAt.Sub(s.ordered).Milliseconds(),
	}, s.phase == wire.Serving
}

// watch returns when the session is to end: ordered, by a limit, or because its browser did.
func (s *session) watch(b *browser) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-b.exited:
			s.end(s.exit(b))
			return
		case <-s.wake:
		case <-timer.C:
		}
		cause, wait := s.judge(time.Now())
		if cause != "" {
			s.end(ending{reason: cause, code: closeNormal})
			return
		}
		timer.Reset(wait)
	}
}

// exit judges a browser that ended by itself. One that a client has closed through the
// protocol exits with status 0; anything else is a crash.
func (s *session) exit(b *browser) ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected && b.state.Success() {
		return ending{reason: reasonReleased, code: closeNormal, message: "a client closed the browser"}
	}
	return ending{reason: reasonCrashed, code: closeFailed, message: fmt.Sprintf("the browser ended by itself (%s)", b.state)}
}

// farewell is what a client is told when its socket of the browser has ended: how the process
// ends, a moment later, tells a crash from a browser that a client has closed.
func (s *session) farewell(b *browser) tunnel.CloseFrame {
	timer := time.NewTimer(exitTimeout)
	defer timer.Stop()
	select {
	case <-b.exited:
		e := s.exit(b)
		return tunnel.CloseFrame{Code: e.code, Reason: e.reason}
	case <-timer.C:
		return tunnel.CloseFrame{Code: closeFailed, Reason: reasonCrashed}
	}
}

// judge holds the session against its limits: the reason to end it, or how long none can
// come up.
func (s *session) judge(now time.Time) (cause string, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = time.Hour
	check := func(at time.Time, reason string) {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
		} else if cause == "" {
			cause = reason
		}
	}
	if !s.deadline.IsZero() {
		check(s.deadline, reasonDeadline)
	}
	if s.limits.FirstConnect > 0 && !s.connected {
		check(s.readyAt.Add(ms(s.limits.FirstConnect)), reasonNotConnected)
	}
	if !s.grace.IsZero() {
		check(s.grace, reasonDisconnected)
	}
	if s.limits.Idle > 0 {
		check(s.lastMovedLocked().Add(ms(s.limits.Idle)), reasonIdle)
	}
	return cause, wait
}

func (s *session) lastMovedLocked() time.Time {
	last := s.moved
	for t := range s.tunnels {
		if at := t.Stats().LastActivity; at.After(last) {
			last = at
		}
	}
	return last
}

// setLimits puts other limits in the place of the former.
func (s *session) setLimits(l wire.Limits) {
	s.mu.Lock()
	s.limits, s.deadline = l, deadline(l)
	switch {
	case l.KeepAlive:
		s.grace = time.Time{}
	case s.phase == wire.Serving && s.connected && len(s.tunnels) == 0 && s.grace.IsZero():
		s.startGraceLocked(ms(l.DisconnectGrace))
	}
	s.mu.Unlock()
	s.signal()
}

func (s *session) startGraceLocked(d time.Duration) {
	if d > 0 && !s.limits.KeepAlive {
		s.grace = time.Now().Add(d)
	}
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end has the session end. Only the first cause counts.
func (s *session) end(e ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return
	}
	s.why = &e
	if s.phase == wire.Starting {
		close(s.settled)
	}
	s.phase = wire.Ending
	s.cancel()
}

// closeTunnels tells every client why, and gives the cause.
func (s *session) closeTunnels() ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tunnels {
		t.Close(s.why.code, s.why.reason)
	}
	return *s.why
}

// awaitBrowser waits until the session is no longer starting.
func (s *session) awaitBrowser(ctx context.Context) (*browser, error) {
	select {
	case <-s.settled:
	case <-ctx.Done():
		return nil, &refusal{status: 503, code: "session_starting", message: "the session's browser is not ready yet: try again"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != wire.Serving {
		return nil, s.goneLocked()
	}
	return s.browser, nil
}

func (s *session) goneLocked() error {
	reason := s.why.reason
	if s.why.err != nil {
		reason = "its browser could not be started"
	}
	return &refusal{status: 410, code: "session_ended", message: "the session has ended: " + reason}
}

// attach counts t as a client from now on. A session that has ended meanwhile closes it.
func (s *session) attach(t *tunnel.Tunnel) {
	s.mu.Lock()
	if s.phase != wire.Serving {
		t.Close(s.why.code, s.why.reason)
		s.mu.Unlock()
		return
	}
	s.tunnels[t] = struct{}{}
	s.connected, s.grace = true, time.Time{}
	s.mu.Unlock()
	s.signal()
	s.agent.reportSoon()
}

// detach takes note of how a client left. The last one out starts the grace: the short one if
// somebody said good-bye, the long one if the relay vanished or is being replaced, since its
// client will come back.
func (s *session) detach(t *tunnel.Tunnel, r tunnel.Result) {
	s.mu.Lock()
	if _, ok := s.tunnels[t]; !ok {
		s.mu.Unlock()
		return
	}
	delete(s.tunnels, t)
	if r.LastActivity.After(s.moved) {
		s.moved = r.LastActivity
	}
	if len(s.tunnels) == 0 && s.phase == wire.Serving {
		lost := r.First != tunnel.Backend
		if r.FromClient != nil {
			lost = r.FromClient.Code == closeRestart || r.FromClient.Code == closeTryLater
		}
		if lost {
			s.startGraceLocked(ms(s.limits.LostGrace))
		} else {
			s.startGraceLocked(ms(s.limits.DisconnectGrace))
		}
	}
	s.mu.Unlock()
	s.signal()
	s.agent.reportSoon()
}

// report is the session's line in a report.
func (s *session) report(now time.Time) wire.SessionReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := wire.SessionReport{
		SessionID: s.id, BindRev: s.bindRev, Phase: s.phase, Cold: s.cold,
		Attached: len(s.tunnels), Connected: s.connected, GraceLeft: -1,
	}
	if !s.readyAt.IsZero() {
		r.Idle = max(0, now.Sub(s.lastMovedLocked()).Milliseconds())
	}
	if !s.grace.IsZero() {
		r.GraceLeft = max(0, s.grace.Sub(now).Milliseconds())
	}
	return r
}

// refusal is an answer before an upgrade.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string { return r.message }

// asRefusal gives the answer that err stands for.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return &refusal{status: 502, code: "browser_unreachable", message: "the session's browser does not answer"}
}
