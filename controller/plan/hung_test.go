package plan_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

func silentFor(d time.Duration) func(*state.Container) {
	return func(c *state.Container) { c.SeenAt = ago(d) }
}

func replica(id string, unheard time.Duration) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		s.Replicas = append(s.Replicas, state.Replica{ID: id, Addr: "10.0.1.1:8080", SeenAt: ago(unheard)})
	}
}

// testimony is what replica says of a container by default: it was asked in vain for a minute,
// and nothing has come of it for as long.
func testimony(container, replica string, edits ...func(*state.Testimony)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		t := state.Testimony{Container: container, BootID: "boot-" + container, Replica: replica,
			Silent: 55 * time.Second, Quiet: 70 * time.Second, At: ago(2 * time.Second)}
		for _, edit := range edits {
			edit(&t)
		}
		s.Testimonies = append(s.Testimonies, t)
	}
}

// hanging is a fleet of four of which c1, with two sessions, hangs in every respect.
func hanging(edits ...func(*plan.Snapshot)) plan.Snapshot {
	return world(append([]func(*plan.Snapshot){
		container("c1", silentFor(61*time.Second), slots("ready", "bound")), container("c2"), container("c3"), container("c4"),
		session("ready", state.Ready), session("bound", state.Bound),
		replica("r1", time.Second), replica("r2", time.Second),
		testimony("c1", "r1"), testimony("c1", "r2"),
	}, edits...)...)
}

// change edits a container that is there.
func change(id string, edit func(*state.Container)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		for _, c := range s.Containers {
			if c.ID == id {
				edit(c)
			}
		}
	}
}

func said(replica string, edit func(*state.Testimony)) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		for i := range s.Testimonies {
			if s.Testimonies[i].Replica == replica {
				edit(&s.Testimonies[i])
			}
		}
	}
}

// big is a fleet of n that does well, beside.
func big(n int) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		for i := range n {
			container(fmt.Sprintf("well-%03d", i))(s)
		}
	}
}

func alsoHanging(id string) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		container(id, silentFor(90*time.Second))(s)
		testimony(id, "r1")(s)
		testimony(id, "r2")(s)
	}
}

