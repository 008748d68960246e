package controller

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// Explanation is a plan in words: what the controller would do now, and why; and what it
// holds back.
type Explanation struct {
	Leading bool        `json:"leading"` // of the replica that answers
	At      time.Time   `json:"at"`
	Actions []Step      `json:"actions"`
	Holds   []Held      `json:"holds"`
	Demand  plan.Demand `json:"demand"`
}

// Step is one action in words.
type Step struct {
	Kind    plan.Kind `json:"kind"`
	Subject string    `json:"subject"`
	Because string    `json:"because"`
}

// Held is one thing held back, in words.
type Held struct {
	What plan.HoldKind `json:"what"`
	ID   string        `json:"id,omitempty"`
	Why  string        `json:"why"`
}

// Explain makes a plan from a fresh view of its own, on any replica, and carries none of it
// out. Since when containers have been empty is known to the leader's loop only, so that
// scale-down does not show; what waits for the account's allowance, and since when the addresses
// of silent containers have refused, shows on the leader.
func (c *Controller) Explain(ctx context.Context) (Explanation, error) {
	return c.ExplainTo(ctx, nil)
}

// ExplainTo is Explain for somebody who may know of the sessions of those users only for whom
// mayKnow is true; nil: of all. Other sessions' ids are masked, what is done with them shows.
func (c *Controller) ExplainTo(ctx context.Context, mayKnow func(user string) bool) (Explanation, error) {
	// Nobody waits here for machines that do not answer: what the leader has found out will do.
	cfg := c.cfg
	cfg.Refuses = nil
	w, pool := newWorld(cfg), &pool{}
	defer w.wait()
	if refused := c.refused.Load(); refused != nil && c.Leading() {
		w.refusedSince = *refused
	}
	if err := c.seed(ctx, w, pool); err != nil {
		return Explanation{}, err
	}
	// What would be refused stays refused, and nobody is told of it twice.
	if text, err := c.cfg.Store.PoolDesired(ctx); err == nil {
		if o, err := c.overrides(text); err == nil {
			pool.overrides = o
		}
	} else if !errors.Is(err, state.ErrInvalid) {
		return Explanation{}, err
	}
	if err := w.observe(ctx, nil, nil, true); err != nil {
		return Explanation{}, err
	}
	for w.listingDocs || w.listingTasks || w.hearing {
		select {
		case l := <-w.listings:
			if l.err != nil {
				return Explanation{}, l.err
			}
			w.merge(l)
		case <-ctx.Done():
			return Explanation{}, ctx.Err()
		}
	}
	s := w.snapshot()
	p := plan.Make(s, c.policy(pool))
	e := Explanation{Leading: c.Leading(), At: s.Now, Demand: p.Demand, Actions: []Step{}, Holds: []Held{}}
	for _, a := range p.Actions {
		e.Actions = append(e.Actions, Step{a.Kind(), a.Subject(), a.Because()})
	}
	for _, h := range p.Holds {
		e.Holds = append(e.Holds, Held{h.What, h.ID, h.Why})
	}
	if held := c.held.Load(); held != nil && e.Leading {
		e.Holds = append(e.Holds, *held...)
	}
	if mayKnow != nil {
		e.mask(userOfSessions(s), mayKnow)
	}
	return e, nil
}

// masked stands for the id of a session that is not the asking user's.
const masked = "(another user's)"

// userOfSessions tells whose sessions and documents a snapshot's are, by id.
func userOfSessions(s plan.Snapshot) map[string]string {
	users := map[string]string{}
	for id, d := range s.Documents {
		users[id] = d.Spec.UserID
	}
	for _, x := range s.Sessions { // what was admitted stays its user's, whatever the document says
		users[x.ID] = x.UserID
	}
	return users
}

// mask hides the ids of sessions whose users mayKnow is false for.
func (e *Explanation) mask(users map[string]string, mayKnow func(user string) bool) {
	hide := func(aboutSession bool, id, text *string) {
		if aboutSession && *id != "" && !mayKnow(users[*id]) {
			*text = strings.ReplaceAll(*text, *id, masked)
			*id = masked
		}
	}
	for i := range e.Actions {
		a := &e.Actions[i]
		hide(a.Kind.AboutSession(), &a.Subject, &a.Because)
	}
	for i := range e.Holds {
		h := &e.Holds[i]
		kind := heldKey{h.What, h.ID}.kind()
		about := kind == state.KindSession || kind == state.KindDocument
		if h.What == plan.HoldDestruction {
			// A session, whose container is not in this view, or a container or a task that is to stop: those
			// are nobody's, and stand in the plan's actions, too.
			_, about = users[h.ID]
		}
		hide(about, &h.ID, &h.Why)
		if h.ID == masked && h.What == plan.HoldDocument {
			h.Why = "it is no session's" // what stands in it, maybe a third user's id, is its user's
		}
	}
}
