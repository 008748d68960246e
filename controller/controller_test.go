package controller_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// fleet is a state.Fleet in memory whose tasks run as soon as they are started.
type fleet struct {
	mu      sync.Mutex
	tasks   map[string]state.Task // by ARN
	calls   map[string]int        // RunTask calls by launch
	runErr  func(launch string, call int) error
	onStart func(launch string)
	listErr func() error // nil: none

	keepRunning bool // tasks that are told to stop go on until stop
}

func newFleet() *fleet { return &fleet{tasks: map[string]state.Task{}, calls: map[string]int{}} }

func (f *fleet) Prepare(launch string, maxSessions int) (json.RawMessage, int, error) {
	return json.RawMessage(fmt.Sprintf(`{"launch":%q,"maxSessions":%d}`, launch, maxSessions)), 8080, nil
}

func (f *fleet) Target() string { return "td:1" }

func (f *fleet) Run(_ context.Context, l *state.Launch) (state.Task, error) {
	f.mu.Lock()
	f.calls[l.ID]++
	call := f.calls[l.ID]
	arn := "arn:" + l.ID
	_, again := f.tasks[arn]
	var err error
	if f.runErr != nil {
		err = f.runErr(l.ID, call)
	}
	if _, refused := errors.AsType[*state.LaunchRefused](err); !refused {
		f.tasks[arn] = state.Task{ARN: arn, ContainerID: l.ID, LastStatus: "RUNNING", DesiredStatus: "RUNNING", Addr: "127.0.0.9", Definition: "td:1",
			CreatedAt: time.Now(), StartedAt: time.Now()}
	}
	task := f.tasks[arn]
	f.mu.Unlock()
	if err != nil {
		return state.Task{}, err
	}
	if !again && f.onStart != nil {
		f.onStart(l.ID)
	}
	return task, nil
}

func (f *fleet) Stop(_ context.Context, arn, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keepRunning {
		t := f.tasks[arn]
		t.DesiredStatus = "STOPPED"
		f.tasks[arn] = t
		return nil
	}
	f.stop(arn)
	return nil
}

// stop ends a task. f.mu is held.
func (f *fleet) stop(arn string) {
	t := f.tasks[arn]
	t.LastStatus, t.DesiredStatus, t.StopCode = "STOPPED", "STOPPED", state.StopCodeUser
	f.tasks[arn] = t
}

func (f *fleet) List(context.Context, ...string) ([]state.Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listErr != nil {
		if err := f.listErr(); err != nil {
			return nil, err
		}
	}
	var all []state.Task
	for _, t := range f.tasks {
		all = append(all, t)
	}
	return all, nil
}

func (f *fleet) Describe(ctx context.Context, _ ...string) ([]state.Task, error) {
	return f.List(ctx)
}

func (f *fleet) running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, t := range f.tasks {
		if !t.Stopped() {
			n++
		}
	}
	return n
}

// rig is a controller on a store in memory, with containers that register by themselves,
// report every 5 s and serve every session at once. Its clock is the bubble's.
type rig struct {
	t     *testing.T
	store *state.Memory
	fleet *fleet
	c     *controller.Controller
	stop  func()

	config   func(*controller.Config) // nil: as it is
	protocol int                      // of the containers; zero: 2
	reports  time.Duration            // between reports; zero: 100 ms

	mu    sync.Mutex
	boots map[string]string // container → boot
	seqs  map[string]int64
}

func newRig(t *testing.T, pool state.Pool, edit func(*rig)) *rig {
	t.Helper()
	return startRig(t, state.NewMemory(nil), pool, "r1", edit)
}

// successor is a rig of another replica after r has stopped, with the same store, the same
// tasks and the same containers.
func (r *rig) successor(pool state.Pool, replica string) *rig {
	r.t.Helper()
	return startRig(r.t, r.store, pool, replica, func(next *rig) {
		next.fleet, next.boots, next.seqs = r.fleet, r.boots, r.seqs
		next.fleet.onStart = next.register
	})
}

