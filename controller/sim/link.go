package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// link is what a replica does for a container that it owns: the part of the relay that moves
// sessions and containers along, in the order that the relay does.
type link struct {
	r    *replica
	p    *process
	id   string
	boot string
	seq  int64

	gone      bool
	created   map[string]int64 // CREATE_SESSION sent, by session
	destroyed map[string]int64
	facts     []fact
	told      int64         // order to drain passed on
	idleSince time.Duration // v1: since when it has held nothing; zero: it does
	reportAt  time.Duration
	busy      bool
	again     bool
}

// fact is what a container has told, to be written down.
type fact struct {
	kind    string
	session string
	bindRev int64
}

// open makes the replica the owner of a container's link.
func (r *replica) open(p *process, c *state.Container) {
	l := &link{r: r, p: p, id: p.id, boot: p.boot, seq: c.OwnerSeq, created: map[string]int64{}, destroyed: map[string]int64{}}
	if old := r.links[p.id]; old != nil {
		old.gone = true
	}
	p.link, r.links[p.id] = l, l
	r.w.after(0, l.tick)
}

func (l *link) authority() state.Authority {
	return state.Authority{Container: l.id, OwnerSeq: l.seq}
}

// tick reports every 5 s.
func (l *link) tick() {
	if l.gone {
		return
	}
	l.reportAt = l.r.w.now
	l.work()
	l.r.w.after(5*time.Second, l.tick)
}

// close is the end of the link by the container's end.
func (l *link) close() {
	l.gone = true
	if l.p.link == l {
		l.p.link = nil
	}
	if l.r.links[l.id] == l {
		delete(l.r.links, l.id)
	}
}

// broken is the end of the link by the replica's. A container of the second version looks for
// another replica; one of the first waits to be claimed.
func (l *link) broken() {
	l.close()
	if l.p.boot != l.boot {
		return
	}
	if l.r.w.protocol == 2 {
		l.p.registerLater(l.r.w.between(time.Second, 3*time.Second))
		return
	}
	l.p.claimLater(l.r.w.between(time.Second, 5*time.Second))
}

// claimLater has some replica take a container over that nobody owns any more.
func (p *process) claimLater(d time.Duration) {
	boot := p.boot
	p.w.after(d, func() {
		if !p.alive || p.link != nil || p.boot != boot {
			return
		}
		p.claimLater(p.w.between(3*time.Second, 6*time.Second))
		r := p.w.anyReplica()
		if r == nil {
			return
		}
		r.spawn(r.life, func() {
			c, known := r.mirror.Container(p.id)
			if !known || c.BootID != boot {
				return
			}
			c, err := (&storeView{p.w.store, r}).Claim(r.ctx, state.Takeover{Container: p.id, OwnerSeq: c.OwnerSeq, Owner: r.id, Unreachable: true})
			if err != nil || !p.alive || p.link != nil || p.boot != boot {
				return
			}
			p.w.tally.mark("a container of the first version was claimed")
			r.mirror.ApplyContainer(c)
			r.open(p, c)
		}, nil)
	})
}

// fenced gives the link up because somebody else owns it, as the store says.
func (l *link) fenced() {
	if l.gone {
		return
	}
	l.r.w.tally.mark("a link's owner was fenced")
	l.broken()
}

// linksHinted looks again at the links that a change may concern.
func (r *replica) linksHinted(hints []state.Hint) {
	for _, h := range hints {
		switch h.Kind {
		case state.KindContainer:
			if l := r.links[h.ID]; l != nil {
				l.soon()
			}
		case state.KindSession:
			s, known := r.mirror.Session(h.ID)
			if known {
				if l := r.links[s.Container]; l != nil {
					l.soon()
				}
			}
			for _, id := range sortedKeys(r.links) {
				if l := r.links[id]; l.created[h.ID] != 0 && (!known || s.Container != id) {
					l.soon()
				}
			}
		default:
		}
	}
}

func (l *link) soon() {
	if l.again {
		return
	}
	l.again = true
	l.r.w.after(time.Millisecond, l.work)
}

func (l *link) readied(session string, rev int64) { l.tell(fact{"ready", session, rev}) }
func (l *link) refused(session string, rev int64) { l.tell(fact{"refuse", session, rev}) }
func (l *link) crashed(session string, rev int64) { l.tell(fact{"crash", session, rev}) }
func (l *link) vanished(session string, rev int64) {
	l.tell(fact{"vanish", session, rev})
}

