package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/state"
)

// replica is one process of the service: the real mirror and the real controller, and the
// links that it holds.
type replica struct {
	w    *World
	id   string
	life int           // raised by each kill
	skew time.Duration // of its monotonic clock, which says nothing but how time passes

	up          bool
	pausedUntil time.Duration
	cutUntil    time.Duration // no store
	keptUntil   time.Duration // a slow call or one in vain kept it from reading the whole store until then
	listed      time.Duration // when its last reading of the whole store began that went well; zero: none
	deafUntil   time.Duration // no hints
	blindUntil  time.Duration // no records, while all else of the store is there
	leaving     bool          // told to stop

	readable    time.Duration // when it could last read the store, as far as that was looked at
	unreadSince time.Duration // since when it cannot; zero: it can
	unread      []span        // the times that it could not and that are over, as far as they matter

	ctx      context.Context
	cancel   context.CancelFunc
	mirror   *state.Mirror
	stepper  *controller.Stepper
	feed     *state.Feed
	running  map[*proc]struct{}
	links    map[string]*link
	witness  witness
	seeing   bool
	reading  bool
	rounding bool
	roundAt  time.Duration   // when a woken round is due; zero: none
	acting   time.Duration   // since when the plan of this round is carried out; zero: it is not yet
	believed map[string]bool // by container: whether it was ready by the view then
	seen     int64           // the highest revision of the store's that it knows of
}

func (w *World) newReplica(n int) *replica {
	r := &replica{w: w, id: fmt.Sprintf("replica-%d", n), running: map[*proc]struct{}{}}
	r.start()
	return r
}

// start begins a life with nothing.
func (r *replica) start() {
	w := r.w
	r.life++
	life := r.life
	w.note("%s starts", r.id)
	r.up, r.pausedUntil, r.cutUntil, r.deafUntil, r.blindUntil, r.leaving = true, 0, 0, 0, 0, false
	r.keptUntil, r.listed = 0, 0
	r.readable, r.unreadSince, r.unread = w.now, 0, nil
	r.seeing, r.reading, r.rounding, r.roundAt, r.seen = false, false, false, 0, 0
	r.skew = w.between(0, 1000*time.Hour)
	r.links = map[string]*link{}
	r.ctx, r.cancel = context.WithCancel(background)
	now := func() time.Time { return epochZero.Add(w.now + r.skew) }
	store := &storeView{w.store, r}
	r.mirror = state.NewMirror(store, state.MirrorOptions{Now: now})
	r.stepper = controller.NewStepper(controller.Config{
		Replica: r.name(), ReplicaGone: w.gone, Store: store, Mirror: r.mirror, Fleet: &fleetView{r},
		Policy: w.policy, NewID: func() string { return w.newID("c") },
	}, controller.Driver{
		Now:    now,
		Random: w.rng.Int64N,
		Beside: func(do func()) {
			w.after(time.Millisecond, func() { r.spawn(life, do, nil) })
		},
	})
	r.mirror.Subscribe(r.linksHinted)
	r.feed = w.store.Follow()
	r.refreshLater(life, 0)
	w.after(time.Millisecond, func() { r.bid(life) })
	r.tickLater(life)
	r.witnessLater(life)
}

// spawn runs a job in that life, unless it is over.
func (r *replica) spawn(life int, job, over func()) {
	if r.life != life || !r.up {
		return
	}
	r.w.spawn(r, job, over)
}

// abandon stops everything that runs, in the middle of whatever it does.
func (r *replica) abandon() {
	r.up = false
	r.life++
	for p := range r.running {
		p.void = true
		if p != r.w.current {
			p.stop()
		}
	}
	clear(r.running)
	if r.feed != nil {
		r.feed.Stop()
		r.feed = nil
	}
	if r.cancel != nil {
		r.cancel()
	}
	for _, id := range sortedKeys(r.links) {
		r.links[id].broken()
	}
	r.links = map[string]*link{}
}

// kill ends the process at once; another takes its place a little later.
func (r *replica) kill(back time.Duration) {
	if !r.up {
		return
	}
	r.w.note("%s is killed", r.id)
	r.w.check.leadersEnded(r)
	r.abandon()
	r.w.after(back, r.start)
}

// stopGracefully gives the lease up and the links, and ends the process.
func (r *replica) stopGracefully(back time.Duration) {
	life := r.life
	r.w.note("%s is told to stop", r.id)
	r.spawn(life, func() {
		r.leaving = true
		r.stepper.Resign(r.ctx)
		for _, id := range sortedKeys(r.links) {
			l := r.links[id]
			if l == nil {
				continue // closed meanwhile
			}
			_ = r.call(r.ctx, stepDisown, func() error { return r.w.store.Disown(r.ctx, l.authority()) })
		}
	}, func() {
		r.w.after(time.Millisecond, func() {
			if r.life == life {
				r.kill(back)
			}
		})
	})
}

// stir notices what has come for the replica.
func (r *replica) stir() {
	if !r.up {
		return
	}
	life := r.life
	if !r.seeing && r.feed.Waiting() {
		r.seeing = true
		r.w.after(time.Millisecond, func() { r.see(life) })
	}
	if !r.rounding && r.roundAt == 0 && r.stepper.Woken() {
		r.roundAt = r.w.now + 2*time.Millisecond
		r.w.after(2*time.Millisecond, func() { r.round(life) })
	}
}

