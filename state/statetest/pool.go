package statetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func testPoolDesired(t *testing.T, w *world) {
	text, err := w.store.PoolDesired(w.ctx)
	w.ok(err)
	if text != nil {
		t.Fatalf("got %q before anybody wrote it", text)
	}
	w.Foreign.Desire(`{"min":3}`, time.Minute)
	text, err = w.store.PoolDesired(w.ctx)
	w.ok(err)
	if string(text) != `{"min":3}` {
		t.Fatalf("got %q", text)
	}
	if w.Advance != nil {
		w.Advance(2 * time.Minute)
		text, err = w.store.PoolDesired(w.ctx)
		w.ok(err)
		if text != nil {
			t.Fatalf("got %q after its time", text)
		}
	}
	w.Foreign.SpoilDesired()
	_, err = w.store.PoolDesired(w.ctx)
	w.is(err, state.ErrInvalid)
	w.Foreign.Undesire()
	text, err = w.store.PoolDesired(w.ctx)
	w.ok(err)
	if text != nil {
		t.Fatalf("got %q after it was removed", text)
	}
	if !w.Notified {
		return
	}
	v := w.watch()
	w.Foreign.Desire(`{"paused":true}`, 0)
	v.until("the pool", func() bool { return slices.Contains(v.got, state.Hint{Kind: state.KindPool}) })
	v.forget()
	w.Foreign.Undesire()
	v.until("the pool again", func() bool { return slices.Contains(v.got, state.Hint{Kind: state.KindPool}) })
}

func testPoolNotes(t *testing.T, w *world) {
	notes := func() state.PoolNotes {
		t.Helper()
		n, err := w.store.PoolNotes(w.ctx)
		w.ok(err)
		return n
	}
	same := func(want state.PoolNotes) {
		t.Helper()
		got := notes()
		if !got.ListedAt.Equal(want.ListedAt) || string(got.Obeyed) != string(want.Obeyed) ||
			(got.Obeyed == nil) != (want.Obeyed == nil) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
	same(state.PoolNotes{})
	at := time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)
	text, empty := `{"max": 5,"x":"é"}`, ""
	w.ok(w.store.NotePool(w.ctx, w.lead(), state.PoolUpdate{ListedAt: at}))
	w.ok(w.store.NotePool(w.ctx, w.lead(), state.PoolUpdate{Obeyed: &text}))
	w.ok(w.store.NotePool(w.ctx, w.lead(), state.PoolUpdate{}))
	whole := state.PoolNotes{ListedAt: at, Obeyed: []byte(text)}
	same(whole)
	for _, by := range []state.Authority{{}, {Epoch: w.leader.Epoch - 1}, {Container: "c1", OwnerSeq: 1}} {
		w.is(w.store.NotePool(w.ctx, by, state.PoolUpdate{Obeyed: &empty}), state.ErrFenced)
	}
	same(whole)
	w.ok(w.store.NotePool(w.ctx, w.lead(), state.PoolUpdate{ListedAt: at.Add(time.Second), Obeyed: &empty}))
	same(state.PoolNotes{ListedAt: at.Add(time.Second)})
}

func testShown(t *testing.T, w *world) {
	w.ok(w.store.ShowHealth(w.ctx, state.ContainerHealth{
		Status: state.HealthHealthy, ContainerID: "c1", Sessions: 2, MaxSessions: 20, CPU: 0.25, Memory: 0.5, Uptime: 61}))
	text, ttl := w.Foreign.Read("container:c1:health")
	want := `{"status":"healthy","containerId":"c1","sessions":2,"maxSessions":20,"cpu":0.25,"memory":0.5,"uptime":61}`
	if text != want || ttl <= 50*time.Second || ttl > time.Minute {
		t.Fatalf("got %s for %v", text, ttl)
	}
	w.is(w.store.ShowHealth(w.ctx, state.ContainerHealth{ContainerID: "a:b"}), state.ErrInvalid)
	w.is(w.store.ShowHealth(w.ctx, state.ContainerHealth{}), state.ErrInvalid)
	if w.Advance != nil {
		w.Advance(2 * time.Minute)
		if text, _ = w.Foreign.Read("container:c1:health"); text != "" {
			t.Fatalf("got %s after its time", text)
		}
	}
	w.ok(w.store.ShowPool(w.ctx, state.PoolState{TotalContainers: 3, TotalSessions: 7, Timestamp: 1795467938604, Max: 9, Paused: true}))
	text, ttl = w.Foreign.Read("pool:state")
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if got["totalContainers"] != 3.0 || got["totalSessions"] != 7.0 || got["timestamp"] != 1795467938604.0 ||
		got["max"] != 9.0 || got["paused"] != true || ttl != 0 {
		t.Fatalf("got %s for %v", text, ttl)
	}

	// An annotation keeps the time to live and everything else, and leaves no hint of ours.
	w.Set("s1", `{ "a":[ ], "n":12345678901234567890}`, time.Minute)
	w.ok(w.store.AnnotateDocument(w.ctx, "s1", set("lastActivity", "2026-03-01T12:00:00.000Z")))
	doc := w.document("s1")
	if string(doc.Text) != `{ "a":[ ], "n":12345678901234567890,"lastActivity":"2026-03-01T12:00:00.000Z"}` ||
		doc.TTL <= 50*time.Second || doc.TTL > time.Minute {
		t.Fatalf("got %s for %v", doc.Text, doc.TTL)
	}
	w.is(w.store.AnnotateDocument(w.ctx, "nobody", set("a", 1)), state.ErrNotFound)
	calls := 0
	w.ok(w.store.AnnotateDocument(w.ctx, "s1", func(text []byte) ([]byte, error) {
		if calls++; calls == 1 {
			w.Set("s1", `{"status":"x","his":1}`, time.Hour)
		}
		return state.SetField(text, "ours", 2)
	}))
	if doc = w.document("s1"); calls != 2 || string(doc.Text) != `{"status":"x","his":1,"ours":2}` {
		t.Fatalf("after %d tries: %s", calls, doc.Text)
	}
}