func (l *link) tell(f fact) {
	l.facts = append(l.facts, f)
	l.soon()
}

// work writes down what the container has told and orders what it lacks.
func (l *link) work() {
	if l.gone || l.busy {
		return
	}
	l.busy, l.again = true, false
	l.r.spawn(l.r.life, l.turn, func() {
		l.busy = false
		if l.again {
			l.again = false
			l.soon()
		}
	})
}

func (l *link) turn() {
	v := &storeView{l.r.w.store, l.r}
	for len(l.facts) > 0 {
		f := l.facts[0]
		if err := l.write(v, f); errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrRolledBack) {
			return // the next tick tries again
		}
		if l.gone {
			return
		}
		l.facts = l.facts[1:]
	}
	if l.p.hung() || !l.p.alive {
		return
	}
	if l.reportAt > 0 {
		l.reportAt = 0
		if !l.report(v) {
			return
		}
	}
	l.reconcile(v)
}

// write carries one fact to the store.
func (l *link) write(v *storeView, f fact) (err error) {
	var s *state.Session
	by := l.authority()
	switch f.kind {
	case "ready":
		if s, _, err = v.Ready(l.r.ctx, by, f.session, l.rev(f), false); err != nil && errors.Is(err, state.ErrConflict) {
			l.p.destroy(f.session, f.bindRev) // READY under another binding is answered with DESTROY
		}
	case "refuse":
		s, err = v.Refuse(l.r.ctx, by, f.session, l.rev(f), "the container refused it")
	case "crash":
		s, err = v.End(l.r.ctx, by, state.End{Session: f.session, BindRev: l.rev(f), Reason: state.BrowserCrashed, Confirmed: true})
	case "vanish":
		if s, known := l.r.mirror.Session(f.session); known && s.Phase == state.Ending && s.BoundTo(l.id, l.boot) {
			_, err = v.End(l.r.ctx, by, state.End{Session: f.session, BindRev: l.rev(f), Reason: s.Reason, Confirmed: true})
		} else {
			err = v.Release(l.r.ctx, by, l.id, f.session)
		}
		l.reportAt = max(1, l.r.w.now) // what follows is found by a report
	}
	if errors.Is(err, state.ErrFenced) {
		l.fenced()
	}
	l.r.mirror.ApplySession(s)
	return err
}

// rev is the binding that a fact speaks of: what a container of the first version says of none
// is of the one that its owner has ordered.
func (l *link) rev(f fact) int64 {
	if l.r.w.protocol == 1 {
		if s, ok := l.r.mirror.Session(f.session); ok && s.Container == l.id {
			return s.BindRev
		}
	}
	return f.bindRev
}

// report writes a full report of the container down.
func (l *link) report(v *storeView) bool {
	p := l.p
	c, known := l.r.mirror.Container(l.id)
	known = known && c.BootID == l.boot
	report := state.Report{BootID: l.boot, Health: state.Health{Sessions: len(p.held), Warm: 1}}
	if p.bad != neverReached {
		report.Addr, report.TaskARN = p.task.Addr+":8080", p.task.ARN
	}
	if known {
		report.DrainAck = l.acknowledged(c)
	}
	if p.lies {
		report.DrainAck, report.Health.Sessions = 1<<40, 7
	}
	if p.sigtermed && known && c.Phase == state.ContainerReady {
		if got, err := v.Drain(l.r.ctx, l.authority(), l.id, l.boot); err == nil {
			l.r.mirror.ApplyContainer(got)
		}
	}
	got, err := v.Report(l.r.ctx, l.authority(), report)
	switch {
	case errors.Is(err, state.ErrFenced):
		l.fenced()
		return false
	case err != nil:
		return !errors.Is(err, state.ErrUnavailable) && !errors.Is(err, state.ErrConflict)
	}
	l.r.mirror.ApplyContainer(got)
	return !l.gone
}

// acknowledged is the order to drain that a container acknowledges: it has been told, takes
// nothing any more and holds nothing. For one of the first version its owner finds that out, by
// seeing it empty twice.
func (l *link) acknowledged(c *state.Container) int64 {
	p := l.p
	if len(p.held) > 0 {
		l.idleSince = 0
		return 0
	}
	if l.r.w.protocol == 2 {
		if !p.draining || l.r.w.now < p.drainedAt {
			return 0
		}
		return p.drainSeq
	}
	if c.Phase != state.Draining || c.Used() > 0 {
		l.idleSince = 0
		return 0
	}
	if l.idleSince == 0 {
		l.idleSince = l.r.w.now
		return 0
	}
	if l.r.w.now-l.idleSince < 4*time.Second {
		return 0
	}
	return c.DrainSeq
}

