package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// desiredInterval is how often pool:desired is read: an operator is obeyed within a second,
	// also where nothing is notified.
	desiredInterval = 500 * time.Millisecond
	// showInterval is the least time between two writes of pool:state.
	showInterval = 2 * time.Second
	// showAnyway is when pool:state is written although nothing has changed, so that its
	// timestamp tells a pool that stands still from a service that does.
	showAnyway = 30 * time.Second
	// maxEvents bounds what waits to be noted while the store is silent.
	maxEvents = 1000
	// eventsAtOnce bounds what one round notes: the loop waits for it.
	eventsAtOnce = 50
	// eventsRead is how many events of its predecessors a leader looks at, so as not to tell
	// what they have told.
	eventsRead = 500
)

// pool is what a leader knows of its pool beyond the configuration. The loop's goroutine owns
// it.
type pool struct {
	seeded    bool // the notes of the leader before have been read
	read      bool // pool:desired has been read
	latest    string
	overrides state.Overrides
	desiredAt time.Time // the store's clock, when that last changed under this leader
	quiet     bool      // trouble with pool:desired has been logged
	untidy    bool      // trouble with what follows a round has been logged
	dialect   dialect

	unsaved  state.PoolUpdate // to be noted for the next leader
	listedAt time.Time        // as noted

	holds   holds
	ends    ends
	shown   state.PoolState
	shownAt time.Time // monotonic

	forgotten map[string]bool      // containers that are gone whose notes have been removed
	events    []state.Event        // to be noted
	told      map[state.Event]bool // by leaders before; without the time
}

// unreadable stands for a pool:desired that is no text; no JSON is like it.
const unreadable = "\x00"

// seed takes over what the leader before has left: how old the knowledge of the documents is,
// and what was obeyed last.
func (c *Controller) seed(ctx context.Context, w *world, p *pool) error {
	if p.seeded {
		return nil
	}
	notes, err := c.cfg.Store.PoolNotes(ctx)
	if err != nil {
		return err
	}
	told, err := c.cfg.Store.Tail(ctx, eventsRead)
	if err != nil {
		return err
	}
	p.told = make(map[state.Event]bool, len(told))
	for _, e := range told {
		e.ID, e.At = "", time.Time{}
		p.told[e] = true
	}
	w.documentsAt, w.listedAt, p.listedAt = notes.ListedAt, notes.ListedAt, notes.ListedAt
	w.sightings.former = notes.ListedAt
	if o, err := c.overrides(notes.Obeyed); err == nil {
		p.overrides, p.latest = o, string(notes.Obeyed)
	}
	p.seeded = true
	return nil
}

// overrides makes sense of a pool:desired, nil meaning none.
func (c *Controller) overrides(text []byte) (state.Overrides, error) {
	if text == nil {
		return state.Overrides{}, nil
	}
	o, err := state.ParseOverrides(text)
	if err == nil {
		_, err = o.Over(c.cfg.Policy.Pool)
	}
	return o, err
}

// readDesired reads what others want of the pool. What is good is obeyed from the next plan
// on; what is not is refused, once, and what was good before stays. It tells whether anything
// is to be done differently now.
func (c *Controller) readDesired(ctx context.Context, p *pool) (changed bool, err error) {
	text, err := c.cfg.Store.PoolDesired(ctx)
	latest := string(text)
	switch {
	case errors.Is(err, state.ErrInvalid):
		latest = unreadable
	case err != nil:
		return false, err
	}
	if p.read && latest == p.latest {
		return false, nil
	}
	same := latest == p.latest
	p.read, p.latest = true, latest
	if same {
		return false, nil // the leader before has dealt with it
	}
	var o state.Overrides
	if err == nil {
		o, err = c.overrides(text)
	}
	if err != nil {
		c.metrics.desired.WithLabelValues("refused").Inc()
		c.log.Warn("desired pool refused", "error", err)
		p.note(state.Event{Kind: state.KindPool, Reason: state.EventRefused, Message: "pool:desired is refused, what was good before stays: " + err.Error()})
		return false, nil
	}
	p.overrides, p.unsaved.Obeyed, p.desiredAt = o, &latest, c.cfg.Mirror.Now()
	if c.calls != nil {
		c.calls.reset()
	}
	now, _ := o.Over(c.cfg.Policy.Pool)
	message := "pool:desired is gone, the configuration is in force: "
	result := "absent"
	if text != nil {
		message, result = "pool:desired is obeyed: ", "obeyed"
	}
	message += fmt.Sprintf("min %d, max %d, warm %d, paused %t", now.Min, now.Max, now.WarmSlots, now.Paused)
	c.metrics.desired.WithLabelValues(result).Inc()
	c.log.Info("desired pool changed", "min", now.Min, "max", now.Max, "warm", now.WarmSlots, "paused", now.Paused)
	p.note(state.Event{Kind: state.KindPool, Reason: state.EventObeyed, Message: message})
	return true, nil
}

// lookAtDesired reads pool:desired when its time has come, and tells whether there is
// something to plan anew.
func (c *Controller) lookAtDesired(ctx context.Context) bool {
	changed, err := c.readDesired(ctx, c.pool)
	if err != nil && ctx.Err() == nil && !c.pool.quiet {
		c.log.Warn("desired pool unreadable: what was read last stays", "error", err)
	}
	c.pool.quiet = err != nil
	return changed
}

