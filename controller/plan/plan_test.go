package plan_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// world is a fresh, whole, quiet view: one ready container of four slots, its launch and task.
func world(edits ...func(*plan.Snapshot)) plan.Snapshot {
	s := plan.Snapshot{
		Now:         now,
		Documents:   map[string]*state.Document{},
		Edited:      map[string]bool{},
		DocumentsAt: ago(time.Second),
		TasksAt:     ago(time.Second),
		AbsentSince: map[string]time.Time{},
		EmptySince:  map[string]time.Time{},
	}
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

func container(id string, edits ...func(*state.Container)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		c := &state.Container{ID: id, TaskARN: "arn:" + id, Addr: "10.0.0.1:8080", Protocol: 2, BootID: "boot-" + id,
			MaxSessions: 4, Phase: state.ContainerReady, RegisteredAt: ago(time.Hour), SeenAt: ago(time.Second)}
		for _, edit := range edits {
			edit(c)
		}
		s.Containers = append(s.Containers, c)
		s.Tasks = append(s.Tasks, state.Task{ARN: c.TaskARN, ContainerID: id, LastStatus: "RUNNING",
			DesiredStatus: "RUNNING", CreatedAt: ago(time.Hour), StartedAt: ago(time.Hour)})
		s.Launches = append(s.Launches, &state.Launch{ID: id, TaskARN: c.TaskARN, Outcome: state.Registered, CreatedAt: ago(time.Hour)})
	}
}

func phase(p state.ContainerPhase) func(*state.Container) {
	return func(c *state.Container) { c.Phase = p }
}

func cpu(load float64) func(*state.Container) {
	return func(c *state.Container) { c.Health.CPU = load }
}

func seen(before time.Duration) func(*state.Session) {
	return func(s *state.Session) { s.SeenAt = ago(before) }
}

func slots(ids ...string) func(*state.Container) {
	return func(c *state.Container) { c.Slots = ids }
}

func session(id string, p state.Phase, edits ...func(*state.Session)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		x := &state.Session{ID: id, Spec: []byte(`{"sessionId":"` + id + `","status":"pending"}`), UserID: "ann", Phase: p,
			SeenAt: ago(10 * time.Second), Deadline: now.Add(time.Hour)}
		if p != state.Pending {
			x.Container, x.BootID, x.BindRev, x.Attempts, x.BoundAt = "c1", "boot-c1", 7, 1, ago(5*time.Second)
		}
		for _, edit := range edits {
			edit(x)
		}
		s.Sessions = append(s.Sessions, x)
	}
}

func document(id, status string, edits ...func(*state.Document)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		d := &state.Document{ID: id, Text: []byte(`{}`), TTL: time.Hour, Spec: state.Spec{SessionID: id, UserID: "ann", Status: status}}
		for _, edit := range edits {
			edit(d)
		}
		s.Documents[id] = d
	}
}

func task(arn string, edit func(*state.Task)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		for i := range s.Tasks {
			if s.Tasks[i].ARN == arn {
				edit(&s.Tasks[i])
				return
			}
		}
		t := state.Task{ARN: arn, LastStatus: "RUNNING", DesiredStatus: "RUNNING"}
		edit(&t)
		s.Tasks = append(s.Tasks, t)
	}
}

func launch(id string, edit func(*state.Launch)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		l := &state.Launch{ID: id, CreatedAt: ago(time.Second)}
		edit(l)
		s.Launches = append(s.Launches, l)
	}
}

func gap(from, until time.Duration) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) { s.StoreGap = state.Gap{From: ago(from), Until: ago(until)} }
}

func unverified(c *state.Container) {
	c.Launch, c.TaskARN, c.Addr, c.SeenAt = c.ID, "", "", ago(10*time.Minute)
}

func stopped(t *state.Task) { t.LastStatus, t.DesiredStatus = "STOPPED", "STOPPED" }

var pool = state.Pool{Min: 0, Max: 10, MaxSessions: 4}

// brief writes a plan's actions down, one a line.
func brief(p plan.Plan) []string {
	out := []string{}
	for _, a := range p.Actions {
		line := string(a.Kind()) + " " + a.Subject()
		switch a := a.(type) {
		case plan.Bind:
			line += " " + a.Container
		case plan.End:
			line += fmt.Sprintf(" %s confirmed=%t", a.Reason, a.Confirmed)
		case plan.Project:
			line += " " + a.Status
		case plan.ResolveLaunch:
			line += " " + string(a.Outcome)
		}
		out = append(out, line)
	}
	return out
}

