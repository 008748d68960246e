package controller_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func TestContainersOfTheWrongKindStopLaunchesForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 5, MaxSessions: 2}, func(*rig) {})
		pass(2 * time.Second)
		for _, id := range []string{"cnt_x", "cnt_y"} {
			_, err := r.store.Register(t.Context(), state.Registration{
				ID: id, BootID: "b", Protocol: 2, MaxSessions: 1, Owner: "r", Dialect: state.DialectV1,
			})
			if !errors.Is(err, state.ErrDialect) {
				t.Fatal(err)
			}
		}
		pass(2 * time.Second)
		if got := r.events(state.KindPool, ""); len(got) != 1 || got[0] != state.EventRefused {
			t.Errorf("events %v", got)
		}
		r.store.SetPoolDesired(`{"min":2}`, 0)
		pass(time.Minute)
		if n := r.fleet.running(); n != 0 {
			t.Errorf("%d tasks were started that nobody would let in", n)
		}
		// Somebody may have mended the task definition: it is tried again.
		r.until(5*time.Minute, "tasks are started again", func() bool { return r.fleet.running() == 2 })
	})
}

func TestAnEmptyPoolForgetsItsDialect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 5, MaxSessions: 2}, func(*rig) {})
		r.store.SetPoolDesired(`{"min":1}`, 0)
		r.until(10*time.Second, "a container is ready", func() bool { return r.shown().ReadyContainers == 1 })
		ix, err := r.store.Index(t.Context())
		if err != nil || len(ix.Containers) != 1 {
			t.Fatalf("containers %v: %v", ix.Containers, err)
		}
		var id string
		for id = range ix.Containers {
		}
		if _, err := r.store.Register(t.Context(), state.Registration{
			ID: id, Launch: id, BootID: "another", Protocol: 1, MaxSessions: 1, Owner: "r", Dialect: state.DialectAuto,
		}); err != nil {
			t.Fatal(err)
		}
		protocol := func() int {
			d, err := r.store.PoolDialect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return d.Protocol
		}
		pass(3 * time.Second)
		if got := protocol(); got != 1 {
			t.Errorf("with a container the dialect is %d", got)
		}
		r.store.SetPoolDesired(`{"paused":true}`, 0)
		pass(2 * time.Second)
		if err := r.fleet.Stop(t.Context(), "arn:"+id, ""); err != nil {
			t.Fatal(err)
		}
		r.until(5*time.Minute, "the container is gone", func() bool {
			got, err := r.store.Container(t.Context(), id)
			return err == nil && got.Phase == state.Gone
		})
		r.until(5*time.Second, "the dialect is forgotten", func() bool { return protocol() == 0 })
	})
}
