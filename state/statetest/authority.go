package statetest

import (
	"errors"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// writes are all methods that want an authority, and what it must be.
func (w *world) writes(s *state.Session) []struct {
	name string
	do   func(by state.Authority) error
} {
	type write = struct {
		name string
		do   func(by state.Authority) error
	}
	st, ctx := w.store, w.ctx
	drop := func(_ any, err error) error { return err }
	return []write{
		{"Admit", func(by state.Authority) error {
			return drop(st.Admit(ctx, by, state.Admission{ID: "new", Remaining: time.Hour}))
		}},
		{"Bind", func(by state.Authority) error {
			return drop(st.Bind(ctx, by, state.Binding{Session: "waiting", Container: "c1", BootID: boot}))
		}},
		{"Unbind", func(by state.Authority) error {
			return drop(st.Unbind(ctx, by, state.Unbinding{Session: s.ID, BindRev: s.BindRev}))
		}},
		{"Amend", func(by state.Authority) error {
			return drop(st.Amend(ctx, by, state.Amendment{Session: s.ID, Remaining: time.Hour}))
		}},
		{"Wait", func(by state.Authority) error { return st.Wait(ctx, by, []string{"waiting"}, time.Second) }},
		{"Undrain", func(by state.Authority) error { return drop(st.Undrain(ctx, by, "c1", boot)) }},
		{"BeginStop", func(by state.Authority) error { return drop(st.BeginStop(ctx, by, "c1", boot)) }},
		{"MarkGone", func(by state.Authority) error { return drop(st.MarkGone(ctx, by, "c1", boot)) }},
		{"CreateLaunch", func(by state.Authority) error {
			return drop(st.CreateLaunch(ctx, by, state.Launch{ID: "new", Input: []byte(`{}`)}))
		}},
		{"UpdateLaunch", func(by state.Authority) error {
			return drop(st.UpdateLaunch(ctx, by, "l1", state.LaunchUpdate{Tries: 7}))
		}},
		{"ForgetLaunch", func(by state.Authority) error { return st.ForgetLaunch(ctx, by, "l1") }},
		{"End", func(by state.Authority) error {
			return drop(st.End(ctx, by, state.End{Session: s.ID, BindRev: s.BindRev, Reason: state.Idle}))
		}},
		{"Drain", func(by state.Authority) error { return drop(st.Drain(ctx, by, "c1", boot)) }},
		{"Release", func(by state.Authority) error { return st.Release(ctx, by, "c1", "waiting") }},
		{"Ready", func(by state.Authority) error {
			_, _, err := st.Ready(ctx, by, s.ID, s.BindRev, false)
			return err
		}},
		{"Refuse", func(by state.Authority) error { return drop(st.Refuse(ctx, by, s.ID, s.BindRev, "no")) }},
		{"Touch", func(by state.Authority) error {
			return st.Touch(ctx, by, []state.Activity{{Session: s.ID, BindRev: s.BindRev, Attached: 1}})
		}},
		{"Report", func(by state.Authority) error { return drop(st.Report(ctx, by, state.Report{BootID: boot})) }},
		{"Disown", func(by state.Authority) error { return st.Disown(ctx, by) }},
	}
}

// leadersOnly and ownersOnly are the writes that only one of the two may make.
func leadersOnly(name string) bool {
	switch name {
	case "End", "Drain", "Release":
		return false
	}
	return !ownersOnly(name)
}

func ownersOnly(name string) bool {
	switch name {
	case "Ready", "Refuse", "Touch", "Report", "Disown":
		return true
	}
	return false
}

func (w *world) fenced(t *testing.T, s *state.Session, by state.Authority, which func(name string) bool) {
	t.Helper()
	before, host := w.session(s.ID), w.container("c1")
	for _, write := range w.writes(s) {
		if which != nil && !which(write.name) {
			continue
		}
		if err := write.do(by); !errors.Is(err, state.ErrFenced) && !(errors.Is(err, state.ErrNotFound) && by.Container != "c1") {
			t.Errorf("%s by %+v: %v, want ErrFenced", write.name, by, err)
		}
	}
	w.same(before.Rev, w.session(s.ID).Rev)
	w.same(host.Rev, w.container("c1").Rev)
}

func testLeaderFencing(t *testing.T, w *world) {
	owner := w.hosting("c1", 4)
	s := w.sessionIn(state.Bound, "s1", "c1", owner)
	w.admit("waiting", "u")
	_, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(`{}`)})
	w.ok(err)
	old := w.lead()
	w.fenced(t, s, state.Authority{}, nil)
	w.fenced(t, s, owner, leadersOnly)
	w.fenced(t, s, state.Authority{Epoch: old.Epoch - 1}, nil)
	w.fenced(t, s, state.Authority{Epoch: old.Epoch + 1}, nil)
	w.fenced(t, s, old, ownersOnly)

	w.ok(w.store.ReleaseLease(w.ctx, replica, old.Epoch))
	epoch, _, err := w.store.AcquireLease(w.ctx, "replica-2", 0)
	w.ok(err)
	if epoch <= old.Epoch {
		t.Fatalf("epoch %d after %d", epoch, old.Epoch)
	}
	w.fenced(t, s, old, nil) // it was put on ice, and another leads
	_, err = w.store.Unbind(w.ctx, state.Authority{Epoch: epoch}, state.Unbinding{Session: "s1", BindRev: s.BindRev})
	w.ok(err)
}