func TestMake(t *testing.T) {
	dedicated := pool
	dedicated.Dedicated = true
	spread := pool
	spread.Spread = true
	warm := pool
	warm.WarmSlots = 2
	atLeastTwo := pool
	atLeastTwo.Min = 2
	paused := pool
	paused.Paused = true

	tests := []struct {
		name  string
		world plan.Snapshot
		pool  state.Pool
		want  []string
		hold  plan.HoldKind // one of this kind must be there
	}{
		{name: "a quiet world needs nothing", world: world(container("c1")), want: []string{}},
		{name: "a pending document becomes a session", world: world(container("c1"), document("s1", "pending")),
			want: []string{"admit s1"}},
		{name: "a finished document without a session is left alone", world: world(document("s1", "terminated"), document("s2", "ended")),
			want: []string{}},
		{name: "a document without a status or a session is held", world: world(document("s1", "")), want: []string{}, hold: plan.HoldDocument},
		{name: "a poisoned document is held and the others go on",
			world: world(document("s1", "", func(d *state.Document) { d.Err = errors.New("not a JSON object") }), document("s2", "pending")),
			want:  []string{"admit s2"}, hold: plan.HoldDocument},

		{name: "a pending session is bound", world: world(container("c1"), session("s1", state.Pending)), want: []string{"bind s1 c1"}},
		{name: "the oldest session is bound first when one slot is left",
			world: world(container("c1", slots("a", "b", "c")),
				session("s1", state.Pending, func(s *state.Session) { s.SeenAt = ago(time.Second) }),
				session("s2", state.Pending, func(s *state.Session) { s.SeenAt = ago(time.Minute) })),
			want: []string{"bind s2 c1", "launch #1"}, hold: plan.HoldSession},
		{name: "sessions are packed onto the fullest container",
			world: world(container("c1"), container("c2", slots("a")), session("s1", state.Pending)), want: []string{"bind s1 c2"}},
		{name: "with spread they go to the emptiest", pool: spread,
			world: world(container("c1"), container("c2", slots("a")), session("s1", state.Pending)), want: []string{"bind s1 c1"}},
		{name: "the same user's container comes before the fullest",
			world: world(container("c1", slots("a")), container("c2", slots("b", "x")),
				session("a", state.Ready), session("s1", state.Pending)),
			want: []string{"bind s1 c1"}},
		{name: "a session stays off a container that failed it",
			world: world(container("c1"), container("c2"), session("s1", state.Pending, func(s *state.Session) { s.Excluded = []string{"c1"} })),
			want:  []string{"bind s1 c2"}},
		{name: "free slots that have failed a session do not keep it from a new container",
			world: world(container("c1"), session("s1", state.Pending, func(s *state.Session) { s.Excluded = []string{"c1"} })),
			want:  []string{"launch #1"}, hold: plan.HoldSession},
		{name: "nothing is bound to a container without room", world: world(container("c1", slots("a", "b", "c", "d")), session("s1", state.Pending)),
			want: []string{"launch #1"}, hold: plan.HoldSession},
		{name: "nothing is bound to a suspect container",
			world: world(container("c1", func(c *state.Container) { c.SeenAt = ago(16 * time.Second) }), session("s1", state.Pending)),
			want:  []string{"launch #1"}},
		{name: "silence while the store was out of reach is nobody's fault",
			world: world(container("c1", func(c *state.Container) { c.SeenAt = ago(70 * time.Second) }), session("s1", state.Pending), gap(62*time.Second, 2*time.Second)),
			want:  []string{"bind s1 c1"}},
		{name: "but who was silent before is suspect",
			world: world(container("c1", func(c *state.Container) { c.SeenAt = ago(80 * time.Second) }), session("s1", state.Pending), gap(62*time.Second, 2*time.Second)),
			want:  []string{"launch #1"}},
		{name: "and so is who stays silent",
			world: world(container("c1", func(c *state.Container) { c.SeenAt = ago(80 * time.Second) }), session("s1", state.Pending), gap(78*time.Second, 16*time.Second)),
			want:  []string{"launch #1"}},
		{name: "nothing is bound to a container above 90 % CPU",
			world: world(container("c1", cpu(0.95)), session("s1", state.Pending, seen(4*time.Second))),
			want:  []string{"launch #1"}},
		{name: "unless there was no other room for 5 s; then it is the least busy",
			world: world(container("c1", cpu(0.99)), container("c2", cpu(0.95)), session("s1", state.Pending, seen(6*time.Second))),
			want:  []string{"bind s1 c2"}},
		{name: "and a calm one is better all the same",
			world: world(container("c1", cpu(0.95)), container("c2", slots("a", "b", "c")), session("s1", state.Pending, seen(6*time.Second)), session("s2", state.Pending, seen(6*time.Second))),
			want:  []string{"bind s1 c2", "bind s2 c1"}},
		{name: "those who have waited are shared out among the busy, and none is overfull",
			world: world(container("c1", slots("a", "b", "c"), cpu(0.95)), container("c2", slots("d", "e", "f"), cpu(0.99)),
				session("s1", state.Pending, seen(8*time.Second)), session("s2", state.Pending, seen(7*time.Second)), session("s3", state.Pending, seen(6*time.Second))),
			want: []string{"bind s1 c1", "bind s2 c2", "launch #1"}, hold: plan.HoldSession},
		{name: "nothing is bound to a container above 90 % memory",
			world: world(container("c1", func(c *state.Container) { c.Health.Memory = 0.95 }), session("s1", state.Pending)),
			want:  []string{"launch #1"}},
		{name: "nothing is bound to an unverified container, but it counts as coming",
			world: world(container("c1", phase(state.PendingVerification), func(c *state.Container) { c.RegisteredAt = ago(time.Second) }), session("s1", state.Pending)),
			want:  []string{}, hold: plan.HoldSession},
		{name: "a dedicated container takes one user only", pool: dedicated,
			world: world(container("c1", slots("a"), func(c *state.Container) { c.Tenant = "bob" }), session("s1", state.Pending)),
			want:  []string{"launch #1"}},
		{name: "a dedicated container takes its own user again", pool: dedicated,
			world: world(container("c1", slots("a"), func(c *state.Container) { c.Tenant = "ann" }), session("s1", state.Pending)),
			want:  []string{"bind s1 c1"}},
		{name: "a dedicated container is retired after its last session", pool: dedicated,
			world: world(container("c1", func(c *state.Container) { c.Tenant = "ann" }),
				func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Second) }),
			want: []string{"drain c1"}},
		{name: "also while others wait, in whose way it is at the maximum", pool: state.Pool{Max: 1, MaxSessions: 4, Dedicated: true},
			world: world(container("c1", func(c *state.Container) { c.Tenant, c.Served = "bob", "=bob" }), session("s1", state.Pending),
				func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Second) }),
			want: []string{"drain c1"}, hold: plan.HoldSession},
		{name: "when tenancy has become shared, what is another's own is not bound to, and makes way once it is empty",
			world: world(container("c1", func(c *state.Container) { c.Tenant, c.Served = "bob", "=bob" }),
				container("c2", slots("b"), func(c *state.Container) { c.Tenant, c.Served = "bob", "=bob" }), session("s1", state.Pending),
				func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Second) }),
			want: []string{"launch #1", "drain c1"}},
		{name: "its room is no reserve for others", pool: state.Pool{Max: 10, MaxSessions: 4, WarmSlots: 1},
			world: world(container("c1", slots("a"), func(c *state.Container) { c.Tenant, c.Served = "bob", "=bob" })),
			want:  []string{"launch #1"}},
		{name: "but its own user is still served there",
			world: world(container("c1", slots("a"), func(c *state.Container) { c.Tenant, c.Served = "ann", "=ann" }), session("s1", state.Pending)),
			want:  []string{"bind s1 c1"}},
		{name: "and it is not opened again for others",
			world: world(container("c1", slots("a"), phase(state.Draining), func(c *state.Container) { c.Tenant, c.Served, c.DrainSeq = "bob", "=bob", 1 }), session("s1", state.Pending)),
			want:  []string{"launch #1"}},
		{name: "when containers have become one user's own, what has served others is not bound to, and makes way once it is empty", pool: dedicated,
			world: world(container("c1", func(c *state.Container) { c.Served = "*" }), container("c2", func(c *state.Container) { c.Served = "=bob" }), session("s1", state.Pending),
				func(s *plan.Snapshot) { s.EmptySince["c1"], s.EmptySince["c2"] = ago(time.Second), ago(time.Second) }),
			want: []string{"launch #1", "drain c1", "drain c2"}},
		{name: "but what has served its user alone may become that user's own", pool: dedicated,
			world: world(container("c1", func(c *state.Container) { c.Served = "=ann" }), session("s1", state.Pending)),
			want:  []string{"bind s1 c1"}},

		{name: "demand without containers launches one", world: world(session("s1", state.Pending)), want: []string{"launch #1"}},
		{name: "five sessions of four slots launch two",
			world: world(session("s1", state.Pending), session("s2", state.Pending), session("s3", state.Pending),
				session("s4", state.Pending), session("s5", state.Pending)),
			want: []string{"launch #1", "launch #2"}},
		{name: "a launch in flight is counted, and run", world: world(session("s1", state.Pending), launch("l1", func(*state.Launch) {})),
			want: []string{"run l1"}},
		{name: "a started launch is waited for",
			world: world(session("s1", state.Pending), launch("l1", func(l *state.Launch) { l.Outcome, l.TaskARN = state.Started, "arn:l1" })),
			want:  []string{}},
		{name: "the warm reserve is launched without demand", pool: warm, world: world(container("c1", slots("a", "b", "c"))),
			want: []string{"launch #1"}},
		{name: "the minimum is kept", pool: atLeastTwo, world: world(container("c1")), want: []string{"launch #1"}},
		{name: "the maximum is never passed", pool: state.Pool{Max: 1, MaxSessions: 4},
			world: world(container("c1", slots("a", "b", "c", "d")), session("s1", state.Pending)), want: []string{}, hold: plan.HoldSession},
		{name: "a draining container counts against the maximum until it is gone", pool: state.Pool{Max: 1, MaxSessions: 4},
			world: world(container("c1", phase(state.Stopping)), session("s1", state.Pending), task("arn:c1", func(t *state.Task) { t.DesiredStatus = "STOPPED" })),
			want:  []string{}},
		{name: "a paused pool launches nothing", pool: paused, world: world(session("s1", state.Pending)), want: []string{}, hold: plan.HoldLaunch},
		{name: "a pool that refuses what is launched launches nothing",
			world: func() plan.Snapshot {
				w := world(session("s1", state.Pending))
				w.LaunchTrouble = "the last 2 containers speak another version of the link"
				return w
			}(), want: []string{}, hold: plan.HoldLaunch},
		{name: "a failed launch is followed after a pause",
			world: world(session("s1", state.Pending), launch("l1", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Refused, ago(2*time.Second) })),
			want:  []string{"launch #1"}},
		{name: "after many failures the pause is longer",
			world: world(session("s1", state.Pending),
				launch("l1", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Expired, ago(40*time.Second) }),
				launch("l2", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Expired, ago(30*time.Second) }),
				launch("l3", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Refused, ago(2*time.Second) })),
			want: []string{}, hold: plan.HoldLaunch},
		{name: "demand opens a draining container before it launches another",
			world: world(container("c1", phase(state.Draining)), session("s1", state.Pending)), want: []string{"undrain c1"}},
		{name: "a container that is closing by itself is not opened again",
			world: world(container("c1", phase(state.Draining), func(c *state.Container) { c.Closing, c.DrainSeq = true, 1 }), session("s1", state.Pending)),
			want:  []string{"launch #1"}},

		{name: "an idle container above the minimum is drained after a while",
			world: world(container("c1"), func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(3 * time.Minute) }),
			want:  []string{"drain c1"}},
		{name: "not one to which a session is bound that its own record does not show yet",
			world: world(container("c1"), session("s1", state.Bound), func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(3 * time.Minute) }),
			want:  []string{}},
		{name: "a container that we did not launch is left open, however long it is empty",
			world: world(container("c1"), func(s *plan.Snapshot) {
				s.Containers[0].TaskARN, s.Tasks, s.Launches = "", nil, nil
				s.EmptySince["c1"] = ago(time.Hour)
			}), want: []string{}},
		{name: "not before it has been idle long enough",
			world: world(container("c1"), func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Minute) }), want: []string{}},
		{name: "not while it is the minimum", pool: state.Pool{Min: 1, Max: 10, MaxSessions: 4},
			world: world(container("c1"), func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Hour) }), want: []string{}},
		{name: "not while its slots are the warm reserve", pool: warm,
			world: world(container("c1"), func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Hour) }), want: []string{}},
		{name: "the minimum is kept by those that serve, not by those that start", pool: state.Pool{Min: 1, Max: 10, MaxSessions: 4},
			world: world(container("c1"), container("c2", phase(state.PendingVerification), func(c *state.Container) { c.RegisteredAt = ago(time.Second) }),
				func(s *plan.Snapshot) { s.EmptySince["c1"] = ago(time.Hour) }),
			want: []string{}},
		{name: "a container that was never verified is gone with the task of its launch",
			world: world(container("c1", phase(state.Stopping), unverified), task("arn:c1", stopped)),
			want:  []string{"mark_gone c1"}},
		{name: "one whose task nobody has learnt of is gone when it is silent and ECS has none of it",
			world: world(container("c1", phase(state.Stopping), unverified), func(s *plan.Snapshot) { s.Tasks, s.Launches = nil, nil }),
			want:  []string{"mark_gone c1"}},
		{name: "but not while it speaks",
			world: world(container("c1", phase(state.Stopping), unverified, func(c *state.Container) { c.SeenAt = ago(time.Second) }),
				func(s *plan.Snapshot) { s.Tasks, s.Launches = nil, nil }),
			want: []string{}},
		{name: "not right after a launch",
			world: world(container("c1"), container("c2", func(c *state.Container) { c.RegisteredAt = ago(time.Second) }),
				func(s *plan.Snapshot) {
					s.EmptySince["c1"] = ago(time.Hour)
					s.Launches[1].CreatedAt = ago(time.Minute)
				}),
			want: []string{}},
		{name: "a busy container is never drained", world: world(container("c1", slots("a")), session("a", state.Ready)), want: []string{}},
		{name: "an acknowledged, empty drain begins to stop",
			world: world(container("c1", phase(state.Draining), func(c *state.Container) { c.DrainSeq, c.DrainAck = 1, 1 })),
			want:  []string{"begin_stop c1"}},
		{name: "an unacknowledged drain does not",
			world: world(container("c1", phase(state.Draining), func(c *state.Container) { c.DrainSeq, c.DrainAck = 2, 1 })), want: []string{}},
		{name: "nor one with a slot taken",
			world: world(container("c1", phase(state.Draining), slots("a"), func(c *state.Container) { c.DrainSeq, c.DrainAck = 1, 1 })), want: []string{}},
		{name: "a stopping container's task is stopped", world: world(container("c1", phase(state.Stopping))), want: []string{"stop_task arn:c1"}},
		{name: "but not twice",
			world: world(container("c1", phase(state.Stopping)), task("arn:c1", func(t *state.Task) { t.DesiredStatus = "STOPPED" })), want: []string{}},
		{name: "a stopped task means that the container is gone",
			world: world(container("c1"), task("arn:c1", stopped)), want: []string{"mark_gone c1"}},
		{name: "a task absent from listings for long means it too",
			world: world(container("c1", func(c *state.Container) { c.SeenAt = ago(time.Minute) }),
				func(s *plan.Snapshot) { s.Tasks = nil; s.AbsentSince["arn:c1"] = ago(2 * time.Minute) }),
			want: []string{"mark_gone c1"}},
		{name: "unless the container reports all the same",
			world: world(container("c1"), func(s *plan.Snapshot) { s.Tasks = nil; s.AbsentSince["arn:c1"] = ago(2 * time.Minute) }),
			want:  []string{}},
		{name: "a task absent for a moment does not",
			world: world(container("c1"), func(s *plan.Snapshot) { s.Tasks = nil; s.AbsentSince["arn:c1"] = ago(30 * time.Second) }), want: []string{}},

		{name: "a stale view of ECS destroys nothing",
			world: world(container("c1", phase(state.Stopping)), func(s *plan.Snapshot) { s.TasksAt = ago(2 * time.Minute) }),
			want:  []string{}, hold: plan.HoldDestruction},
		{name: "a stale view of the store destroys nothing, but binding goes on",
			world: world(container("c1", phase(state.Stopping)), container("c2"), session("s1", state.Pending), func(s *plan.Snapshot) { s.StoreAge = time.Minute }),
			want:  []string{"bind s1 c2"}, hold: plan.HoldDestruction},
		{name: "half of the heartbeats missing destroys nothing",
			world: world(container("c1", phase(state.Stopping)),
				container("c2", func(c *state.Container) { c.SeenAt = ago(time.Minute) }), container("c3", func(c *state.Container) { c.SeenAt = ago(time.Minute) }),
				container("c4", func(c *state.Container) { c.SeenAt = ago(time.Minute) }), container("c5")),
			want: []string{}, hold: plan.HoldDestruction},
		{name: "a wiped store holds everything",
			world: world(container("c1", phase(state.Stopping)), session("s1", state.Pending), document("s2", "pending"), func(s *plan.Snapshot) { s.StoreTrouble = "store was wiped" }),
			want:  []string{}, hold: plan.HoldBinding},

		{name: "a final wish ends a session", world: world(container("c1", slots("s1")), session("s1", state.Ready), document("s1", "terminated")),
			want: []string{"end s1 released confirmed=false"}},
		{name: "a final wish ends a pending session at once", world: world(container("c1"), session("s1", state.Pending), document("s1", "cleaned")),
			want: []string{"end s1 released confirmed=false"}},
		{name: "a deadline ends a session",
			world: world(container("c1", slots("s1")), session("s1", state.Ready, func(s *state.Session) { s.Deadline = ago(time.Millisecond) })),
			want:  []string{"end s1 deadline confirmed=false"}},
		{name: "a document lost before the deadline is written again",
			world: world(container("c1", slots("s1")), session("s1", state.Ready), document("s1", "", func(d *state.Document) { d.Missing = true })),
			want:  []string{"restore s1"}},
		{name: "a document that went while nobody watched was a wish",
			world: world(container("c1", slots("s1")), session("s1", state.Ready), document("s1", "", func(d *state.Document) { d.Missing = true }),
				func(s *plan.Snapshot) { s.Unseen = map[string]time.Duration{"s1": 5 * time.Minute} }),
			want: []string{"end s1 released confirmed=false"}},
		{name: "a document that went under somebody's eyes was lost, however old the listings are",
			world: world(container("c1", slots("s1")), session("s1", state.Ready), document("s1", "", func(d *state.Document) { d.Missing = true }),
				func(s *plan.Snapshot) {
					s.DocumentsAt, s.Unseen = ago(5*time.Minute), map[string]time.Duration{"s1": time.Minute}
				}),
			want: []string{"restore s1"}},
		{name: "ready is shown in the document", world: world(container("c1", slots("s1")), session("s1", state.Ready), document("s1", "pending")),
			want: []string{"project s1 ready"}},
		{name: "the end is shown in the document", world: world(session("s1", state.Ended), document("s1", "ready")), want: []string{"project s1 ended"}},
		{name: "but never over a final wish", world: world(session("s1", state.Ended), document("s1", "terminated")), want: []string{}},
		{name: "an edited document amends its session",
			world: world(container("c1", slots("s1")), session("s1", state.Ready), document("s1", "ready"), func(s *plan.Snapshot) { s.Edited["s1"] = true }),
			want:  []string{"amend s1"}},
		{name: "a session refused by its container goes back",
			world: world(container("c1"), session("s1", state.Bound, func(s *state.Session) { s.Refused = "at capacity" })), want: []string{"unbind s1"}},
		{name: "a session without a browser after 30 s goes back",
			world: world(container("c1", slots("s1")), session("s1", state.Bound, func(s *state.Session) { s.BoundAt = ago(31 * time.Second) })), want: []string{"unbind s1"}},
		{name: "after the third attempt it has failed",
			world: world(container("c1", slots("s1")), session("s1", state.Bound, func(s *state.Session) { s.Refused, s.Attempts = "at capacity", 3 })),
			want:  []string{"end s1 failed confirmed=false"}},
		{name: "a bound session of a gone container goes back", world: world(container("c1", phase(state.Gone)), session("s1", state.Bound)),
			want: []string{"unbind s1"}},
		{name: "a ready session of a gone container is lost", world: world(container("c1", phase(state.Gone)), session("s1", state.Ready)),
			want: []string{"end s1 container_lost confirmed=true"}},
		{name: "a ready session of a container that somebody else stopped says so",
			world: world(container("c1", phase(state.Gone)), session("s1", state.Ready), task("arn:c1", func(t *state.Task) { stopped(t); t.StopCode = state.StopCodeUser })),
			want:  []string{"end s1 stopped_externally confirmed=true", "forget_launch c1"}},
		{name: "a ready session of another life is lost",
			world: world(container("c1", func(c *state.Container) { c.BootID = "other" }), session("s1", state.Ready)),
			want:  []string{"end s1 container_lost confirmed=true"}},
		{name: "a session whose container is not in a stale view is kept",
			world: world(session("s1", state.Ready), func(s *plan.Snapshot) { s.TasksAt = time.Time{} }), want: []string{}, hold: plan.HoldDestruction},
		{name: "an ending session of a gone container has ended",
			world: world(container("c1", phase(state.Gone)), session("s1", state.Ending)), want: []string{"end s1 container_lost confirmed=true"}},
		{name: "a session that waited too long has failed",
			world: world(session("s1", state.Pending, func(s *state.Session) { s.Waited = 6 * time.Minute })), want: []string{"end s1 failed confirmed=false"}},

		{name: "a launch whose container registered is resolved",
			world: world(container("c1"), func(s *plan.Snapshot) { s.Launches[0].Outcome = state.Started }), want: []string{"resolve_launch c1 registered"}},
		{name: "a launch whose task died is expired",
			world: world(launch("l1", func(l *state.Launch) { l.Outcome, l.TaskARN = state.Started, "arn:l1" }), task("arn:l1", stopped)),
			want:  []string{"resolve_launch l1 expired"}},
		{name: "a launch that never registers is expired",
			world: world(launch("l1", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Started, ago(3*time.Minute) })),
			want:  []string{"resolve_launch l1 expired"}},
		{name: "an expired launch's task is stopped, also if its answer was lost",
			world: world(launch("l1", func(l *state.Launch) { l.Outcome = state.Expired }), task("arn:x", func(t *state.Task) { t.ContainerID = "l1" })),
			want:  []string{"stop_task arn:x"}},
		{name: "a launch that was refused and whose task came up after all is expired if that never registers",
			world: world(launch("l1", func(l *state.Launch) {
				l.Outcome, l.Cause, l.CreatedAt = state.Refused, state.NoCapacity, ago(time.Hour)
			}),
				task("arn:x", func(t *state.Task) { t.ContainerID, t.CreatedAt = "l1", ago(10*time.Minute) })),
			want: []string{"resolve_launch l1 expired"}},
		{name: "it may register until its deadline",
			world: world(launch("l1", func(l *state.Launch) {
				l.Outcome, l.Cause, l.CreatedAt = state.Refused, state.NoCapacity, ago(time.Hour)
			}),
				task("arn:x", func(t *state.Task) { t.ContainerID, t.CreatedAt = "l1", ago(time.Minute) })),
			want: []string{}},
		{name: "an old failed launch is forgotten",
			world: world(launch("l1", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Refused, ago(time.Hour) })), want: []string{"forget_launch l1"}},
		{name: "a task without any record is told of and never stopped: the store may have lost its container",
			world: world(task("arn:x", func(t *state.Task) { t.ContainerID, t.CreatedAt, t.StartedAt = "x", ago(time.Hour), ago(time.Hour) })),
			want:  []string{}, hold: plan.HoldTask},
		{name: "a container that registers for ever and is never reached is stopped, and another is launched",
			world: world(container("c1", phase(state.PendingVerification), func(c *state.Container) { c.Addr = "" }), session("s1", state.Pending),
				func(s *plan.Snapshot) { s.Launches[0].Outcome = state.Started }),
			want: []string{"launch #1", "begin_stop c1"}},
		{name: "its launch counts as failed", world: world(container("c1", phase(state.Stopping)), func(s *plan.Snapshot) { s.Launches[0].Outcome = state.Started }),
			want: []string{"resolve_launch c1 expired", "stop_task arn:c1"}},
		{name: "a silent container is told of", world: world(container("c1", func(c *state.Container) { c.SeenAt = ago(time.Minute) })),
			want: []string{}, hold: plan.HoldContainer},
		{name: "at the maximum, demand still opens a draining container", pool: state.Pool{Max: 1, MaxSessions: 4},
			world: world(container("c1", phase(state.Draining), func(c *state.Container) { c.DrainSeq, c.DrainAck = 1, 1 }), session("s1", state.Pending)),
			want:  []string{"undrain c1"}},
		{name: "one drain at a time, and never below the minimum", pool: state.Pool{Min: 2, Max: 10, MaxSessions: 4},
			world: world(container("c1", phase(state.Draining), func(c *state.Container) { c.DrainSeq = 1 }), container("c2"), container("c3"),
				func(s *plan.Snapshot) { s.EmptySince["c2"], s.EmptySince["c3"] = ago(time.Hour), ago(time.Hour) }),
			want: []string{}},
		{name: "after a failure launches are tried one by one",
			world: world(session("s1", state.Pending), session("s2", state.Pending), session("s3", state.Pending), session("s4", state.Pending), session("s5", state.Pending),
				launch("l1", func(l *state.Launch) { l.Outcome, l.CreatedAt = state.Refused, ago(2*time.Second) })),
			want: []string{"launch #1"}, hold: plan.HoldLaunch},
		{name: "a young task without a record is left alone",
			world: world(task("arn:x", func(t *state.Task) { t.ContainerID, t.CreatedAt, t.StartedAt = "x", ago(time.Minute), ago(time.Minute) })),
			want:  []string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := test.pool
			if p == (state.Pool{}) {
				p = pool
			}
			got := plan.Make(test.world, plan.Policy{Pool: p})
			if diff := cmp.Diff(test.want, brief(got)); diff != "" {
				t.Errorf("actions (-want +got):\n%s\nholds: %v", diff, got.Holds)
			}
			if test.hold != "" && !slices.ContainsFunc(got.Holds, func(h plan.Hold) bool { return h.What == test.hold }) {
				t.Errorf("no hold of kind %s in %v", test.hold, got.Holds)
			}
			for _, a := range got.Actions {
				if strings.TrimSpace(a.Because()) == "" && a.Kind() != plan.KindEnd {
					t.Errorf("%s %s gives no reason", a.Kind(), a.Subject())
				}
				if !slices.Contains(plan.Kinds(), a.Kind()) {
					t.Errorf("kind %s is not listed", a.Kind())
				}
			}
		})
	}
}

