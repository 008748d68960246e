package statetest

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func testLaunches(t *testing.T, w *world) {
	input := `{"cluster":"c","count":1,"overrides":{"n":12345678901234567890}}`
	l, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(input), Port: 8080, Target: "td:1"})
	w.ok(err)
	ix, err := w.store.Index(w.ctx)
	w.ok(err)
	stored, err := w.store.Launch(w.ctx, "l1")
	w.ok(err)
	for _, got := range []*state.Launch{l, stored} {
		if got.ID != "l1" || string(got.Input) != input || got.Port != 8080 || got.Target != "td:1" || !got.Open() || !near(got.CreatedAt, ix.Time) {
			t.Fatalf("got %+v", got)
		}
		w.same(ix.Launches["l1"], got.Rev)
	}
	_, err = w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(`{}`)})
	w.is(err, state.ErrExists)
	_, err = w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l:1", Input: []byte(`{}`)})
	w.is(err, state.ErrInvalid)

	update := func(id string, u state.LaunchUpdate) (*state.Launch, error) {
		return w.store.UpdateLaunch(w.ctx, w.lead(), id, u)
	}
	got, err := update("l1", state.LaunchUpdate{TaskARN: "arn:1", Outcome: state.Started, Tries: 2, AnsweredAt: ix.Time})
	w.ok(err)
	if got.TaskARN != "arn:1" || got.Outcome != state.Started || got.Tries != 2 || !got.Open() || got.Rev <= l.Rev ||
		!got.CreatedAt.Equal(l.CreatedAt) || string(got.Input) != input {
		t.Fatalf("got %+v", got)
	}
	again, err := update("l1", state.LaunchUpdate{TaskARN: "arn:1", Outcome: state.Started})
	w.ok(err)
	w.same(got.Rev, again.Rev)
	got, err = update("l1", state.LaunchUpdate{Outcome: state.Registered})
	w.ok(err)
	if got.TaskARN != "arn:1" || got.Open() || got.Target != "td:1" || !near(got.AnsweredAt, ix.Time) {
		t.Fatalf("got %+v", got)
	}
	for _, outcome := range []state.Outcome{state.Started, state.Refused, state.Expired} {
		_, err = update("l1", state.LaunchUpdate{Outcome: outcome})
		w.is(err, state.ErrConflict)
	}
	again, err = update("l1", state.LaunchUpdate{Outcome: state.Registered})
	w.ok(err)
	w.same(got.Rev, again.Rev)
	got, err = update("l1", state.LaunchUpdate{Message: "late news"})
	w.ok(err)
	if got.Message != "late news" || got.Outcome != state.Registered {
		t.Fatalf("got %+v", got)
	}
	_, err = update("nobody", state.LaunchUpdate{Tries: 1})
	w.is(err, state.ErrNotFound)
	for _, outcome := range []state.Outcome{state.Refused, state.Expired, state.Registered} {
		id := "l-" + string(outcome)
		_, err = w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: id, Input: []byte(`{}`)})
		w.ok(err)
		got, err = update(id, state.LaunchUpdate{Outcome: outcome, Message: "why", Cause: state.NoCapacity, SettledAt: ix.Time})
		w.ok(err)
		if got.Open() || got.Outcome != outcome || got.Message != "why" || got.Cause != state.NoCapacity || !near(got.SettledAt, ix.Time) {
			t.Fatalf("got %+v", got)
		}
	}
	for _, outcome := range []state.Outcome{state.Started, state.Registered} {
		_, err = update("l-refused", state.LaunchUpdate{Outcome: outcome})
		w.is(err, state.ErrConflict)
	}
	got, err = update("l-refused", state.LaunchUpdate{Outcome: state.Expired, Message: "its task came up after all"})
	w.ok(err)
	if got.Outcome != state.Expired || got.Cause != state.NoCapacity || !near(got.SettledAt, ix.Time) {
		t.Fatalf("got %+v", got)
	}
	found, err := w.store.LaunchesOf(w.ctx, []string{"l1", "nobody", "l-refused"})
	w.ok(err)
	if len(found) != 2 {
		t.Fatalf("found %d of 2", len(found))
	}
	for range 2 {
		w.ok(w.store.ForgetLaunch(w.ctx, w.lead(), "l1"))
		_, err = w.store.Launch(w.ctx, "l1")
		w.is(err, state.ErrNotFound)
	}
	ix, err = w.store.Index(w.ctx)
	w.ok(err)
	if _, ok := ix.Launches["l1"]; ok || len(ix.Launches) != 3 {
		t.Fatalf("index %v", ix.Launches)
	}
}

func testLease(t *testing.T, w *world) {
	epoch, ttl, err := w.store.AcquireLease(w.ctx, "a", 0)
	w.ok(err)
	if epoch <= 0 || ttl != state.LeaseTTL {
		t.Fatalf("epoch %d for %v", epoch, ttl)
	}
	again, _, err := w.store.AcquireLease(w.ctx, "a", 0)
	w.ok(err)
	w.same(epoch, again)
	_, _, err = w.store.AcquireLease(w.ctx, "b", 0)
	w.is(err, state.ErrConflict)
	w.ok(w.store.ReleaseLease(w.ctx, "b", epoch))
	w.ok(w.store.ReleaseLease(w.ctx, "a", epoch-1))
	_, _, err = w.store.AcquireLease(w.ctx, "b", 0)
	w.is(err, state.ErrConflict)
	w.ok(w.store.ReleaseLease(w.ctx, "a", epoch))
	w.ok(w.store.ReleaseLease(w.ctx, "a", epoch))
	next, _, err := w.store.AcquireLease(w.ctx, "b", 0)
	w.ok(err)
	if next <= epoch {
		t.Fatalf("epoch %d after %d", next, epoch)
	}
	// The holder has had a higher one: the store has lost that.
	above, _, err := w.store.AcquireLease(w.ctx, "b", next+1_000_000)
	w.ok(err)
	if above <= next+1_000_000 {
		t.Fatalf("epoch %d for who has had %d", above, next+1_000_000)
	}
	again, _, err = w.store.AcquireLease(w.ctx, "b", above)
	w.ok(err)
	w.same(above, again)
	next = above
	if w.Advance == nil {
		return
	}
	w.Advance(state.LeaseTTL - time.Second)
	_, _, err = w.store.AcquireLease(w.ctx, "a", 0)
	w.is(err, state.ErrConflict)
	w.Advance(2 * time.Second)
	last, _, err := w.store.AcquireLease(w.ctx, "a", 0)
	w.ok(err)
	if last <= next {
		t.Fatalf("epoch %d after %d", last, next)
	}
}
