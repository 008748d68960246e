package controller_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// pass lets time go by in the bubble.
func pass(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// events gives the reasons of all events about that object, in order.
func (r *rig) events(kind state.Kind, object string) []state.EventReason {
	all, err := r.store.Tail(r.t.Context(), 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var reasons []state.EventReason
	for _, e := range all {
		if e.Kind == kind && e.Object == object && e.Reason != state.EventLeading {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

func (r *rig) shown() state.PoolState {
	var p state.PoolState
	if text := r.store.ShownPool(); text != "" {
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			r.t.Fatalf("pool:state is %q: %v", text, err)
		}
	}
	return p
}

func TestAnOperatorsWishesArePutIntoForceWithinASecond(t *testing.T) {
	for _, notified := range []bool{true, false} {
		t.Run(fmt.Sprintf("notified=%t", notified), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, state.Pool{Max: 5, MaxSessions: 2}, func(r *rig) { r.store.NotifyDocuments(notified) })
				pass(3 * time.Second)
				if n := r.fleet.running(); n != 0 {
					t.Fatalf("%d tasks run before anybody wants one", n)
				}
				r.store.SetPoolDesired(`{"min":3}`, 0)
				r.until(time.Second, "three tasks run", func() bool { return r.fleet.running() == 3 })
				r.until(5*time.Second, "pool:state tells of it", func() bool {
					p := r.shown()
					return p.Min == 3 && p.Max == 5 && p.TotalContainers == 3 && p.ReadyContainers == 3 && p.FreeSlots == 6 && p.Timestamp > 0
				})

				// What is bad is refused once, and what was good stays.
				for range 3 {
					r.store.SetPoolDesired(`{"min":-1,"max":0}`, 0)
					pass(2 * time.Second)
				}
				if got := r.shown(); got.Min != 3 || got.Max != 5 {
					t.Errorf("in force after a bad wish: %+v", got)
				}
				want := fmt.Sprint([]state.EventReason{state.EventObeyed, state.EventRefused})
				if got := fmt.Sprint(r.events(state.KindPool, "")); got != want {
					t.Errorf("events %s, want %s", got, want)
				}
				r.store.SpoilPoolDesired()
				pass(2 * time.Second)
				if got := r.shown(); got.Min != 3 {
					t.Errorf("in force after something that is no text: %+v", got)
				}

				r.store.SetPoolDesired(`{"paused":true,"max":4,"warm":8}`, 0)
				pass(time.Second)
				if n := r.fleet.running(); n != 3 {
					t.Errorf("%d tasks run in a paused pool", n)
				}
				r.store.SetPoolDesired(`{"max":4,"warm":8}`, 0)
				r.until(time.Second, "the warm slots are there", func() bool { return r.fleet.running() == 4 })

				// Without the key the configuration is in force again.
				r.store.SetPoolDesired(`{"min":4}`, 10*time.Second)
				pass(15 * time.Second)
				r.until(4*time.Second, "the configuration is in force", func() bool { p := r.shown(); return p.Min == 0 && p.Max == 5 && p.Warm == 0 })
			})
		})
	}
}

func TestAPausedPoolIsNotStartedByANewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Min: 2, Max: 5, MaxSessions: 2}, func(r *rig) {
			r.store.SetPoolDesired(`{"paused":true}`, 0)
		})
		pass(5 * time.Second)
		if n := r.fleet.running(); n != 0 {
			t.Errorf("%d tasks run in a pool that was paused before its leader began", n)
		}
	})
}

func TestTheNextLeaderKeepsTheLastGoodWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newRig(t, state.Pool{Max: 5, MaxSessions: 2}, nil)
		store := first.store
		store.SetPoolDesired(`{"min":2}`, 0)
		first.until(3*time.Second, "two tasks run", func() bool { return first.fleet.running() == 2 })
		store.SetPoolDesired(`{"min":"many"}`, 0)
		pass(3 * time.Second)
		first.stop()
		before := first.shown().Timestamp
		second := first.successor(state.Pool{Max: 5, MaxSessions: 2}, "r2")
		second.until(10*time.Second, "the next leader tells of the pool", func() bool { return second.shown().Timestamp > before })
		if p := second.shown(); p.Min != 2 {
			t.Errorf("in force after a change of leaders: %+v", p)
		}
	})
}

