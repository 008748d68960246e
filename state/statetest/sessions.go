package statetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// testSessionTransitions tries every move from every phase.
func testSessionTransitions(t *testing.T, w *world) {
	type result struct {
		phase state.Phase
		err   error
	}
	to := func(p state.Phase) result { return result{phase: p} }
	no := result{err: state.ErrConflict}
	end := func(by state.Authority, s *state.Session, confirmed bool) (*state.Session, error) {
		return w.store.End(w.ctx, by, state.End{
			Session: s.ID, BindRev: s.BindRev, Reason: state.Released, Confirmed: confirmed,
		})
	}
	owner := w.hosting("host", 1000)
	leader := w.lead()
	moves := []struct {
		name string
		do   func(s *state.Session) (*state.Session, error)
		want map[state.Phase]result
	}{
		{
			"bind",
			func(s *state.Session) (*state.Session, error) {
				return w.store.Bind(w.ctx, leader, state.Binding{Session: s.ID, Container: "host", BootID: boot})
			},
			map[state.Phase]result{state.Pending: to(state.Bound), state.Bound: no, state.Ready: no, state.Ending: no, state.Ended: no},
		},
		{
			"unbind",
			func(s *state.Session) (*state.Session, error) {
				return w.store.Unbind(w.ctx, leader, state.Unbinding{Session: s.ID, BindRev: s.BindRev, Why: "late"})
			},
			map[state.Phase]result{state.Pending: no, state.Bound: to(state.Pending), state.Ready: no, state.Ending: no, state.Ended: no},
		},
		{
			"ready",
			func(s *state.Session) (*state.Session, error) {
				s, _, err := w.store.Ready(w.ctx, owner, s.ID, s.BindRev, true)
				return s, err
			},
			map[state.Phase]result{state.Pending: no, state.Bound: to(state.Ready), state.Ready: to(state.Ready), state.Ending: no, state.Ended: no},
		},
		{
			"refuse",
			func(s *state.Session) (*state.Session, error) {
				return w.store.Refuse(w.ctx, owner, s.ID, s.BindRev, "no memory")
			},
			map[state.Phase]result{state.Pending: no, state.Bound: to(state.Bound), state.Ready: no, state.Ending: no, state.Ended: no},
		},
		{
			"end by the leader",
			func(s *state.Session) (*state.Session, error) { return end(leader, s, false) },
			map[state.Phase]result{state.Pending: to(state.Ended), state.Bound: to(state.Ending), state.Ready: to(state.Ending), state.Ending: no, state.Ended: no},
		},
		{
			"confirmed end by the leader",
			func(s *state.Session) (*state.Session, error) { return end(leader, s, true) },
			map[state.Phase]result{state.Pending: to(state.Ended), state.Bound: to(state.Ended), state.Ready: to(state.Ended), state.Ending: to(state.Ended), state.Ended: no},
		},
		{
			"end by the owner",
			func(s *state.Session) (*state.Session, error) { return end(owner, s, false) },
			map[state.Phase]result{state.Pending: no, state.Bound: to(state.Ending), state.Ready: to(state.Ending), state.Ending: no, state.Ended: no},
		},
		{
			"confirmed end by the owner",
			func(s *state.Session) (*state.Session, error) { return end(owner, s, true) },
			map[state.Phase]result{state.Pending: no, state.Bound: to(state.Ended), state.Ready: to(state.Ended), state.Ending: to(state.Ended), state.Ended: no},
		},
		{
			"amend",
			func(s *state.Session) (*state.Session, error) {
				return w.store.Amend(w.ctx, leader, state.Amendment{Session: s.ID, Remaining: time.Minute})
			},
			map[state.Phase]result{state.Pending: to(state.Pending), state.Bound: to(state.Bound), state.Ready: to(state.Ready), state.Ending: no, state.Ended: no},
		},
		{
			"admit again",
			func(s *state.Session) (*state.Session, error) {
				return w.store.Admit(w.ctx, leader, state.Admission{ID: s.ID, Remaining: time.Hour})
			},
			func() map[state.Phase]result {
				all := map[state.Phase]result{}
				for _, p := range state.Phases() {
					all[p] = result{err: state.ErrExists}
				}
				return all
			}(),
		},
	}
	for i, m := range moves {
		for _, from := range state.Phases() {
			t.Run(m.name+" from "+string(from), func(t *testing.T) {
				w := *w
				w.t = t
				id := fmt.Sprintf("s-%d-%s", i, from)
				before := w.sessionIn(from, id, "host", owner)
				if before.Phase != from {
					t.Fatalf("the session is %s, want %s", before.Phase, from)
				}
				got, err := m.do(before)
				want := m.want[from]
				w.is(err, want.err)
				after := w.session(id)
				if err != nil {
					w.same(before.Rev, after.Rev)
					return
				}
				if got.Phase != want.phase || after.Phase != want.phase {
					t.Fatalf("got %s, stored %s, want %s", got.Phase, after.Phase, want.phase)
				}
				if got.Rev != after.Rev {
					t.Fatalf("returned revision %d, stored %d", got.Rev, after.Rev)
				}
				holds := slices.Contains(w.container("host").Slots, id)
				// A refusal frees the slot at once; after an unbinding the owner must confirm.
				if want := (after.HoldsSlot() && after.Refused == "") || m.name == "unbind"; holds != want {
					t.Fatalf("slot held: %v, want %v in %s", holds, want, after.Phase)
				}
			})
		}
		if m.name != "admit again" {
			_, err := m.do(&state.Session{ID: "nobody"})
			w.is(err, state.ErrNotFound)
		}
	}
}