func testOwnerFencing(t *testing.T, w *world) {
	owner := w.hosting("c1", 4)
	s := w.sessionIn(state.Bound, "s1", "c1", owner)
	elsewhere := w.hosting("c2", 4)
	w.admit("waiting", "u")
	_, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(`{}`)})
	w.ok(err)
	w.fenced(t, s, state.Authority{Container: "c1", OwnerSeq: owner.OwnerSeq - 1}, nil)
	w.fenced(t, s, state.Authority{Container: "c1", OwnerSeq: owner.OwnerSeq + 1}, nil)
	w.fenced(t, s, state.Authority{Container: "nowhere", OwnerSeq: 1}, nil)
	_, _, notReady := w.store.Ready(w.ctx, elsewhere, "s1", s.BindRev, false)
	for name, err := range map[string]error{
		"ready":  notReady,
		"refuse": drop(w.store.Refuse(w.ctx, elsewhere, "s1", s.BindRev, "no")),
		"end":    drop(w.store.End(w.ctx, elsewhere, state.End{Session: "s1", BindRev: s.BindRev, Reason: state.Idle})),
	} {
		if !errors.Is(err, state.ErrConflict) {
			t.Errorf("%s by another container's owner: %v, want ErrConflict", name, err)
		}
	}
	w.is(w.store.Release(w.ctx, elsewhere, "c1", "s1"), state.ErrFenced)
	w.is(drop(w.store.Drain(w.ctx, elsewhere, "c1", boot)), state.ErrFenced)
	w.ok(w.store.Touch(w.ctx, elsewhere, []state.Activity{{Session: "s1", BindRev: s.BindRev, Attached: 1}}))
	if w.session("s1").Attached != 0 {
		t.Fatal("another container's owner touched the session")
	}

	// The link moves to another replica: the old owner is out, at once.
	c, err := w.store.Register(w.ctx, state.Registration{
		ID: "c1", Launch: "c1", BootID: boot, Protocol: 2, MaxSessions: 4, Owner: "replica-2",
	})
	w.ok(err)
	w.fenced(t, s, owner, nil)
	_, _, err = w.store.Ready(w.ctx, state.Authority{Container: "c1", OwnerSeq: c.OwnerSeq}, "s1", s.BindRev, false)
	w.ok(err)
}

func drop(_ any, err error) error { return err }