// crowd is a random busy world.
func crowd(r *rand.Rand, containers, sessions int) plan.Snapshot {
	s := world()
	for i := range containers {
		id := fmt.Sprintf("c%04d", i)
		container(id, func(c *state.Container) {
			c.MaxSessions = 1 + r.IntN(20)
			c.Health.CPU = r.Float64()
			if r.IntN(10) == 0 {
				c.Phase = state.Draining
			}
			if r.IntN(20) == 0 {
				c.SeenAt = ago(time.Minute)
			}
		})(&s)
		if r.IntN(3) == 0 {
			s.EmptySince[id] = ago(time.Duration(r.IntN(300)) * time.Second)
		}
	}
	for i := range sessions {
		id := fmt.Sprintf("s%05d", i)
		bound := r.IntN(2) == 0 && containers > 0
		session(id, state.Pending, func(x *state.Session) {
			x.UserID = fmt.Sprintf("u%d", r.IntN(50))
			x.SeenAt = ago(time.Duration(r.IntN(10)) * time.Second)
			if !bound {
				return
			}
			c := s.Containers[r.IntN(containers)]
			if c.Free() == 0 {
				return
			}
			c.Slots = append(c.Slots, id)
			x.Phase, x.Container, x.BootID, x.Attempts = state.Ready, c.ID, c.BootID, 1
		})(&s)
	}
	return s
}

