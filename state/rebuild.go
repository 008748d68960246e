package state

import (
	"context"
	"slices"
	"time"
)

// Records are control records as one replica remembers them.
type Records struct {
	Sessions   []*Session
	Containers []*Container
	Launches   []*Launch

	// Knew is how far this memory reaches: up to that revision the replica has seen a whole store
	// whole, so that what it does not remember was over by then. Zero: it does not know.
	Knew int64
}

// SessionsInTurn gives the sessions in the order in which they are written back, for the slots'
// sake: those of one part may be written in any order, and before those of the next. What was only
// bound comes last: it takes what room is left.
func (r Records) SessionsInTurn() (parts [2][]*Session) {
	for _, s := range r.Sessions {
		part := 0
		if s.Phase == Bound && s.Refused == "" {
			part = 1
		}
		parts[part] = append(parts[part], s)
	}
	return parts
}

// CrowdedOut is why a session that was only bound has lost its place: before its binding was
// given back, others were bound there.
const CrowdedOut = "its place was given to another while the store had lost it"

// hasPlaceIn tells whether a slot of the container is the session's, by its own record.
func (s *Session) hasPlaceIn(c *Container) bool {
	return s.BoundTo(c.ID, c.BootID) && s.Refused == "" && c.Phase != Stopping && c.Phase != Gone
}

// crowdedOut tells whether a session cannot be where it was bound, once records were written back: the
// container has no slot left for it, has more sessions than slots, or is somebody's own (dedicated
// tenancy) and this would not be alone there: it is another user's by now, or it was its own user's, and
// in shared tenancy others were bound since. Whether tenancy is dedicated now is no matter: what a
// container was promised to be for, it is for good. One that is ready stays, because its page is there;
// one that is only bound is bound anew, and what its container has made of it is destroyed.
func (s *Session) crowdedOut(c *Container) bool {
	if s.Phase != Bound || s.Refused != "" || c.Phase == Gone || c.BootID != s.BootID {
		return false
	}
	if slices.Contains(c.Slots, s.ID) {
		return c.Used() > c.MaxSessions
	}
	return c.Free() == 0 || c.Tenant != "" && !c.Takes(s.UserID, true)
}

// Rebuilder gives a store back what it has lost. Every replica mirrors everything, so that a
// store which was wiped, or has forgotten its last seconds, is filled again from any of them.
type Rebuilder interface {
	// Restore writes back what a replica remembers of a store that is older than that memory,
	// whose highest revision was seen. Record by record the higher revision wins; but a session
	// that holds a slot wins over one that was only admitted since, one that has ended over any
	// (it is ended again if it was bound since), and what never goes back (ownerSeq, drainSeq,
	// whom a container has served, that it is stopping) does not. Of two owners under one
	// ownerSeq neither keeps it. A slot that a session holds is taken, whether it or its container
	// was restored; one that it has given back is free. Where none is left, or the container is
	// somebody's own and has served another user, a session that is only bound gets none, and counts as
	// refused there (CrowdedOut); so do those that have one beside sessions which are ready, until as
	// many are left as there are slots. The store's revisions go on above seen, and the store counts as
	// incomplete (Index.LostAt) until MarkWhole. Once all is back, r.Knew is noted (Index.GivenBack).
	// Repeated, it changes nothing else.
	Restore(ctx context.Context, seen int64, r Records) error
	// MarkWhole says that nothing is missing any more (leader). ErrConflict if the store has
	// another incarnation or has lost data again since.
	MarkWhole(ctx context.Context, by Authority, f Filling) error
}

// Filling tells how a store came by what it holds.
type Filling struct {
	Incarnation string    // random, written once; another one means that the store was wiped
	LostAt      time.Time // when it was last found to have lost data that is still missed; zero: it has not
	Whole       bool      // a leader has found that nothing is missing
}

// RestoredFor is for how long a record that is written back now is kept and listed; zero kept
// means for ever, a negative one that it is forgotten already.
func (s *Session) RestoredFor(now time.Time) (kept, listed time.Duration) {
	if s.Phase != Ended {
		return 0, 0
	}
	if kept = endedUntil(s.EndedAt, s.Deadline).Sub(now); kept <= 0 {
		return -1, 0
	}
	return kept, max(0, s.EndedAt.Add(EndedListed).Sub(now))
}

// outlasting is the newer of two records of a container with what never goes back, and tells
// whether that has changed it.
func outlasting(newer, older *Container) (c Container, changed bool) {
	c = *newer
	// Whoever believes to be the owner under a number that two replicas were given is told by
	// being fenced; the one that the record names goes on under the next.
	if c.OwnerSeq < older.OwnerSeq || c.OwnerSeq == older.OwnerSeq && c.Owner != older.Owner {
		c.OwnerSeq = older.OwnerSeq + 1
	}
	c.DrainSeq = max(c.DrainSeq, older.DrainSeq)
	switch {
	case c.Served == "":
		c.Served = older.Served
	case older.Served != "" && older.Served != c.Served:
		c.Served = "*"
	}
	if c.Tenant == "" {
		c.Tenant = older.Tenant
	}
	if older.Phase == Stopping && older.BootID == c.BootID && c.Phase != Stopping && c.Phase != Gone {
		// Its task may have been told to stop. If it has got sessions since, they are left to run
		// as long as they can; it gets no others.
		c.Phase = Stopping
		if len(c.Slots) > 0 && !c.Closing {
			c.Phase, c.Closing = Draining, true
			c.DrainSeq++
		} else if len(c.Slots) > 0 {
			c.Phase = Draining
		}
	}
	changed = c.OwnerSeq != newer.OwnerSeq || c.DrainSeq != newer.DrainSeq || c.Served != newer.Served ||
		c.Tenant != newer.Tenant || c.Phase != newer.Phase
	return c, changed
}