func startRig(t *testing.T, store *state.Memory, pool state.Pool, replica string, edit func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, store: store, fleet: newFleet(), protocol: 2, boots: map[string]string{}, seqs: map[string]int64{}}
	r.fleet.onStart = r.register
	if edit != nil {
		edit(r)
	}
	mirror := state.NewMirror(r.store, state.MirrorOptions{})
	var ids atomic.Int64
	cfg := controller.Config{
		Replica: replica, Store: r.store, Mirror: mirror, Fleet: r.fleet, Policy: plan.Policy{Pool: pool},
		NewID: func() string { return fmt.Sprintf("cnt%d", ids.Add(1)) },
	}
	if r.config != nil {
		r.config(&cfg)
	}
	r.c = controller.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = mirror.Run(ctx) })
	wg.Go(func() { _ = r.c.Run(ctx) })
	wg.Go(func() { r.containers(ctx) })
	r.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(r.stop)
	return r
}

func (r *rig) register(id string) {
	c, err := r.store.Register(context.Background(), state.Registration{ID: id, Launch: id, BootID: "boot", Protocol: r.protocol, MaxSessions: 2, Owner: "r1"})
	if err != nil {
		r.t.Errorf("registering %s: %v", id, err)
		return
	}
	r.mu.Lock()
	r.boots[id], r.seqs[id] = "boot", c.OwnerSeq
	r.mu.Unlock()
}

// containers plays every container and its link's owner.
func (r *rig) containers(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(r.reports, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		seqs := maps.Clone(r.seqs)
		r.mu.Unlock()
		for id, seq := range seqs {
			r.play(ctx, id, seq)
		}
	}
}

func (r *rig) play(ctx context.Context, id string, seq int64) {
	by := state.Authority{Container: id, OwnerSeq: seq}
	c, err := r.store.Container(ctx, id)
	if err != nil || c.Phase == state.Gone {
		return
	}
	report := state.Report{BootID: "boot", Addr: "127.0.0.9:8080", TaskARN: "arn:" + id}
	if c.Used() == 0 {
		report.DrainAck = c.DrainSeq
	}
	_, _ = r.store.Report(ctx, by, report)
	for _, sid := range c.Slots {
		s, err := r.store.Session(ctx, sid)
		if err != nil {
			continue
		}
		switch s.Phase {
		case state.Bound:
			_, _, _ = r.store.Ready(ctx, by, sid, s.BindRev, false)
		case state.Ending:
			_, _ = r.store.End(ctx, by, state.End{Session: sid, BindRev: s.BindRev, Reason: s.Reason, Confirmed: true})
		default: // nothing to say of it
		}
	}
}

func (r *rig) phase(id string) state.Phase {
	s, err := r.store.Session(context.Background(), id)
	if err != nil {
		return ""
	}
	return s.Phase
}

// until waits, in the bubble's time, for a condition.
func (r *rig) until(limit time.Duration, what string, done func() bool) {
	r.t.Helper()
	end := time.Now().Add(limit)
	for !done() {
		if time.Now().After(end) {
			r.t.Fatalf("not within %s: %s", limit, what)
		}
		pause := time.NewTimer(10 * time.Millisecond)
		<-pause.C
	}
}

func pending(id string) string {
	return `{"sessionId":"` + id + `","userId":"ann","status":"pending","timeout":600000,"big":9007199254740993}`
}

func TestADocumentBecomesABrowserAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 3, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		if n := r.fleet.running(); n != 1 {
			t.Errorf("%d tasks run for one session", n)
		}
		r.until(5*time.Second, "the document says so, and keeps what it had", func() bool {
			d, _ := r.store.Document(t.Context(), "s1")
			return string(d.Text) == `{"sessionId":"s1","userId":"ann","status":"ready","timeout":600000,"big":9007199254740993}`
		})
		r.store.SetDocument("s1", `{"sessionId":"s1","userId":"ann","status":"terminated"}`, 5*time.Minute)
		r.until(5*time.Second, "s1 has ended", func() bool { return r.phase("s1") == state.Ended })
		s, _ := r.store.Session(t.Context(), "s1")
		if s.Reason != state.Released {
			t.Errorf("it ended for %q", s.Reason)
		}
	})
}

func TestADeletedDocumentComesBackWhileItsSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		r.store.DeleteDocument("s1")
		r.until(10*time.Second, "it is written again", func() bool {
			d, _ := r.store.Document(t.Context(), "s1")
			return !d.Missing && d.TTL > 9*time.Minute
		})
		if got := r.phase("s1"); got != state.Ready {
			t.Errorf("the session is %s", got)
		}
	})
}

func TestADeadlineEndsASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), 30*time.Second)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		r.until(40*time.Second, "s1 has ended", func() bool { return r.phase("s1") == state.Ended })
		if s, _ := r.store.Session(t.Context(), "s1"); s.Reason != state.DeadlinePassed {
			t.Errorf("it ended for %q", s.Reason)
		}
	})
}

func TestALongerTimeoutMovesTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		r.store.SetDocument("s1", `{"sessionId":"s1","userId":"ann","status":"ready","timeout":1800000}`, 30*time.Minute)
		r.until(5*time.Second, "the deadline has moved", func() bool {
			s, _ := r.store.Session(t.Context(), "s1")
			return time.Until(s.Deadline) > 29*time.Minute
		})
	})
}

func TestALaunchWhoseAnswerIsLostIsOneTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 3, MaxSessions: 2}, func(r *rig) {
			r.fleet.runErr = func(_ string, call int) error {
				if call == 1 {
					return errors.New("connection reset after the request was sent")
				}
				return nil
			}
			r.fleet.onStart = nil
		})
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(5*time.Second, "the call was repeated", func() bool {
			r.fleet.mu.Lock()
			defer r.fleet.mu.Unlock()
			return r.fleet.calls["cnt1"] >= 2
		})
		if n := r.fleet.running(); n != 1 {
			t.Errorf("%d tasks run", n)
		}
	})
}

func TestARefusedLaunchIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 3, MaxSessions: 2}, func(r *rig) {
			r.fleet.runErr = func(launch string, _ int) error {
				if launch == "cnt1" {
					return &state.LaunchRefused{Reason: "Capacity is unavailable at this time", Capacity: true}
				}
				return nil
			}
		})
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(40*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		l, err := r.store.Launch(t.Context(), "cnt1")
		if err != nil || l.Outcome != state.Refused || l.Message == "" {
			t.Errorf("the first launch is %+v, %v", l, err)
		}
	})
}

func TestATaskThatNeverRegistersIsStoppedAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 2, MaxSessions: 2}, nil)
		register := r.fleet.onStart
		r.fleet.onStart = func(launch string) {
			if launch != "cnt1" {
				register(launch)
			}
		}
		r.store.SetDocument("s1", pending("s1"), 10*time.Minute)
		r.until(4*time.Minute, "s1 is ready on another", func() bool { return r.phase("s1") == state.Ready })
		r.until(30*time.Second, "the silent task is stopped", func() bool { return r.fleet.running() == 1 })
	})
}

func TestAnIdlePoolShrinksToItsMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Min: 1, Max: 4, MaxSessions: 2}, nil)
		for i := range 5 {
			id := fmt.Sprintf("s%d", i)
			r.store.SetDocument(id, pending(id), 30*time.Second)
		}
		r.until(10*time.Second, "three containers run", func() bool { return r.fleet.running() == 3 })
		r.until(10*time.Minute, "one is left", func() bool { return r.fleet.running() == 1 })
		still := time.NewTimer(10 * time.Minute)
		<-still.C
		if n := r.fleet.running(); n != 1 {
			t.Errorf("%d tasks run after ten quiet minutes", n)
		}
	})
}

func TestAnOutageOfTheStoreEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		r.store.FailWith(errors.New("connection refused"))
		outage := time.NewTimer(2 * time.Minute)
		<-outage.C
		r.store.FailWith(nil)
		after := time.NewTimer(2 * time.Minute)
		<-after.C
		if got := r.phase("s1"); got != state.Ready {
			t.Errorf("s1 is %s after the outage", got)
		}
		if n := r.fleet.running(); n != 1 {
			t.Errorf("%d tasks run after the outage", n)
		}
		r.store.SetDocument("s2", pending("s2"), time.Hour)
		r.until(15*time.Second, "work goes on", func() bool { return r.phase("s2") == state.Ready })
	})
}

func TestASecondReplicaTakesOverWithoutStartingAnythingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 3, MaxSessions: 2}, nil)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })

		mirror := state.NewMirror(r.store, state.MirrorOptions{})
		second := controller.New(controller.Config{Replica: "r2", Store: r.store, Mirror: mirror, Fleet: r.fleet,
			Policy: plan.Policy{Pool: state.Pool{Max: 3, MaxSessions: 2}}, NewID: func() string { return "other" }})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = mirror.Run(ctx) })
		wg.Go(func() { _ = second.Run(ctx) })
		defer func() { cancel(); wg.Wait() }()

		pause := time.NewTimer(10 * time.Second)
		<-pause.C
		if second.Leading() || !r.c.Leading() {
			t.Fatalf("leading: first %t, second %t", r.c.Leading(), second.Leading())
		}
		r.store.SetDocument("s2", pending("s2"), time.Hour)
		r.until(5*time.Second, "s2 is ready", func() bool { return r.phase("s2") == state.Ready })
		if n := r.fleet.running(); n != 1 {
			t.Errorf("%d tasks run", n)
		}

		// A lead that is given up is taken at once, not when it would have run out.
		r.stop()
		r.until(20*time.Millisecond, "the second leads", second.Leading)
	})
}

// unheard is a store of which a replica, while it is cut off, reads no record.
type unheard struct {
	*state.Memory
	cut  atomic.Bool
	slow atomic.Int64 // what reading sessions' records takes and giving them back, as a duration
}

func (u *unheard) Restore(ctx context.Context, seen int64, r state.Records) error {
	pass(time.Duration(u.slow.Load()))
	return u.Memory.Restore(ctx, seen, r)
}

func (u *unheard) Index(ctx context.Context) (state.Index, error) {
	if u.cut.Load() {
		return state.Index{}, state.ErrUnavailable
	}
	return u.Memory.Index(ctx)
}

func (u *unheard) SessionsOf(ctx context.Context, ids []string) ([]*state.Session, error) {
	if u.cut.Load() {
		return nil, state.ErrUnavailable
	}
	pass(time.Duration(u.slow.Load()))
	return u.Memory.SessionsOf(ctx, ids)
}

func (u *unheard) ContainersOf(ctx context.Context, ids []string) ([]*state.Container, error) {
	if u.cut.Load() {
		return nil, state.ErrUnavailable
	}
	return u.Memory.ContainersOf(ctx, ids)
}

func (u *unheard) LaunchesOf(ctx context.Context, ids []string) ([]*state.Launch, error) {
	if u.cut.Load() {
		return nil, state.ErrUnavailable
	}
	return u.Memory.LaunchesOf(ctx, ids)
}

