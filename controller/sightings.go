package controller

import (
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// sightings is when documents were last found, by the store's clock: what tells one that was
// lost from one that somebody ended and that has run out since.
type sightings struct {
	former time.Time                // when the leader before has last listed them all; zero: unknown
	found  map[string]time.Time     // when the latest reading that found it began
	unseen map[string]time.Duration // of those that are missing: how long nobody had seen it when that was noticed
}

func newSightings() sightings {
	return sightings{found: map[string]time.Time{}, unseen: map[string]time.Duration{}}
}

// see notes that a reading which began then has found a document.
func (s *sightings) see(id string, began time.Time) {
	s.found[id] = began
	delete(s.unseen, id)
}

// miss notes that the document of a live session is missing. What counts is the first time:
// however long it takes to act on it, nobody was blind meanwhile. Of a session that nobody is
// known to have looked after before, or whose store has lost data since, nothing is held against
// its requester.
func (s *sightings) miss(x *state.Session, now, lostAt time.Time) {
	if _, already := s.unseen[x.ID]; already {
		return
	}
	last := later(s.found[x.ID], s.former)
	if last.IsZero() || !lostAt.IsZero() && !lostAt.Before(last) {
		s.unseen[x.ID] = 0
		return
	}
	s.unseen[x.ID] = now.Sub(later(last, x.SeenAt))
}

func (s *sightings) drop(id string) {
	delete(s.found, id)
	delete(s.unseen, id)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
