package sim

import (
	"errors"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// process is what runs in a task: a container with its slots, as it really is.
type process struct {
	w     *World
	task  *task
	id    string
	boot  string
	slots int
	bad   badStart

	alive     bool
	hungSince time.Duration
	hungUntil time.Duration
	lies      bool // acknowledges what it was never told, and counts wrongly
	draining  bool
	sigtermed bool
	drainSeq  int64
	drainedAt time.Duration       // when it acknowledges that it drains
	held      map[string]*browser // by session id
	letGo     map[string]letting  // sessions that it has let go of by itself or was told to
	link      *link               // nil: it has none

	registeredAt time.Duration // in this life; zero: not yet

	refuses, slow int // of the next sessions
}

// browser is a session in a container.
type browser struct {
	session string
	bindRev int64
	serving bool
	since   time.Duration
	goneAt  time.Duration // being destroyed; zero: not
	until   time.Duration // its deadline, as last told
}

// letting is the end of a session in a container.
type letting struct {
	since, at time.Duration // for which it was there
	bindRev   int64
	unknown   bool // the store did not have it there, so that nobody could write the end down
}

// slack is how much longer than ordered a session lives, should nobody end it.
const slack = time.Minute

func (w *World) newProcess(t *task, slots int, bad badStart) {
	p := &process{w: w, task: t, id: t.ContainerID, boot: w.newID("boot"), slots: slots, bad: bad, alive: true, held: map[string]*browser{}, letGo: map[string]letting{}}
	t.process = p
	w.procs[p.id] = p
	if bad != neverRegisters {
		p.registerLater(w.between(50*time.Millisecond, 2*time.Second))
	}
}

func (p *process) hung() bool { return p.w.now < p.hungUntil }

// die ends the process with all that it holds.
func (p *process) die() {
	if !p.alive {
		return
	}
	p.alive = false
	p.dropAll()
	if p.link != nil {
		p.link.close()
	}
	p.w.after(15*time.Minute, func() {
		if p.w.procs[p.id] == p {
			delete(p.w.procs, p.id)
		}
	})
}

func (p *process) dropAll() {
	for _, id := range sortedKeys(p.held) {
		if p.w.protocol == 2 || p.alive {
			p.w.store.UnnoteV1(p.id, id)
		}
		p.w.people.lost(id)
	}
	clear(p.held)
	clear(p.letGo)
}

// reboot is the process again in the same task, knowing nothing.
func (p *process) reboot() {
	if !p.alive {
		return
	}
	p.w.note("container %s comes back under its old id", p.id)
	p.dropAll()
	p.boot, p.draining, p.drainSeq = p.w.newID("boot"), p.sigtermed, 0
	if p.link != nil {
		p.link.close()
	}
	p.registerLater(time.Second)
}

// sigterm is the order to end from outside. The original's containers obey at once.
func (p *process) sigterm() {
	p.sigtermed, p.draining = true, true
	if p.w.protocol == 1 {
		p.dropAll()
	}
}

// registerLater registers, again and again until it is heard.
func (p *process) registerLater(d time.Duration) {
	boot := p.boot
	p.w.after(d, func() {
		if !p.alive || p.boot != boot || p.link != nil {
			return
		}
		if p.hung() {
			p.registerLater(min(p.hungUntil-p.w.now, time.Second)) // it may wake up earlier
			return
		}
		r := p.w.anyReplica()
		if r == nil {
			p.registerLater(time.Second)
			return
		}
		retry := true
		life := r.life
		r.spawn(life, func() {
			c, err := (&storeView{p.w.store, r}).Register(r.ctx, state.Registration{
				ID: p.id, Launch: p.id, BootID: boot, Protocol: p.w.protocol, MaxSessions: p.slots, Owner: r.id,
				Dialect: state.DialectAuto,
			})
			if errors.Is(err, state.ErrConflict) && p.boot == boot {
				p.w.ecs.over(p.task, "EssentialContainerExited", "it was told to exit")
			}
			if err != nil || !p.alive || p.boot != boot || p.link != nil {
				return
			}
			retry = false
			p.registeredAt = max(1, p.w.now)
			r.mirror.ApplyContainer(c)
			r.open(p, c)
		}, nil)
		// Whoever is not answered asks another.
		p.w.after(p.w.between(time.Second, 3*time.Second), func() {
			if retry && p.link == nil && p.boot == boot {
				p.registerLater(0)
			}
		})
	})
}

func (w *World) anyReplica() *replica {
	n := w.rng.IntN(len(w.replicas))
	for i := range w.replicas {
		if r := w.replicas[(n+i)%len(w.replicas)]; r.up && r.pausedUntil <= w.now {
			return r
		}
	}
	return nil
}

// create is CREATE_SESSION. The answer to it comes by notices.
func (p *process) create(session string, bindRev int64, deadline time.Time) {
	if !p.alive || p.hung() {
		return
	}
	if b, again := p.held[session]; again {
		if p.w.protocol == 2 {
			b.bindRev = max(b.bindRev, bindRev)
		}
		return
	}
	if p.w.protocol == 2 && (p.draining || len(p.held) >= p.slots) || p.refuses > 0 {
		p.refuses = max(0, p.refuses-1)
		p.notify(func(l *link) { l.refused(session, bindRev) })
		return
	}
	b := &browser{session: session, bindRev: bindRev, since: p.w.now, until: deadline.Sub(epochZero)}
	p.held[session] = b
	delete(p.letGo, session)
	if p.w.protocol == 1 {
		p.w.store.NoteV1(p.id, session)
	}
	p.w.check.held(p, session)
	if p.w.protocol == 2 {
		p.endInTime(b)
	}
	delay := p.w.between(50*time.Millisecond, 2*time.Second)
	if p.slow > 0 {
		p.slow--
		delay = p.w.between(25*time.Second, 60*time.Second)
	}
	p.w.after(delay, func() {
		if p.held[session] != b || b.goneAt != 0 {
			return
		}
		b.serving = true
		p.notify(func(l *link) { l.readied(session, b.bindRev) })
	})
}

// endInTime ends a session that nobody ends.
func (p *process) endInTime(b *browser) {
	p.w.after(max(time.Second, b.until+slack-p.w.now), func() {
		switch {
		case p.held[b.session] != b || b.goneAt != 0:
		case p.hung() || p.w.now < b.until+slack:
			p.endInTime(b)
		default:
			p.drop(b.session)
			p.w.check.endedItself(p, b)
			p.w.people.lost(b.session)
			p.notify(func(l *link) { l.vanished(b.session, b.bindRev) })
		}
	})
}

// destroy is DESTROY_SESSION.
func (p *process) destroy(session string, bindRev int64) {
	b, ok := p.held[session]
	if !p.alive || p.hung() {
		return
	}
	if !ok || p.w.protocol == 2 && b.bindRev > bindRev {
		if !ok {
			p.notify(func(l *link) { l.vanished(session, bindRev) })
		}
		return
	}
	b.goneAt = p.w.now
	p.w.after(p.w.between(10*time.Millisecond, 500*time.Millisecond), func() {
		if p.held[session] != b {
			return
		}
		p.drop(session)
		p.notify(func(l *link) { l.vanished(session, b.bindRev) })
	})
}

// crash ends one browser.
func (p *process) crash(session string) {
	b := p.held[session]
	p.drop(session)
	p.w.people.lost(session)
	p.notify(func(l *link) { l.crashed(session, b.bindRev) })
}

func (p *process) drop(session string) {
	s, err := p.w.store.Session(background, session)
	b := p.held[session]
	p.letGo[session] = letting{b.since, p.w.now, b.bindRev, err != nil || !s.BoundTo(p.id, p.boot)}
	delete(p.held, session)
	if p.w.protocol == 1 {
		p.w.store.UnnoteV1(p.id, session)
	}
}

// notify tells the owner of the link, if there is one.
func (p *process) notify(tell func(*link)) {
	l := p.link
	if l == nil || p.hung() {
		return
	}
	p.w.after(time.Millisecond, func() {
		if l == p.link {
			tell(l)
		}
	})
}
