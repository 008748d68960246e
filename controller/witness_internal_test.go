package controller

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func TestReplicasThatDoNotAnswerHideNoDeadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mirror := state.NewMirror(state.NewMemory(nil), state.MirrorOptions{})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = mirror.Run(ctx) }()
		synctest.Wait() // until it has read the store
		w := newWorld(Config{machine: process, Mirror: mirror,
			ReplicaGone: func(ctx context.Context, r state.Replica) bool {
				if r.Addr == "silent" {
					<-ctx.Done()
				}
				return r.Addr == "refuses" && ctx.Err() == nil
			}})
		all := []state.Replica{{ID: "drains", Addr: "refuses", SeenAt: time.Now()}}
		for range 5 {
			all = append(all, state.Replica{ID: "silent", Addr: "silent"})
		}
		all = append(all, state.Replica{ID: "dead", Addr: "refuses"})
		began := time.Now()
		left := w.dropGone(t.Context(), all)
		if took := time.Since(began); took > probeTimeout {
			t.Errorf("it took %v", took)
		}
		if want := all[:len(all)-1]; !slices.Equal(left, want) {
			t.Errorf("left are %v, want %v", left, want)
		}
	})
}
