package statetest

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// remember gives everything that the store holds, as a mirror would.
func (w *world) remember(sessions, containers, launches []string) (r state.Records) {
	w.t.Helper()
	var err error
	r.Sessions, err = w.store.SessionsOf(w.ctx, sessions)
	w.ok(err)
	r.Containers, err = w.store.ContainersOf(w.ctx, containers)
	w.ok(err)
	r.Launches, err = w.store.LaunchesOf(w.ctx, launches)
	w.ok(err)
	return r
}

// testRestored loses everything and is given it back.
func testRestored(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	owner := w.hosting("c1", 3)
	w.sessionIn(state.Ready, "s1", "c1", owner)
	w.sessionIn(state.Ended, "s2", "c1", owner)
	w.admit("s3", "u")
	w.hosting("c2", 1)
	_, err := w.store.MarkGone(w.ctx, w.lead(), "c2", boot)
	w.ok(err)
	_, err = w.store.Drain(w.ctx, w.lead(), "c1", boot)
	w.ok(err)
	_, err = w.store.Undrain(w.ctx, w.lead(), "c1", boot)
	w.ok(err)
	_, err = w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(`{"a":1}`), Port: 8080})
	w.ok(err)
	sessions, containers, launches := []string{"s1", "s2", "s3"}, []string{"c1", "c2"}, []string{"l1"}
	before, was := w.remember(sessions, containers, launches), w.index()

	w.Wipe()
	before.Knew = was.Seq
	for range 2 { // the second time changes nothing
		w.ok(w.store.Restore(w.ctx, was.Seq, before))
		w.ok(w.store.Restore(w.ctx, was.Seq, state.Records{Knew: was.Seq - 1}))
		after := w.remember(sessions, containers, launches)
		if !maps.Equal(byID(before), byID(after)) {
			t.Fatalf("restored %+v\nfrom %+v", byID(after), byID(before))
		}
	}
	ix := w.index()
	if !maps.Equal(ix.Sessions, was.Sessions) || !maps.Equal(ix.Containers, was.Containers) || !maps.Equal(ix.Launches, was.Launches) {
		t.Fatalf("got %+v after %+v", ix, was)
	}
	if ix.Whole || ix.LostAt.IsZero() || ix.Seq < was.Seq || ix.GivenBack != was.Seq {
		t.Fatalf("got %+v", ix)
	}

	// Life goes on: the owner's authority is good, ids and slots are remembered.
	w.leader = state.Authority{}
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.ok(err)
	_, err = w.store.Admit(w.ctx, w.lead(), state.Admission{ID: "s2", Remaining: time.Hour})
	w.is(err, state.ErrExists)
	if s := w.bind("s3", "c1"); s.Rev <= was.Seq {
		t.Fatalf("revision %d after %d", s.Rev, was.Seq)
	}
	if c := w.container("c1"); len(c.Slots) != 2 {
		t.Fatalf("got slots %v", c.Slots)
	}

	// It is whole when a leader says so of what is there.
	stale := ix.Filling
	stale.LostAt = stale.LostAt.Add(-time.Second)
	w.is(w.store.MarkWhole(w.ctx, w.lead(), stale), state.ErrConflict)
	w.is(w.store.MarkWhole(w.ctx, state.Authority{Epoch: 1}, ix.Filling), state.ErrFenced)
	w.ok(w.store.MarkWhole(w.ctx, w.lead(), ix.Filling))
	if ix = w.index(); !ix.Whole || !ix.LostAt.IsZero() {
		t.Fatalf("got %+v", ix)
	}
}