func testAdmission(t *testing.T, w *world) {
	spec := `{"sessionId":"s1","status":"pending","big":12345678901234567890,"list":[],"x":"\u00e9 é"}`
	s, err := w.store.Admit(w.ctx, w.lead(), state.Admission{
		ID: "s1", Spec: []byte(spec), Origin: state.OriginForeign, UserID: "user one", KeepAlive: true,
		Remaining: 90 * time.Second,
	})
	w.ok(err)
	ix, err := w.store.Index(w.ctx)
	w.ok(err)
	for _, got := range []*state.Session{s, w.session("s1")} {
		switch {
		case string(got.Spec) != spec:
			t.Fatalf("spec %s, want it byte for byte", got.Spec)
		case got.Phase != state.Pending || got.Origin != state.OriginForeign || got.UserID != "user one" || !got.KeepAlive:
			t.Fatalf("got %+v", got)
		case !near(got.SeenAt, ix.Time) || !near(got.Deadline, ix.Time.Add(90*time.Second)):
			t.Fatalf("seen at %v, deadline %v; the store's time is %v", got.SeenAt, got.Deadline, ix.Time)
		case !got.EndedAt.IsZero() || !got.BoundAt.IsZero() || !got.GraceUntil.IsZero():
			t.Fatalf("times that have not come: %+v", got)
		}
	}
	_, err = w.store.Admit(w.ctx, w.lead(), state.Admission{ID: "a:b", Remaining: time.Hour})
	w.is(err, state.ErrInvalid)
	_, err = w.store.Session(w.ctx, "nobody")
	w.is(err, state.ErrNotFound)

	w.admit("s2", "u")
	_, err = w.store.End(w.ctx, w.lead(), state.End{Session: "s2", Reason: state.Released})
	w.ok(err)
	_, err = w.store.Admit(w.ctx, w.lead(), state.Admission{ID: "s2", Remaining: time.Hour})
	w.is(err, state.ErrExists) // an ended id is never reborn
	found, err := w.store.SessionsOf(w.ctx, []string{"s1", "nobody", "s2"})
	w.ok(err)
	if len(found) != 2 {
		t.Fatalf("found %d of 2 sessions", len(found))
	}
}

func testBinding(t *testing.T, w *world) {
	bind := func(session, container, boot string) error {
		_, err := w.store.Bind(w.ctx, w.lead(), state.Binding{Session: session, Container: container, BootID: boot})
		return err
	}
	w.hosting("c1", 1)
	w.hosting("c2", 1)
	w.admit("s1", "u")
	w.admit("s2", "u")
	w.is(bind("s1", "nowhere", boot), state.ErrConflict)
	w.is(bind("s1", "c1", otherBoot), state.ErrConflict)
	w.is(bind("nobody", "c1", boot), state.ErrNotFound)

	before := w.container("c1")
	s := w.bind("s1", "c1")
	if !s.BoundTo("c1", boot) || s.Attempts != 1 || s.BindRev == 0 || s.BindRev != s.Rev || s.BoundAt.IsZero() {
		t.Fatalf("got %+v", s)
	}
	c := w.container("c1")
	if !slices.Equal(c.Slots, []string{"s1"}) || c.Rev <= before.Rev || c.Free() != 0 {
		t.Fatalf("got %+v after %+v", c, before)
	}
	w.is(bind("s1", "c2", boot), state.ErrConflict) // bound once is bound
	w.is(bind("s2", "c1", boot), state.ErrFull)
	if w.container("c2").Used() != 0 || w.session("s2").Phase != state.Pending {
		t.Fatal("a refused binding left something behind")
	}
	for i, phase := range state.ContainerPhases() {
		id := fmt.Sprintf("p%d", i)
		w.containerIn(phase, id)
		want := state.ErrConflict
		if phase == state.ContainerReady {
			want = nil
		}
		w.admit("for-"+id, "u")
		w.is(bind("for-"+id, id, boot), want)
	}
}

