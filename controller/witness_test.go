package controller_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/state"
)

// watchedFleet tells of each task before it is stopped.
type watchedFleet struct {
	*fleet
	stopping func(arn string)
}

func (f watchedFleet) Stop(ctx context.Context, arn, why string) error {
	f.stopping(arn)
	return f.fleet.Stop(ctx, arn, why)
}

// silenced is a rig of four containers, one of which, cnt1, has fallen silent with a session.
type silenced struct {
	*rig
	seq     int64 // of cnt1's owner
	mu      sync.Mutex
	witness map[string]func() (silent, quiet time.Duration) // by replica that is there
	dead    map[string]bool                                 // replicas whose machines say so
	stopped []string                                        // ARNs, each as it was told to stop
}

func newSilenced(t *testing.T) *silenced {
	s := &silenced{witness: map[string]func() (time.Duration, time.Duration){}, dead: map[string]bool{}}
	s.rig = newRig(t, state.Pool{Min: 4, Max: 8, MaxSessions: 2}, func(r *rig) {
		r.config = func(cfg *controller.Config) {
			cfg.ReplicaGone = func(_ context.Context, r state.Replica) bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.dead[r.ID]
			}
			cfg.Fleet = watchedFleet{r.fleet, func(arn string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.stopped = append(s.stopped, arn)
				if got := r.phase("s1"); got != state.Ended {
					t.Errorf("%s is stopped while its session is %s", arn, got)
				}
			}}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.testify(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })

	s.until(5*time.Second, "four containers are there", func() bool { return s.ready() == 4 })
	s.store.SetDocument("s1", pending("s1"), time.Hour)
	s.until(5*time.Second, "s1 is ready", func() bool { return s.phase("s1") == state.Ready })
	if on := s.session("s1").Container; on != "cnt1" {
		t.Fatalf("s1 is on %s", on)
	}
	s.rig.mu.Lock()
	s.seq = s.seqs["cnt1"]
	delete(s.seqs, "cnt1")
	s.rig.mu.Unlock()
	return s
}

// testify plays the replicas: each announces itself, and speaks of cnt1 as it is told to.
func (s *silenced) testify(ctx context.Context) {
	tick := time.NewTicker(state.WitnessInterval)
	defer tick.Stop()
	for {
		s.mu.Lock()
		for id, says := range s.witness {
			_ = s.store.Announce(ctx, state.Replica{ID: id, Addr: "10.0.1.1:8080"})
			silent, quiet := says()
			_ = s.store.Testify(ctx, []state.Testimony{{Container: "cnt1", BootID: "boot", Replica: id, Silent: silent, Quiet: quiet}})
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *silenced) says(replica string, silent, quiet time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.witness[replica] = func() (time.Duration, time.Duration) { return silent, quiet }
}

func (s *silenced) report() error {
	_, err := s.store.Report(s.t.Context(), state.Authority{Container: "cnt1", OwnerSeq: s.seq}, state.Report{BootID: "boot", Addr: "127.0.0.9:8080"})
	return err
}

func (s *silenced) containerPhase() state.ContainerPhase {
	c, err := s.store.Container(s.t.Context(), "cnt1")
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Phase
}

// held waits a good while, and wants to be told why cnt1 is kept.
func (s *silenced) held(why string) {
	s.t.Helper()
	pass(5 * time.Minute)
	if phase, of := s.containerPhase(), s.phase("s1"); phase != state.ContainerReady || of != state.Ready {
		s.t.Fatalf("cnt1 is %s and its session %s, although %s", phase, of, why)
	}
	e, err := s.c.Explain(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range e.Holds {
		if h.ID == "cnt1" && strings.Contains(h.Why, why) {
			return
		}
	}
	s.t.Fatalf("%q is not told: %v", why, e.Holds)
}

func TestAHungContainerIsGivenUpOnceNobodyHearsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSilenced(t)
		s.held("no replica has said whether it answers")
		s.says("r1", time.Minute, 2*time.Minute)
		s.says("r2", time.Minute, 3*time.Second)
		s.held("it may have served a client through replica r2 3s ago")
		s.says("r2", 0, 2*time.Minute)
		s.held("it answers replica r2")

		s.says("r2", time.Minute, 2*time.Minute)
		s.until(15*time.Second, "s1 has ended", func() bool { return s.phase("s1") == state.Ended })
		if got := s.session("s1"); got.Reason != state.ContainerLost || got.Message == "" {
			t.Errorf("s1 ended as %s (%q)", got.Reason, got.Message)
		}
		s.until(15*time.Second, "cnt1 is gone and replaced", func() bool { return s.containerPhase() == state.Gone && s.ready() == 4 })
		pass(5 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.stopped) != 1 || s.stopped[0] != "arn:cnt1" {
			t.Errorf("told to stop: %q", s.stopped)
		}
		for reason, want := range map[state.EventReason]string{
			state.EventHeld: "container cnt1: container is held: silent since", state.EventHung: "container cnt1: it hangs",
			state.EventEnded: "session s1: container_lost", state.EventStopped: "fleet arn:cnt1: it hangs", state.EventGone: "container cnt1: ",
		} {
			if got := s.messages(reason); len(got) != 1 || !strings.HasPrefix(got[0], want) {
				t.Errorf("%s: %q, want one that begins with %q", reason, got, want)
			}
		}
	})
}

func TestAReplicaThatIsNotHeardIsWaitedForUnlessItIsKnownToBeDead(t *testing.T) {
	for dead, within := range map[bool]time.Duration{true: 30 * time.Second, false: 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := newSilenced(t)
			s.says("r1", time.Minute, 2*time.Minute)
			s.says("r2", time.Minute, time.Second)
			pass(2 * time.Minute)
			s.mu.Lock()
			delete(s.witness, "r2")
			s.dead["r2"] = dead
			s.mu.Unlock()
			pass(within - 20*time.Second)
			if !dead && s.containerPhase() != state.ContainerReady {
				t.Errorf("it was given up while r2 may serve a client of it")
			}
			s.until(30*time.Second, "cnt1 is given up", func() bool { return s.containerPhase() != state.ContainerReady })
		})
	}
}

func TestAContainerThatWakesUpInTimeIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSilenced(t)
		pass(50 * time.Second)
		s.says("r1", 50*time.Second, time.Minute)
		pass(8 * time.Second)
		s.rig.mu.Lock()
		s.seqs["cnt1"] = s.seq
		s.rig.mu.Unlock()
		pass(5 * time.Minute) // although r1 goes on saying that it does not answer
		if phase, of := s.containerPhase(), s.phase("s1"); phase != state.ContainerReady || of != state.Ready {
			t.Errorf("cnt1 is %s and its session %s", phase, of)
		}
		if got := s.messages(state.EventResumed); len(got) != 1 || !strings.HasPrefix(got[0], "container cnt1") {
			t.Errorf("resumed: %q", got)
		}
	})
}

func TestAContainerThatWakesUpTooLateDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSilenced(t)
		s.fleet.keepRunning = true // its SIGTERM is not heard yet
		s.says("r1", time.Minute, 2*time.Minute)
		s.until(2*time.Minute, "cnt1 is given up", func() bool { return s.containerPhase() == state.Stopping })
		pass(2 * time.Second)
		if err := s.report(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Register(t.Context(), state.Registration{ID: "cnt1", Launch: "cnt1", BootID: "boot", Protocol: 2, MaxSessions: 2, Owner: "r1"}); err == nil {
			t.Error("it was registered again")
		}
		s.store.SetDocument("s2", pending("s2"), time.Hour)
		s.until(5*time.Second, "s2 is ready", func() bool { return s.phase("s2") == state.Ready })
		if on := s.session("s2").Container; on == "cnt1" {
			t.Error("a session was bound to it")
		}
		if phase, of := s.containerPhase(), s.phase("s1"); phase != state.Stopping || of != state.Ended {
			t.Errorf("cnt1 is %s and its session %s", phase, of)
		}
		s.fleet.mu.Lock()
		s.fleet.keepRunning = false
		s.fleet.stop("arn:cnt1")
		s.fleet.mu.Unlock()
		s.until(15*time.Second, "cnt1 is gone", func() bool { return s.containerPhase() == state.Gone })
	})
}
