package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// renewEvery is a third of the lease: two renewals may fail.
	renewEvery = 2 * time.Second
	// leaseMargin is left unused at the end of a lease, for the write that is on its way.
	leaseMargin = time.Second
	// syncPoll is how often a replica looks whether its view is whole before it campaigns.
	syncPoll = 10 * time.Millisecond
	// releaseTimeout bounds giving the lease back.
	releaseTimeout = time.Second
)

// leadership is what this replica knows of its own lead. Its end is judged on the monotonic
// clock, from the moment before the renewal was sent.
type leadership struct {
	now func() time.Time // monotonic

	mu      sync.Mutex // guards the fields below
	epoch   int64
	until   time.Time
	wonCh   chan struct{} // holds one when the lead was won
	lostCh  chan struct{} // closed when the lead is lost; made anew when it is won
	leading bool
	over    bool // for good: what a bid that is still on its way brings is too late

	yieldedAt time.Time // when it was given up last: what bids from before bring is too late
	owed      bool      // the lease is to be given back to the store
}

func (l *leadership) channels() {
	if l.wonCh == nil {
		l.wonCh = make(chan struct{}, 1)
	}
}

// won delivers once for each time that the lead is won.
func (l *leadership) won() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.channels()
	return l.wonCh
}

// extend takes in a lease that was asked for at sent.
func (l *leadership) extend(epoch int64, sent time.Time, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.channels()
	if l.over {
		return
	}
	if !sent.After(l.yieldedAt) {
		l.epoch = epoch // which is given back
		return
	}
	if l.leading && l.epoch != epoch {
		l.drop()
	}
	l.until = sent.Add(ttl - leaseMargin)
	if l.leading {
		return
	}
	l.leading, l.epoch, l.lostCh = true, epoch, make(chan struct{})
	select {
	case l.wonCh <- struct{}{}:
	default:
	}
}

func (l *leadership) drop() {
	if !l.leading {
		return
	}
	l.leading = false
	close(l.lostCh)
}

// lose steps down.
func (l *leadership) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
}

// fenced steps down after the store has refused a write under that epoch. A later lead stays: it is
// not what was refused.
func (l *leadership) fenced(epoch int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == epoch {
		l.drop()
	}
}

// yield steps down from the lead under that epoch so that another takes it. The lease is owed then.
func (l *leadership) yield(epoch int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leading && l.epoch == epoch {
		l.drop()
		l.yieldedAt, l.owed = l.now(), true
	}
}

// owes tells, once, of a lease that is to be given back.
func (l *leadership) owes() (epoch int64, owed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	owed, l.owed = l.owed, false
	return l.epoch, owed
}

// quit steps down for good.
func (l *leadership) quit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.drop()
}

// present gives the epoch, or tells that the lead is not held, and steps down if its time is
// over.
func (l *leadership) present() (epoch int64, held bool) {
	epoch, _, held = l.term()
	return epoch, held
}

// term is present with a channel that is closed when that very lead is lost, even if it is won again
// under the same epoch at once.
func (l *leadership) term() (epoch int64, lost <-chan struct{}, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leading && !l.now().Before(l.until) {
		l.drop()
	}
	return l.epoch, l.lostCh, l.leading
}

// held tells whether the lead is held.
func (l *leadership) held() bool {
	_, held := l.present()
	return held
}

// holds tells whether the lead is held under that epoch. One that was lost and won again is
// another: what this replica knows is as of before.
func (l *leadership) holds(epoch int64) bool {
	present, held := l.present()
	return held && present == epoch
}

// epochNow is the last epoch that this replica was given; 0: none yet.
func (l *leadership) epochNow() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// authority is what a mutation carries that was planned in the reign of that epoch, asked for right
// before each. Under another epoch it is not to be made: others may have led in between, and what
// they did stands in no plan of this one.
func (l *leadership) authority(epoch int64) (state.Authority, bool) {
	return state.Authority{Epoch: epoch}, l.holds(epoch)
}

// campaign takes and renews the lease until ctx ends, and then gives it up.
func (c *Controller) campaign(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	quiet := false
	for {
		select {
		case <-ctx.Done():
			c.resign(context.WithoutCancel(ctx))
			return
		case <-timer.C:
		case <-c.vacant:
		}
		next, err := c.turn(ctx)
		if err != nil && ctx.Err() == nil && !quiet {
			c.log.Warn("lease not renewed", "error", err)
		}
		quiet = err != nil
		timer.Reset(next)
	}
}

// turn is one turn of the campaign. It says when the next is due.
func (c *Controller) turn(ctx context.Context) (next time.Duration, err error) {
	if epoch, owed := c.lead.owes(); owed {
		c.release(ctx, epoch)
	}
	if !c.lead.held() && c.blind() {
		// Who leads with an empty view would launch what is there already, and take every document for
		// a wish that nobody knows; who leads with an old one keeps the lead from those who see.
		return syncPoll, nil
	}
	return renewEvery, c.bid(ctx)
}

// rouseCampaign has it take its next turn now.
func (c *Controller) rouseCampaign() {
	select {
	case c.vacant <- struct{}{}:
	default:
	}
}

// bid asks for the lease once, or renews it. It is no error that somebody else leads.
func (c *Controller) bid(ctx context.Context) error {
	sent := c.now()
	epoch, ttl, err := c.cfg.Store.AcquireLease(ctx, c.cfg.Replica, c.lead.epochNow())
	switch {
	case err == nil:
		if c.lead.held() && c.lead.epochNow() != epoch {
			c.cfg.Mirror.Relist() // nobody else led: the store has forgotten the lease
		}
		c.lead.extend(epoch, sent, ttl)
	case errors.Is(err, state.ErrConflict):
		c.lead.lose()
	default:
		return err
	}
	return nil
}

// resign gives the lease up for good.
func (c *Controller) resign(ctx context.Context) {
	held := c.lead.held()
	epoch, owed := c.lead.owes()
	c.lead.quit()
	if held || owed {
		c.release(ctx, epoch)
	}
}

// release gives a lease back, so that the next leader need not wait until its time is over.
func (c *Controller) release(ctx context.Context, epoch int64) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := c.cfg.Store.ReleaseLease(ctx, c.cfg.Replica, epoch); err != nil {
		c.log.Warn("lease not released", "error", err)
	}
}
