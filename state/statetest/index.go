package statetest

import (
	"errors"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func (w *world) index() state.Index {
	w.t.Helper()
	ix, err := w.store.Index(w.ctx)
	w.ok(err)
	return ix
}

func testIndex(t *testing.T, w *world) {
	w.ok(w.store.Ping(w.ctx))
	first := w.index()
	if first.Incarnation == "" || first.Time.IsZero() || len(first.Sessions)+len(first.Containers)+len(first.Launches) != 0 {
		t.Fatalf("got %+v", first)
	}
	owner := w.hosting("c1", 2)
	w.sessionIn(state.Ready, "s1", "c1", owner)
	w.sessionIn(state.Ended, "s2", "c1", owner)
	l, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(`{}`)})
	w.ok(err)
	ix := w.index()
	if len(ix.Sessions) != 2 || len(ix.Containers) != 1 || len(ix.Launches) != 1 || ix.Incarnation != first.Incarnation {
		t.Fatalf("got %+v", ix)
	}
	w.same(ix.Sessions["s1"], w.session("s1").Rev)
	w.same(ix.Sessions["s2"], w.session("s2").Rev)
	w.same(ix.Containers["c1"], w.container("c1").Rev)
	w.same(ix.Launches["l1"], l.Rev)
	for kind, revs := range map[string]map[string]int64{"session": ix.Sessions, "container": ix.Containers, "launch": ix.Launches} {
		for id, rev := range revs {
			if rev <= first.Seq || rev > ix.Seq {
				t.Errorf("revision %d of %s %s is not within %d and %d", rev, kind, id, first.Seq, ix.Seq)
			}
		}
	}
	last := ix.Seq
	for range 20 {
		c, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot})
		w.ok(err)
		if c.Rev <= last {
			t.Fatalf("revision %d after %d", c.Rev, last)
		}
		last = c.Rev
	}
}

// testWiped loses everything under a process that has seen it.
func testWiped(t *testing.T, w *world) {
	if w.Wipe == nil {
		t.Skip("this store cannot be wiped")
	}
	owner := w.hosting("c1", 2)
	w.sessionIn(state.Ready, "s1", "c1", owner)
	before := w.index()
	w.Wipe()
	_, err := w.store.Register(w.ctx, state.Registration{ID: "c1", BootID: boot, Protocol: 2, MaxSessions: 2, Owner: replica})
	w.is(err, state.ErrRolledBack)
	_, err = w.store.Admit(w.ctx, w.leader, state.Admission{ID: "s1", Remaining: time.Hour})
	w.is(err, state.ErrRolledBack)
	_, err = w.store.Session(w.ctx, "s1")
	w.is(err, state.ErrNotFound)

	// The relist finds out. It stays refused until somebody has restored what was seen.
	ix := w.index()
	if ix.Incarnation == before.Incarnation || ix.Incarnation == "" || ix.Seq >= before.Seq || len(ix.Sessions) != 0 {
		t.Fatalf("got %+v after %+v", ix, before)
	}
	_, err = w.store.Admit(w.ctx, w.leader, state.Admission{ID: "s1", Remaining: time.Hour})
	w.is(err, state.ErrRolledBack)
	w.ok(w.store.Restore(w.ctx, before.Seq, state.Records{}))
	_, err = w.store.Admit(w.ctx, w.leader, state.Admission{ID: "s1", Remaining: time.Hour})
	w.is(err, state.ErrFenced)
	old := w.leader
	w.leader = state.Authority{}
	if w.lead().Epoch < old.Epoch {
		t.Fatalf("epoch %d after %d", w.leader.Epoch, old.Epoch)
	}
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.is(err, state.ErrNotFound)
	w.hosting("c1", 2)
	w.admit("s1", "u")
	if s := w.bind("s1", "c1"); s.Rev <= before.Seq {
		t.Fatalf("revision %d after %d", s.Rev, before.Seq)
	}
	if again := w.index(); again.Incarnation != ix.Incarnation {
		t.Fatal("the store changed its incarnation by itself")
	}
}

func testTime(t *testing.T, w *world) {
	if w.Advance == nil {
		t.Skip("this store's clock cannot be moved")
	}
	w.Set("d1", `{"status":"pending"}`, time.Minute)
	owner := w.hosting("c1", 4)
	w.sessionIn(state.Ended, "s1", "c1", owner)
	w.hosting("c2", 1)
	_, err := w.store.MarkGone(w.ctx, w.lead(), "c2", boot)
	w.ok(err)
	began := w.index().Time

	w.Advance(30 * time.Second)
	if doc := w.document("d1"); doc.TTL > 31*time.Second || doc.Missing {
		t.Fatalf("got %+v", doc)
	}
	w.Advance(31 * time.Second)
	if doc := w.document("d1"); !doc.Missing {
		t.Fatalf("got %+v", doc)
	}
	w.ok(w.store.CreateDocument(w.ctx, "d1", []byte(`{}`), time.Minute))
	if ix := w.index(); ix.Sessions["s1"] == 0 || ix.Containers["c2"] == 0 || !near(ix.Time, began.Add(61*time.Second)) {
		t.Fatalf("got %+v", ix)
	}
	w.Advance(state.EndedListed)
	if ix := w.index(); ix.Sessions["s1"] != 0 || ix.Containers["c2"] == 0 {
		t.Fatalf("got %+v", ix)
	}
	if w.session("s1").Phase != state.Ended {
		t.Fatal("the ended session is forgotten already")
	}
	w.Advance(state.GoneKept)
	if ix := w.index(); ix.Containers["c2"] != 0 || ix.Containers["c1"] == 0 {
		t.Fatalf("got %+v", ix)
	}
	_, err = w.store.Container(w.ctx, "c2")
	w.is(err, state.ErrNotFound)
	w.registered("c2", 1)
	if w.index().Containers["c2"] == 0 {
		t.Fatal("a container that came again is not in the index")
	}

	// As long as its document is about, an ended id stays remembered.
	w.Advance(state.EndedKept - time.Hour)
	w.leader = state.Authority{}
	_, err = w.store.Admit(w.ctx, w.lead(), state.Admission{ID: "s1", Remaining: 3 * time.Hour})
	w.is(err, state.ErrExists)
	w.Advance(20 * time.Hour)
	if w.session("s1").Phase != state.Ended {
		t.Fatal("the ended session came back")
	}
	w.Advance(5 * time.Hour)
	if _, err := w.store.Session(w.ctx, "s1"); !errors.Is(err, state.ErrNotFound) {
		t.Fatalf("got %v, want the session forgotten", err)
	}
}
