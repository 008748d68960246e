package proxy

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// judgeInterval is how often the store is asked again about a session that the container
// has and we do not understand.
const judgeInterval = 2 * time.Second

// hold is what a line has ordered and seen of one session under one binding.
type hold struct {
	bindRev   int64
	created   uint64 // number of the CREATE_SESSION; zero: not sent on this line
	createdAt time.Time
	seen      bool   // the container has reported it on this line
	readied   bool   // its READY has been passed on
	destroyed uint64 // number of the DESTROY_SESSION; zero: not sent
	lost      bool   // its absence has been passed on

	// limits as last sent
	limited   bool
	deadline  time.Time
	keepAlive bool

	judgedAt time.Time
}

// heed takes one notice in.
func (l *line) heed(n wire.Notice) error {
	if n.Type == wire.ReportState {
		if n.Report == nil {
			return errors.New("a report without content")
		}
		return l.absorb(n.Report)
	}
	if !state.ValidID(n.SessionID) {
		l.log.Warn("notice ignored: it names no session", "bytes", len(n.SessionID))
		return nil
	}
	f := fact{session: n.SessionID, bindRev: n.BindRev}
	switch n.Type {
	case wire.SessionReady:
		l.ready(n)
		f.kind, f.cold = factReady, n.Cold
	case wire.SessionError:
		l.unreport(n)
		f.kind, f.message = factRefused, clip(n.Error)
		if n.Final {
			f.kind = factRejected
		}
	case wire.SessionEnded:
		l.unreport(n)
		f.kind, f.message, f.reason = factEnded, clip(n.Message), state.Reason(n.Reason)
		if !slices.Contains(state.Reasons(), f.reason) {
			f.reason = state.BrowserCrashed
		}
	default:
		return nil // of a later version
	}
	l.rec.add(f)
	return nil
}

// clip bounds texts of a container's that end up in records.
func clip(text string) string {
	const most = 500
	if len(text) > most {
		return text[:most]
	}
	return text
}

func (l *line) ready(n wire.Notice) {
	l.reported[n.SessionID] = wire.SessionReport{
		SessionID: n.SessionID, BindRev: n.BindRev, Phase: wire.Serving, Cold: n.Cold, GraceLeft: -1,
	}
	h := l.holds[n.SessionID]
	if h == nil || h.bindRev != n.BindRev {
		return
	}
	if h.created > 0 && !h.readied {
		l.links.metrics.started(n.Cold, time.Since(h.createdAt))
	}
	h.readied, h.seen = true, true
}

// unreport takes note that the container holds nothing of that binding any more.
func (l *line) unreport(n wire.Notice) {
	if r, ok := l.reported[n.SessionID]; ok && (n.BindRev == 0 || n.BindRev == r.BindRev) {
		delete(l.reported, n.SessionID)
	}
	if h := l.holds[n.SessionID]; h != nil && (n.BindRev == 0 || n.BindRev == h.bindRev) {
		h.lost, h.judgedAt = true, time.Now()
	}
}

// absorb takes a full report in.
func (l *line) absorb(r *wire.Report) error {
	if r.BootID != l.bootID {
		return errors.New("the container is in another life by now")
	}
	last := l.report
	l.report = r
	clear(l.reported)
	for _, s := range r.Sessions {
		if !state.ValidID(s.SessionID) {
			continue
		}
		l.reported[s.SessionID] = s
		if h := l.holds[s.SessionID]; h != nil && h.bindRev == s.BindRev {
			h.seen = true
		}
	}
	if last == nil {
		l.log.Info("link opened", "sessions", len(r.Sessions))
	}
	if c, ok := l.container(); ok {
		l.absences(c)
		l.ownDrain(c, last)
	}
	report := state.Report{
		BootID:   r.BootID,
		DrainAck: r.DrainAck,
		Health:   state.Health{CPU: r.CPU, Memory: r.Memory, Warm: r.Warm, Sessions: len(r.Sessions)},
	}
	if l.to.proven {
		report.Addr, report.TaskARN = l.to.addr, l.to.taskARN
	}
	l.rec.report(report, r.Sessions, last == nil)
	l.links.project(l.id, report.Health, r.Sessions)
	return nil
}