func TestAContainerThatHangsIsGivenUpOnTheWordOfAll(t *testing.T) {
	tests := []struct {
		name  string
		world plan.Snapshot
		give  []string // containers that are given up
		waits string   // part of what is told of c1 otherwise
	}{
		{name: "silent to its owner, to ECS's surprise, to every replica and every client", world: hanging(), give: []string{"c1"}},
		{name: "one that is draining, too", world: hanging(change("c1", phase(state.Draining))), give: []string{"c1"}},
		{name: "one replica is all there is", world: hanging(func(s *plan.Snapshot) { s.Replicas = s.Replicas[:1] }), give: []string{"c1"}},

		{name: "it has reported 50 s ago", world: hanging(change("c1", silentFor(50*time.Second))), waits: "given up in 10s at the earliest"},
		{name: "it has reported just now", world: hanging(change("c1", silentFor(time.Second)))},
		{name: "it could not report before, for want of the store", world: hanging(gap(90*time.Second, 30*time.Second)), waits: "in 30s at the earliest"},
		{name: "the store has forgotten when it last reported", waits: "in 30s at the earliest",
			world: hanging(func(s *plan.Snapshot) {
				s.Filling = state.Filling{Incarnation: "i", LostAt: ago(30 * time.Second), Whole: true}
			})},
		{name: "it answers a replica", world: hanging(said("r2", func(t *state.Testimony) { t.Silent = 0 })), waits: "it answers replica r2"},
		{name: "it was asked in vain for a moment only", world: hanging(said("r2", func(t *state.Testimony) { t.Silent = 20 * time.Second })), waits: "in vain for 20s only"},
		{name: "it still serves a client", world: hanging(said("r1", func(t *state.Testimony) { t.Quiet = 3 * time.Second })), waits: "served a client through replica r1 3s ago"},
		{name: "a replica that has not spoken", world: hanging(replica("r3", time.Second)), waits: "replica r3 has not said"},
		{name: "what it said is old", world: hanging(said("r2", func(t *state.Testimony) { t.At = ago(20 * time.Second) })), waits: "replica r2 has not said"},
		{name: "it spoke of another life", world: hanging(said("r2", func(t *state.Testimony) { t.BootID = "before" })), waits: "replica r2 has not said"},
		{name: "a replica that is not heard for a minute may serve its clients", world: hanging(replica("r3", time.Minute)), waits: "replica r3 is not heard for 1m0s"},
		{name: "one that is not heard for long is dead", world: hanging(replica("r3", 6*time.Minute)), give: []string{"c1"}},
		{name: "nobody was asked", world: hanging(func(s *plan.Snapshot) { s.Replicas, s.Testimonies = nil, nil }), waits: "no replica has said"},
		{name: "ECS is not listed", world: hanging(func(s *plan.Snapshot) { s.TasksAt = time.Time{} }), waits: "not whole"},
		{name: "ECS was listed long ago", world: hanging(func(s *plan.Snapshot) { s.TasksAt = ago(2 * time.Minute) }), waits: "not whole"},
		{name: "the store was read long ago", world: hanging(func(s *plan.Snapshot) { s.StoreAge = 16 * time.Second }), waits: "not whole"},
		{name: "the store is being rebuilt", world: hanging(func(s *plan.Snapshot) { s.StoreTrouble = "store has lost data" })},
		{name: "ECS does not list its task", world: hanging(func(s *plan.Snapshot) { s.Tasks = s.Tasks[1:] }), waits: "ECS does not say"},
		{name: "its task is stopping anyway", world: hanging(task("arn:c1", func(t *state.Task) { t.DesiredStatus = "STOPPED" })), waits: "ECS does not say"},
		{name: "it is no task", world: hanging(change("c1", func(c *state.Container) { c.Launch, c.TaskARN = "", "" })), waits: "no task of ECS"},

		{name: "more than half of a small fleet is silent", waits: "2 of 3 containers are silent",
			world: world(container("c1", silentFor(2*time.Minute)), container("c2", silentFor(2*time.Minute)), container("c3"),
				replica("r1", 0), testimony("c1", "r1"), testimony("c2", "r1"))},
		{name: "the only one is silent", waits: "1 of 1 containers are silent",
			world: world(container("c1", silentFor(2*time.Minute)), replica("r1", 0), testimony("c1", "r1"))},
		{name: "one of two is", give: []string{"c1"},
			world: world(container("c1", silentFor(2*time.Minute)), container("c2"), replica("r1", 0), testimony("c1", "r1"))},
		{name: "a zone is silent", world: hanging(big(4), alsoHanging("z1"), alsoHanging("z2")), waits: "so many do not hang together"},
		{name: "the longest silent goes first, one of a small fleet", world: hanging(big(4), alsoHanging("z1")), give: []string{"z1"}, waits: "as many as may be"},
		{name: "a tenth of a large one", world: hanging(big(25), alsoHanging("z1"), alsoHanging("z2"), alsoHanging("z3"), alsoHanging("z4")),
			give: []string{"z1", "z2", "z3"}, waits: "as many as may be"},
		{name: "another was given up a minute ago", waits: "as many as may be",
			world: hanging(container("gone", phase(state.Gone), func(c *state.Container) { c.HungAt = ago(time.Minute) }))},
		{name: "another was given up ten minutes ago", give: []string{"c1"},
			world: hanging(container("gone", phase(state.Gone), func(c *state.Container) { c.HungAt = ago(10 * time.Minute) }))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plan.Make(test.world, plan.Policy{Pool: pool})
			give := []string(nil)
			for _, a := range got.Actions {
				switch a := a.(type) {
				case plan.GiveUp:
					give = append(give, a.ID)
					if a.Why == "" || a.SeenAt.IsZero() || a.BootID != "boot-"+a.ID {
						t.Errorf("given up as %+v", a)
					}
				case plan.End, plan.StopTask, plan.MarkGone, plan.BeginStop:
					t.Errorf("%s %s: %s", a.Kind(), a.Subject(), a.Because())
				}
			}
			if diff := cmp.Diff(test.give, give); diff != "" {
				t.Errorf("given up (-want +got):\n%s\nholds: %v", diff, got.Holds)
			}
			told := ""
			for _, h := range got.Holds {
				if h.What == plan.HoldContainer && h.ID == "c1" {
					told = h.Why
				}
			}
			if !strings.Contains(told, test.waits) || test.waits == "" && told != "" {
				t.Errorf("of c1 is told %q, want %q", told, test.waits)
			}
		})
	}
	t.Run("it is switched off", func(t *testing.T) {
		got := plan.Make(hanging(), plan.Policy{Pool: pool, HungAfter: -1})
		if len(got.Actions) > 0 || len(got.Holds) == 0 || !strings.Contains(got.Holds[0].Why, "HUNG_AFTER") {
			t.Errorf("actions %v, holds %v", brief(got), got.Holds)
		}
	})
}