func shuffled[T any](r *rand.Rand, in []T) []T {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestTheSameWorldInAnotherOrderGivesTheSamePlan(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := crowd(r, 10+r.IntN(20), 100)
		want := plan.Make(s, plan.Policy{Pool: pool})
		s.Sessions, s.Containers = shuffled(r, s.Sessions), shuffled(r, s.Containers)
		s.Launches, s.Tasks = shuffled(r, s.Launches), shuffled(r, s.Tasks)
		if diff := cmp.Diff(brief(want), brief(plan.Make(s, plan.Policy{Pool: pool}))); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func TestBindingsKeepTheRules(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := crowd(r, r.IntN(30), 150)
		p := pool
		p.Spread, p.Dedicated = r.IntN(2) == 0, r.IntN(2) == 0
		got := plan.Make(s, plan.Policy{Pool: p})

		used, by := map[string]int{}, map[string]*state.Container{}
		users := map[string]map[string]bool{}
		for _, c := range s.Containers {
			used[c.ID], by[c.ID], users[c.ID] = c.Used(), c, map[string]bool{}
		}
		sessions, bound := map[string]*state.Session{}, map[string]bool{}
		for _, x := range s.Sessions {
			sessions[x.ID] = x
		}
		launches := 0
		for _, a := range got.Actions {
			switch a := a.(type) {
			case plan.Bind:
				c := by[a.Container]
				used[a.Container]++
				users[a.Container][sessions[a.ID].UserID] = true
				switch {
				case bound[a.ID]:
					t.Fatalf("seed %d: %s is bound twice", seed, a.ID)
				case used[a.Container] > c.MaxSessions:
					t.Fatalf("seed %d: %s is overfull", seed, a.Container)
				case c.Phase != state.ContainerReady || c.Health.CPU > 0.9 && !sessions[a.ID].SeenAt.Before(ago(5*time.Second)) || c.SeenAt.Before(ago(15*time.Second)):
					t.Fatalf("seed %d: bound to %+v", seed, c)
				case p.Dedicated && (len(users[a.Container]) > 1 || c.Used() > 0):
					t.Fatalf("seed %d: %s serves %v and had %d sessions", seed, a.Container, users[a.Container], c.Used())
				}
				bound[a.ID] = true
			case plan.Launch:
				launches++
			case plan.Drain:
				if used[a.ID] > 0 {
					t.Fatalf("seed %d: drains %s with %d sessions", seed, a.ID, used[a.ID])
				}
			}
		}
		if launches > 0 && launches+len(s.Containers) > p.Max {
			t.Fatalf("seed %d: %d launches beside %d containers pass the maximum", seed, launches, len(s.Containers))
		}
		if p.Dedicated {
			continue
		}
		// Nobody waits while a slot is free.
		for _, x := range s.Sessions {
			if x.Phase != state.Pending || bound[x.ID] {
				continue
			}
			for _, c := range s.Containers {
				calm := c.Health.CPU <= 0.9 || x.SeenAt.Before(ago(5*time.Second))
				if c.Phase == state.ContainerReady && calm && !c.SeenAt.Before(ago(15*time.Second)) && used[c.ID] < c.MaxSessions {
					t.Fatalf("seed %d: %s waits while %s has room", seed, x.ID, c.ID)
				}
			}
		}
	}
}

func BenchmarkMake(b *testing.B) {
	for _, size := range []struct {
		name                 string
		containers, sessions int
	}{{"20000x1000", 1000, 20000}} {
		s := crowd(rand.New(rand.NewPCG(1, 1)), size.containers, size.sessions)
		for _, x := range s.Sessions {
			document(x.ID, string(x.Phase))(&s)
		}
		p := plan.Policy{Pool: state.Pool{Max: 2000, MaxSessions: 20}}
		b.Run(size.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plan.Make(s, p)
			}
		})
		for _, x := range s.Sessions {
			if x.Phase == state.Pending {
				x.Phase = state.Ended
			}
		}
		b.Run(size.name+"-idle", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plan.Make(s, p)
			}
		})
	}
}

