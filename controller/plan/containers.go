package plan

import (
	"cmp"
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func byID(a, b *state.Container) int { return cmp.Compare(a.ID, b.ID) }

func byFullest(a, b *state.Container) int {
	return cmp.Or(cmp.Compare(b.Used(), a.Used()), byID(a, b))
}

// destructive does a unless the view is not whole and fresh; then it is held. The reason
// stands once in the plan, for everything.
func (m *planner) destructive(a Action) {
	if m.destroy {
		m.do(a)
		return
	}
	m.hold(HoldDestruction, a.Subject(), fmt.Sprintf("%s waits for a whole, fresh view", a.Kind()))
}

// superviseContainers sees each container from drain to gone.
func (m *planner) superviseContainers() {
	for _, c := range m.Containers {
		if c.Phase == state.Gone {
			continue
		}
		if why, lost := m.lost(c); lost {
			m.do(MarkGone{Target{c.ID, why}, c.BootID})
			continue
		}
		switch {
		case c.Phase == state.Stopping && c.GivenUp():
			if !m.holding(c) { // superviseSessions sees to those first
				m.stopTask(m.taskARN(c), "it hangs, and what it held is settled")
			}
		case c.Phase == state.Stopping:
			m.stopTask(m.taskARN(c), "it is drained, or never could be reached")
		case c.Phase == state.PendingVerification && m.past(c.RegisteredAt, m.StartDeadline):
			// Nothing was ever bound to this life of it.
			m.destructive(BeginStop{Target{c.ID, fmt.Sprintf("it registered %s ago and could not be verified or reached since",
				m.Now.Sub(c.RegisteredAt).Round(time.Second))}, c.BootID})
		}
	}
}

// taskARN is a container's task, by its record, by its launch's or by ECS's word.
func (m *planner) taskARN(c *state.Container) string {
	if c.TaskARN != "" {
		return c.TaskARN
	}
	if t := m.taskByContainer[c.ID]; t != nil {
		return t.ARN
	}
	return m.launchARN[c.ID]
}

// retire begins to stop the containers that are drained and that scale has not opened again.
func (m *planner) retire() {
	for _, c := range m.Containers {
		if c.Phase != state.Draining || c.DrainAck != c.DrainSeq || c.Used() > 0 || m.suspect(c) || m.undrained[c.ID] {
			continue
		}
		if _, lost := m.lost(c); !lost {
			m.destructive(BeginStop{Target{c.ID, "it is empty and has acknowledged its drain"}, c.BootID})
		}
	}
}

// stopTask stops a task that ECS still wants to run.
func (m *planner) stopTask(arn, why string) {
	t, known := m.tasks[arn]
	if arn == "" || !known || t.DesiredStatus == "STOPPED" || t.Stopped() {
		return
	}
	m.destructive(StopTask{Target{arn, why}})
}

// superviseLaunches sees each launch from its call to its container.
func (m *planner) superviseLaunches() {
	var run []*state.Launch
	for _, l := range m.Launches {
		c, registered := m.containers[l.ID]
		switch {
		case registered && c.Phase == state.PendingVerification:
		case registered && c.Phase == state.Stopping && l.Open():
			m.do(ResolveLaunch{Target{l.ID, "its container could not be verified or reached"}, state.Expired, state.Unverified, m.Now})
		case registered && c.Phase != state.Gone:
			if l.Open() {
				m.do(ResolveLaunch{Target{l.ID, "its container has registered"}, state.Registered, "", c.RegisteredAt})
			}
		case l.Open():
			if m.superviseOpen(l) {
				run = append(run, l)
			}
		default:
			m.superviseClosed(l)
		}
	}
	m.run(run)
}

// taskOf finds a launch's task, also one whose ARN we never learnt, or nil.
func (m *planner) taskOf(l *state.Launch) *state.Task {
	if t, known := m.tasks[l.TaskARN]; known {
		return t
	}
	return m.taskByContainer[l.ID]
}

// superviseOpen settles a launch whose container has not registered. It tells whether its
// call is to be made.
func (m *planner) superviseOpen(l *state.Launch) (run bool) {
	t := m.taskOf(l)
	switch {
	case t != nil && t.Stopped():
		m.do(ResolveLaunch{Target{l.ID, stopText(t)}, state.Expired, state.Died, m.Now})
	case m.past(l.CreatedAt, m.StartDeadline):
		cause := state.Late
		if t == nil && l.TaskARN == "" {
			cause = state.Unanswered
		}
		m.do(ResolveLaunch{Target{l.ID, fmt.Sprintf("its container did not register within %s", m.StartDeadline)}, state.Expired, cause, m.Now})
	case l.Outcome == "" && !m.Pool.Paused:
		return true
	}
	return false
}

// superviseClosed clears up after a launch whose container is gone or never came.
func (m *planner) superviseClosed(l *state.Launch) {
	t := m.taskOf(l)
	running := t != nil && !t.Stopped()
	switch {
	case running && l.Outcome == state.Expired:
		m.stopTask(t.ARN, "its container never registered")
	case running && l.Outcome == state.Refused && m.past(t.CreatedAt, m.StartDeadline) && m.containers[l.ID] == nil:
		// A call of a leader before, which was on its way when the next was refused. From then on nobody
		// may register as this launch's, so that its task can be stopped.
		m.do(ResolveLaunch{Target{l.ID, fmt.Sprintf("it was refused, its task came up after all, and its container did not register within %s", m.StartDeadline)},
			state.Expired, "", time.Time{}})
	case running:
	case m.past(l.CreatedAt, launchMemory):
		m.do(ForgetLaunch{Target{l.ID, "nothing can come of it any more"}})
	}
}

// tellOrphans tells of tasks of ours that no record speaks of. They are not stopped: records
// outlive their tasks, so that only a store that lost its data leads here, and a container
// whose record was lost may hold sessions.
func (m *planner) tellOrphans() {
	known := map[string]bool{}
	for _, l := range m.Launches {
		known[l.TaskARN] = true
		known[l.ID] = true
	}
	for i := range m.Tasks {
		t := &m.Tasks[i]
		if t.Stopped() || known[t.ARN] || known[t.ContainerID] {
			continue
		}
		if c, registered := m.containers[t.ContainerID]; registered && c.Phase != state.Gone {
			continue
		}
		if m.past(t.StartedAt, m.StartDeadline) && m.past(t.CreatedAt, 2*m.StartDeadline) {
			m.hold(HoldTask, t.ARN, "it is ours, but no launch or container of it is known: it is stopped by hand, if at all")
		}
	}
}
