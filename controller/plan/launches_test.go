package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

func failed(cause state.Cause, age time.Duration) func(*state.Launch) {
	return func(l *state.Launch) {
		l.CreatedAt, l.AnsweredAt, l.SettledAt, l.Cause, l.Message = ago(age), ago(age), ago(age), cause, "why"
		l.Outcome = state.Expired
		if cause == state.NoCapacity || cause == state.Rejected {
			l.Outcome = state.Refused
		}
		if cause == state.Died || cause == state.Late {
			l.TaskARN = "arn:" + l.ID
		}
	}
}

func given(age, took time.Duration) func(*state.Launch) {
	return func(l *state.Launch) {
		l.CreatedAt, l.AnsweredAt, l.SettledAt = ago(age), ago(age), ago(age-took)
		l.Outcome, l.TaskARN = state.Registered, "arn:"+l.ID
	}
}

func aimedAt(target string, edit func(*state.Launch)) func(*state.Launch) {
	return func(l *state.Launch) { edit(l); l.Target = target }
}

// many makes n waiting sessions.
func many(n int) func(*plan.Snapshot) {
	return func(s *plan.Snapshot) {
		for i := range n {
			session(fmt.Sprintf("s%03d", i), state.Pending)(s)
		}
	}
}

func TestLaunchesFollowWhatTheLastOnesTell(t *testing.T) {
	recorded := func(*state.Launch) {}
	three := func(cause state.Cause) plan.Snapshot {
		return world(many(8), launch("l1", failed(cause, 3*time.Minute)), launch("l2", failed(cause, 2*time.Minute)), launch("l3", failed(cause, 10*time.Second)))
	}
	for _, tc := range []struct {
		name  string
		world plan.Snapshot
		want  string
		says  string // of a hold on launches
	}{
		{"without failures all that are wanted start", world(many(8)), "launch #1, launch #2", ""},
		{"no room: nothing within 30 s", world(many(8), launch("l1", failed(state.NoCapacity, 20*time.Second))), "", "next try is in 10s"},
		{"no room: one after 30 s", world(many(8), launch("l1", failed(state.NoCapacity, 31*time.Second))), "launch #1", "no room: why"},
		{"two without room in a minute are enough", world(many(8), launch("l1", failed(state.NoCapacity, 50*time.Second)), launch("l2", failed(state.NoCapacity, 40*time.Second))), "", "next try is in 10s"},
		{"the recorded of a drought are not called", world(many(8), launch("l1", failed(state.NoCapacity, time.Second)), launch("l2", recorded)), "", "its call waits"},
		{"but one is, when its time has come", world(many(8), launch("l1", failed(state.NoCapacity, 40*time.Second)), launch("l2", recorded), launch("l3", recorded)), "run l2", "its call waits"},
		{"and one that has its task", world(many(4), launch("l1", failed(state.NoCapacity, time.Second)), launch("l2", recorded),
			task("arn:x", func(t *state.Task) { t.ContainerID = "l2" })), "run l2", ""},
		{"found room doubles what is tried", world(many(12), launch("l1", failed(state.NoCapacity, 3*time.Minute)), launch("l2", given(2*time.Minute, time.Minute))), "launch #1, launch #2", "no room: why"},
		{"no room elsewhere says nothing", world(many(8), launch("l1", aimedAt("other", failed(state.NoCapacity, time.Second)))), "launch #1, launch #2", ""},
		{"an operator's wish is tried at once", world(many(8), launch("l1", failed(state.NoCapacity, 20*time.Second)), func(s *plan.Snapshot) { s.DesiredAt = ago(time.Second) }), "launch #1", "no room"},

		{"a failed start is followed by one after a second", world(many(8), launch("l1", failed(state.Died, 2*time.Second))), "launch #1", "1 launches in a row"},
		{"three in a row open the circuit", three(state.Died), "", "the circuit of td is open"},
		{"also of those that ECS rejects", three(state.Rejected), "", "the circuit of td is open"},
		{"an open circuit is tried by one, 30 s later", world(many(8), launch("l1", failed(state.Died, 3*time.Minute)), launch("l2", failed(state.Died, 2*time.Minute)), launch("l3", failed(state.Died, 31*time.Second))), "launch #1", "the circuit of td is open"},
		{"and by one only", world(many(8), launch("l1", failed(state.Died, 3*time.Minute)), launch("l2", failed(state.Died, 2*time.Minute)), launch("l3", failed(state.Died, 31*time.Second)),
			launch("l4", func(l *state.Launch) { l.Outcome, l.TaskARN = state.Started, "arn:l4" })), "", "0 tried"},
		{"a registration closes it", world(many(8), launch("l1", failed(state.Died, 3*time.Minute)), launch("l2", failed(state.Died, 2*time.Minute)), launch("l3", failed(state.Died, 31*time.Second)),
			launch("l4", given(20*time.Second, 10*time.Second))), "launch #1, launch #2", ""},
		{"another task definition is tried at once", func() plan.Snapshot { w := three(state.Died); retarget(w.Launches, "td:1"); return w }(), "launch #1, launch #2", ""},
		{"and so is what an operator wants", func() plan.Snapshot { w := three(state.Died); w.DesiredAt = ago(time.Second); return w }(), "launch #1, launch #2", ""},
		{"calls that nobody answered open no circuit", three(state.Unanswered), "launch #1, launch #2", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.world.Target = "td"
			p := plan.Make(tc.world, plan.Policy{Pool: pool})
			var got []string
			for _, line := range brief(p) {
				if strings.HasPrefix(line, "launch") || strings.HasPrefix(line, "run") {
					got = append(got, line)
				}
			}
			if text := strings.Join(got, ", "); text != tc.want {
				t.Errorf("got %q, want %q; holds %v", text, tc.want, p.Holds)
			}
			said := tc.says == ""
			for _, h := range p.Holds {
				if h.What == plan.HoldLaunch {
					said = said || strings.Contains(h.Why, tc.says)
				}
			}
			if !said {
				t.Errorf("no hold says %q: %v", tc.says, p.Holds)
			}
		})
	}
}

