package controller_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestAContainerThatIsNoTaskIsGoneOnceItsAddressRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refuses atomic.Bool
		r := newRig(t, state.Pool{Max: 0, MaxSessions: 2}, func(r *rig) {
			r.config = func(cfg *controller.Config) {
				cfg.Refuses = func(_ context.Context, addr string) bool { return addr == "127.0.0.7:8080" && refuses.Load() }
			}
		})
		c, err := r.store.Register(t.Context(), state.Registration{ID: "own", BootID: "boot", Protocol: 2, MaxSessions: 2, Owner: "r1"})
		if err != nil {
			t.Fatal(err)
		}
		by := state.Authority{Container: "own", OwnerSeq: c.OwnerSeq}
		report := func() {
			if _, err := r.store.Report(t.Context(), by, state.Report{BootID: "boot", Addr: "127.0.0.7:8080"}); err != nil {
				t.Fatal(err)
			}
		}
		phase := func() state.ContainerPhase {
			c, err := r.store.Container(t.Context(), "own")
			if err != nil {
				t.Fatal(err)
			}
			return c.Phase
		}
		report()
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is bound", func() bool { return r.phase("s1") == state.Bound })
		if _, _, err := r.store.Ready(t.Context(), by, "s1", r.session("s1").BindRev, false); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Minute)
		if got := phase(); got != state.ContainerReady {
			t.Fatalf("a container that is only silent is %s", got)
		}
		refuses.Store(true)
		pass(30 * time.Second)
		report() // it was a restart of its link's replica, say
		pass(50 * time.Second)
		if got := phase(); got != state.ContainerReady {
			t.Fatalf("a container that has reported 50 s ago is %s", got)
		}
		r.until(30*time.Second, "it is gone", func() bool { return phase() == state.Gone })
		r.until(5*time.Second, "its session has ended", func() bool { return r.phase("s1") == state.Ended })
		if s := r.session("s1"); s.Reason != state.ContainerLost {
			t.Errorf("it ended for %q", s.Reason)
		}
		if got := r.messages(state.EventGone); len(got) != 1 {
			t.Errorf("told: %q", got)
		}
	})
}

// Whoever asks for the plan does not wait for the machines that do not answer.
func TestExplainWaitsForNoSilentContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 0, MaxSessions: 2}, func(r *rig) {
			r.config = func(cfg *controller.Config) {
				cfg.Refuses = func(ctx context.Context, _ string) bool {
					<-ctx.Done() // nothing comes back
					return false
				}
			}
		})
		for _, id := range []string{"own1", "own2", "own3"} {
			c, err := r.store.Register(t.Context(), state.Registration{ID: id, BootID: "boot", Protocol: 2, MaxSessions: 2, Owner: "r1"})
			if err != nil {
				t.Fatal(err)
			}
			by := state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
			if _, err := r.store.Report(t.Context(), by, state.Report{BootID: "boot", Addr: "127.0.0.7:8080"}); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute)
		began := time.Now()
		if _, err := r.c.Explain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