// policy is the one that is in force now.
func (c *Controller) policy(p *pool) plan.Policy {
	policy := c.cfg.Policy
	if now, err := p.overrides.Over(policy.Pool); err == nil {
		policy.Pool = now
	}
	return policy
}

// note has an event noted, unless a leader before has told of the same: whoever begins to
// lead finds again what his predecessor has found.
func (p *pool) note(e state.Event) {
	if e = e.Clipped(); e.Reason.State() && p.told[e] {
		delete(p.told, e)
		return
	}
	if len(p.events) < maxEvents {
		p.events = append(p.events, e)
	}
}

// keepHouse does what follows a round and that nothing waits for: it leaves notes for the next
// leader, shows the pool to others, notes events, removes what dead containers left behind.
func (c *Controller) keepHouse(ctx context.Context, s plan.Snapshot, pool state.Pool) {
	p := c.pool
	if s.StoreTrouble != "" {
		// What it holds is not ours to add to before it is rebuilt, but for telling of that.
		if err := c.noteEvents(ctx); err != nil && ctx.Err() == nil {
			c.log.Debug("events not noted", "error", err)
		}
		return
	}
	if at := c.world.listedAt; at.After(p.listedAt) {
		// Only now: what that listing showed has been acted on.
		p.unsaved.ListedAt = at
	}
	steps := []struct {
		doing string
		do    func() error
	}{
		{"settling the dialect", func() error { return c.settleDialect(ctx, s) }},
		{"leaving notes", func() error { return c.saveNotes(ctx) }},
		{"showing the pool", func() error { return c.showPool(ctx, s, pool) }},
		{"removing notes of v1 containers", func() error { return c.forgetNotes(ctx, s) }},
		{"noting events", func() error { return c.noteEvents(ctx) }},
	}
	for _, step := range steps {
		err := step.do()
		switch {
		case err == nil:
			continue
		case errors.Is(err, state.ErrFenced):
			c.lead.fenced(c.epoch)
		case ctx.Err() == nil && !p.untidy:
			p.untidy = true
			c.log.Warn("tidying the pool went wrong", "doing", step.doing, "error", err)
		}
		return // the next round tries again
	}
	p.untidy = false
}

func (c *Controller) saveNotes(ctx context.Context) error {
	u := c.pool.unsaved
	if u == (state.PoolUpdate{}) {
		return nil
	}
	by, ok := c.lead.authority(c.epoch)
	if !ok {
		return nil
	}
	if err := c.cfg.Store.NotePool(ctx, by, u); err != nil {
		return err
	}
	if !u.ListedAt.IsZero() {
		c.pool.listedAt = u.ListedAt
	}
	c.pool.unsaved = state.PoolUpdate{}
	return nil
}

// showPool writes pool:state if it has changed, and not too often.
func (c *Controller) showPool(ctx context.Context, s plan.Snapshot, pool state.Pool) error {
	p := c.pool
	since := c.now().Sub(p.shownAt)
	if !p.shownAt.IsZero() && since < showInterval {
		return nil
	}
	now := poolState(s, pool)
	if !p.shownAt.IsZero() && now == p.shown && since < showAnyway {
		return nil
	}
	stamped := now
	stamped.Timestamp = s.Now.UnixMilli()
	if err := c.cfg.Store.ShowPool(ctx, stamped); err != nil {
		return err
	}
	p.shown, p.shownAt = now, c.now()
	return nil
}

// poolState sums a snapshot up, without a timestamp.
func poolState(s plan.Snapshot, pool state.Pool) state.PoolState {
	sum := state.PoolState{Min: pool.Min, Max: pool.Max, Warm: pool.WarmSlots, Paused: pool.Paused}
	for _, c := range s.Containers {
		switch c.Phase {
		case state.Gone:
			continue
		case state.ContainerReady:
			sum.ReadyContainers++
			sum.FreeSlots += c.Free()
		case state.Draining:
			sum.DrainingContainers++
		case state.PendingVerification, state.Stopping:
		}
		sum.TotalContainers++
	}
	for _, x := range s.Sessions {
		switch {
		case x.HoldsSlot():
			sum.TotalSessions++
		case x.Phase == state.Pending:
			sum.PendingSessions++
		}
	}
	return sum
}

// forgetNotes removes what v1 containers that are gone have left behind.
func (c *Controller) forgetNotes(ctx context.Context, s plan.Snapshot) error {
	p := c.pool
	present := make(map[string]bool, len(p.forgotten))
	for _, x := range s.Containers {
		if x.Phase != state.Gone || x.Protocol != 1 {
			continue
		}
		if !p.forgotten[x.ID] {
			if err := c.cfg.Store.V1Forget(ctx, x.ID); err != nil {
				return err
			}
		}
		present[x.ID] = true
	}
	p.forgotten = present
	return nil
}

// noteEvents writes down what has happened since the last round.
func (c *Controller) noteEvents(ctx context.Context) error {
	p := c.pool
	for _, e := range c.world.takeEvents() {
		c.tell(e)
	}
	for range min(len(p.events), eventsAtOnce) {
		if err := c.cfg.Store.Note(ctx, p.events[0]); err != nil {
			return err
		}
		c.metrics.events.WithLabelValues(string(p.events[0].Reason)).Inc()
		p.events = p.events[1:]
	}
	if len(p.events) > 0 {
		c.rouse()
	}
	return nil
}