// reconcile orders what it takes to make the container hold what it should.
func (l *link) reconcile(v *storeView) {
	p, r := l.p, l.r
	c, ok := r.mirror.Container(l.id)
	if !ok || c.BootID != l.boot {
		return
	}
	switch c.Phase {
	case state.Draining, state.Stopping:
		if l.told < c.DrainSeq {
			l.told = c.DrainSeq
			if r.w.protocol == 2 {
				p.draining, p.drainSeq = true, c.DrainSeq
				if r.w.brisk && !r.w.chance(4) {
					p.drainedAt = r.w.now + r.w.between(0, 20*time.Second) // it is slow to close its door
				}
			}
			r.w.after(time.Millisecond, func() { l.reportAt = max(1, r.w.now); l.soon() })
		}
	case state.ContainerReady:
		if l.told > 0 || p.draining && !p.sigtermed {
			l.told = 0
			p.draining = p.sigtermed
		}
	default:
	}
	concerned := map[string]struct{}{}
	for _, id := range c.Slots {
		concerned[id] = struct{}{}
	}
	for id := range p.held {
		concerned[id] = struct{}{}
	}
	for id := range l.created {
		concerned[id] = struct{}{}
	}
	for _, id := range sortedKeys(concerned) {
		if l.gone || !p.alive {
			return
		}
		l.align(v, id)
	}
}

// align sees to one session.
func (l *link) align(v *storeView, id string) {
	p, r := l.p, l.r
	b := p.held[id]
	s, known := r.mirror.Session(id)
	if !known || !s.BoundTo(l.id, l.boot) {
		switch {
		case b != nil && b.goneAt == 0:
			l.judge(v, id)
		case b == nil:
			delete(l.created, id)
			if c, ok := r.mirror.Container(l.id); ok && hasSlot(c, id) {
				if err := v.Release(r.ctx, l.authority(), l.id, id); errors.Is(err, state.ErrFenced) {
					l.fenced()
				}
			}
		}
		return
	}
	if b != nil {
		b.until = s.Deadline.Sub(epochZero)
	}
	rev := s.BindRev
	has := b != nil && (r.w.protocol == 1 || b.bindRev == rev)
	sent := l.created[id] == rev
	switch {
	case s.Phase == state.Bound && s.Refused == "" && !has && !sent:
		l.created[id] = rev
		p.create(id, rev, s.Deadline)
	case s.Phase == state.Bound && s.Refused == "" && has && b.serving:
		l.created[id] = rev
		l.tell(fact{"ready", id, rev})
	case s.Phase == state.Ending || s.Refused != "":
		if has && b.goneAt == 0 {
			p.destroy(id, rev)
		} else if !has && s.Phase == state.Ending {
			l.tell(fact{"vanish", id, rev})
		}
	case s.Phase == state.Ready && !has:
		l.tell(fact{"crash", id, rev})
	case s.Phase == state.Ready:
		l.created[id] = rev
	}
}

// judge asks the store about a session that the container holds and should not, by this view:
// only what is not its own by the store's word, too, is destroyed. What the store does not know, or
// knows as it was before it was bound there, was lost with its data: a container of the second version
// keeps it, until its time is up or somebody knows of it again.
func (l *link) judge(v *storeView, id string) {
	s, err := v.Session(l.r.ctx, id)
	b := l.p.held[id]
	switch {
	case b == nil || l.gone:
	case errors.Is(err, state.ErrNotFound):
		if l.r.w.protocol == 1 && l.r.mirror.Trouble() == "" {
			l.p.destroy(id, b.bindRev)
		}
	case err != nil, l.r.w.protocol == 2 && s.Rev < b.bindRev:
	case s.BoundTo(l.id, l.boot):
		l.r.mirror.ApplySession(s)
		l.soon()
	default:
		l.r.mirror.ApplySession(s)
		l.p.destroy(id, max(b.bindRev, s.BindRev))
	}
}

func hasSlot(c *state.Container, id string) bool {
	return slices.Contains(c.Slots, id)
}