// testRestoredOver restores what has gone on since: the newer wins, but for what would lose a
// session.
func testRestoredOver(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	owner := w.hosting("c1", 3)
	w.hosting("c2", 1)
	_, err := w.store.Drain(w.ctx, w.lead(), "c2", boot)
	w.ok(err)
	w.sessionIn(state.Ready, "s1", "c1", owner)
	w.admit("s2", "u")
	older := w.remember([]string{"s1", "s2"}, []string{"c1"}, nil)
	_, err = w.store.End(w.ctx, w.lead(), state.End{Session: "s2", Reason: state.Released})
	w.ok(err)
	all := w.remember([]string{"s1", "s2"}, []string{"c1", "c2"}, nil)
	was := w.index()

	w.Wipe()
	// Somebody who knew of nothing was quicker.
	w.ok(w.store.Restore(w.ctx, was.Seq, state.Records{}))
	w.leader = state.Authority{}
	w.admit("s1", "u")
	c, _ := w.registered("c2", 1)
	w.same(c.DrainSeq, int64(0))
	w.ok(w.store.Restore(w.ctx, was.Seq, all))
	if s := w.session("s1"); s.Phase != state.Ready || s.Container != "c1" || s.BindRev != all.Sessions[0].BindRev {
		t.Fatalf("the session gave way to its own wish: %+v", s)
	}
	if c := w.container("c1"); len(c.Slots) != 1 {
		t.Fatalf("got slots %v", c.Slots)
	}
	again := w.container("c2")
	if again.DrainSeq != 1 || again.Phase != state.PendingVerification || again.OwnerSeq < 1 {
		t.Fatalf("got %+v", again)
	}
	// A mirror that was behind takes nothing back.
	w.ok(w.store.Restore(w.ctx, was.Seq, older))
	if s := w.session("s2"); s.Phase != state.Ended {
		t.Fatalf("the ended session is %s again", s.Phase)
	}
}

// testRestoredForks restores what two timelines have made of the same records: nothing goes back
// that never may.
func testRestoredForks(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	owner := w.hosting("c1", 3)
	w.sessionIn(state.Ended, "s1", "c1", owner)
	w.sessionIn(state.Ended, "s2", "c1", owner)
	w.containerIn(state.Stopping, "c2")
	w.containerIn(state.Stopping, "c3")
	all := w.remember([]string{"s1", "s2"}, []string{"c1", "c2", "c3"}, nil)
	was := w.index()

	w.Wipe()
	// Others have gone on, with what they knew.
	w.ok(w.store.Restore(w.ctx, was.Seq, state.Records{}))
	w.leader = state.Authority{}
	register := func(id string, times int) state.Authority {
		var c *state.Container
		for range times {
			var err error
			c, err = w.store.Register(w.ctx, state.Registration{ID: id, Launch: id, BootID: boot, Protocol: 2, MaxSessions: 3, Owner: "replica-2"})
			w.ok(err)
		}
		by := state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
		_, err := w.store.Report(w.ctx, by, state.Report{BootID: boot, Addr: "10.0.0.1:8080"})
		w.ok(err)
		return by
	}
	other := register("c1", 1)
	w.same(other.OwnerSeq, owner.OwnerSeq)
	w.sessionIn(state.Pending, "s1", "c1", other)
	w.sessionIn(state.Ready, "s2", "c1", other)
	register("c2", 1)
	third := register("c3", 2)
	w.admit("s3", "u")
	w.bind("s3", "c3")

	for range 2 { // the second time changes nothing
		w.ok(w.store.Restore(w.ctx, was.Seq, all))
		if c := w.container("c1"); c.OwnerSeq != owner.OwnerSeq+1 || c.Owner != "replica-2" {
			t.Fatalf("two owners were given %d, the record is %+v", owner.OwnerSeq, c)
		}
		if s := w.session("s1"); s.Phase != state.Ended || s.Reason != state.Idle {
			t.Fatalf("the ended session is %+v", s)
		}
		if s := w.session("s2"); s.Phase != state.Ending || s.Reason != state.Idle {
			t.Fatalf("the ended session that was bound again is %+v", s)
		}
		if c := w.container("c2"); c.Phase != state.Stopping {
			t.Fatalf("the stopping container is %s again", c.Phase)
		}
		c := w.container("c3")
		if c.Phase != state.Draining || !c.Closing || c.DrainSeq != 2 || len(c.Slots) != 1 {
			t.Fatalf("the stopping container that serves again is %+v", c)
		}
		w.same(c.OwnerSeq, third.OwnerSeq)
	}
	_, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.is(err, state.ErrFenced)
	_, err = w.store.Report(w.ctx, other, state.Report{BootID: boot})
	w.is(err, state.ErrFenced)
}

