package controller_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// messages gives what events of that reason say, in order.
func (r *rig) messages(reason state.EventReason) []string {
	all, err := r.store.Tail(r.t.Context(), 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var said []string
	for _, e := range all {
		if e.Reason == reason {
			said = append(said, string(e.Kind)+" "+e.Object+": "+e.Message)
		}
	}
	return said
}

func TestDecisionsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), 30*time.Second)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		pass(6 * time.Minute) // its deadline, and the end of its container
		want := map[state.EventReason]string{
			state.EventLeading: "pool : replica r1", state.EventLaunched: "launch : ", state.EventRegistered: "launch cnt1: ",
			state.EventEnded: "session s1: deadline", state.EventDraining: "container cnt1: ", state.EventStopping: "container cnt1: ",
			state.EventStopped: "fleet arn:cnt1: ", state.EventGone: "container cnt1: ",
		}
		for reason, begins := range want {
			got := r.messages(reason)
			if len(got) != 1 || !strings.HasPrefix(got[0], begins) || strings.HasSuffix(got[0], ": ") {
				t.Errorf("%s: %q, want one that begins with %q and says why", reason, got, begins)
			}
		}
		if got := r.messages(state.EventHeld); len(got) != 0 {
			t.Errorf("held although all went well: %q", got)
		}
		all, err := r.store.Tail(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if user := r.session("s1").UserID; user == "" || (e.User == user) != (e.Kind == state.KindSession) {
				t.Errorf("an event is told of user %q, the session is %q's: %+v", e.User, user, e)
			}
		}
	})
}

func TestWhatIsHeldIsToldWhenThatChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listing := true
		r := newRig(t, state.Pool{Min: 1, Max: 1, MaxSessions: 2}, func(r *rig) {
			r.fleet.listErr = func() error {
				if listing {
					return nil
				}
				return errors.New("throttled")
			}
		})
		for _, id := range []string{"s1", "s2", "s3"} {
			r.store.SetDocument(id, pending(id), time.Hour)
		}
		pass(4 * time.Minute)
		if got := r.messages(state.EventHeld); len(got) != 1 || !strings.HasPrefix(got[0], "session s3: session is held: no container has room") {
			t.Errorf("held: %q, want the session that waits for room, once", got)
		}
		r.fleet.mu.Lock()
		listing = false
		r.fleet.mu.Unlock()
		pass(3 * time.Minute)
		held := r.messages(state.EventHeld)
		if n := len(held); n != 2 || !strings.HasPrefix(held[n-1], "pool : destruction is held: ECS was last listed") {
			t.Errorf("with ECS away: %q", held)
		}
		r.fleet.mu.Lock()
		listing = true
		r.fleet.mu.Unlock()
		pass(time.Minute)
		resumed := 0
		for _, m := range r.messages(state.EventResumed) {
			if strings.HasPrefix(m, "pool : destruction is held no more") {
				resumed++
			}
		}
		if resumed != 1 {
			t.Errorf("resumed: %q", r.messages(state.EventResumed))
		}
	})
}
