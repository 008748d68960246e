package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// Demand is the arithmetic behind a plan's launches and drains, for metrics and for people.
type Demand struct {
	Live       int // sessions that hold a slot
	Pending    int // sessions that wait for one
	Unplaced   int // of those, the ones that this plan could not place
	Free       int // slots left on containers that may be bound to, after this plan's bindings
	Coming     int // slots of containers that are starting
	Containers int // tasks that exist or are to: containers not gone, open launches
	Launch     int // containers wanted beyond those
	Surplus    int // containers that are not needed
}

// supply is what capacity is computed from.
type supply struct {
	unplaced   int // slots wanted by sessions that found none
	free       int // slots left
	coming     int // slots of starting containers
	containers int // tasks that count against the maximum
	leaving    int // of those, the ones that are draining or stopping
	starting   int // of those, the ones that do not serve yet, and may never
}

// capacity says how many containers are wanted beyond those that serve or start, or how many
// are not needed: the slots wanted (unplaced sessions and the warm reserve) against the slots
// left and coming, rounded up to containers, and the minimum. The maximum bounds launches,
// not wants: a draining container may be opened again at the maximum.
func capacity(s supply, pool state.Pool) (wanted, surplus int) {
	free := s.free
	if s.unplaced > 0 {
		// Slots that are free all the same are on containers that have failed these sessions
		// before: they serve the reserve alone.
		free = min(free, pool.WarmSlots)
	}
	short := s.unplaced + pool.WarmSlots - free - s.coming
	if short > 0 {
		wanted = (short + pool.MaxSessions - 1) / pool.MaxSessions
	}
	staying := s.containers - s.leaving
	wanted = max(wanted, pool.Min-staying, 0)
	surplus = -short / pool.MaxSessions
	over := staying - pool.Max
	if over > 0 {
		wanted, surplus = 0, over
	}
	// The minimum is kept by those that serve: a start may fail, also one beyond the maximum (a store
	// that lost its data may be given back launches beside those that were made since).
	return wanted, max(0, min(surplus, staying-s.starting-pool.Min))
}

// scale starts containers that are wanted and drains empty ones that are not.
func (m *planner) scale(unplaced []*state.Session) {
	s := m.supply(unplaced)
	wanted, surplus := capacity(s, m.Pool)
	d := &m.plan.Demand
	d.Unplaced, d.Free, d.Coming, d.Containers, d.Surplus = len(unplaced), s.free, s.coming, s.containers, surplus
	for _, x := range m.Sessions {
		if x.HoldsSlot() {
			d.Live++
		}
	}
	for i, x := range unplaced {
		m.hold(HoldSession, x.ID, fmt.Sprintf("no container has room; %d wait before it, %d slots are starting", i, s.coming))
	}

	wanted = m.undrain(wanted)
	d.Launch = max(0, min(wanted, m.Pool.Max-s.containers))
	m.launch(d.Launch, s)
	spent := m.drainSpent()
	if wanted == 0 {
		m.drain(surplus-spent, s)
	}
}

// drainSpent closes the containers that are empty and that nobody is to be placed on any more, and counts
// them. At the maximum they are in the way of others.
func (m *planner) drainSpent() (spent int) {
	for _, c := range m.room {
		if why := m.spent(c); why != "" && m.idle(c) {
			m.destructive(Drain{Target{c.ID, why}, c.BootID})
			spent++
		}
	}
	return spent
}

// idle tells whether a container is empty, also by this plan and by what sessions say (its own record may
// be the older), and ours to stop: drained, one that is not is of no use to anybody.
func (m *planner) idle(c *candidate) bool {
	_, empty := m.EmptySince[c.ID]
	return empty && c.Used() == 0 && !m.hosts[life{c.ID, c.BootID}] && c.free == c.MaxSessions && (c.Launch != "" || c.TaskARN != "")
}

// spent says why a container is of no more use once it is empty; empty: it is of use.
func (m *planner) spent(c *candidate) string {
	switch {
	case m.Pool.Dedicated && c.tenant != "":
		return "it has served its one user"
	case m.Pool.Dedicated && c.Served != "":
		return "it has served in shared tenancy, and containers are one user's own now"
	case c.tenant != "":
		return "it is one user's own, and containers are shared now"
	}
	return ""
}