func testAnnotationsAreQuiet(t *testing.T, w *world) {
	w.Set("s1", `{}`, time.Minute)
	v := w.watch()
	w.ok(w.store.AnnotateDocument(w.ctx, "s1", set("a", 1)))
	marker := state.Hint{Kind: state.KindFleet, ID: "marker"}
	w.ok(w.store.Wake(w.ctx, marker))
	v.until("the marker", func() bool { return slices.Contains(v.got, marker) })
	if !w.Notified && slices.Contains(v.got, state.Hint{Kind: state.KindDocument, ID: "s1"}) {
		t.Fatalf("an annotation left a hint: %v", v.got)
	}
}

func testV1Notes(t *testing.T, w *world) {
	count := func(want int) {
		t.Helper()
		n, err := w.store.V1Count(w.ctx, "c1")
		w.ok(err)
		if n != want {
			t.Fatalf("%d sessions noted, want %d", n, want)
		}
	}
	has := func(session string, want bool) {
		t.Helper()
		found, err := w.store.V1Has(w.ctx, "c1", session)
		w.ok(err)
		if found != want {
			t.Fatalf("session %s noted: %v", session, found)
		}
	}
	count(0)
	has("s1", false)
	w.Foreign.NoteV1("c1", "s1")
	w.Foreign.NoteV1("c1", "s2")
	w.Foreign.NoteV1("c2", "s1")
	count(2)
	has("s1", true)
	has("s3", false)
	w.ok(w.store.V1Forget(w.ctx, "c1"))
	w.ok(w.store.V1Forget(w.ctx, "c1"))
	count(0)
	has("s1", false)
	if n, err := w.store.V1Count(w.ctx, "c2"); err != nil || n != 1 {
		t.Fatalf("the other container has %d, %v", n, err)
	}
}

func testEvents(t *testing.T, w *world) {
	tail := func(n int) []state.Event {
		t.Helper()
		events, err := w.store.Tail(w.ctx, n)
		w.ok(err)
		return events
	}
	if got := tail(10); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
	for i := range 5 {
		w.ok(w.store.Note(w.ctx, state.Event{
			Kind: state.KindSession, Object: fmt.Sprintf("s%d", i), Reason: state.EventIgnored, Message: "line 1\nline 2", User: "u"}))
	}
	w.ok(w.store.Note(w.ctx, state.Event{Kind: state.KindPool, Reason: state.EventRefused, Message: string(make([]byte, 10000))}))
	got := tail(3)
	if len(got) != 3 || got[0].Object != "s3" || got[1].Object != "s4" || got[2].Kind != state.KindPool {
		t.Fatalf("got %+v", got)
	}
	if e := got[1]; e.Kind != state.KindSession || e.Reason != state.EventIgnored || e.Message != "line 1\nline 2" || e.User != "u" ||
		e.At.IsZero() || got[2].At.Before(e.At) {
		t.Fatalf("got %+v", e)
	}
	if n := len(got[2].Message); n > 1000 {
		t.Fatalf("an event keeps %d bytes", n)
	}
	all := tail(100)
	for i, e := range all {
		next, err := w.store.EventsAfter(w.ctx, e.ID, 2)
		w.ok(err)
		if want := all[i+1:]; len(next) != min(2, len(want)) || len(next) > 0 && next[0] != want[0] {
			t.Fatalf("after %+v: %+v", e, next)
		}
	}
	for _, id := range []string{"x", "", "-", "-1", "+1", "1-", "1-x", "1-2-3", "18446744073709551616", "1-18446744073709551616",
		"99999999999999999999", " 1", strings.Repeat("1", 1000)} {
		_, err := w.store.EventsAfter(w.ctx, id, 1)
		w.is(err, state.ErrInvalid)
	}
	for _, id := range []string{"18446744073709551615", "18446744073709551615-18446744073709551615", "9999999999999999999-0"} {
		next, err := w.store.EventsAfter(w.ctx, id, 1)
		w.ok(err)
		if len(next) != 0 {
			t.Fatalf("after %s: %+v", id, next)
		}
	}
	if n := len(all); n != 6 || len(tail(0)) != 0 || len(tail(-1)) != 0 {
		t.Fatalf("%d events", n)
	}
}