func retarget(launches []*state.Launch, target string) {
	for _, l := range launches {
		l.Target = target
	}
}

func TestTheStartDeadlineIsLearnt(t *testing.T) {
	starts := func(n int, took time.Duration) func(*plan.Snapshot) {
		return func(s *plan.Snapshot) {
			for i := range n {
				launch(fmt.Sprintf("g%03d", i), given(time.Hour, took))(s)
			}
		}
	}
	late := func(took time.Duration) func(*plan.Snapshot) {
		return launch("late", func(l *state.Launch) {
			l.CreatedAt, l.SettledAt, l.Outcome, l.Cause, l.TaskARN = ago(time.Hour), ago(time.Hour-took), state.Expired, state.Late, "arn:late"
		})
	}
	for _, tc := range []struct {
		name       string
		world      plan.Snapshot
		configured time.Duration
		want       time.Duration
	}{
		{"nothing seen", world(), 0, 120 * time.Second},
		{"too little seen", world(starts(4, 10*time.Second)), 0, 120 * time.Second},
		{"quick starts", world(starts(5, 10*time.Second)), 0, 90 * time.Second},
		{"slow starts", world(starts(20, 100*time.Second)), 0, 150 * time.Second},
		{"one slow among many", world(starts(300, 10*time.Second), launch("slow", given(time.Hour, 120*time.Second))), 0, 180 * time.Second},
		{"never above the bound", world(starts(20, 290*time.Second)), 0, 300 * time.Second},
		{"given up too early: it grows", world(starts(20, 10*time.Second), late(120*time.Second)), 0, 180 * time.Second},
		{"a configuration below the floor lowers it", world(starts(20, time.Second)), 30 * time.Second, 30 * time.Second},
		{"a configuration above the bound raises it", world(), 10 * time.Minute, 10 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := plan.Make(tc.world, plan.Policy{Pool: pool, StartDeadline: tc.configured})
			if p.Launching.Deadline != tc.want {
				t.Errorf("%s, want %s", p.Launching.Deadline, tc.want)
			}
		})
	}
}

// ECS has room for a share of the launches only. However that share lies, no more than two
// fail in any minute once the drought is known; when there is room again, all is launched.
func TestADroughtWastesTwoLaunchesAMinute(t *testing.T) {
	for _, share := range []int{0, 2, 5, 9} { // tenths that find room
		t.Run(fmt.Sprintf("room for %d of 10", share), func(t *testing.T) {
			s := world(many(200))
			s.Target = "td"
			policy := plan.Policy{Pool: state.Pool{Max: 100, MaxSessions: 4}}
			start := s.Now
			var wasted []time.Time
			seq, calls := 0, 0
			for step := range 20 * 60 * 2 {
				s.Now = start.Add(time.Duration(step) * 500 * time.Millisecond)
				s.TasksAt = s.Now
				for _, a := range plan.Make(s, policy).Actions {
					switch a := a.(type) {
					case plan.Launch:
						seq++
						s.Launches = append(s.Launches, &state.Launch{ID: fmt.Sprintf("l%05d", seq), Target: "td", CreatedAt: s.Now})
					case plan.Run:
						l := find(s.Launches, a.ID)
						calls++
						l.AnsweredAt = s.Now
						if room := calls*7%10 < share || s.Now.Sub(start) > 18*time.Minute; room {
							l.Outcome, l.TaskARN = state.Started, "arn:"+l.ID
							s.Containers = append(s.Containers, &state.Container{ID: l.ID, TaskARN: l.TaskARN, BootID: "b",
								Phase: state.ContainerReady, MaxSessions: 4, RegisteredAt: s.Now, Slots: []string{"a", "b", "c", "d"}})
							s.Sessions = s.Sessions[min(4, len(s.Sessions)):]
							continue
						}
						l.Outcome, l.Cause, l.SettledAt = state.Refused, state.NoCapacity, s.Now
						wasted = append(wasted, s.Now)
					case plan.ResolveLaunch:
						l := find(s.Launches, a.ID)
						l.Outcome, l.Cause, l.SettledAt = a.Outcome, a.Cause, a.SettledAt
					case plan.ForgetLaunch:
						for i, l := range s.Launches {
							if l.ID == a.ID {
								s.Launches = append(s.Launches[:i:i], s.Launches[i+1:]...)
								break
							}
						}
					}
				}
				for _, c := range s.Containers {
					c.SeenAt = s.Now
				}
			}
			// The first wave is on its way before ECS has said anything.
			known := wasted[0]
			var after []time.Time
			for _, at := range wasted {
				if at.After(known) {
					after = append(after, at)
				}
			}
			for i := 2; i < len(after); i++ {
				if d := after[i].Sub(after[i-2]); d < time.Minute {
					t.Fatalf("three launches wasted within %s", d)
				}
			}
			if share == 0 && len(after) < 20 {
				t.Errorf("only %d probes in 20 minutes of drought", len(after))
			}
			if len(s.Sessions) > 0 {
				t.Errorf("%d sessions still wait after there was room for two minutes", len(s.Sessions))
			}
		})
	}
}

func find(launches []*state.Launch, id string) *state.Launch {
	for _, l := range launches {
		if l.ID == id {
			return l
		}
	}
	return nil
}