// BenchmarkBind places 20,000 waiting sessions in 1,000 empty containers at once.
func BenchmarkBind(b *testing.B) {
	const containers, sessions = 1000, 20000
	s := crowd(rand.New(rand.NewPCG(1, 1)), containers, 0)
	for i := range sessions {
		x := &state.Session{ID: fmt.Sprintf("ses_%d", i), UserID: fmt.Sprintf("user_%d", i%2000), Phase: state.Pending,
			SeenAt: s.Now, Deadline: s.Now.Add(time.Hour)}
		s.Sessions = append(s.Sessions, x)
		document(x.ID, string(x.Phase))(&s)
	}
	p := plan.Policy{Pool: state.Pool{Max: 2000, MaxSessions: 20}}
	binds := 0
	for b.Loop() {
		binds = 0
		for _, a := range plan.Make(s, p).Actions {
			if a.Kind() == plan.KindBind {
				binds++
			}
		}
	}
	if binds == 0 {
		b.Fatal("nothing was bound")
	}
	b.ReportMetric(float64(binds)*float64(b.N)/b.Elapsed().Seconds(), "binds/s")
}

func TestAdmissionCountsFromTheReading(t *testing.T) {
	read := func(age time.Duration) plan.Snapshot {
		return world(document("s1", "pending", func(d *state.Document) { d.TTL = time.Minute }),
			func(s *plan.Snapshot) { s.Found = map[string]time.Time{"s1": ago(age)} })
	}
	for _, a := range plan.Make(read(20*time.Second), plan.Policy{}).Actions {
		if admit, ok := a.(plan.Admit); ok && admit.Remaining != 40*time.Second {
			t.Errorf("%s remain, read 20 s ago with a minute to go", admit.Remaining)
		}
	}
	for _, a := range plan.Make(read(time.Minute), plan.Policy{}).Actions {
		t.Errorf("%v of a document that has run out since", a)
	}
}

