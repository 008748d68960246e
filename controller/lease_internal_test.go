package controller

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// A store that has lost its last writes holds an earlier lease of the same replica's.
func TestAnEpochThatWentBackIsGivenUp(t *testing.T) {
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
	if between := bid(); between < second {
		t.Errorf("epochs %d, %d, and then %d", first, second, between)
	}
	third := bid()
	if _, err := store.Admit(t.Context(), state.Authority{Epoch: second}, state.Admission{ID: "s", Remaining: time.Hour}); err == nil {
		t.Error("the store took a write under an epoch that it has not given")
	}
	if _, leads := c.lead.authority(); third <= second || !leads {
		t.Errorf("epochs %d, %d, and then %d; leading %t", first, second, third, leads)
	}
}
