package plan

import (
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// checkView decides whether this view of the world is whole and fresh enough to destroy
// anything. When it is not, launching and binding go on.
func (m *planner) checkView() {
	m.destroy = true
	doubt := func(format string, args ...any) {
		m.destroy = false
		m.hold(HoldDestruction, "", fmt.Sprintf(format, args...))
	}
	if m.StoreTrouble != "" {
		doubt("%s", m.StoreTrouble)
		m.hold(HoldBinding, "", m.StoreTrouble)
		m.hold(HoldLaunch, "", m.StoreTrouble)
	}
	if m.StoreAge > m.MaxStoreAge {
		doubt("the store was last read %s ago", m.StoreAge.Round(time.Second))
	}
	switch {
	case m.TasksAt.IsZero():
		doubt("ECS has not been listed yet")
	case m.past(m.TasksAt, m.MaxTasksAge):
		doubt("ECS was last listed %s ago", m.Now.Sub(m.TasksAt).Round(time.Second))
	}
	for _, c := range m.Containers {
		if c.Phase != state.ContainerReady && c.Phase != state.Draining {
			continue
		}
		m.expected++
		if !m.suspect(c) {
			m.heard++
		}
	}
	if m.expected >= 4 && m.heard*2 < m.expected {
		// So many do not die together: the fault is more likely ours. (Of two or three, one
		// rightly dead container must not stop the clean-up of the others.)
		doubt("only %d of %d containers have reported lately", m.heard, m.expected)
	}
}

// suspect tells whether a container has been silent for too long. Nothing is bound to it;
// nothing of it is destroyed for that either, until it is known to hang (superviseSilent).
func (m *planner) suspect(c *state.Container) bool {
	return m.past(c.SeenAt, m.SuspectAfter) || c.SeenAt.IsZero() && m.past(c.RegisteredAt, m.SuspectAfter)
}

// excused tells whether a container is silent because the store was out of reach: it was heard
// until then, and has had no time to report since. Without that, an outage of the store would
// be followed by the launch of a second fleet.
func (m *planner) excused(c *state.Container) bool {
	g := m.StoreGap
	return !g.Until.IsZero() && !m.past(g.Until, m.SuspectAfter) && !c.SeenAt.IsZero() && g.From.Sub(c.SeenAt) <= m.SuspectAfter
}

// bindable tells whether sessions may be placed on a container.
func (m *planner) bindable(c *state.Container) bool { return m.serves(c) && c.Health.CPU <= m.MaxLoad }

// busy tells whether sessions may be placed on a container only if there is nothing better.
func (m *planner) busy(c *state.Container) bool { return m.serves(c) && c.Health.CPU > m.MaxLoad }

// serves tells whether a container could take a session, however busy its CPU is.
func (m *planner) serves(c *state.Container) bool {
	return c.Phase == state.ContainerReady && (!m.suspect(c) || m.excused(c)) && c.Health.Memory <= m.MaxLoad
}

// Unlaunched tells whether a container is no task of ECS, so that nobody tells of its end.
func Unlaunched(c *state.Container) bool {
	return c.Launch == "" && c.TaskARN == "" && c.Phase != state.Gone
}

// lost tells whether a container is over, by ECS's word or its machine's, and how.
func (m *planner) lost(c *state.Container) (why string, lost bool) {
	if Unlaunched(c) {
		// One witness is the replica that has its link, or had; the other its own machine.
		since, refuses := m.RefusedSince[c.ID]
		if refuses && m.past(since, m.AbsentAfter) && m.past(c.SeenAt, m.AbsentAfter) && m.destroy {
			return fmt.Sprintf("it is no task of ECS, and nothing has listened at its address for %s", m.Now.Sub(since).Round(time.Second)), true
		}
	}
	arn := m.taskARN(c)
	if arn == "" {
		return m.neverKnown(c)
	}
	if t, known := m.tasks[arn]; known {
		if !t.Stopped() {
			return "", false
		}
		return stopText(t), true
	}
	// Absence alone is one witness; the container's own silence is the other.
	since, absent := m.AbsentSince[arn]
	if absent && m.TasksAt.Sub(since) > m.AbsentAfter && m.destroy && m.suspect(c) {
		return fmt.Sprintf("ECS has not listed its task for %s", m.TasksAt.Sub(since).Round(time.Second)), true
	}
	return "", false
}

// neverKnown tells whether a container is over whose task nobody has ever learnt of: its
// address was not proven, so that nothing was ever bound to it, and the answer to its launch
// was lost. It would take a place in the pool for ever.
func (m *planner) neverKnown(c *state.Container) (why string, lost bool) {
	if c.Launch == "" || c.Phase != state.Stopping && c.Phase != state.PendingVerification {
		return "", false
	}
	seen := c.SeenAt
	if seen.IsZero() {
		seen = c.RegisteredAt
	}
	if !m.destroy || !m.suspect(c) || !m.past(seen, m.StartDeadline+m.AbsentAfter) {
		return "", false
	}
	return fmt.Sprintf("it is silent since %s, and ECS lists no task of it", seen.UTC().Format(time.RFC3339)), true
}

// stopText says how a task ended.
func stopText(t *state.Task) string {
	text := "its task stopped"
	if t.StopCode != "" {
		text += " (" + t.StopCode + ")"
	}
	if t.StoppedReason != "" {
		text += ": " + t.StoppedReason
	}
	return text
}
