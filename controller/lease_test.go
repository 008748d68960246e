package controller_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// A lease that was forgotten and won again is another reign: what the last one had read and
// counted is as of before.
func TestALeadThatWasLostAndWonAgainIsAnotherReign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Min: 1, Max: 1, MaxSessions: 1}, nil)
		r.until(5*time.Second, "it leads", r.c.Leading)
		pass(5 * time.Second)
		for n := 2; n <= 3; n++ {
			r.store.LoseLease()
			pass(5 * time.Second)
			if !r.c.Leading() {
				t.Fatal("it does not lead again")
			}
			told := r.messages(state.EventLeading)
			if len(told) != n || told[n-1] == told[n-2] {
				t.Fatalf("reigns: %q, want %d under epochs of their own", told, n)
			}
		}
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(10*time.Second, "and serves", func() bool { return r.phase("s1") == state.Ready })
	})
}
