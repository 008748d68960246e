package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// testimonyFresh is how old a replica's word on a container may be: three of its rounds.
	testimonyFresh = 3 * state.WitnessInterval
	// replicaDoubt is for how long a replica that was heard, and is no more, may still serve
	// clients of a container: it may be cut off from the store alone.
	replicaDoubt = 5 * time.Minute
	// hungWindow and hungShare bound how many containers are given up: within hungWindow one,
	// or the hungShare-th part of the fleet.
	hungWindow = 5 * time.Minute
	hungShare  = 10
	// silentShare: while more than one container and more than the silentShare-th part of the
	// fleet is silent, none is given up. Containers hang alone; networks and zones do not.
	silentShare = 4
)

// superviseSilent gives up containers that hang: their tasks run, and they answer nobody. What
// was bound to such a container is lost, so that this wants every witness there is: its own
// reports are missing; ECS says that its task runs; every replica has asked it in vain, and has
// brought none of its clients anything; and the fleet as a whole does well. What is lacking is
// told as a hold.
func (m *planner) superviseSilent() {
	var silent []*state.Container
	for _, c := range m.Containers {
		if (c.Phase == state.ContainerReady || c.Phase == state.Draining) && m.suspect(c) {
			if _, lost := m.lost(c); !lost {
				silent = append(silent, c)
			}
		}
	}
	slices.SortFunc(silent, func(a, b *state.Container) int { return cmp.Or(a.SeenAt.Compare(b.SeenAt), byID(a, b)) })
	left := m.mayGiveUp()
	for _, c := range silent {
		waits := m.notHung(c)
		if waits == "" && left <= 0 {
			waits = fmt.Sprintf("it hangs, but as many as may be within %s were given up already", hungWindow)
		}
		if waits != "" {
			m.hold(HoldContainer, c.ID, fmt.Sprintf("silent since %s: nothing is bound to it, and it keeps its place in the pool; %s",
				c.SeenAt.UTC().Format(time.RFC3339), waits))
			continue
		}
		left--
		m.do(GiveUp{Target{c.ID, fmt.Sprintf("it hangs: its task runs, but for %s it has neither reported, nor answered any replica, nor served a client",
			m.Now.Sub(m.silentSince(c)).Round(time.Second))}, c.BootID, c.SeenAt, m.Now})
	}
}

// mayGiveUp is how many containers may be given up now.
func (m *planner) mayGiveUp() int {
	lately := 0
	for _, c := range m.Containers {
		if c.GivenUp() && !m.past(c.HungAt, hungWindow) {
			lately++
		}
	}
	return max(1, m.expected/hungShare) - lately
}

// silentSince is when a container last reported, or could not: the store was out of reach; or
// had it known to us: the store has forgotten its last reports.
func (m *planner) silentSince(c *state.Container) time.Time {
	since := c.SeenAt
	for _, at := range []time.Time{m.StoreGap.Until, m.Filling.LostAt} {
		if at.After(since) {
			since = at
		}
	}
	return since
}

// notHung says what is lacking for a silent container to be given up; empty: nothing is.
func (m *planner) notHung(c *state.Container) string {
	t := m.tasks[m.taskARN(c)]
	silent := m.expected - m.heard
	switch {
	case Unlaunched(c):
		return "it is no task of ECS, and is gone once its address refuses connections"
	case m.HungAfter < 0:
		return "hung containers are not given up (HUNG_AFTER)"
	case t == nil || t.LastStatus != "RUNNING" || t.DesiredStatus != "RUNNING":
		return "ECS does not say that its task runs"
	case !m.destroy:
		return "this view is not whole and fresh"
	case silent*2 > m.expected:
		return fmt.Sprintf("%d of %d containers are silent, which is more likely our network's fault than theirs", silent, m.expected)
	case silent > 1 && silent*silentShare > m.expected:
		return fmt.Sprintf("%d of %d containers are silent: so many do not hang together", silent, m.expected)
	}
	if left := m.HungAfter - m.Now.Sub(m.silentSince(c)); left > 0 {
		return fmt.Sprintf("it is given up in %s at the earliest", left.Round(time.Second))
	}
	return m.unheard(c)
}

// unheard says which replica may know better than that a container hangs; empty: none does.
func (m *planner) unheard(c *state.Container) string {
	said := map[string]state.Testimony{}
	for _, t := range m.Testimonies {
		if t.Container == c.ID && t.BootID == c.BootID && !m.past(t.At, testimonyFresh) {
			said[t.Replica] = t
		}
	}
	replicas := slices.Clone(m.Replicas)
	slices.SortFunc(replicas, func(a, b state.Replica) int { return cmp.Compare(a.ID, b.ID) })
	asked := 0
	for _, r := range replicas {
		if !r.Live(m.Now) {
			if since := m.Now.Sub(r.SeenAt); since < replicaDoubt {
				return fmt.Sprintf("replica %s is not heard for %s, and may still serve clients of it", r.ID, since.Round(time.Second))
			}
			continue
		}
		t, ok := said[r.ID]
		switch {
		case !ok:
			return fmt.Sprintf("replica %s has not said whether it answers", r.ID)
		case t.Silent == 0:
			return fmt.Sprintf("it answers replica %s", r.ID)
		case t.Quiet < m.HungAfter:
			return fmt.Sprintf("it may have served a client through replica %s %s ago", r.ID, t.Quiet.Round(time.Second))
		case t.Silent < m.HungAfter*3/4:
			return fmt.Sprintf("replica %s has asked it in vain for %s only", r.ID, t.Silent.Round(time.Second))
		}
		asked++
	}
	if asked == 0 {
		return "no replica has said whether it answers"
	}
	return ""
}

// holding tells whether a session still counts as held by this life of a container.
func (m *planner) holding(c *state.Container) bool {
	return slices.ContainsFunc(m.Sessions, func(s *state.Session) bool { return s.BoundTo(c.ID, c.BootID) })
}
