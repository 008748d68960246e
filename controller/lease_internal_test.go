package controller

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// A store that has lost its last writes holds an earlier lease of the same replica's, and one
// whose clock was set back beside that would give an epoch that was given before.
func TestEpochsNeverGoBack(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store := state.NewMemory(func() time.Time { return now })
	c := New(Config{Replica: "r", Store: store, Mirror: state.NewMirror(store, state.MirrorOptions{})})
	bid := func() int64 {
		if err := c.bid(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(100 * time.Millisecond)
		return c.lead.epochNow()
	}
	first := bid()
	rollBack := store.Checkpoint()
	store.LoseLease()
	second := bid()
	rollBack()
	third := bid()
	if _, err := store.Admit(t.Context(), state.Authority{Epoch: second}, state.Admission{ID: "s", Remaining: time.Hour}); err == nil {
		t.Error("the store took a write under an epoch that it has not given")
	}
	if leads := c.lead.held(); third <= second || !leads {
		t.Errorf("epochs %d, %d, and then %d; leading %t", first, second, third, leads)
	}
	store.Wipe()
	now = now.Add(-time.Hour)
	fourth := bid()
	if leads := c.lead.held(); fourth <= third || !leads {
		t.Errorf("epoch %d after %d, when the clock was set back; leading %t", fourth, third, leads)
	}
}

// The answer to a bid may come when the lease has been given back already.
func TestWhoHasResignedLeadsNoMore(t *testing.T) {
	store := state.NewMemory(time.Now)
	c := New(Config{Replica: "r", Store: store, Mirror: state.NewMirror(store, state.MirrorOptions{})})
	if err := c.bid(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := time.Now()
	epoch, ttl, err := store.AcquireLease(t.Context(), "r", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.resign(t.Context())
	c.lead.extend(epoch, sent, ttl)
	if leads := c.lead.held(); leads {
		t.Error("it leads again, and so may somebody else")
	}
	if _, _, err := store.AcquireLease(t.Context(), "other", 0); err != nil {
		t.Error(err)
	}
}
