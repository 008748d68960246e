package controller

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// The answer to a bid may come when the lead has been given up already: it is given back, too.
func TestABidFromBeforeTheLeadWasGivenUpWinsNothing(t *testing.T) {
	store := state.NewMemory(nil)
	c := New(Config{Replica: "r", Store: store, Mirror: state.NewMirror(store, state.MirrorOptions{})})
	if err := c.bid(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := time.Now()
	c.lead.yield(c.lead.epochNow())
	store.LoseLease() // so that the answer is another epoch
	epoch, ttl, err := store.AcquireLease(t.Context(), "r", c.lead.epochNow())
	if err != nil {
		t.Fatal(err)
	}
	c.lead.extend(epoch, sent, ttl)
	if c.Leading() {
		t.Fatal("it leads again")
	}
	if _, err := c.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.AcquireLease(t.Context(), "other", 0); err != nil {
		t.Error(err)
	}
}

// The same of a process that ends right then.
func TestWhoStopsAfterGivingTheLeadUpGivesTheLeaseBack(t *testing.T) {
	store := state.NewMemory(nil)
	c := New(Config{Replica: "r", Store: store, Mirror: state.NewMirror(store, state.MirrorOptions{})})
	if err := c.bid(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.lead.yield(c.lead.epochNow())
	c.resign(t.Context())
	if _, _, err := store.AcquireLease(t.Context(), "other", 0); err != nil {
		t.Error(err)
	}
}
