package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

const (
	// tombstones are kept so long: a link that is lost and dialled again must not bring a
	// session back that has ended meanwhile, nor lose the reason.
	tombstoneTTL  = 2 * time.Minute
	maxTombstones = 256
)

// tombstone is what is left of a session that was once ready, or was destroyed.
type tombstone struct {
	bindRev         int64
	reason, message string
	at              time.Time
}

func (t tombstone) notice(id string) wire.Notice {
	return wire.Notice{Type: wire.SessionEnded, SessionID: id, BindRev: t.bindRev, Reason: t.reason, Message: t.message}
}

// obey records one order of l and sees to it. It returns false if l is not the link any more.
// Nothing here waits: sessions do their work in goroutines of their own.
func (a *agent) obey(l *link, o wire.Order) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link != l {
		return false
	}
	a.ack = max(a.ack, o.N)
	switch o.Type {
	case wire.CreateSession:
		a.createLocked(o)
	case wire.DestroySession:
		a.destroyLocked(o)
	case wire.UpdateSession:
		if s := a.sessions[o.SessionID]; s != nil && o.Limits != nil && (o.BindRev == 0 || o.BindRev == s.bindRev) {
			s.setLimits(*o.Limits)
		}
	case wire.Drain, wire.Undrain:
		if o.DrainSeq < a.drainSeq {
			break // an order older than one obeyed
		}
		a.drainSeq, a.ordered = o.DrainSeq, o.Type == wire.Drain
		a.log.Info("drain ordered", "draining", a.ordered, "drainSeq", o.DrainSeq, "sessions", len(a.sessions))
		a.reportSoonLocked()
	default:
		a.log.Warn("order unknown", "type", excerpt([]byte(o.Type)))
	}
	return true
}

// createLocked admits a session, once per binding.
func (a *agent) createLocked(o wire.Order) {
	refuse := func(why string, final bool) {
		a.log.Warn("session refused", "session", excerpt([]byte(o.SessionID)), "error", why)
		a.notifyLocked(wire.Notice{Type: wire.SessionError, SessionID: o.SessionID, BindRev: o.BindRev, Error: why, Final: final})
	}
	deny := func(why string) { refuse(why, false) }
	if !validID(o.SessionID) {
		deny("the session id is not 1 to 128 letters, digits, - or _")
		return
	}
	if t, ok := a.ended[o.SessionID]; ok && o.BindRev <= t.bindRev {
		a.notifyLocked(t.notice(o.SessionID))
		return
	}
	known := a.sessions[o.SessionID]
	switch {
	case known != nil && o.BindRev < known.bindRev:
		return // overtaken by a later binding
	case known != nil && o.BindRev == known.bindRev:
		if n, ok := known.readyNotice(); ok {
			a.notifyLocked(n)
		}
		return // else its own answer is on its way
	case a.stopping || a.ordered:
		deny("container is draining")
		return
	case known == nil && len(a.sessions) >= a.cfg.MaxSessions:
		deny("container is at capacity")
		return
	}
	want, err := parseSettings(o.Options, a.cfg.DefaultViewport)
	if err != nil {
		refuse(err.Error(), true) // alike everywhere
		return
	}
	if known != nil {
		known.end(ending{reason: reasonReleased, code: closeFailed, message: "bound again", replaced: true})
	}
	s := newSession(a, o, want, known)
	a.sessions[s.id] = s
	a.log.Info("session admitted", "session", s.id, "bindRev", s.bindRev)
	a.owned.Go(s.run)
}

// destroyLocked ends a session, or says at once that there is nothing of it.
func (a *agent) destroyLocked(o wire.Order) {
	s := a.sessions[o.SessionID]
	if s == nil || (o.BindRev != 0 && o.BindRev < s.bindRev) {
		n := wire.Notice{Type: wire.SessionEnded, SessionID: o.SessionID, BindRev: o.BindRev, Reason: o.Reason}
		if t, ok := a.ended[o.SessionID]; ok && (o.BindRev == 0 || o.BindRev == t.bindRev) {
			n = t.notice(o.SessionID)
		}
		a.notifyLocked(n)
		return
	}
	e := ending{reason: o.Reason, code: o.CloseCode}
	if e.reason == "" {
		e.reason = reasonReleased
	}
	if e.code == 0 {
		e.code = closeNormal
	}
	s.end(e)
}

// forget takes note that nothing of s is left, and says so. Its slot is free from here on.
func (a *agent) forget(s *session, e ending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[s.id] == s {
		delete(a.sessions, s.id)
		if a.stopping && len(a.sessions) == 0 {
			close(a.empty)
		}
	}
	if e.err != nil {
		a.log.Warn("session failed", "session", s.id, "error", e.err.Error())
		a.notifyLocked(wire.Notice{Type: wire.SessionError, SessionID: s.id, BindRev: s.bindRev, Error: e.err.Error()})
	} else if !e.replaced {
		a.log.Info("session ended", "session", s.id, "reason", e.reason, "because", e.message)
		t := tombstone{bindRev: s.bindRev, reason: e.reason, message: e.message, at: time.Now()}
		a.forgetOldLocked(t.at)
		a.ended[s.id] = t
		a.notifyLocked(t.notice(s.id))
	}
	a.reportSoonLocked()
	a.pool.adjust()
}

// forgetOldLocked drops tombstones that are old, and the oldest of too many.
func (a *agent) forgetOldLocked(now time.Time) {
	oldest := ""
	for id, t := range a.ended {
		if now.Sub(t.at) > tombstoneTTL {
			delete(a.ended, id)
		} else if oldest == "" || t.at.Before(a.ended[oldest].at) {
			oldest = id
		}
	}
	if len(a.ended) >= maxTombstones {
		delete(a.ended, oldest)
	}
}

// report is the agent's whole state now.
func (a *agent) report() wire.Report {
	cpu, memory := a.health.sample(time.Now())
	warm := a.pool.count()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ordered && len(a.sessions) == 0 {
		a.drainAck = a.drainSeq
	}
	r := wire.Report{
		BootID: a.bootID, Ack: a.ack, DrainAck: a.drainAck, Draining: a.ordered || a.stopping,
		CPU: cpu, Memory: memory, Warm: warm,
		Sessions: make([]wire.SessionReport, 0, len(a.sessions)),
	}
	now := time.Now()
	for _, s := range a.sessions {
		r.Sessions = append(r.Sessions, s.report(now))
	}
	slices.SortFunc(r.Sessions, func(x, y wire.SessionReport) int { return cmp.Compare(x.SessionID, y.SessionID) })
	return r
}

// find gives the session that a request means. bindRev is the header's text; empty: any.
func (a *agent) find(id, bindRev string) (*session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[id]
	if s == nil {
		if t, ok := a.ended[id]; ok {
			return nil, &refusal{status: 410, code: "session_ended", message: "the session has ended: " + t.reason}
		}
		return nil, &refusal{status: 404, code: "session_unknown", message: "this container holds no such session"}
	}
	if bindRev != "" && bindRev != fmt.Sprint(s.bindRev) {
		return nil, &refusal{status: 409, code: "binding_differs", message: "the session is held under another binding"}
	}
	return s, nil
}
