package controller_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// journal is a log to be looked at while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) times(message string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), message)
}

// watching is a replica that leads beside a rig, or is to, and whose reads of the records can be cut
// off from it while all else of the store is there.
type watching struct {
	*controller.Controller
	store  *unheard
	mirror *state.Mirror
	log    *journal
	reg    *prometheus.Registry
}

// watch starts one beside r, with its fleet.
func (r *rig) watch(name string, pool state.Pool) *watching {
	w := &watching{store: &unheard{Memory: r.store}, log: &journal{}, reg: prometheus.NewRegistry()}
	w.mirror = state.NewMirror(w.store, state.MirrorOptions{})
	w.Controller = controller.New(controller.Config{Replica: name, Store: w.store, Mirror: w.mirror, Fleet: r.fleet,
		Policy: plan.Policy{Pool: pool}, NewID: func() string { return name + "-launch" }, Log: slog.New(slog.NewTextHandler(w.log, nil)), Registerer: w.reg})
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.mirror.Run(ctx) })
	wg.Go(func() { _ = w.Run(ctx) })
	r.t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

// rounds counts the rounds that ended so.
func (w *watching) rounds(t *testing.T, result string) float64 {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "wallcrawler_reconcile_rounds_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// Who has the lease and cannot read the records plans nothing. It says so, and leaves the lead to
// whoever can before long, but asks for it again once it has read.
func TestALeaderThatReadsNothingGivesTheLeadUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := state.Pool{Max: 1, MaxSessions: 2}
		r := newRig(t, pool, nil)
		r.until(5*time.Second, "the first leads", r.c.Leading)
		blind := r.watch("r2", pool)
		pass(time.Second)
		blind.store.cut.Store(true)
		r.stop()
		r.until(time.Second, "the blind one leads", blind.Leading)
		won := time.Now()
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		pass(5 * time.Second)
		if n := blind.rounds(t, "unobserved"); n < 3 || n > 6 {
			t.Errorf("%v rounds are counted as unobserved in 5 s", n)
		}
		if n := blind.log.times("nothing planned yet"); n != 1 {
			t.Errorf("it was said %d times that nothing is planned", n)
		}

		sees := r.watch("r3", pool)
		r.until(20*time.Second, "another leads", sees.Leading)
		if held := time.Since(won); held < 2*state.LeaseTTL || held > 2*state.LeaseTTL+2*time.Second {
			t.Errorf("it was blind and led for %s", held)
		}
		if n := blind.log.times("lead given up"); n != 1 {
			t.Errorf("it was said %d times that the lead is given up", n)
		}
		r.until(5*time.Second, "a launch for s1", func() bool { return r.fleet.running() == 1 })

		pass(time.Minute)
		if blind.Leading() || !sees.Leading() {
			t.Error("the blind one has taken the lead again")
		}
	})
}

// Where nobody can read, nobody leads, and the first who can does.
func TestWhoReadsNothingDoesNotAskForTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := state.Pool{Max: 1, MaxSessions: 2}
		r := newRig(t, pool, nil)
		r.until(5*time.Second, "the first leads", r.c.Leading)
		blind := r.watch("r2", pool)
		pass(time.Second)
		blind.store.cut.Store(true)
		pass(time.Minute)
		r.stop()
		for range 600 {
			pass(100 * time.Millisecond)
			if blind.Leading() {
				t.Fatal("it leads, and sees nothing")
			}
		}
		blind.store.cut.Store(false)
		r.until(2*time.Second, "it leads once it has read", blind.Leading)
	})
}

// Later it would plan by what was: it sees nobody register, and binds where nobody is any more.
func TestALeaderThatReadsNoMoreGivesTheLeadUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := state.Pool{Max: 1, MaxSessions: 2}
		r := newRig(t, pool, nil)
		r.until(5*time.Second, "the first leads", r.c.Leading)
		blind := r.watch("r2", pool)
		pass(time.Second)
		r.stop()
		r.until(time.Second, "it leads", blind.Leading)
		pass(time.Minute)
		if !blind.Leading() || blind.log.times("lead given up") != 0 {
			t.Fatal("it has given the lead up, and sees everything")
		}
		blind.store.cut.Store(true)
		began := time.Now()
		r.until(30*time.Second, "it leads no more", func() bool { return !blind.Leading() })
		if held := time.Since(began); held < state.LeaseTTL {
			t.Errorf("it gave the lead up after %s", held)
		}
		blind.store.cut.Store(false)
		r.until(2*time.Second, "it leads again", blind.Leading)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "and launches for s1", func() bool { return r.fleet.running() == 1 })
	})
}

// A store that is slow for everybody is no reason to give the lead up: whoever came next would be as slow,
// and begin anew.
func TestTheLeaderOfASlowStoreKeepsTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := state.Pool{Max: 1, MaxSessions: 2}
		r := newRig(t, pool, nil)
		r.until(5*time.Second, "the first leads", r.c.Leading)
		slow := r.watch("r2", pool)
		pass(time.Second)
		r.stop()
		r.until(time.Second, "it leads", slow.Leading)
		slow.store.slow.Store(int64(11 * time.Second))
		for i := range 100 {
			id := fmt.Sprintf("s%d", i)
			r.store.SetDocument(id, pending(id), time.Hour) // so that there is something to read
			pass(3 * time.Second)
			if !slow.Leading() {
				t.Fatalf("it has given the lead up after %d s", 3*i+3)
			}
		}
	})
}

// Nor is giving it back what it has lost, which takes longer than anything else: nobody else would be done sooner.
func TestWhoGivesTheStoreBackWhatItHasLostKeepsTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := state.Pool{Max: 1, MaxSessions: 2}
		r := newRig(t, pool, nil)
		r.until(5*time.Second, "the first leads", r.c.Leading)
		slow := r.watch("r2", pool)
		pass(time.Second)
		r.stop()
		r.until(time.Second, "it leads", slow.Leading)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		pass(5 * time.Second)
		slow.store.slow.Store(int64(time.Minute))
		r.store.Wipe()
		pass(10 * time.Second) // to notice it, and to win the lease anew
		for i := range 50 {
			if pass(time.Second); !slow.Leading() {
				t.Fatalf("it has given the lead up %d s after the loss", i+11)
			}
		}
		slow.store.slow.Store(0)
		pass(time.Minute)
		if n := slow.log.times("lead given up"); n != 0 || !slow.Leading() {
			t.Errorf("it has given the lead up %d times", n)
		}
	})
}