// A replica that was cut off may take the lead before it has heard what was done meanwhile.
func TestANewLeaderReadsBeforeItPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := state.Pool{Max: 1, MaxSessions: 2}
		r := newRig(t, pool, nil)
		r.until(5*time.Second, "the first leads", r.c.Leading)
		store := &unheard{Memory: r.store}
		mirror := state.NewMirror(store, state.MirrorOptions{})
		second := controller.New(controller.Config{Replica: "r2", Store: store, Mirror: mirror, Fleet: r.fleet,
			Policy: plan.Policy{Pool: pool}, NewID: func() string { return "other" }})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = mirror.Run(ctx) })
		wg.Go(func() { _ = second.Run(ctx) })
		defer func() { cancel(); wg.Wait() }()
		pass(time.Second)
		if !r.c.Leading() || !mirror.Synced() {
			t.Fatalf("the first leads: %t, the second has read the store: %t", r.c.Leading(), mirror.Synced())
		}

		store.cut.Store(true)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is ready", func() bool { return r.phase("s1") == state.Ready })
		r.stop()
		r.until(time.Second, "the second leads", second.Leading)
		r.store.SetDocument("s2", pending("s2"), time.Hour)
		pass(10 * time.Second)
		if n := r.fleet.running(); n != 1 {
			t.Errorf("%d tasks run of at most one: the new leader has not heard of the first", n)
		}
		store.cut.Store(false)
		r.until(5*time.Second, "s2 is bound beside s1", func() bool { return r.phase("s2") == state.Bound })
	})
}

func TestExplainSaysWhatWouldBeDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2, Paused: true}, nil)
		r.store.SetDocument("s1", pending("s1"), time.Hour)
		r.until(5*time.Second, "s1 is known", func() bool { return r.phase("s1") == state.Pending })
		e, err := r.c.Explain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, h := range e.Holds {
			found = found || h.What == plan.HoldLaunch
		}
		if !found || !e.Leading || e.Demand.Pending != 1 {
			t.Errorf("explanation: %+v", e)
		}
	})
}

func TestExplainNamesSessionsToThoseWhoMayKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, state.Pool{Max: 1, MaxSessions: 2, Paused: true}, nil)
		r.store.SetDocument("s-ann", pending("s-ann"), time.Hour)
		r.store.SetDocument("s-bob", strings.ReplaceAll(pending("s-bob"), "ann", "bob"), time.Hour)
		r.until(5*time.Second, "they are known", func() bool { return r.phase("s-ann") == state.Pending && r.phase("s-bob") == state.Pending })
		r.store.SetDocument("s-bad", `{"userId":`, time.Hour)
		pass(100 * time.Millisecond)
		for user, want := range map[string][3]bool{"": {true, true, true}, "ann": {true, false, false}, "eve": {false, false, false}} {
			mayKnow := func(u string) bool { return u == user }
			if user == "" {
				mayKnow = nil
			}
			e, err := r.c.ExplainTo(t.Context(), mayKnow)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			for i, id := range []string{"s-ann", "s-bob", "s-bad"} {
				if got := strings.Contains(string(text), id); got != want[i] {
					t.Errorf("to user %q %s shows: %t, want %t: %s", user, id, got, want[i], text)
				}
			}
			if len(e.Actions)+len(e.Holds) < 3 {
				t.Errorf("user %q is told too little: %s", user, text)
			}
		}
	})
}

func TestLaunchesKeepToTheAllowanceAndMakeWayWhenThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var calls []time.Time
		throttled := true
		r := newRig(t, state.Pool{Min: 60, Max: 60, MaxSessions: 1}, func(r *rig) {
			r.fleet.runErr = func(string, int) error {
				mu.Lock()
				defer mu.Unlock()
				calls = append(calls, time.Now())
				if throttled {
					return fmt.Errorf("running a task: %w", state.ErrThrottled)
				}
				return nil
			}
		})
		pass(20 * time.Second)
		mu.Lock()
		if n := len(calls); n < 2 || n > 60 { // a tenth to a third of what is allowed otherwise
			t.Errorf("%d calls in 20 s while each is throttled", n)
		}
		throttled, calls = false, nil
		mu.Unlock()
		r.until(2*time.Minute, "all run", func() bool { return r.fleet.running() == 60 })
		mu.Lock()
		defer mu.Unlock()
		for i := 20; i < len(calls); i++ {
			if d := calls[i].Sub(calls[i-20]); d < time.Second-time.Millisecond {
				t.Fatalf("21 calls of RunTask within %s: the allowance is 10 at once and 10 a second", d)
			}
		}
	})
}
