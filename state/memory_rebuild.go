package state

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Checkpoint remembers what the store holds now. What it returns makes the store forget
// everything since, as a failover to a replica does that was behind.
func (m *Memory) Checkpoint() (rollBack func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// The records themselves never change.
	seq, epoch, leader, leaderUntil := m.seq, m.epoch, m.leader, m.leaderUntil
	incarnation, lostAt, whole, givenBack := m.incarnation, m.lostAt, m.whole, m.givenBack
	sessions := make(map[string]*memorySession, len(m.sessions))
	for id, s := range m.sessions {
		copied := *s
		sessions[id] = &copied
	}
	containers := make(map[string]*memoryContainer, len(m.containers))
	for id, c := range m.containers {
		copied := *c
		containers[id] = &copied
	}
	launches, documents := maps.Clone(m.launches), maps.Clone(m.documents)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.seq, m.epoch, m.leader, m.leaderUntil = seq, epoch, leader, leaderUntil
		m.incarnation, m.lostAt, m.whole, m.givenBack = incarnation, lostAt, whole, givenBack
		m.sessions, m.containers = sessions, containers
		m.launches, m.documents = launches, documents
	}
}

// Restore writes back what a replica remembers.
func (m *Memory) Restore(ctx context.Context, seen int64, r Records) error {
	err := m.read(ctx, func(now time.Time) error {
		m.newIncarnation()
		m.seq = max(m.seq, seen, m.seen)
		m.seen = m.seq
		m.lostAt, m.whole = now, false
		dropped := map[string][]string{} // by container: sessions that had a slot, and have none by the record given
		for _, c := range r.Containers {
			dropped[c.ID] = m.restoreContainer(c, now)
		}
		for _, l := range r.Launches {
			if old, ok := m.launches[l.ID]; !ok || old.Rev < l.Rev {
				m.launches[l.ID] = l
			}
		}
		for _, sessions := range r.SessionsInTurn() {
			for _, s := range sessions {
				m.restoreSession(s, now)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(m.containers)) {
			m.restorePlaces(m.containers[id], dropped[id], now)
		}
		m.givenBack = max(m.givenBack, r.Knew)
		m.hint(Hint{Kind: KindAll})
		return nil
	})
	if err != nil {
		return fmt.Errorf("restoring records: %w", err)
	}
	return nil
}

// boundTo lists the sessions that hold a slot of a container in one life, by their own records.
func (m *Memory) boundTo(container, bootID string) (ids []string) {
	for id, s := range m.sessions {
		if s.BoundTo(container, bootID) && s.Refused == "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// restoreContainer gives the sessions that are bound to the container whose record it replaces.
func (m *Memory) restoreContainer(given *Container, now time.Time) (dropped []string) {
	old, ok := m.containers[given.ID]
	switch {
	case !ok || old.Rev < given.Rev:
		record := given
		dropped = m.boundTo(given.ID, given.BootID)
		if ok {
			if c, changed := outlasting(given, old.Container); changed {
				c.Rev = m.stamp()
				record = &c
			}
		}
		kept := &memoryContainer{Container: record}
		if given.Phase == Gone {
			kept.keptUntil = now.Add(GoneKept)
			m.keep(kept.keptUntil, now)
		}
		m.containers[given.ID] = kept
		if given.Phase != Gone && m.shown.poolNotes.Dialect == 0 {
			m.shown.poolNotes.Dialect = given.Protocol
		}
	case old.Rev > given.Rev:
		if c, changed := outlasting(old.Container, given); changed {
			m.putContainer(&c, m.stamp())
		}
	}
	return dropped
}

// restorePlaces sees to it that sessions which had slots, and are bound there, have them, and that
// those which are only bound give way where there are too many.
func (m *Memory) restorePlaces(c *memoryContainer, had []string, now time.Time) {
	for _, id := range had {
		if s, ok := m.sessions[id]; ok {
			m.restorePlace(c, s.Session, now)
		}
	}
	for _, id := range c.Slots {
		if s, ok := m.sessions[id]; ok && len(c.Slots) > c.MaxSessions {
			m.restorePlace(c, s.Session, now)
		}
	}
}

func (m *Memory) restorePlace(c *memoryContainer, s *Session, now time.Time) {
	switch {
	case !s.hasPlaceIn(c.Container):
	case s.crowdedOut(c.Container):
		refused := *s
		refused.Refused = CrowdedOut
		m.putSession(&refused, m.stamp(), now)
		m.freeSlot(c, s.ID, m.stamp())
	case !slices.Contains(c.Slots, s.ID):
		host := *c.Container
		host.Slots = withID(c.Slots, s.ID)
		m.putContainer(&host, m.stamp())
	}
}

func (m *Memory) restoreSession(given *Session, now time.Time) {
	kept, listed := given.RestoredFor(now)
	if kept < 0 {
		return
	}
	over := given.Phase == Ended
	old, ok := m.sessions[given.ID]
	newer := ok && old.Rev >= given.Rev
	switch {
	case newer && over && (old.Phase == Bound || old.Phase == Ready):
		again := *old.Session
		again.Phase, again.Reason, again.Message = Ending, given.Reason, given.Message
		m.putSession(&again, m.stamp(), now)
		return
	case newer && old.Phase == Pending && (over || old.BindRev == 0 && given.HoldsSlot()):
	case newer:
		return
	}
	s := *given
	c, hosted := m.containers[s.Container]
	crowded := hosted && s.crowdedOut(c.Container)
	if crowded {
		s.Refused = CrowdedOut
	}
	if newer || crowded {
		s.Rev = m.stamp()
	}
	record := &memorySession{Session: &s}
	if kept > 0 {
		record.keptUntil, record.listedUntil = now.Add(kept), now.Add(listed)
		m.keep(record.keptUntil, now)
	}
	m.sessions[s.ID] = record
	switch {
	case !hosted:
	case over || s.Refused != "":
		m.freeSlot(c, s.ID, m.stamp())
	case s.HoldsSlot() && c.Phase != Gone && c.BootID == s.BootID:
		if slots := withID(c.Slots, s.ID); len(slots) != len(c.Slots) {
			host := *c.Container
			host.Slots = slots
			m.putContainer(&host, m.stamp())
		}
	}
}

// MarkWhole says that nothing is missing any more.
func (m *Memory) MarkWhole(ctx context.Context, by Authority, f Filling) error {
	err := m.write(ctx, func(time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		if f.Incarnation != m.incarnation || !f.LostAt.Equal(m.lostAt) {
			return conflict("the store has lost data since")
		}
		m.lostAt, m.whole = time.Time{}, true
		m.hint(Hint{Kind: KindAll})
		return nil
	})
	if err != nil {
		return fmt.Errorf("marking the store whole: %w", err)
	}
	return nil
}