// container is the mirrored record, if it is still this life of it.
func (l *link) container() (*state.Container, bool) {
	c, ok := l.links.cfg.Mirror.Container(l.id)
	return c, ok && c.BootID == l.bootID
}

// concerned lists the sessions that the container has to do with, or should have.
func (l *line) concerned(c *state.Container) []string {
	ids := slices.Clone(c.Slots)
	for id := range l.holds {
		ids = append(ids, id)
	}
	for id := range l.reported {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// absences passes on which sessions a full report lacks although the container should hold
// them: it was told so before the report, or has had them.
func (l *line) absences(c *state.Container) {
	for _, id := range l.concerned(c) {
		s, ok := l.links.cfg.Mirror.Session(id)
		if !ok || !s.BoundTo(l.id, l.bootID) {
			continue
		}
		if r, reported := l.reported[id]; reported && r.BindRev == s.BindRev {
			continue
		}
		h := l.hold(s)
		if h.created > l.report.Ack || h.lost {
			continue
		}
		f := fact{session: id, bindRev: s.BindRev}
		switch {
		case s.Phase == state.Ready:
			f.kind, f.reason, f.message = factEnded, state.BrowserCrashed, "its container does not hold it any more"
		case s.Phase == state.Ending:
			f.kind, f.reason = factEnded, s.Reason
		case s.Refused == "" && (h.created > 0 || h.seen):
			f.kind, f.message = factRefused, "its container does not hold it any more"
		default:
			continue
		}
		h.lost = true
		l.rec.add(f)
	}
}

// ownDrain passes on that the container drains by itself, because it was told to stop from
// elsewhere, and not by an order: one of this line, or one that an earlier line has left.
func (l *line) ownDrain(c *state.Container, last *wire.Report) {
	if !l.report.Draining {
		l.saidDrain = false
		return
	}
	if l.saidDrain || c.Phase != state.ContainerReady || l.drainSeq > 0 {
		return
	}
	unordered := c.DrainSeq == 0 ||
		last != nil && !last.Draining ||
		l.undrained > 0 && l.report.Ack >= l.undrained
	if unordered {
		l.saidDrain = true
		l.rec.add(fact{kind: factDrain})
	}
}

// hold gives the line's hold of a session under its binding.
func (l *line) hold(s *state.Session) *hold {
	h := l.holds[s.ID]
	if h == nil || h.bindRev != s.BindRev {
		r, reported := l.reported[s.ID]
		h = &hold{bindRev: s.BindRev, seen: reported && r.BindRev == s.BindRev}
		l.holds[s.ID] = h
		l.links.hold(s.ID, l.id)
	}
	return h
}

// reconcile orders what it takes to make the container hold what it should. Until the first
// report, nothing is known of it.
func (l *line) reconcile() error {
	c, ok := l.container()
	if !ok || l.report == nil {
		return nil
	}
	if err := l.orderDrain(c); err != nil {
		return err
	}
	verdicts := l.rec.takeVerdicts()
	var create []*state.Session
	for _, id := range l.concerned(c) {
		s, ok := l.links.cfg.Mirror.Session(id)
		if ok && s.BoundTo(l.id, l.bootID) {
			if l.wants(s) {
				create = append(create, s)
				continue
			}
			if err := l.align(s); err != nil {
				return err
			}
			continue
		}
		if err := l.clear(c, id, verdicts); err != nil {
			return err
		}
	}
	// Among several bindings of a moment the first bound is the first served.
	slices.SortFunc(create, func(a, b *state.Session) int { return cmp.Compare(a.BindRev, b.BindRev) })
	for _, s := range create {
		if err := l.create(s); err != nil {
			return err
		}
	}
	return nil
}

// orderDrain tells the container about its drain, once per order and line.
func (l *line) orderDrain(c *state.Container) error {
	switch c.Phase {
	case state.Draining, state.Stopping:
		if l.drainSeq < c.DrainSeq {
			l.drainSeq, l.undrained = c.DrainSeq, 0
			return l.order(wire.Order{Type: wire.Drain, DrainSeq: c.DrainSeq})
		}
	case state.ContainerReady:
		// A container that drains although nobody wants that may have missed its un-drain.
		inherited := l.report.Draining && c.DrainSeq > 0 && !l.saidDrain && l.undrained == 0
		if l.drainSeq > 0 || inherited {
			err := l.order(wire.Order{Type: wire.Undrain, DrainSeq: c.DrainSeq})
			l.drainSeq, l.undrained = 0, l.sent
			return err
		}
	case state.PendingVerification, state.Gone:
	}
	return nil
}

// wants tells whether the container must be told to hold the session.
func (l *line) wants(s *state.Session) bool {
	if s.Phase != state.Bound || s.Refused != "" {
		return false
	}
	h := l.hold(s)
	return h.created == 0 && !h.seen && !h.lost && h.destroyed == 0
}

func (l *line) create(s *state.Session) error {
	h := l.hold(s)
	o := wire.Order{
		Type: wire.CreateSession, SessionID: s.ID, BindRev: s.BindRev, UserID: s.UserID,
		Limits: l.links.limits(s),
	}
	if spec, err := state.ParseSpec(s.ID, s.Spec); err == nil {
		o.Options = spec.BrowserSettings
	}
	err := l.order(o)
	h.created, h.createdAt = l.sent, time.Now()
	h.limited, h.deadline, h.keepAlive = true, s.Deadline, s.KeepAlive
	return err
}

// align brings a session that the container has in line with its record.
func (l *line) align(s *state.Session) error {
	h := l.hold(s)
	r, reported := l.reported[s.ID]
	reported = reported && r.BindRev == s.BindRev
	switch {
	case s.Phase == state.Ending, s.Refused != "" && reported:
		if h.destroyed > 0 {
			return nil
		}
		err := l.destroy(s.ID, s.BindRev, s.Reason)
		h.destroyed = l.sent
		return err
	case s.Phase == state.Bound && reported && r.Phase == wire.Serving && !h.readied:
		h.readied = true // its notice went to an earlier line, or nowhere
		l.rec.add(fact{kind: factReady, session: s.ID, bindRev: s.BindRev, cold: r.Cold})
	}
	if s.Refused != "" || h.limited && h.deadline.Equal(s.Deadline) && h.keepAlive == s.KeepAlive {
		return nil
	}
	h.limited, h.deadline, h.keepAlive = true, s.Deadline, s.KeepAlive
	return l.order(wire.Order{
		Type: wire.UpdateSession, SessionID: s.ID, BindRev: s.BindRev, Limits: l.links.limits(s),
	})
}

// clear sees to a session that is not bound here, as far as the mirror knows: if the store
// says the same, the container must let go of it, and its slot becomes free once it has.
func (l *line) clear(c *state.Container, id string, verdicts map[string]verdict) error {
	r, reported := l.reported[id]
	_, slot := slices.BinarySearch(c.Slots, id)
	h := l.holds[id]
	if !reported && !slot && (h == nil || h.created == 0 || h.destroyed > 0 || h.lost) {
		delete(l.holds, id)
		l.links.unhold(id, l.id)
		return nil
	}
	if h == nil || reported && h.bindRev != r.BindRev {
		h = &hold{bindRev: r.BindRev}
		l.holds[id] = h
		l.links.hold(id, l.id)
	}
	if h.destroyed > 0 {
		return nil
	}
	if v, ok := verdicts[id]; ok && v.bindRev == h.bindRev {
		err := l.destroy(id, h.bindRev, v.reason)
		h.destroyed = l.sent
		return err
	}
	if time.Since(h.judgedAt) >= judgeInterval {
		h.judgedAt = time.Now()
		l.rec.add(fact{kind: factJudge, session: id, bindRev: h.bindRev})
	}
	return nil
}

func (l *line) destroy(id string, bindRev int64, reason state.Reason) error {
	if reason == "" {
		reason = state.Failed
	}
	return l.order(wire.Order{
		Type: wire.DestroySession, SessionID: id, BindRev: bindRev,
		Reason: string(reason), CloseCode: reason.CloseCode(),
	})
}