// testConcurrentBinding has more sessions than slots, and everybody tries at once.
func testConcurrentBinding(t *testing.T, w *world) {
	const sessions, containers, slots = 24, 3, 4
	for c := range containers {
		w.hosting(fmt.Sprintf("c%d", c), slots)
	}
	for s := range sessions {
		w.admit(fmt.Sprintf("s%d", s), "u")
	}
	leader := w.lead()
	var mu sync.Mutex
	bound := map[string]string{}
	var all sync.WaitGroup
	for s := range sessions {
		for c := range containers {
			all.Go(func() {
				id, host := fmt.Sprintf("s%d", s), fmt.Sprintf("c%d", c)
				_, err := w.store.Bind(w.ctx, leader, state.Binding{Session: id, Container: host, BootID: boot})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && bound[id] != "":
					t.Errorf("session %s was bound to %s and to %s", id, bound[id], host)
				case err == nil:
					bound[id] = host
				case !errors.Is(err, state.ErrFull) && !errors.Is(err, state.ErrConflict):
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if len(bound) != containers*slots {
		t.Errorf("%d sessions were bound to %d slots", len(bound), containers*slots)
	}
	for c := range containers {
		host := w.container(fmt.Sprintf("c%d", c))
		if host.Used() != slots {
			t.Errorf("container %s has %d of %d slots taken", host.ID, host.Used(), slots)
		}
		for _, id := range host.Slots {
			if bound[id] != host.ID {
				t.Errorf("session %s has a slot in %s, and is bound to %s", id, host.ID, bound[id])
			}
		}
	}
}

func testDedicated(t *testing.T, w *world) {
	bind := func(session, container string, dedicated bool) error {
		_, err := w.store.Bind(w.ctx, w.lead(), state.Binding{
			Session: session, Container: container, BootID: boot, Dedicated: dedicated,
		})
		return err
	}
	owner := w.hosting("c1", 4)
	w.hosting("c2", 4)
	w.hosting("c3", 4)
	for _, user := range []string{"ann", "bob"} {
		for i := range 4 {
			w.admit(fmt.Sprintf("%s%d", user, i), user)
		}
	}
	w.ok(bind("ann0", "c1", true))
	if got := w.container("c1").Tenant; got != "ann" {
		t.Fatalf("tenant %q, want ann", got)
	}
	w.ok(bind("ann1", "c1", true))
	w.is(bind("bob0", "c1", true), state.ErrConflict)
	w.is(bind("bob0", "c1", false), state.ErrConflict) // not even under another policy

	// The tenant stays after its sessions, and after its life.
	for _, id := range []string{"ann0", "ann1"} {
		s := w.session(id)
		_, err := w.store.End(w.ctx, owner, state.End{Session: id, BindRev: s.BindRev, Reason: state.Released, Confirmed: true})
		w.ok(err)
	}
	w.is(bind("bob0", "c1", true), state.ErrConflict)

	// A container that has served somebody in shared tenancy is nobody else's own.
	w.ok(bind("ann2", "c2", false))
	w.is(bind("bob1", "c2", true), state.ErrConflict)
	w.ok(bind("bob2", "c2", false))
	w.is(bind("ann3", "c2", true), state.ErrConflict)
	if got := w.container("c2").Tenant; got != "" {
		t.Fatalf("a shared container has the tenant %q", got)
	}
}

func testUnbinding(t *testing.T, w *world) {
	owner := w.hosting("c1", 2)
	w.hosting("c2", 2)
	w.admit("s1", "u")
	s := w.bind("s1", "c1")
	_, err := w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: "s1", BindRev: s.BindRev + 1})
	w.is(err, state.ErrConflict)
	w.is(w.store.Release(w.ctx, owner, "c1", "s1"), state.ErrConflict) // it is bound there

	s, err = w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: "s1", BindRev: s.BindRev, Why: "late"})
	w.ok(err)
	if s.Phase != state.Pending || s.Container != "" || s.BootID != "" || !s.Excludes("c1") || s.Message != "late" {
		t.Fatalf("got %+v", s)
	}
	if !slices.Equal(w.container("c1").Slots, []string{"s1"}) {
		t.Fatal("the slot was freed before the owner has confirmed")
	}
	_, err = w.store.Bind(w.ctx, w.lead(), state.Binding{Session: "s1", Container: "c1", BootID: boot})
	w.is(err, state.ErrConflict) // it is excluded
	if s = w.bind("s1", "c2"); s.Attempts != 2 {
		t.Fatalf("%d attempts after the second", s.Attempts)
	}
	w.is(w.store.Release(w.ctx, w.lead(), "c1", "s1"), state.ErrConflict) // it is not gone
	before := w.container("c1")
	w.ok(w.store.Release(w.ctx, owner, "c1", "s1"))
	after := w.container("c1")
	if after.Used() != 0 || after.Rev <= before.Rev {
		t.Fatalf("got %+v", after)
	}
	w.ok(w.store.Release(w.ctx, owner, "c1", "s1"))
	w.same(after.Rev, w.container("c1").Rev)
	if !slices.Equal(w.container("c2").Slots, []string{"s1"}) {
		t.Fatal("releasing one slot took another")
	}
	_, err = w.store.End(w.ctx, w.lead(), state.End{Session: "s1", Reason: state.Released, Confirmed: true})
	w.ok(err) // the container is found although it is not the first

	// Unbound from a container that is gone, the slot is free at once.
	w.hosting("c3", 1)
	w.admit("s2", "u")
	s = w.bind("s2", "c3")
	_, err = w.store.MarkGone(w.ctx, w.lead(), "c3", boot)
	w.ok(err)
	if w.container("c3").Used() != 0 {
		t.Fatal("a container that is gone has slots taken")
	}
	_, err = w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: "s2", BindRev: s.BindRev})
	w.ok(err)
	w.ok(w.store.Release(w.ctx, w.lead(), "c3", "s2"))
	w.ok(w.store.Release(w.ctx, w.lead(), "nowhere", "s2"))

	// Three containers fail it: all three are excluded.
	w.admit("s3", "u")
	for i := range 3 {
		id := fmt.Sprintf("x%d", i)
		w.hosting(id, 1)
		s = w.bind("s3", id)
		s, err = w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: "s3", BindRev: s.BindRev})
		w.ok(err)
	}
	if !slices.Equal(s.Excluded, []string{"x0", "x1", "x2"}) || s.Attempts != 3 {
		t.Fatalf("excluded %v after %d attempts", s.Excluded, s.Attempts)
	}
}

