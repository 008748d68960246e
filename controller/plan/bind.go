package plan

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// loadPatience is how long a session waits for a container whose CPU is not busy before it takes
// one that is. A share of a busy CPU within seconds is better than a CPU of its own after the
// start of a container, and that may never come: a fleet at its maximum, or containers that
// share a machine. Memory has no such second thought: what takes too much of it is killed.
const loadPatience = 5 * time.Second

// bind places the pending sessions, oldest first: on a container that serves the same user
// already, else on the fullest that has room (the emptiest with Spread), else, after a while, on
// the least busy of those with a busy CPU. It returns those that found none, and leaves the
// candidates as this plan fills them in m.room.
func (m *planner) bind() (unplaced []*state.Session) {
	var queue []*state.Session
	for _, s := range m.Sessions {
		if s.Phase == state.Pending && !m.ended[s.ID] {
			queue = append(queue, s)
		}
	}
	slices.SortFunc(queue, func(a, b *state.Session) int {
		return cmp.Or(a.SeenAt.Compare(b.SeenAt), cmp.Compare(a.ID, b.ID))
	})
	m.plan.Demand.Pending = len(queue)
	m.room = m.candidates(m.bindable)
	if len(queue) == 0 {
		return nil
	}

	anybody := m.newShelf()
	for _, c := range m.room {
		anybody.add(c)
	}
	byUser := m.userShelves(queue)
	busy := m.candidates(m.busy)
	for _, s := range queue {
		c, why := m.place(s, anybody, byUser[s.UserID])
		if c == nil && m.past(s.SeenAt, loadPatience) {
			c, why = m.squeeze(s, busy)
		}
		if c == nil {
			unplaced = append(unplaced, s)
			continue
		}
		m.do(Bind{Target{s.ID, "on " + c.ID + ": " + why}, c.ID, c.BootID, m.Pool.Dedicated})
		c.free--
		if m.Pool.Dedicated {
			c.tenant = s.UserID
		}
		if !m.bindable(c.Container) {
			// It stays for those only who have waited.
			busy = slices.DeleteFunc(busy, func(c *candidate) bool { return c.free == 0 })
			continue
		}
		anybody.add(c)
		own := byUser[s.UserID]
		if !slices.Contains(c.shelves, own) {
			c.shelves = append(c.shelves, own)
		}
		for _, shelf := range c.shelves {
			shelf.add(c)
		}
	}
	return unplaced
}

// place finds the container for one session.
func (m *planner) place(s *state.Session, anybody, own *shelf) (c *candidate, why string) {
	fits := func(c *candidate) bool { return m.fits(s, c) }
	if c := own.take(fits); c != nil {
		return c, fmt.Sprintf("it serves the same user and has %d of %d slots free", c.free, c.MaxSessions)
	}
	if c := anybody.take(fits); c != nil {
		order := "fullest"
		if m.Pool.Spread {
			order = "emptiest"
		}
		return c, fmt.Sprintf("the %s with room, %d of %d slots free", order, c.free, c.MaxSessions)
	}
	return nil, ""
}

// fits tells whether a session may be placed on a container with room. The store refuses whom it does
// not take: there are such also after tenancy was changed.
func (m *planner) fits(s *state.Session, c *candidate) bool {
	return !s.Excludes(c.ID) && c.Takes(s.UserID, m.Pool.Dedicated) && (!m.Pool.Dedicated || c.tenant == s.UserID || c.tenant == "" && c.Used() == 0)
}

// squeeze finds the busy container that takes a session least badly: of those that this plan has
// given the fewest, the least busy.
func (m *planner) squeeze(s *state.Session, busy []*candidate) (c *candidate, why string) {
	given := func(c *candidate) int { return c.Free() - c.free }
	for _, other := range busy {
		if !m.fits(s, other) {
			continue
		}
		if c == nil || cmp.Or(cmp.Compare(given(other), given(c)), cmp.Compare(other.Health.CPU, c.Health.CPU)) < 0 {
			c = other
		}
	}
	if c == nil {
		return nil, ""
	}
	return c, fmt.Sprintf("its CPU is busy, %.0f %%, but nobody with a calmer one has had room for %s", c.Health.CPU*100, loadPatience)
}

// candidate is a container that sessions may be placed on, as this plan fills it.
type candidate struct {
	*state.Container
	free    int
	tenant  string
	shelves []*shelf // of the users that it serves and that have pending sessions
}

// candidates lists the containers of a kind with room, by id.
func (m *planner) candidates(kind func(*state.Container) bool) []*candidate {
	var room []*candidate
	for _, c := range m.Containers {
		if kind(c) && c.Free() > 0 {
			room = append(room, &candidate{Container: c, free: c.Free(), tenant: c.Tenant})
		}
	}
	slices.SortFunc(room, func(a, b *candidate) int { return cmp.Compare(a.ID, b.ID) })
	return room
}

// userShelves sorts the candidates by the users in the queue that they serve.
func (m *planner) userShelves(queue []*state.Session) map[string]*shelf {
	shelves := map[string]*shelf{}
	for _, s := range queue {
		if shelves[s.UserID] == nil {
			shelves[s.UserID] = m.newShelf()
		}
	}
	room := make(map[string]*candidate, len(m.room))
	for _, c := range m.room {
		room[c.ID] = c
	}
	for _, s := range m.Sessions {
		if !s.HoldsSlot() {
			continue
		}
		c, own := room[s.Container], shelves[s.UserID]
		if c == nil || own == nil || slices.Contains(c.shelves, own) {
			continue
		}
		c.shelves = append(c.shelves, own)
		own.add(c)
	}
	return shelves
}

// shelf is a priority queue of candidates that tolerates change: whoever changes a candidate
// adds it anew, and the entries that have become out of date are skipped when they come up.
type shelf struct {
	spread  bool
	entries []entry
}

type entry struct {
	c    *candidate
	free int // when added
}

func (m *planner) newShelf() *shelf { return &shelf{spread: m.Pool.Spread} }

func (s *shelf) add(c *candidate) {
	if c.free > 0 {
		heap.Push(s, entry{c, c.free})
	}
}

// take returns the best candidate that fits and takes it off the shelf, leaving the others.
func (s *shelf) take(fits func(*candidate) bool) *candidate {
	var aside []entry
	defer func() {
		for _, e := range aside {
			heap.Push(s, e)
		}
	}()
	for s.Len() > 0 {
		e := heap.Pop(s).(entry)
		switch {
		case e.free != e.c.free: // out of date: added anew since
		case fits(e.c):
			return e.c
		default:
			aside = append(aside, e)
		}
	}
	return nil
}

// Len implements heap.Interface.
func (s *shelf) Len() int { return len(s.entries) }

// Less implements heap.Interface: the better candidate first.
func (s *shelf) Less(i, j int) bool {
	a, b := s.entries[i], s.entries[j]
	order := cmp.Compare(a.free, b.free)
	if s.spread {
		order = -order
	}
	return cmp.Or(order, cmp.Compare(b.c.Health.Warm, a.c.Health.Warm), cmp.Compare(a.c.ID, b.c.ID)) < 0
}

// Swap implements heap.Interface.
func (s *shelf) Swap(i, j int) { s.entries[i], s.entries[j] = s.entries[j], s.entries[i] }

// Push implements heap.Interface.
func (s *shelf) Push(x any) { s.entries = append(s.entries, x.(entry)) }

// Pop implements heap.Interface.
func (s *shelf) Pop() any {
	last := s.entries[len(s.entries)-1]
	s.entries = s.entries[:len(s.entries)-1]
	return last
}
