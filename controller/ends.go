package controller

import (
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// ends is what a reign knows of sessions that have ended. An end is counted once, by the leader
// in whose reign it fell: whoever begins to lead leaves what had ended before to those before
// him. What ends while nobody leads, a few seconds after a leader was lost, is counted by
// nobody: too few is the lesser evil, since what is counted twice wakes people.
//
// What a reign has seen live has ended in it, whatever clock says so: the store's may be set back,
// and an epoch is then ahead of it. Times tell only of what it has seen no other way, at its
// beginning or because a store that had lost data was given it back.
type ends struct {
	live  map[string]bool // those that had not ended in the last snapshot
	seen  map[string]bool // those that had
	since time.Time       // the store's clock, when the lead was won
}

// fresh gives the sessions that have ended since the last snapshot of this reign or, at its
// first, since the lead was won. now is the store's clock: what ended later than that did so by another
// clock, before.
func (e *ends) fresh(now time.Time, sessions []*state.Session) []*state.Session {
	var fresh []*state.Session
	live, seen := make(map[string]bool, len(e.live)), make(map[string]bool, len(e.seen))
	for _, s := range sessions {
		if s.Phase != state.Ended {
			live[s.ID] = true
			continue
		}
		seen[s.ID] = true
		within := !s.EndedAt.Before(e.since) && !s.EndedAt.After(now)
		if !e.seen[s.ID] && (e.live[s.ID] || within) {
			fresh = append(fresh, s)
		}
	}
	e.live, e.seen = live, seen
	return fresh
}