// What a container that was given up has held is settled first; its task is stopped when that
// is done, and the container is replaced under the usual rule.
func TestWhatAHungContainerHeldIsSettledBeforeItIsStopped(t *testing.T) {
	given := change("c1", func(c *state.Container) { c.Phase, c.HungAt, c.Slots = state.Stopping, ago(time.Second), nil })
	unheld := func(s *plan.Snapshot) { s.Sessions = nil }
	atLeastFour := state.Pool{Min: 4, Max: 10, MaxSessions: 4}
	for _, test := range []struct {
		name  string
		world plan.Snapshot
		want  []string
	}{
		{"its sessions end, what was not ready yet goes elsewhere", hanging(given, session("ending", state.Ending)),
			[]string{"end ending container_lost confirmed=true", "end ready container_lost confirmed=true", "unbind bound", "launch #1"}},
		{"then its task is stopped", hanging(given, unheld), []string{"launch #1", "stop_task arn:c1"}},
		{"also when it is heard again", hanging(given, unheld, change("c1", silentFor(0))), []string{"launch #1", "stop_task arn:c1"}},
		{"but not on a stale view", hanging(given, unheld, func(s *plan.Snapshot) { s.TasksAt = ago(time.Hour) }), []string{"launch #1"}},
		{"once it has stopped it is gone", hanging(given, unheld, task("arn:c1", stopped)), []string{"launch #1", "mark_gone c1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := plan.Make(test.world, plan.Policy{Pool: atLeastFour})
			if diff := cmp.Diff(test.want, brief(got)); diff != "" {
				t.Errorf("actions (-want +got):\n%s\nholds: %v", diff, got.Holds)
			}
		})
	}
}

// Whatever is silent, to whomever and for how long: never are more given up than may be, and
// never one that anybody has heard.
func TestNoStormOfSilenceEmptiesAFleet(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 8))
	given := 0
	for range 10_000 {
		n := 1 + r.IntN(40)
		s := world(replica("r1", 0), replica("r2", 0))
		silence := r.Float64() * r.Float64()
		silent := map[string]bool{}
		for i := range n {
			id := fmt.Sprintf("c%d", i)
			if r.Float64() >= silence {
				container(id)(&s)
				continue
			}
			container(id, silentFor(time.Duration(16+r.IntN(200))*time.Second))(&s)
			hears := r.IntN(8)
			edit := func(t *state.Testimony) {
				switch hears {
				case 0:
					t.Silent = 0
				case 1:
					t.Quiet = time.Second
				}
			}
			silent[id] = hears > 1
			testimony(id, "r1", edit)(&s)
			testimony(id, "r2")(&s)
		}
		got := plan.Make(s, plan.Policy{Pool: pool})
		if diff := cmp.Diff(got, plan.Make(shuffledWorld(r, s), plan.Policy{Pool: pool}), cmp.AllowUnexported(plan.Launching{})); diff != "" {
			t.Fatalf("another order, another plan:\n%s", diff)
		}
		lost := 0
		for _, a := range got.Actions {
			g, ok := a.(plan.GiveUp)
			if !ok {
				continue
			}
			lost++
			if !silent[g.ID] {
				t.Fatalf("%s is given up, and was heard", g.ID)
			}
		}
		if lost > max(1, n/10) || lost > 0 && n == 1 {
			t.Fatalf("%d of %d are given up at once", lost, n)
		}
		given += lost
	}
	if given < 100 {
		t.Fatalf("only %d were given up in all: this proves nothing", given)
	}
}

func shuffledWorld(r *rand.Rand, s plan.Snapshot) plan.Snapshot {
	s.Containers, s.Tasks = shuffled(r, s.Containers), shuffled(r, s.Tasks)
	s.Testimonies, s.Replicas = shuffled(r, s.Testimonies), shuffled(r, s.Replicas)
	return s
}