// testRestoredEnd restores an end over the session that it ended: its slot is free, whoever has
// reported since.
func testRestoredEnd(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	owner := w.hosting("c1", 3)
	w.sessionIn(state.Ready, "s1", "c1", owner)
	before := w.remember([]string{"s1"}, []string{"c1"}, nil)
	_, err := w.store.End(w.ctx, w.lead(), state.End{Session: "s1", Reason: state.Idle, Confirmed: true})
	w.ok(err)
	after, was := w.remember([]string{"s1"}, []string{"c1"}, nil), w.index()

	w.Wipe()
	w.ok(w.store.Restore(w.ctx, was.Seq, before))
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.ok(err)
	w.ok(w.store.Restore(w.ctx, was.Seq, after))
	if s, c := w.session("s1"), w.container("c1"); s.Phase != state.Ended || len(c.Slots) != 0 {
		t.Fatalf("the session is %s, the slots are %v", s.Phase, c.Slots)
	}
}

// testRestoredCrowded restores bindings that a store has forgotten, and given their places away
// since.
func testRestoredCrowded(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	for _, id := range []string{"c1", "c2", "c3", "c4"} {
		w.hosting(id, 1)
	}
	own := w.hosting("c5", 2)
	for _, id := range []string{"c6", "c7"} {
		w.hosting(id, 2)
	}
	containers := []string{"c1", "c2", "c3", "c4", "c5", "c6", "c7"}
	w.sessionIn(state.Ready, "s3", "c3", state.Authority{Container: "c3", OwnerSeq: own.OwnerSeq})
	w.sessionIn(state.Ended, "z4", "c4", state.Authority{Container: "c4", OwnerSeq: own.OwnerSeq})
	known := w.remember([]string{"s3"}, containers, nil)
	before := *known.Containers[3]
	before.Slots = []string{"z4"}
	known.Containers[3] = &before // read before the end
	w.sessionIn(state.Bound, "s1", "c1", own)
	w.sessionIn(state.Bound, "s2", "c2", own)
	w.sessionIn(state.Bound, "s4", "c4", own)
	w.sessionIn(state.Bound, "s5", "c5", own)
	// These were bound while containers were one user's own.
	for id, host := range map[string]string{"s6": "c6", "s7": "c7"} {
		w.admit(id, "u")
		_, err := w.store.Bind(w.ctx, w.lead(), state.Binding{Session: id, Container: host, BootID: boot, Dedicated: true})
		w.ok(err)
	}
	since := w.remember([]string{"s1", "s2", "s3", "s4", "s5", "s6", "s7", "z4"}, []string{"c6", "c7"}, nil)
	was := w.index()

	w.Wipe()
	// Others knew nothing of the bindings, and have gone on.
	w.ok(w.store.Restore(w.ctx, was.Seq, known))
	w.leader = state.Authority{}
	w.admit("o1", "u")
	w.bind("o1", "c1")
	w.admit("o5", "other")
	_, err := w.store.Bind(w.ctx, w.lead(), state.Binding{Session: "o5", Container: "c5", BootID: boot, Dedicated: true})
	w.ok(err)
	w.admit("o6", "other")
	w.bind("o6", "c6") // containers are shared by now
	w.admit("o7", "u")
	w.bind("o7", "c7")

	for range 2 { // the second time changes nothing
		w.ok(w.store.Restore(w.ctx, was.Seq, since))
		for id, slot := range map[string]string{"c1": "o1", "c2": "s2", "c3": "s3", "c4": "s4", "c5": "o5", "c6": "o6"} {
			if c := w.container(id); len(c.Slots) != 1 || c.Slots[0] != slot {
				t.Fatalf("container %s has slots %v, want %s", id, c.Slots, slot)
			}
		}
		for id, refused := range map[string]string{"s1": state.CrowdedOut, "s2": "", "s4": "", "s5": state.CrowdedOut, "s6": state.CrowdedOut, "s7": ""} {
			if s := w.session(id); s.Phase != state.Bound || s.Refused != refused {
				t.Fatalf("session %s is %s and refused %q, want %q", id, s.Phase, s.Refused, refused)
			}
		}
	}
	if c := w.container("c6"); c.Tenant != "u" || c.Served != "*" || c.Takes("u", true) || c.Takes("other", false) {
		t.Fatalf("container c6 is of %q and has served %q", c.Tenant, c.Served)
	}
	if c := w.container("c7"); len(c.Slots) != 2 || c.Served != "=u" {
		t.Fatalf("container c7 has slots %v and has served %q", c.Slots, c.Served)
	}
	// It is bound anew, and its former place stays another's.
	s := w.session("s1")
	_, err = w.store.Unbind(w.ctx, w.lead(), state.Unbinding{Session: "s1", BindRev: s.BindRev, Why: s.Refused})
	w.ok(err)
	if c := w.container("c1"); len(c.Slots) != 1 || c.Slots[0] != "o1" {
		t.Fatalf("got slots %v", c.Slots)
	}
}