// A container that is retired does not count among those that keep up the minimum.
func TestRetiringKeepsTheMinimum(t *testing.T) {
	s := world(container("c1", func(c *state.Container) { c.Tenant = "u" }), container("c2"), func(s *plan.Snapshot) {
		s.EmptySince["c1"], s.EmptySince["c2"] = ago(time.Hour), ago(time.Hour)
	})
	var drained []string
	for _, a := range plan.Make(s, plan.Policy{Pool: state.Pool{Min: 1, Max: 4, MaxSessions: 4, Dedicated: true}}).Actions {
		if a.Kind() == plan.KindDrain {
			drained = append(drained, a.Subject())
		}
	}
	if !slices.Equal(drained, []string{"c1"}) {
		t.Errorf("drained %v, c1 has served its one user and one is to stay", drained)
	}
}

// A container that this plan finds gone does not count among those that keep up the minimum.
func TestALossKeepsTheMinimum(t *testing.T) {
	s := world(container("c1"), container("c2"), container("c3"), func(s *plan.Snapshot) {
		s.EmptySince["c2"], s.EmptySince["c3"] = ago(time.Hour), ago(time.Hour)
	})
	stopped(&s.Tasks[0])
	for _, a := range plan.Make(s, plan.Policy{Pool: state.Pool{Min: 2, Max: 4, MaxSessions: 4}}).Actions {
		if a.Kind() == plan.KindDrain {
			t.Errorf("drained %s, which leaves one of at least two", a.Subject())
		}
	}
}

