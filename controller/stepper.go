package controller

import (
	"context"
	"sync"
	"time"
)

// Stepper runs a controller by hand: the same rounds, plans and calls as Run, but on the
// goroutine of its driver, which says when each happens and what time it is. Simulations use
// it. A Stepper is for one goroutine (or coroutine) at a time.
type Stepper struct {
	c       *Controller
	stop    context.CancelFunc // ends the reign under way; nil: there is none
	reign   context.Context
	beside  int // what runs beside the loop, of whichever reign
	waitsAt time.Time
	looksAt time.Time
}

// Driver is what a Stepper needs of whoever drives it.
type Driver struct {
	Now    func() time.Time    // the replica's monotonic clock
	Random func(n int64) int64 // in [0, n)
	// Beside is given what would run in a goroutine beside the loop (listings and calls to
	// ECS), to be run once, at any later time.
	Beside func(do func())
}

// inStep is how many calls to ECS a stepped controller makes at once: more than there are, for
// a driver cannot wait for one with the other.
const inStep = 1 << 10

// NewStepper makes a controller that d drives. Run is not to be called on it.
func NewStepper(cfg Config, d Driver) *Stepper {
	s := &Stepper{}
	cfg.machine = machine{
		now:     d.Now,
		random:  d.Random,
		callers: inStep,
		beside: func(_ *sync.WaitGroup, do func()) {
			s.beside++
			d.Beside(func() {
				defer func() { s.beside-- }()
				do()
			})
		},
		write: func(_ *sync.WaitGroup, do func()) { do() },
	}
	s.c = New(cfg)
	cfg.Mirror.Subscribe(s.c.note)
	return s
}

// Leading tells whether the replica leads now.
func (s *Stepper) Leading() bool { return s.c.Leading() }

// Bid asks for the lease, renews it or gives it back, and says when to do so next.
func (s *Stepper) Bid(ctx context.Context) (next time.Duration, err error) {
	return s.c.turn(ctx)
}

// Woken tells whether something has changed since the last call that a round would look at.
func (s *Stepper) Woken() bool {
	select {
	case <-s.c.wake:
		return true
	default:
		return s.stop != nil && len(s.c.world.listings)+len(s.c.calls.results) > 0
	}
}

// Round is one turn of the loop: it takes in what came back from beside it, looks, plans and
// acts. It does nothing unless the replica leads, but begin or end a reign.
func (s *Stepper) Round(ctx context.Context) {
	c := s.c
	if !c.lead.held() {
		s.end()
		return
	}
	now := c.now()
	select {
	case <-c.lead.won(): // anew, perhaps before anybody noticed that it was lost
		s.end()
	default:
	}
	if s.stop == nil {
		if s.beside > 0 {
			return // a reign ends when its calls have come back
		}
		s.reign, s.stop = context.WithCancel(ctx)
		s.waitsAt, s.looksAt = now.Add(waitInterval), now.Add(desiredInterval)
		c.begin(c.lead.epochNow())
	}
	s.collect()
	if c.givesUp() {
		s.end()
		return
	}
	if !c.caughtUp() {
		c.unread()
		return
	}
	if !now.Before(s.waitsAt) {
		s.waitsAt = now.Add(waitInterval)
		c.countWaits(s.reign)
	}
	if !now.Before(s.looksAt) && c.pool.read {
		s.looksAt = now.Add(desiredInterval)
		c.lookAtDesired(s.reign)
	}
	c.reconcile(s.reign)
}

// collect takes in what has come back, in an order that chance has no part in.
func (s *Stepper) collect() {
	for range len(s.c.world.listings) {
		s.c.world.merge(<-s.c.world.listings)
	}
	for range len(s.c.calls.results) {
		s.c.settle(<-s.c.calls.results)
	}
}

func (s *Stepper) end() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
		s.c.metrics.leader.Set(0)
		s.c.held.Store(nil)
		s.c.refused.Store(nil)
	}
}

// Resign ends the reign and gives the lease up, as a process does that stops in good order.
func (s *Stepper) Resign(ctx context.Context) {
	s.end()
	s.c.resign(ctx)
}