func testReadyAndRefused(t *testing.T, w *world) {
	owner := w.hosting("c1", 2)
	w.hosting("c2", 2)
	w.admit("s1", "u")
	s := w.bind("s1", "c1")
	_, _, err := w.store.Ready(w.ctx, owner, "s1", s.BindRev-1, false)
	w.is(err, state.ErrConflict)
	s, first, err := w.store.Ready(w.ctx, owner, "s1", s.BindRev, true)
	w.ok(err)
	if !first {
		t.Fatal("the call that made it ready is not the first")
	}
	if s.ReadyAt.IsZero() || !s.Cold {
		t.Fatalf("got %+v", s)
	}
	again, first, err := w.store.Ready(w.ctx, owner, "s1", s.BindRev, true)
	w.ok(err)
	if first {
		t.Fatal("a repeated call says that it made the session ready")
	}
	w.same(s.Rev, again.Rev)

	w.admit("s2", "u")
	s = w.bind("s2", "c1")
	s, err = w.store.Refuse(w.ctx, owner, "s2", s.BindRev, "no memory")
	w.ok(err)
	if s.Phase != state.Bound || s.Refused != "no memory" || slices.Contains(w.container("c1").Slots, "s2") {
		t.Fatalf("got %+v", s)
	}
	again, err = w.store.Refuse(w.ctx, owner, "s2", s.BindRev, "no memory")
	w.ok(err)
	w.same(s.Rev, again.Rev)
	_, _, err = w.store.Ready(w.ctx, owner, "s2", s.BindRev, false)
	w.is(err, state.ErrConflict)
	_, err = w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: "s2", BindRev: s.BindRev, Why: "refused"})
	w.ok(err)
	if s = w.bind("s2", "c2"); s.Refused != "" {
		t.Fatalf("the next container is said to have refused too: %q", s.Refused)
	}
}