// Beyond the maximum those leave that serve and are not needed, but a start, which may fail, keeps
// up no minimum there either.
func TestTheMaximumKeepsTheMinimum(t *testing.T) {
	started := func(l *state.Launch) {
		l.Outcome, l.TaskARN, l.CreatedAt = state.Started, "arn:"+l.ID, ago(time.Minute)
	}
	idle := func(s *plan.Snapshot) {
		for i, c := range s.Containers {
			s.EmptySince[c.ID] = ago(time.Hour - time.Duration(i)*time.Second)
		}
	}
	for _, test := range []struct {
		name  string
		world plan.Snapshot
		want  []string
	}{
		{"two serve, two start", world(container("c1"), container("c2"), launch("l1", started), launch("l2", started), idle), nil},
		{"three serve, one starts", world(container("c1"), container("c2"), container("c3"), launch("l1", started), idle), []string{"c1"}},
	} {
		var drained []string
		for _, a := range plan.Make(test.world, plan.Policy{Pool: state.Pool{Min: 2, Max: 3, MaxSessions: 4, WarmSlots: 16}, ScaleDownHold: time.Second}).Actions {
			if a.Kind() == plan.KindDrain {
				drained = append(drained, a.Subject())
			}
		}
		if !slices.Equal(drained, test.want) {
			t.Errorf("%s, of 2 to 3: drained %v, want %v", test.name, drained, test.want)
		}
	}
}
