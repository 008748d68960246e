package controller

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// written is a store that notes the epochs of a leader's writes that carry one.
type written struct {
	*state.Memory

	mu    sync.Mutex // guards under: actions are written side by side
	under []int64
}

func (w *written) note(by state.Authority) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.under = append(w.under, by.Epoch)
}

func (w *written) Admit(ctx context.Context, by state.Authority, a state.Admission) (*state.Session, error) {
	w.note(by)
	return w.Memory.Admit(ctx, by, a)
}

func (w *written) Wait(ctx context.Context, by state.Authority, ids []string, more time.Duration) error {
	w.note(by)
	return w.Memory.Wait(ctx, by, ids, more)
}

func (w *written) CreateLaunch(ctx context.Context, by state.Authority, l state.Launch) (*state.Launch, error) {
	w.note(by)
	return w.Memory.CreateLaunch(ctx, by, l)
}

func (w *written) UpdateLaunch(ctx context.Context, by state.Authority, id string, u state.LaunchUpdate) (*state.Launch, error) {
	w.note(by)
	return w.Memory.UpdateLaunch(ctx, by, id, u)
}

func (w *written) NotePool(ctx context.Context, by state.Authority, u state.PoolUpdate) error {
	w.note(by)
	return w.Memory.NotePool(ctx, by, u)
}

func (w *written) ForgetDialect(ctx context.Context, by state.Authority) error {
	w.note(by)
	return w.Memory.ForgetDialect(ctx, by)
}

// starting is a fleet in whose calls something may happen.
type starting struct {
	prepared
	calls int
	run   func()
}

func (s *starting) Run(context.Context, *state.Launch) (state.Task, error) {
	s.calls++
	s.run()
	return state.Task{ARN: "arn:1"}, nil
}

// reigning is a controller in its first reign, with a store that holds a session that waits, a launch,
// and the dialect of a container that is gone. Its writes are noted from then on.
type reigning struct {
	*Controller
	t     *testing.T
	store *written
	fleet *starting
	now   time.Time
}

func newReigning(t *testing.T) *reigning {
	r := &reigning{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), fleet: &starting{run: func() {}}}
	r.store = &written{Memory: state.NewMemory(func() time.Time { return r.now })}
	mirror := state.NewMirror(r.store, state.MirrorOptions{})
	r.Controller = New(Config{Replica: "r", Store: r.store, Mirror: mirror, Fleet: r.fleet, NewID: func() string { return "cnt_2" }})
	r.win()
	r.begin(r.lead.epochNow())
	by := state.Authority{Epoch: r.epoch}
	if _, err := r.store.Admit(t.Context(), by, state.Admission{ID: "s", Remaining: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.CreateLaunch(t.Context(), by, state.Launch{ID: "cnt_1", Input: json.RawMessage(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Register(t.Context(), state.Registration{ID: "old", BootID: "b", Protocol: 2, MaxSessions: 1, Owner: "r", Dialect: state.DialectAuto}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.MarkGone(t.Context(), by, "old", "b"); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.store.under = nil
	return r
}

func (r *reigning) win() {
	r.t.Helper()
	if err := r.bid(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// loseAndWin has the lead change hands, and come back under another epoch.
func (r *reigning) loseAndWin() {
	r.t.Helper()
	had := r.lead.epochNow()
	r.store.LoseLease()
	r.now = r.now.Add(time.Second)
	r.win()
	if !r.lead.held() || r.lead.epochNow() == had {
		r.t.Fatalf("the lead is held %t under epoch %d, it was %d", r.lead.held(), r.lead.epochNow(), had)
	}
}

// launching is a plan that records one launch, and makes the call of another.
var launching = plan.Plan{Actions: []plan.Action{
	plan.Admit{Target: plan.Target{ID: "s2"}, Document: &state.Document{ID: "s2", Text: []byte(`{}`)}, Remaining: time.Hour},
	plan.Launch{MaxSessions: 1},
	plan.Run{Target: plan.Target{ID: "cnt_1"}},
}}

// What a reign has planned is written under its own epoch or not at all: under a later one it would
// stand beside what others have written in between, and of a launch the store cannot tell.
func TestWhatAReignPlannedIsNotWrittenUnderALaterEpoch(t *testing.T) {
	steps := map[string]struct {
		do     func(r *reigning) error
		writes int // in the reign itself
	}{
		"actions and calls": {func(r *reigning) error {
			r.act(t.Context(), launching)
			r.calls.wait()
			return nil
		}, 3},
		"time that sessions wait": {func(r *reigning) error { r.countWaits(t.Context()); return nil }, 1},
		"notes": {func(r *reigning) error {
			r.pool.unsaved.ListedAt = r.now
			return r.saveNotes(t.Context())
		}, 1},
		"dialect": {func(r *reigning) error { return r.settleDialect(t.Context(), plan.Snapshot{}) }, 1},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			r := newReigning(t)
			if err := step.do(r); err != nil || len(r.store.under) != step.writes {
				t.Fatalf("in its reign: written under %v, want %d writes; %v", r.store.under, step.writes, err)
			}
			r = newReigning(t)
			r.loseAndWin()
			if err := step.do(r); err != nil || len(r.store.under) != 0 || r.fleet.calls != 0 {
				t.Errorf("after its reign: written under %v, the present epoch is %d; %d calls; %v", r.store.under, r.lead.epochNow(), r.fleet.calls, err)
			}
		})
	}
}

// The answer to a call may come in another reign: its result is left to whoever plans there, who
// repeats the call and gets the same.
func TestTheResultOfACallIsNotWrittenInALaterReign(t *testing.T) {
	r := newReigning(t)
	r.fleet.run = r.loseAndWin
	err := r.calls.call(t.Context(), plan.Run{Target: plan.Target{ID: "cnt_1"}})
	if !errors.Is(err, errNotLeading) || r.fleet.calls != 1 || len(r.store.under) != 0 {
		t.Errorf("%d calls, written under %v: %v", r.fleet.calls, r.store.under, err)
	}
}

// A write that is refused because its epoch is over says nothing of a lead that was won since.
func TestARefusedWriteOfAnEarlierReignCostsNoLaterLead(t *testing.T) {
	r := newReigning(t)
	refused := outcome{plan.Launch{MaxSessions: 1}, state.ErrFenced}
	r.loseAndWin()
	r.settle(refused)
	r.failed("adding up waits", state.ErrFenced)
	if !r.lead.held() {
		t.Error("the later lead is lost")
	}
	r.begin(r.lead.epochNow())
	r.settle(refused)
	if r.lead.held() {
		t.Error("a lead goes on whose write was refused")
	}
}
