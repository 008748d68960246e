package plan

import (
	"fmt"
	"slices"
	"time"
)

// checkStore decides whether anything may be missing from the store. One that has lost data was
// given back by then what the replicas remember. It is whole again when two complete listings
// of ECS, ListingsApart from each other, show no running task that no record speaks of; one of
// which nothing was heard for AdoptWithin holds nobody up any longer. A store that nobody has
// found whole yet, being new or filled by nobody who remembers, needs one listing.
func (m *planner) checkStore() {
	if m.Filling.Whole || m.Filling.Incarnation == "" || m.StoreTrouble != "" && m.Filling.LostAt.IsZero() {
		return
	}
	lost := !m.Filling.LostAt.IsZero()
	doubt := func(why string) {
		m.StoreTrouble = "store is new to us"
		if lost {
			m.StoreTrouble = "store has lost data and is being rebuilt"
		}
		m.StoreTrouble += ": " + why
	}
	switch {
	case m.TasksSince.IsZero():
		doubt("ECS has not been listed since")
		return
	case lost && m.TasksAt.Sub(m.TasksSince) < m.ListingsApart:
		doubt("ECS is to be listed again")
		return
	}
	if unknown := m.unknownTasks(); len(unknown) > 0 && !m.past(m.TasksSince, m.AdoptWithin) {
		doubt(fmt.Sprintf("%d running tasks are not known, one is %s", len(unknown), unknown[0]))
		return
	}
	m.StoreTrouble = ""
	m.do(MarkWhole{Target{"store", fmt.Sprintf("no task runs that is not known, by ECS's listing of %s",
		m.TasksAt.UTC().Format(time.RFC3339))}, m.Filling})
}

// unknownTasks are the ARNs of running tasks that no container and no launch speaks of.
func (m *planner) unknownTasks() []string {
	known := map[string]bool{}
	for _, l := range m.Launches {
		known[l.TaskARN], known[l.ID] = true, true
	}
	for _, c := range m.Containers {
		known[c.TaskARN], known[c.ID] = true, true
	}
	var unknown []string
	for i := range m.Tasks {
		t := &m.Tasks[i]
		if t.LastStatus == "RUNNING" && t.DesiredStatus != "STOPPED" && !known[t.ARN] && (t.ContainerID == "" || !known[t.ContainerID]) {
			unknown = append(unknown, t.ARN)
		}
	}
	slices.Sort(unknown)
	return unknown
}
