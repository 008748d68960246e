package controller

import (
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// ends is what a reign knows of sessions that have ended. An end is counted once, by the leader
// in whose reign it fell: whoever begins to lead leaves what had ended before to those before
// him. What ends while nobody leads, a few seconds after a leader was lost, is counted by
// nobody: too few is the lesser evil, since what is counted twice wakes people.
type ends struct {
	seen  map[string]bool // those that had ended in the last snapshot; nil: there was none
	since time.Time       // the store's clock, when the lead was won
}

// fresh gives the sessions that have ended since the last snapshot of this reign or, at its
// first, since the lead was won.
func (e *ends) fresh(sessions []*state.Session) []*state.Session {
	var fresh []*state.Session
	seen := map[string]bool{}
	for _, s := range sessions {
		if s.Phase != state.Ended {
			continue
		}
		seen[s.ID] = true
		if !e.seen[s.ID] && !s.EndedAt.Before(e.since) {
			fresh = append(fresh, s)
		}
	}
	e.seen = seen
	return fresh
}