func TestPoolStateIsWrittenNowAndThenAlthoughNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 5, MaxSessions: 2}, nil)
		r.until(5*time.Second, "it is there", func() bool { return r.store.ShownPool() != "" })
		before := r.shown()
		pass(20 * time.Second)
		if got := r.shown(); got != before {
			t.Errorf("an idle pool was written again: %+v", got)
		}
		pass(15 * time.Second)
		if got := r.shown(); got.Timestamp <= before.Timestamp {
			t.Errorf("its timestamp stands still at %d", got.Timestamp)
		}
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(5*time.Second, "a session is counted", func() bool { return r.shown().TotalSessions == 1 })
	})
}

func TestEventsAreNotedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("bad", `{"sessionId":`, time.Hour)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		pass(10 * time.Second)
		r.store.SetDocument("s1", `{"sessionId":"s1","userId":"bob","status":"ready","timeout":600000}`, time.Hour)
		pass(3 * time.Minute)
		if got := r.events(state.KindDocument, "bad"); len(got) != 1 || got[0] != state.EventQuarantined {
			t.Errorf("of the bad document: %v", got)
		}
		if got := r.events(state.KindSession, "s1"); len(got) != 1 || got[0] != state.EventIgnored {
			t.Errorf("of the late edit: %v", got)
		}
		if s, _ := r.store.Session(t.Context(), "s1"); s.UserID != "ann" || s.Phase != state.Ready {
			t.Errorf("the session is %s's and %s", s.UserID, s.Phase)
		}
		r.store.SetDocument("bad", `[]`, time.Hour)
		pass(2 * time.Minute)
		if got := r.events(state.KindDocument, "bad"); len(got) != 2 {
			t.Errorf("of the bad document with another text: %v", got)
		}
	})
}

func TestANewLeaderDoesNotTellWhatWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		first.store.SetDocument("bad", `{"sessionId":`, time.Hour)
		first.store.SetDocument("s1", pending("s1"), time.Hour)
		first.until(5*time.Second, "s1 is ready", func() bool { return first.phase("s1") == state.Ready })
		first.store.SetDocument("s1", `{"sessionId":"s1","userId":"bob","status":"ready","timeout":600000}`, time.Hour)
		first.store.SetPoolDesired(`{"min":-1}`, 0)
		pass(5 * time.Second)
		first.stop()
		lasting := func() (found []state.Event) {
			all, _ := first.store.Tail(t.Context(), 100)
			for _, e := range all {
				if e.Reason.State() {
					found = append(found, e)
				}
			}
			return found
		}
		before := lasting()
		second := first.successor(state.Pool{Max: 1, MaxSessions: 2}, "r2")
		pass(2 * time.Minute)
		if after := lasting(); len(before) != 3 || len(after) != 3 {
			t.Errorf("%d events, and %d after a change of leaders: %+v", len(before), len(after), after)
		}
		second.store.SetDocument("bad", `[]`, time.Hour)
		pass(2 * time.Minute)
		if got := second.events(state.KindDocument, "bad"); len(got) != 2 {
			t.Errorf("of what is new: %v", got)
		}
	})
}

func TestANewLeaderAfterBlindnessTakesAMissingDocumentForAWish(t *testing.T) {
	for name, tc := range map[string]struct {
		blind time.Duration
		want  state.Phase
	}{
		"after a short change of leaders it is written again": {30 * time.Second, state.Ready},
		"after a long blindness its session is over":          {10 * time.Minute, state.Ended},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
				store := first.store
				store.SetDocument("s1", pending("s1"), 2*time.Hour)
				first.until(5*time.Second, "s1 is ready", func() bool { return first.phase("s1") == state.Ready })
				pass(2 * time.Minute)
				first.stop()
				store.DeleteDocument("s1") // as a key that was terminated 300 s ago, or evicted
				pass(tc.blind)
				second := first.successor(state.Pool{Max: 1, MaxSessions: 2}, "r2")
				pass(30 * time.Second)
				if got := second.phase("s1"); got != tc.want && !(tc.want == state.Ended && got == state.Ending) {
					t.Errorf("s1 is %s, want %s", got, tc.want)
				}
				if d, _ := store.Document(t.Context(), "s1"); d.Missing != (tc.want == state.Ended) {
					t.Errorf("its document is missing: %t", d.Missing)
				}
			})
		})
	}
}

func TestADocumentWithoutASessionIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		r.store.SetDocument("lost", `{"sessionId":"lost","status":"ready","his":[]}`, time.Hour)
		r.until(5*time.Minute, "the document says how it ended", func() bool {
			d, _ := r.store.Document(t.Context(), "lost")
			return string(d.Text) == `{"sessionId":"lost","status":"ended","his":[],"endReason":"container_lost"}`
		})
		if got := r.phase("s1"); got != state.Ready {
			t.Errorf("s1 is %s", got)
		}
	})
}

func TestTheTasksARNIsShownOnlyWhenAskedFor(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprintf("asked=%t", asked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, func(r *rig) {
					r.config = func(c *controller.Config) { c.ExposeTaskARN = asked }
				})
				r.store.SetDocument("s1", `{"sessionId":"s1","status":"pending","containerInfo":{"zone":[]}}`, time.Hour)
				want := `{"sessionId":"s1","status":"ready","containerInfo":{"zone":[]}}`
				if asked {
					want = `{"sessionId":"s1","status":"ready","containerInfo":{"zone":[],"taskArn":"arn:cnt1","taskDefinition":"td:1"},"taskArn":"arn:cnt1","privateIp":"127.0.0.9"}`
				}
				r.until(5*time.Second, "the document is ready", func() bool {
					d, _ := r.store.Document(t.Context(), "s1")
					return d.Spec.Status == "ready"
				})
				if d, _ := r.store.Document(t.Context(), "s1"); string(d.Text) != want {
					t.Errorf("got  %s\nwant %s", d.Text, want)
				}
			})
		})
	}
}

func TestWhatADeadV1ContainerLeavesBehindIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Min: 1, Max: 1, MaxSessions: 2}, func(r *rig) { r.protocol = 1 })
		r.until(5*time.Second, "a container is ready", func() bool { return r.shown().ReadyContainers == 1 })
		r.store.NoteV1("cnt1", "s9")
		pass(5 * time.Second)
		if n, _ := r.store.V1Count(t.Context(), "cnt1"); n != 1 {
			t.Fatalf("%d notes of a live container, want 1", n)
		}
		if err := r.fleet.Stop(t.Context(), "arn:cnt1", ""); err != nil {
			t.Fatal(err)
		}
		r.until(time.Minute, "its notes are gone", func() bool { n, _ := r.store.V1Count(t.Context(), "cnt1"); return n == 0 })
	})
}

func TestAnOutageDoesNotForgetWhatIsDesired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 5, MaxSessions: 2}, nil)
		r.store.SetPoolDesired(`{"min":2}`, 0)
		r.until(3*time.Second, "two tasks run", func() bool { return r.fleet.running() == 2 })
		r.store.FailWith(errors.New("connection refused"))
		pass(time.Minute)
		r.store.FailWith(nil)
		pass(30 * time.Second)
		if p := r.shown(); p.Min != 2 || r.fleet.running() != 2 {
			t.Errorf("after an outage: %+v, %d tasks", p, r.fleet.running())
		}
		if got := r.events(state.KindPool, ""); len(got) != 1 {
			t.Errorf("events: %v", got)
		}
	})
}

func TestExplainFollowsTheDesiredPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetPoolDesired(`{"paused":true}`, 0)
		pass(2 * time.Second)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is known", func() bool { return r.phase("s1") == state.Pending })
		e, err := r.c.Explain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held := false
		for _, h := range e.Holds {
			held = held || h.What == plan.HoldLaunch && strings.Contains(h.Why, "paused")
		}
		if !held {
			t.Errorf("explanation: %+v", e)
		}
	})
}