func testEnds(t *testing.T, w *world) {
	owner := w.hosting("c1", 10)
	end := func(by state.Authority, e state.End) (*state.Session, error) { return w.store.End(w.ctx, by, e) }

	s := w.sessionIn(state.Ending, "s1", "c1", owner)
	if s.Reason != state.Idle || s.Message != "first" || !s.EndedAt.IsZero() {
		t.Fatalf("got %+v", s)
	}
	s, err := end(owner, state.End{Session: "s1", BindRev: s.BindRev, Reason: state.BrowserCrashed, Message: "second", Confirmed: true})
	w.ok(err)
	if s.Phase != state.Ended || s.Reason != state.Idle || s.Message != "first" || s.EndedAt.IsZero() {
		t.Fatalf("the first reason is not kept: %+v", s)
	}
	s = w.sessionIn(state.Ready, "s2", "c1", owner)
	_, err = end(w.lead(), state.End{Session: "s2", BindRev: s.BindRev + 1, Reason: state.Idle})
	w.is(err, state.ErrConflict)
	_, err = end(owner, state.End{Session: "s2", Reason: state.Idle})
	w.is(err, state.ErrConflict)
	_, err = end(w.lead(), state.End{Session: "s2", Reason: "bored"})
	w.is(err, state.ErrInvalid)
	for _, confirmed := range []bool{false, true} { // it became ready while that was decided
		for _, rev := range []int64{0, s.BindRev} {
			_, err = end(w.lead(), state.End{Session: "s2", BindRev: rev, Reason: state.Failed, Confirmed: confirmed})
			w.is(err, state.ErrConflict)
		}
	}
	if got := w.session("s2"); got.Phase != state.Ready {
		t.Fatalf("it is %s since", got.Phase)
	}
	w.admit("s5", "u")
	s = w.bind("s5", "c1")
	_, err = end(w.lead(), state.End{Session: "s5", Reason: state.Failed}) // it takes it for pending
	w.is(err, state.ErrConflict)
	if s, err = end(w.lead(), state.End{Session: "s5", BindRev: s.BindRev, Reason: state.Failed}); err != nil || s.Phase != state.Ending {
		t.Fatalf("a leader who knows that it is bound gets %v and it is %v", err, s)
	}
	s = w.sessionIn(state.Ready, "s4", "c1", owner)
	if s, err = end(owner, state.End{Session: "s4", BindRev: s.BindRev, Reason: state.Failed}); err != nil || s.Phase != state.Ending {
		t.Fatalf("its owner, who knows, gets %v and it is %v", err, s)
	}
	w.admit("s3", "u")
	s = w.bind("s3", "c1")
	_, err = w.store.Refuse(w.ctx, owner, "s3", s.BindRev, "no memory")
	w.ok(err)
	s, err = end(w.lead(), state.End{Session: "s3", BindRev: s.BindRev, Reason: state.Released})
	w.ok(err)
	if s.Phase != state.Ended || slices.Contains(w.container("c1").Slots, "s3") {
		t.Fatalf("a session that its container has refused, and has no slot, is %s", s.Phase)
	}
	for _, reason := range state.Reasons() {
		id := "r-" + string(reason)
		w.admit(id, "u")
		if reason == state.DeadlinePassed {
			// Whoever says so has not heard of what its requester changed.
			_, err = end(w.lead(), state.End{Session: id, Reason: reason})
			w.is(err, state.ErrConflict)
			_, err = w.store.Amend(w.ctx, w.lead(), state.Amendment{Session: id, Remaining: -time.Second})
			w.ok(err)
		}
		s, err := end(w.lead(), state.End{Session: id, Reason: reason})
		w.ok(err)
		if s.Phase != state.Ended || s.Reason != reason {
			t.Fatalf("got %s because of %s", s.Phase, s.Reason)
		}
	}
}

