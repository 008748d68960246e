package controller_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// sums counts RunTask calls and stopped tasks.
func (f *fleet) sums() (runs, stopped int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.calls {
		runs += n
	}
	for _, t := range f.tasks {
		if t.Stopped() {
			stopped++
		}
	}
	return runs, stopped
}

func TestAWipedStoreCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const containers = 1000
		r := newRig(t, state.Pool{Min: containers, Max: containers + 10, MaxSessions: 2}, func(r *rig) {
			r.reports = 5 * time.Second
			for i := range containers {
				id := fmt.Sprintf("c%d", i)
				r.fleet.tasks["arn:"+id] = state.Task{ARN: "arn:" + id, ContainerID: id, LastStatus: "RUNNING", DesiredStatus: "RUNNING",
					CreatedAt: time.Now(), StartedAt: time.Now()}
				r.register(id)
			}
		})
		r.until(5*time.Minute, "the containers are ready", func() bool { return r.ready() == containers })
		for i := range 20 {
			id := fmt.Sprintf("s%d", i)
			r.store.SetDocument(id, pending(id), time.Hour)
		}
		allReady := func(n int) func() bool {
			return func() bool {
				for i := range n {
					if r.phase(fmt.Sprintf("s%d", i)) != state.Ready {
						return false
					}
				}
				return true
			}
		}
		r.until(time.Minute, "the sessions are ready", allReady(20))
		before := r.session("s7")
		runs, _ := r.fleet.sums()

		r.store.Wipe()
		r.until(10*time.Second, "the registry is back", func() bool { return r.ready() == containers && allReady(20)() })
		r.until(20*time.Second, "documents are written again", func() bool {
			d, err := r.store.Document(t.Context(), "s7")
			return err == nil && !d.Missing && d.TTL > 50*time.Minute
		})
		r.until(60*time.Second, "the store is whole", func() bool {
			ix, err := r.store.Index(t.Context())
			return err == nil && ix.Whole
		})
		r.store.SetDocument("s20", pending("s20"), time.Hour)
		r.until(20*time.Second, "work goes on", allReady(21))
		if after := r.session("s7"); after.BindRev != before.BindRev || after.Container != before.Container {
			t.Errorf("a session was bound again: %+v, it was %+v", after, before)
		}
		if again, stopped := r.fleet.sums(); again != runs || stopped > 0 {
			t.Errorf("%d tasks were started and %d stopped for it", again-runs, stopped)
		}
	})
}

func TestAFailoverThatForgetsTheLastSecondsCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Min: 1, Max: 3, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		rollBack := r.store.Checkpoint()
		for _, id := range []string{"s2", "s3"} {
			r.store.SetDocument(id, pending(id), time.Hour)
		}
		r.until(10*time.Second, "they are ready", func() bool { return r.phase("s2") == state.Ready && r.phase("s3") == state.Ready })
		runs, _ := r.fleet.sums()
		rollBack()
		r.until(10*time.Second, "what was forgotten is back", func() bool { return r.phase("s2") == state.Ready && r.phase("s3") == state.Ready })
		r.store.SetDocument("s4", pending("s4"), time.Hour)
		r.until(60*time.Second, "work goes on", func() bool { return r.phase("s4") == state.Ready })
		if again, stopped := r.fleet.sums(); again != runs || stopped > 0 {
			t.Errorf("%d tasks were started and %d stopped for it", again-runs, stopped)
		}
		for _, id := range []string{"s2", "s3"} {
			if d, err := r.store.Document(t.Context(), id); err != nil || d.Missing {
				t.Errorf("the document of %s was not written again: %+v, %v", id, d, err)
			}
		}
	})
}

// A replica that remembers nothing finds tasks of which the store says nothing: it launches
// nothing beside them before it was clear that nobody will report them.
func TestANewLeaderOfAnEmptyStoreWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Min: 1, Max: 1, MaxSessions: 2}, func(r *rig) {
			r.fleet.tasks["arn:old"] = state.Task{ARN: "arn:old", ContainerID: "old", LastStatus: "RUNNING", DesiredStatus: "RUNNING",
				CreatedAt: time.Now().Add(-time.Hour), StartedAt: time.Now().Add(-time.Hour)}
		})
		held := func() bool {
			e, err := r.c.Explain(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range e.Holds {
				if h.What == plan.HoldLaunch {
					return true
				}
			}
			return false
		}
		pause := time.NewTimer(15 * time.Second)
		<-pause.C
		if runs, _ := r.fleet.sums(); runs != 0 || !held() {
			t.Fatalf("%d launches before anybody could report; held: %t", runs, held())
		}
		r.register("old")
		r.until(30*time.Second, "the store is whole", func() bool {
			ix, err := r.store.Index(t.Context())
			return err == nil && ix.Whole
		})
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(10*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		if runs, stopped := r.fleet.sums(); runs != 0 || stopped != 0 {
			t.Errorf("%d tasks were started and %d stopped beside the one that was there", runs, stopped)
		}
	})
}

func (r *rig) session(id string) *state.Session {
	s, err := r.store.Session(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// ready counts the containers that are.
func (r *rig) ready() int {
	ix, err := r.store.Index(r.t.Context())
	if err != nil {
		return 0
	}
	all, err := r.store.ContainersOf(r.t.Context(), slices.Collect(maps.Keys(ix.Containers)))
	if err != nil {
		return 0
	}
	n := 0
	for _, c := range all {
		if c.Phase == state.ContainerReady {
			n++
		}
	}
	return n
}
