package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// stopping is a fleet that counts what it is told to stop.
type stopping struct {
	state.Fleet
	told int
}

func (s *stopping) Stop(context.Context, string, string) error {
	s.told++
	return nil
}

// A container that registers between the plan and the call is there after all: its task is not
// stopped, whatever the mirror says.
func TestATaskIsStoppedOnlyAfterALastLook(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store := state.NewMemory(func() time.Time { return now })
	mirror := state.NewMirror(store, state.MirrorOptions{})
	fleet := &stopping{}
	c := New(Config{Replica: "r", Store: store, Mirror: mirror, Fleet: fleet})
	if err := c.bid(t.Context()); err != nil {
		t.Fatal(err)
	}
	by := state.Authority{Epoch: c.lead.epochNow()}
	if _, err := store.CreateLaunch(t.Context(), by, state.Launch{ID: "cnt_1", Input: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.UpdateLaunch(t.Context(), by, "cnt_1", state.LaunchUpdate{Outcome: state.Started, TaskARN: "arn:1"}); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := plan.StopTask{Target: plan.Target{ID: "arn:1", Why: "it never registered"}}
	if _, err := store.Register(t.Context(), state.Registration{ID: "cnt_1", Launch: "cnt_1", BootID: "b", Protocol: 2, MaxSessions: 1, Owner: "r"}); err != nil {
		t.Fatal(err)
	}
	calls := &calls{c: c, epoch: by.Epoch}
	if err := calls.call(t.Context(), stop); !errors.Is(err, state.ErrConflict) || fleet.told != 0 {
		t.Errorf("it was stopped %d times: %v", fleet.told, err)
	}
	if _, err := store.MarkGone(t.Context(), by, "cnt_1", "b"); err != nil {
		t.Fatal(err)
	}
	if err := calls.call(t.Context(), stop); err != nil || fleet.told != 1 {
		t.Errorf("once its container is gone it was stopped %d times: %v", fleet.told, err)
	}
}
