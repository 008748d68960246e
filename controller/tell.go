package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// tellAfter is how long something is held back before anybody is told of it: every reign
	// begins by holding a little.
	tellAfter = 2 * time.Second
	// tellSessionAfter is the same of a session that waits for room.
	tellSessionAfter = 10 * time.Second
)

// told is the event of an action that was carried out. What happens for every session, which
// its record tells, makes none.
func told(a plan.Action) (e state.Event, tell bool) {
	e = state.Event{Object: a.Subject(), Message: a.Because()}
	switch a := a.(type) {
	case plan.MarkWhole:
		if a.Filling.LostAt.IsZero() {
			return e, false // it is new
		}
		e.Kind, e.Object, e.Reason = state.KindPool, "", state.EventWhole
	case plan.Unbind:
		e.Kind, e.Reason = state.KindSession, state.EventUnbound
	case plan.Restore:
		e.Kind, e.Reason = state.KindDocument, state.EventRestored
	case plan.ResolveLaunch:
		e.Kind, e.Reason = state.KindLaunch, state.EventLaunchFailed
		if a.Outcome == state.Registered {
			e.Reason = state.EventRegistered
		}
	case plan.Launch:
		e.Kind, e.Object, e.Reason = state.KindLaunch, "", state.EventLaunched
	case plan.Drain:
		e.Kind, e.Reason = state.KindContainer, state.EventDraining
	case plan.Undrain:
		e.Kind, e.Reason = state.KindContainer, state.EventUndrained
	case plan.BeginStop:
		e.Kind, e.Reason = state.KindContainer, state.EventStopping
	case plan.GiveUp:
		e.Kind, e.Reason = state.KindContainer, state.EventHung
	case plan.StopTask:
		e.Kind, e.Reason = state.KindFleet, state.EventStopped
	case plan.MarkGone:
		e.Kind, e.Reason = state.KindContainer, state.EventGone
	default:
		return e, false
	}
	return e, true
}

// tell notes something that happened, with whose session or document it is about.
func (c *Controller) tell(e state.Event) {
	if s, known := c.cfg.Mirror.Session(e.Object); known && (e.Kind == state.KindSession || e.Kind == state.KindDocument) {
		e.User = s.UserID
	}
	c.pool.note(e)
}

// tellEnds counts and tells of sessions that have ended; as events, of those that ended otherwise than
// their requesters wished.
func (c *Controller) tellEnds(ended []*state.Session) {
	for _, s := range ended {
		c.metrics.ends.WithLabelValues(string(s.Reason)).Inc()
		if c.cfg.Ended != nil {
			c.cfg.Ended(s)
		}
		if s.Reason == state.Released {
			continue
		}
		message := string(s.Reason)
		if s.Message != "" {
			message += ": " + s.Message
		}
		c.tell(state.Event{Kind: state.KindSession, Object: s.ID, Reason: state.EventEnded, Message: message})
	}
}

// holds remembers what is held back, and what was told of it. What is held is told once,
// however the reason's words change meanwhile, and once more when it is held no longer.
type holds struct {
	open map[heldKey]held
}

type heldKey struct {
	what plan.HoldKind
	id   string
}

type held struct {
	since time.Time // monotonic
	told  bool
}

// tellHolds compares what a plan holds back with what the plans before did.
func (c *Controller) tellHolds(now []plan.Hold) {
	h := &c.pool.holds
	still := make(map[heldKey]held, len(now))
	for _, hold := range now {
		key := heldKey{hold.What, hold.ID}
		if hold.What == plan.HoldDocument || hold.What == plan.HoldDestruction && hold.ID != "" {
			continue // told as quarantined; told once for everything
		}
		if _, again := still[key]; again {
			continue
		}
		was, known := h.open[key]
		if !known {
			was = held{since: c.now()}
		}
		patience := tellAfter
		if hold.What == plan.HoldSession {
			patience = tellSessionAfter
		}
		if !was.told && c.now().Sub(was.since) >= patience {
			was.told = true
			c.tell(state.Event{Kind: key.kind(), Object: hold.ID, Reason: state.EventHeld,
				Message: fmt.Sprintf("%s is held: %s", hold.What, hold.Why)})
		}
		still[key] = was
	}
	over := slices.SortedFunc(maps.Keys(h.open), func(a, b heldKey) int {
		return cmp.Or(cmp.Compare(a.what, b.what), cmp.Compare(a.id, b.id))
	})
	for _, key := range over {
		if _, on := still[key]; !on && h.open[key].told {
			c.tell(state.Event{Kind: key.kind(), Object: key.id, Reason: state.EventResumed,
				Message: fmt.Sprintf("%s is held no more, after %s", key.what, c.now().Sub(h.open[key].since).Round(time.Second))})
		}
	}
	h.open = still
}

// kind is that of the object which is held back.
func (k heldKey) kind() state.Kind {
	switch k.what {
	case plan.HoldSession:
		return state.KindSession
	case plan.HoldContainer:
		return state.KindContainer
	case plan.HoldTask:
		return state.KindFleet
	case plan.HoldDocument:
		return state.KindDocument
	case plan.HoldDestruction, plan.HoldBinding, plan.HoldLaunch: // of everything: of one object, it is not told
	}
	return state.KindPool
}