// testRestoredPlaces restores, over each other, what replicas remember of one container that has
// registered anew while the store had forgotten it: the sessions that one knows, and the record of
// another that knows none.
func testRestoredPlaces(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	own := w.hosting("c1", 2)
	w.sessionIn(state.Ready, "s1", "c1", own)
	w.sessionIn(state.Ready, "s2", "c1", own)
	own2 := w.hosting("c2", 2)
	w.sessionIn(state.Ready, "t1", "c2", own2)
	w.sessionIn(state.Bound, "t2", "c2", own2)
	known, was := w.remember([]string{"s1", "s2", "t1", "t2"}, []string{"c1", "c2"}, nil), w.index()

	w.Wipe()
	w.ok(w.store.Restore(w.ctx, was.Seq, state.Records{})) // by one that has only just started
	w.leader = state.Authority{}
	anew := w.hosting("c1", 2)
	anew2 := w.hosting("c2", 2)
	w.sessionIn(state.Bound, "o1", "c1", anew)
	w.sessionIn(state.Ended, "o2", "c2", anew2)
	before := w.remember(nil, []string{"c1"}, nil) // who has not read the binding of o3 yet
	w.sessionIn(state.Bound, "o3", "c1", anew)
	since := w.remember([]string{"o1", "o2"}, []string{"c1", "c2"}, nil)
	since.Containers[0] = before.Containers[0]
	is := w.index()
	check := func(how string) {
		t.Helper()
		for id, want := range map[string]string{"c1": "[s1 s2]", "c2": "[t1 t2]"} {
			if c := w.container(id); fmt.Sprint(c.Slots) != want {
				t.Fatalf("%s: container %s has slots %v, want %s", how, id, c.Slots, want)
			}
		}
		for _, id := range []string{"s1", "s2", "t1", "t2", "o1"} {
			refused := ""
			if id == "o1" {
				refused = state.CrowdedOut
			}
			if s := w.session(id); s.Refused != refused || !s.HoldsSlot() {
				t.Fatalf("%s: session %s is %s and refused %q, want %q", how, id, s.Phase, s.Refused, refused)
			}
		}
	}
	w.ok(w.store.Restore(w.ctx, was.Seq, known))
	check("the sessions of the one over the container of the other")
	if s := w.session("o3"); s.Refused != state.CrowdedOut {
		t.Fatalf("session o3 is %s and refused %q", s.Phase, s.Refused)
	}
	for range 2 { // the second time changes nothing
		w.Wipe()
		w.ok(w.store.Restore(w.ctx, was.Seq, known))
		w.ok(w.store.Restore(w.ctx, is.Seq, since))
		check("the container of the other over the sessions of the one")
	}
}

// testRestoredWithoutContainer restores sessions by who has never read the record of their container:
// it finds them when it registers, and one who has it when it is given back.
func testRestoredWithoutContainer(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	owner := w.hosting("c1", 3)
	w.sessionIn(state.Ready, "s1", "c1", owner)
	before := w.remember(nil, []string{"c1"}, nil)
	w.sessionIn(state.Bound, "s2", "c1", owner)
	w.sessionIn(state.Ended, "s3", "c1", owner)
	known, was := w.remember([]string{"s1", "s2", "s3"}, nil, nil), w.index()
	for how, back := range map[string]func(){
		"registered": func() { w.registered("c1", 3) },
		"given back": func() { w.ok(w.store.Restore(w.ctx, was.Seq, before)) },
	} {
		w.Wipe()
		w.ok(w.store.Restore(w.ctx, was.Seq, known))
		back()
		if c := w.container("c1"); fmt.Sprint(c.Slots) != "[s1 s2]" {
			t.Fatalf("%s: the container has slots %v", how, c.Slots)
		}
	}
}

// byID makes records comparable.
func byID(r state.Records) map[string]string {
	all := map[string]string{}
	for _, s := range r.Sessions {
		all["session "+s.ID] = fmt.Sprintf("%+v", *s)
	}
	for _, c := range r.Containers {
		all["container "+c.ID] = fmt.Sprintf("%+v", *c)
	}
	for _, l := range r.Launches {
		all["launch "+l.ID] = fmt.Sprintf("%+v", *l)
	}
	return all
}
