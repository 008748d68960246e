package statetest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// testGivingUp gives a container up that holds sessions of every kind.
func testGivingUp(t *testing.T, w *world) {
	owner := w.hosting("c1", 3)
	ready := w.sessionIn(state.Ready, "ready", "c1", owner)
	bound := w.sessionIn(state.Bound, "bound", "c1", owner)
	ending := w.sessionIn(state.Ending, "ending", "c1", owner)
	before := w.container("c1")
	giveUp := func(by state.Authority, seenAt time.Time) (*state.Container, error) {
		return w.store.GiveUp(w.ctx, by, state.GivingUp{Container: "c1", BootID: boot, SeenAt: seenAt, JudgedAt: time.Now()})
	}

	// Neither by who does not lead, nor once it has been heard since.
	_, err := giveUp(owner, before.SeenAt)
	w.is(err, state.ErrFenced)
	_, err = giveUp(state.Authority{Epoch: w.lead().Epoch - 1}, before.SeenAt)
	w.is(err, state.ErrFenced)
	_, err = giveUp(w.lead(), before.SeenAt.Add(-time.Millisecond))
	w.is(err, state.ErrConflict)
	// Nor by who has stood still since it was judged.
	_, err = w.store.GiveUp(w.ctx, w.lead(), state.GivingUp{Container: "c1", BootID: boot, SeenAt: before.SeenAt,
		JudgedAt: time.Now().Add(-state.JudgedFor - time.Second)})
	w.is(err, state.ErrConflict)
	if c := w.container("c1"); c.Phase != state.ContainerReady || c.GivenUp() || c.Used() != 3 {
		t.Fatalf("refused, it is %+v", c)
	}

	c, err := giveUp(w.lead(), before.SeenAt)
	w.ok(err)
	if c.Phase != state.Stopping || !c.GivenUp() || c.Used() != 0 {
		t.Fatalf("given up, it is %+v", c)
	}
	again, err := giveUp(w.lead(), before.SeenAt)
	w.ok(err)
	w.same(c.Rev, again.Rev)

	// What it held is lost, and can be settled.
	for _, s := range []*state.Session{ready, ending} {
		got, err := w.store.End(w.ctx, w.lead(), state.End{Session: s.ID, BindRev: s.BindRev, Reason: state.ContainerLost, Confirmed: true})
		w.ok(err)
		if got.Phase != state.Ended {
			t.Fatalf("%s is %s", s.ID, got.Phase)
		}
	}
	_, err = w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: bound.ID, BindRev: bound.BindRev, Why: "lost"})
	w.ok(err)
	w.admit("new", "u")
	_, err = w.store.Bind(w.ctx, w.lead(), state.Binding{Session: "new", Container: "c1", BootID: boot})
	w.is(err, state.ErrConflict)

	// It may report, so that its owner can tell it to let go; it may not come back.
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot, Addr: "10.0.0.1:8080"})
	w.ok(err)
	if c := w.container("c1"); c.Phase != state.Stopping || !c.GivenUp() || c.Used() != 0 {
		t.Fatalf("heard again, it is %+v", c)
	}
	for _, life := range []string{boot, otherBoot} {
		_, err := w.store.Register(w.ctx, state.Registration{ID: "c1", Launch: "c1", BootID: life, Protocol: 2, MaxSessions: 3, Owner: "replica-2"})
		w.is(err, state.ErrConflict)
	}
	c, err = w.store.MarkGone(w.ctx, w.lead(), "c1", boot)
	w.ok(err)
	if !c.GivenUp() {
		t.Fatal("once it is gone, nobody knows that it was given up")
	}
}

// testTestimonies has replicas speak of silent containers.
func testTestimonies(t *testing.T, w *world) {
	say := func(container, replica string, silent, quiet time.Duration) state.Testimony {
		return state.Testimony{Container: container, BootID: boot, Replica: replica, Silent: silent, Quiet: quiet}
	}
	read := func(containers ...string) []state.Testimony {
		t.Helper()
		got, err := w.store.Testimonies(w.ctx, containers)
		w.ok(err)
		slices.SortFunc(got, func(a, b state.Testimony) int {
			return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Replica, b.Replica))
		})
		for i := range got {
			if got[i].At.IsZero() {
				t.Fatalf("nobody knows when %+v was said", got[i])
			}
			got[i].At = time.Time{}
		}
		return got
	}
	if got := read("c1"); len(got) != 0 {
		t.Fatalf("before anybody spoke: %v", got)
	}
	if got := read(); len(got) != 0 {
		t.Fatalf("of nothing: %v", got)
	}
	w.ok(w.store.Testify(w.ctx, nil))
	w.ok(w.store.Testify(w.ctx, []state.Testimony{say("c1", "r1", 20*time.Second, time.Minute), say("c2", "r1", 0, 1500*time.Millisecond)}))
	w.ok(w.store.Testify(w.ctx, []state.Testimony{say("c1", "r2", 0, time.Second)}))
	w.ok(w.store.Testify(w.ctx, []state.Testimony{say("c1", "r1", 25*time.Second, 65*time.Second)})) // takes the place of the first
	want := []state.Testimony{say("c1", "r1", 25*time.Second, 65*time.Second), say("c1", "r2", 0, time.Second)}
	if got := read("c1", "nobody"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got := read("c2", "c1"); len(got) != 3 || got[2].Quiet != 1500*time.Millisecond {
		t.Fatalf("of both: %v", got)
	}
	for _, bad := range []state.Testimony{{}, say("c 1", "r1", 0, 0), say("c1", "", 0, 0), {Container: "c1", Replica: "r1"}} {
		w.is(w.store.Testify(w.ctx, []state.Testimony{bad}), state.ErrInvalid)
	}
}