// supply counts, from witnesses only: reported containers, recorded launches.
func (m *planner) supply(unplaced []*state.Session) supply {
	s := supply{unplaced: m.slotsFor(unplaced)}
	for _, c := range m.room {
		// What is somebody's own, or was shared where containers are to be, is free to few or nobody.
		if c.tenant == "" && (!m.Pool.Dedicated || c.Used() == 0 && c.Served == "") {
			s.free += c.free
		}
	}
	for _, c := range m.Containers {
		switch c.Phase {
		case state.PendingVerification:
			s.starting++
			// One that cannot be reached registers again and again, but is not coming.
			if !m.past(c.RegisteredAt, m.StartDeadline) {
				s.coming += c.MaxSessions
			}
		case state.Draining, state.Stopping:
			s.leaving++
		case state.ContainerReady, state.Gone:
		}
		if c.Phase != state.Gone {
			s.containers++
		}
	}
	for _, l := range m.Launches {
		if _, registered := m.containers[l.ID]; !registered && l.Open() {
			s.containers++
			s.starting++
			s.coming += m.Pool.MaxSessions
		}
	}
	return s
}

// slotsFor counts the slots that sessions need. With dedicated containers each user needs
// whole ones.
func (m *planner) slotsFor(sessions []*state.Session) int {
	if !m.Pool.Dedicated {
		return len(sessions)
	}
	byUser := map[string]int{}
	for _, s := range sessions {
		byUser[s.UserID]++
	}
	slots := 0
	for _, n := range byUser {
		slots += (n + m.Pool.MaxSessions - 1) / m.Pool.MaxSessions * m.Pool.MaxSessions
	}
	return slots
}

// undrain opens draining containers again in place of launches, the fullest first.
func (m *planner) undrain(launch int) (left int) {
	if launch == 0 || m.Pool.Dedicated {
		return launch
	}
	var draining []*state.Container
	for _, c := range m.Containers {
		// One that has asked for its drain itself (it is being stopped) never acknowledges an
		// un-drain; its report closes it again.
		if c.Phase == state.Draining && !m.suspect(c) && !c.Closing && c.Free() > 0 && c.Tenant == "" {
			draining = append(draining, c)
		}
	}
	slices.SortFunc(draining, byFullest)
	for _, c := range draining {
		if launch == 0 {
			break
		}
		m.undrained[c.ID] = true
		m.do(Undrain{Target{c.ID, "there is demand again"}, c.BootID})
		launch--
	}
	return launch
}

// drain closes containers that are not needed: empty ones, empty for a while, the ones that
// ran longest empty first, a tenth of the fleet at a time.
func (m *planner) drain(surplus int, s supply) {
	var idle []*state.Container
	lastLaunch := time.Time{}
	for _, l := range m.Launches {
		if l.CreatedAt.After(lastLaunch) {
			lastLaunch = l.CreatedAt
		}
	}
	for _, c := range m.Containers {
		if _, lost := m.lost(c); lost && (c.Phase == state.ContainerReady || c.Phase == state.PendingVerification) {
			surplus-- // it counted among those that stay, and this plan marks it gone
		}
	}
	for _, c := range m.room {
		if m.idle(c) && m.spent(c) == "" && m.past(m.EmptySince[c.ID], m.ScaleDownHold) {
			idle = append(idle, c.Container)
		}
	}
	if surplus <= 0 || !lastLaunch.IsZero() && !m.past(lastLaunch, m.ScaleDownHold) {
		return
	}
	slices.SortFunc(idle, func(a, b *state.Container) int {
		if order := m.EmptySince[a.ID].Compare(m.EmptySince[b.ID]); order != 0 {
			return order
		}
		return byID(a, b)
	})
	n := max(0, min(surplus, len(idle), max(1, s.containers/10)-s.leaving))
	for _, c := range idle[:n] {
		m.destructive(Drain{Target{c.ID, fmt.Sprintf("empty for %s and not needed", m.Now.Sub(m.EmptySince[c.ID]).Round(time.Second))}, c.BootID})
	}
}