// see takes hints in, unless they are lost on the way.
func (r *replica) see(life int) {
	if r.life != life {
		return
	}
	hints, documents := r.feed.Take()
	if r.w.now < r.deafUntil {
		hints = nil
	}
	for _, h := range hints {
		r.seen = max(r.seen, h.Rev)
	}
	r.spawn(life, func() { r.mirror.See(r.ctx, hints, documents) }, func() { r.seeing = false; r.relistIfAsked(life) })
}

func (r *replica) refreshLater(life int, d time.Duration) {
	r.w.after(d, func() {
		if r.life == life {
			r.refresh(life)
			r.refreshLater(life, r.w.between(4*time.Second, 6*time.Second))
		}
	})
}

func (r *replica) relistIfAsked(life int) {
	if r.mirror.RelistAsked() {
		r.refresh(life)
	}
}

func (r *replica) refresh(life int) {
	if r.reading {
		return
	}
	r.reading = true
	began := r.w.now
	var err error
	r.spawn(life, func() { err = r.mirror.Refresh(r.ctx) }, func() {
		r.reading = false
		if err != nil {
			r.w.after(500*time.Millisecond, func() {
				if r.life == life {
					r.refresh(life)
				}
			})
			return
		}
		r.listed = began
		r.relistIfAsked(life)
	})
}

func (r *replica) bid(life int) {
	next := time.Second
	r.spawn(life, func() { next, _ = r.stepper.Bid(r.ctx) }, func() {
		r.w.after(max(next, 100*time.Millisecond), func() { r.bid(life) })
	})
}

func (r *replica) tickLater(life int) {
	r.w.after(r.w.tick, func() {
		if r.life == life {
			r.round(life)
			r.tickLater(life)
		}
	})
}

func (r *replica) round(life int) {
	if r.life != life {
		return
	}
	r.roundAt = 0
	if r.rounding {
		return
	}
	r.rounding, r.acting = true, 0
	r.stepper.Woken() // taken
	r.spawn(life, func() { r.stepper.Round(r.ctx) }, func() { r.rounding = false; r.relistIfAsked(life) })
}

// acts notes that the replica begins to carry out what it has planned in this round.
func (r *replica) acts() {
	if r.acting != 0 {
		return
	}
	r.acting, r.believed = r.w.now, map[string]bool{}
	for _, c := range r.mirror.Containers() {
		r.believed[c.ID] = c.Phase == state.ContainerReady
	}
}

// kept notes that a fault keeps the replica from reading the store as a whole until then, if the
// call on which it falls is one of such a reading.
func (r *replica) kept(at Step, until time.Duration) {
	if r.reading && (at == stepIndex || at == stepRecords || at == stepGiveBack) {
		r.keptUntil = until
	}
}

// span is a time from one moment until another.
type span struct{ from, until time.Duration }

// noteUnread looks whether anything keeps the replica from reading the store as a whole. A time that
// it cannot begins with the reading before, and those so close to each other that it need not have
// read in between count as one. (A reading that only finds what was lost, to be given back, is none.)
func (r *replica) noteUnread() {
	const apart = 8 * time.Second // the longest time between two readings, and some
	now := r.w.now
	switch kept := max(r.pausedUntil, r.cutUntil, r.blindUntil, r.keptUntil, r.w.storm.outageUntil) > now; {
	case !r.up:
	case !kept && r.unreadSince == 0:
		r.readable = now
	case kept && r.unreadSince == 0:
		r.unreadSince = max(1, r.readable-apart)
	case !kept:
		from := r.unreadSince
		if n := len(r.unread); n > 0 && from <= r.unread[n-1].until {
			from = r.unread[n-1].from
		}
		r.unread = slices.DeleteFunc(r.unread, func(x span) bool { return x.from == from || now-x.until > time.Minute })
		r.unread, r.readable, r.unreadSince = append(r.unread, span{from, now}), now, 0
	}
}

var errFault = errors.New("fault")

// call is one call of the replica's to the store or to ECS: it takes time, and faults fall on it.
func (r *replica) call(ctx context.Context, at Step, do func() error) error {
	w := r.w
	fault := w.storm.fall(r, at)
	w.sleep(300 * time.Microsecond)
	switch fault.Kind {
	case callFails:
		r.kept(at, w.now)
		return fmt.Errorf("%w: %w", state.ErrUnavailable, errFault)
	case killBefore:
		r.kill(fault.span(time.Second, 20*time.Second))
		panic(killed{})
	case pauseBefore:
		r.pausedUntil = w.now + fault.span(time.Second, 30*time.Second)
		w.sleep(0)
	case callSlow:
		d := fault.span(100*time.Millisecond, 20*time.Second)
		r.kept(at, w.now+d)
		w.sleep(d)
	default: // falls after the call, or not on calls at all
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	unread := w.now < r.blindUntil && (at == stepIndex || at == stepRecords)
	if at < firstFleetStep && (unread || w.now < r.cutUntil || w.now < w.storm.outageUntil) {
		w.sleep(time.Second)
		return fmt.Errorf("%w: %w", state.ErrUnavailable, errFault)
	}
	w.store.SetSeen(r.seen)
	err := do()
	if fault.Kind != answerLost {
		r.seen = max(r.seen, w.store.Seen())
	}
	switch fault.Kind {
	case answerLost:
		r.kept(at, w.now)
		return fmt.Errorf("%w: %w", state.ErrUnavailable, errFault)
	case killAfter:
		r.kill(fault.span(time.Second, 20*time.Second))
		panic(killed{})
	case pauseAfter:
		r.pausedUntil = w.now + fault.span(time.Second, 30*time.Second)
	default: // fell before the call, or does not fall on calls at all
	}
	w.sleep(300 * time.Microsecond)
	return err
}
