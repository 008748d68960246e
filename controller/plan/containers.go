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
		if c.Phase == state.Stopping {
			m.stopTask(c.TaskARN, "drained")
		}
	}
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
	for _, l := range m.Launches {
		c, registered := m.containers[l.ID]
		switch {
		case registered && c.Phase != state.Gone:
			if l.Open() {
				m.do(ResolveLaunch{Target{l.ID, "its container has registered"}, state.Registered})
			}
		case l.Open():
			m.superviseOpen(l)
		default:
			m.superviseClosed(l)
		}
	}
}

// taskOf finds a launch's task, also one whose ARN we never learnt, or nil.
func (m *planner) taskOf(l *state.Launch) *state.Task {
	if t, known := m.tasks[l.TaskARN]; known {
		return t
	}
	return m.taskByContainer[l.ID]
}

// superviseOpen settles a launch whose container has not registered.
func (m *planner) superviseOpen(l *state.Launch) {
	t := m.taskOf(l)
	switch {
	case t != nil && t.Stopped():
		m.do(ResolveLaunch{Target{l.ID, stopText(t)}, state.Expired})
	case m.past(l.CreatedAt, m.StartDeadline):
		m.do(ResolveLaunch{Target{l.ID, fmt.Sprintf("its container did not register within %s", m.StartDeadline)}, state.Expired})
	case l.Outcome == "" && !m.Pool.Paused:
		m.do(Run{Target{l.ID, fmt.Sprintf("recorded %s ago, no task yet", m.Now.Sub(l.CreatedAt).Round(time.Millisecond))}})
	}
}

// superviseClosed clears up after a launch whose container is gone or never came.
func (m *planner) superviseClosed(l *state.Launch) {
	t := m.taskOf(l)
	running := t != nil && !t.Stopped()
	switch {
	case running && l.Outcome == state.Expired:
		m.stopTask(t.ARN, "its container never registered")
	case running:
	case m.past(l.CreatedAt, launchMemory):
		m.do(ForgetLaunch{Target{l.ID, "nothing can come of it any more"}})
	}
}

// reapOrphans stops tasks of ours that no record speaks of: their launch is forgotten, and
// nothing has registered for longer than any start takes, although agents that lose their
// link register again within seconds.
func (m *planner) reapOrphans() {
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
			m.stopTask(t.ARN, "no container of it has registered and no launch is known")
		}
	}
}