func testActivity(t *testing.T, w *world) {
	owner := w.hosting("c1", 10)
	s := w.sessionIn(state.Ready, "s1", "c1", owner)
	other := w.sessionIn(state.Pending, "s2", "c1", owner)
	now := s.ReadyAt
	w.ok(w.store.Touch(w.ctx, owner, []state.Activity{
		{Session: "nobody", BindRev: 1, Attached: 1},
		{Session: "s2", BindRev: 0, Attached: 1},
		{Session: "s1", BindRev: s.BindRev, Attached: 2, Connected: true},
	}))
	got := w.session("s1")
	if got.Attached != 2 || !near(got.FirstConnectAt, now) || !near(got.LastActivity, now) || !got.GraceUntil.IsZero() {
		t.Fatalf("got %+v", got)
	}
	w.same(other.Rev, w.session("s2").Rev)
	first := got.FirstConnectAt

	w.ok(w.store.Touch(w.ctx, owner, []state.Activity{{
		Session: "s1", BindRev: s.BindRev, Connected: true, IdleFor: time.Hour, GraceLeft: 10 * time.Second, GraceRunning: true,
	}}))
	got = w.session("s1")
	if got.Attached != 0 || !got.FirstConnectAt.Equal(first) || !near(got.GraceUntil, now.Add(10*time.Second)) {
		t.Fatalf("got %+v", got)
	}
	if !near(got.LastActivity, now) {
		t.Fatalf("the last activity went back to %v", got.LastActivity)
	}
	w.ok(w.store.Touch(w.ctx, owner, []state.Activity{{
		Session: "s1", BindRev: s.BindRev, Connected: true, IdleFor: time.Hour, GraceLeft: 10 * time.Second, GraceRunning: true,
	}}))
	w.ok(w.store.Touch(w.ctx, owner, []state.Activity{{Session: "s1", BindRev: s.BindRev + 1, Attached: 9}}))
	if after := w.session("s1"); after.Attached != 0 {
		t.Fatalf("an activity under another binding counted: %+v", after)
	}
	w.ok(w.store.Touch(w.ctx, owner, []state.Activity{{Session: "s1", BindRev: s.BindRev, Attached: 1, Connected: true}}))
	if got = w.session("s1"); !got.GraceUntil.IsZero() || got.Attached != 1 {
		t.Fatalf("got %+v", got)
	}
	// More than one script takes.
	many := make([]state.Activity, 450)
	for i := range many {
		many[i] = state.Activity{Session: fmt.Sprintf("n%d", i), BindRev: 1}
	}
	many = append(many, state.Activity{Session: "s1", BindRev: s.BindRev, Attached: 3, Connected: true})
	w.ok(w.store.Touch(w.ctx, owner, many))
	if got = w.session("s1"); got.Attached != 3 {
		t.Fatalf("got %+v", got)
	}
}

func testAmending(t *testing.T, w *world) {
	w.admit("s1", "u")
	s, err := w.store.Amend(w.ctx, w.lead(), state.Amendment{
		Session: "s1", Spec: []byte(`{"timeout":5}`), KeepAlive: true, Remaining: 2 * time.Hour,
	})
	w.ok(err)
	if string(s.Spec) != `{"timeout":5}` || !s.KeepAlive || !near(s.Deadline, s.SeenAt.Add(2*time.Hour)) {
		t.Fatalf("got %+v", s)
	}
	s, err = w.store.Amend(w.ctx, w.lead(), state.Amendment{Session: "s1", Remaining: time.Minute})
	w.ok(err)
	if string(s.Spec) != `{"timeout":5}` || s.KeepAlive || !near(s.Deadline, s.SeenAt.Add(time.Minute)) {
		t.Fatalf("got %+v", s)
	}
	owner := w.hosting("c1", 2)
	bound := w.sessionIn(state.Bound, "s2", "c1", owner)
	w.ok(w.store.Wait(w.ctx, w.lead(), []string{"s1", "s2", "nobody"}, 1500*time.Millisecond))
	w.ok(w.store.Wait(w.ctx, w.lead(), []string{"s1"}, time.Second))
	w.ok(w.store.Wait(w.ctx, w.lead(), nil, time.Second))
	if got := w.session("s1"); got.Waited != 2500*time.Millisecond || got.Rev <= s.Rev {
		t.Fatalf("waited %v at revision %d", got.Waited, got.Rev)
	}
	w.same(bound.Rev, w.session("s2").Rev)
}
