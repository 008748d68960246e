package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func (w *world) document(id string) state.Document {
	w.t.Helper()
	doc, err := w.store.Document(w.ctx, id)
	w.ok(err)
	return doc
}

func testDocuments(t *testing.T, w *world) {
	text := `{"sessionId":"s1","userId":"u","status":"pending","timeout":60000}`
	w.ok(w.store.CreateDocument(w.ctx, "s1", []byte(text), time.Minute))
	w.is(w.store.CreateDocument(w.ctx, "s1", []byte(`{}`), time.Minute), state.ErrExists)
	w.is(w.store.CreateDocument(w.ctx, "a/b", []byte(`{}`), time.Minute), state.ErrInvalid)
	doc := w.document("s1")
	if string(doc.Text) != text || doc.Missing || doc.Err != nil || doc.TTL <= 50*time.Second || doc.TTL > time.Minute ||
		doc.Spec.UserID != "u" || doc.Spec.Length() != time.Minute {
		t.Fatalf("got %+v", doc)
	}
	if doc = w.document("nobody"); !doc.Missing || doc.Text != nil || doc.Err != nil {
		t.Fatalf("got %+v", doc)
	}
	w.Set("s2", `{"status":"terminated"}`, 0)
	if doc = w.document("s2"); doc.TTL != 0 || !doc.Spec.Final() || doc.Spec.SessionID != "s2" {
		t.Fatalf("got %+v", doc)
	}
	docs, err := w.store.DocumentsOf(w.ctx, []string{"s2", "nobody", "s1", "s2"})
	w.ok(err)
	var order []string
	for _, d := range docs {
		order = append(order, d.ID)
	}
	if !slices.Equal(order, []string{"s2", "nobody", "s1", "s2"}) || !docs[1].Missing {
		t.Fatalf("got %+v", docs)
	}
	docs, err = w.store.DocumentsOf(w.ctx, nil)
	w.ok(err)
	if len(docs) != 0 {
		t.Fatalf("got %+v", docs)
	}

	// Many, and only ours.
	want := []string{"s1", "s2"}
	for i := range 1200 {
		id := fmt.Sprintf("many-%d", i)
		w.Set(id, `{}`, time.Hour)
		want = append(want, id)
	}
	w.Set("not an id", `{}`, time.Hour)
	w.admit("status-only", "u")
	ids, err := w.store.DocumentIDs(w.ctx)
	w.ok(err)
	slices.Sort(ids)
	slices.Sort(want)
	if got := slices.Compact(ids); !slices.Equal(got, want) {
		t.Fatalf("%d documents listed, want %d", len(got), len(want))
	}
	docs, err = w.store.DocumentsOf(w.ctx, want)
	w.ok(err)
	for i, d := range docs {
		if d.ID != want[i] || d.Missing {
			t.Fatalf("document %d is %+v, want %s", i, d, want[i])
		}
	}
	w.Delete("s2")
	if doc = w.document("s2"); !doc.Missing {
		t.Fatalf("got %+v", doc)
	}
}

func set(field string, value any) func([]byte) ([]byte, error) {
	return func(text []byte) ([]byte, error) { return state.SetField(text, field, value) }
}

func testEdits(t *testing.T, w *world) {
	text := `{ "zz" : [ ], "status":"pending","big":12345678901234567890, "x":{"a":1e400} }`
	w.Set("s1", text, time.Minute)
	w.ok(w.store.EditDocument(w.ctx, "s1", 0, set("status", "ready")))
	doc := w.document("s1")
	if want := strings.Replace(text, "pending", "ready", 1); string(doc.Text) != want {
		t.Fatalf("got  %s\nwant %s", doc.Text, want)
	}
	if doc.TTL <= 50*time.Second || doc.TTL > time.Minute {
		t.Fatalf("%v to live, want the minute that it had", doc.TTL)
	}
	w.ok(w.store.EditDocument(w.ctx, "s1", 5*time.Minute, set("status", "terminated")))
	if doc = w.document("s1"); doc.TTL <= 4*time.Minute || doc.TTL > 5*time.Minute {
		t.Fatalf("%v to live, want five minutes", doc.TTL)
	}
	w.Set("forever", `{}`, 0)
	w.ok(w.store.EditDocument(w.ctx, "forever", 0, set("status", "ready")))
	if doc = w.document("forever"); doc.TTL != 0 || string(doc.Text) != `{"status":"ready"}` {
		t.Fatalf("got %+v", doc)
	}
	before := w.document("s1")
	w.ok(w.store.EditDocument(w.ctx, "s1", 0, func([]byte) ([]byte, error) { return nil, nil }))
	mine := errors.New("mine")
	w.is(w.store.EditDocument(w.ctx, "s1", 0, func([]byte) ([]byte, error) { return nil, mine }), mine)
	if after := w.document("s1"); !bytes.Equal(before.Text, after.Text) {
		t.Fatalf("got %s", after.Text)
	}
	w.is(w.store.EditDocument(w.ctx, "nobody", 0, set("status", "ready")), state.ErrNotFound)

	// Somebody else writes between our read and our write: his edit stays, ours is on top.
	calls := 0
	w.ok(w.store.EditDocument(w.ctx, "s1", 0, func(text []byte) ([]byte, error) {
		if calls++; calls == 1 {
			w.Set("s1", `{"status":"x","his":1}`, time.Hour)
		}
		return state.SetField(text, "ours", 2)
	}))
	if doc = w.document("s1"); calls != 2 || string(doc.Text) != `{"status":"x","his":1,"ours":2}` || doc.TTL <= 50*time.Minute {
		t.Fatalf("after %d tries: %s for %v", calls, doc.Text, doc.TTL)
	}
	calls = 0
	w.is(w.store.EditDocument(w.ctx, "s1", 0, func(text []byte) ([]byte, error) {
		calls++
		w.Set("s1", fmt.Sprintf(`{"n":%d}`, calls), time.Hour)
		return state.SetField(text, "ours", 3)
	}), state.ErrConflict)
	if doc = w.document("s1"); calls < 3 || string(doc.Text) != fmt.Sprintf(`{"n":%d}`, calls) {
		t.Fatalf("after %d tries: %s", calls, doc.Text)
	}
	w.is(w.store.EditDocument(w.ctx, "s1", 0, func(text []byte) ([]byte, error) {
		w.Delete("s1")
		return state.SetField(text, "ours", 4)
	}), state.ErrNotFound)

	// Several of us at once: nobody's edit is lost.
	w.Set("shared", `{"foreign":[]}`, time.Hour)
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("f%d-%d", i, j)
				err := state.ErrConflict
				for errors.Is(err, state.ErrConflict) {
					err = w.store.EditDocument(w.ctx, "shared", 0, set(name, true))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	doc = w.document("shared")
	for i := range 3 {
		for j := range 5 {
			if !bytes.Contains(doc.Text, fmt.Appendf(nil, `"f%d-%d":true`, i, j)) {
				t.Errorf("edit %d of %d is lost: %s", j, i, doc.Text)
			}
		}
	}
}

func testPoison(t *testing.T, w *world) {
	w.Set("good", `{"status":"pending"}`, time.Hour)
	w.Set("text", `not JSON`, time.Hour)
	w.Set("empty", ``, time.Hour)
	w.Set("cut", `{"status":"pend`, time.Hour)
	w.Set("list", `[1]`, time.Hour)
	w.Set("number", `{"status":7}`, time.Hour)
	w.Set("other", `{"sessionId":"good"}`, time.Hour)
	w.Set("bytes", "\xff\x00\xfe", time.Hour)
	w.Spoil("hash")
	ids := []string{"text", "empty", "cut", "list", "number", "other", "bytes", "hash", "good"}
	docs, err := w.store.DocumentsOf(w.ctx, ids)
	w.ok(err)
	for i, doc := range docs {
		if bad := ids[i] != "good"; doc.ID != ids[i] || (doc.Err != nil) != bad || doc.Missing {
			t.Errorf("got %+v", doc)
		}
	}
	listed, err := w.store.DocumentIDs(w.ctx)
	w.ok(err)
	slices.Sort(listed)
	slices.Sort(ids)
	if !slices.Equal(slices.Compact(listed), ids) {
		t.Errorf("listed %v, want %v", listed, ids)
	}
	w.is(w.store.EditDocument(w.ctx, "hash", 0, set("status", "ready")), state.ErrInvalid)
	if err := w.store.EditDocument(w.ctx, "cut", 0, set("status", "ready")); err == nil {
		t.Error("a text that is no JSON was edited")
	}
	w.is(w.store.CreateDocument(w.ctx, "hash", []byte(`{}`), time.Hour), state.ErrExists)
	w.Set("turned", `{"a":1}`, time.Hour)
	err = w.store.EditDocument(w.ctx, "turned", 0, func(text []byte) ([]byte, error) {
		w.Spoil("turned")
		return state.SetField(text, "b", 2)
	})
	w.is(err, state.ErrInvalid)
}

// watching collects what a Watch says until the test ends.
type watching struct {
	w    *world
	mu   sync.Mutex
	got  []state.Hint
	told []bool
	news chan struct{}
}

// watch starts a Watch and waits until it listens.
func (w *world) watch() *watching {
	w.t.Helper()
	v := &watching{w: w, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	note := func(change func()) {
		v.mu.Lock()
		change()
		v.mu.Unlock()
		select {
		case v.news <- struct{}{}:
		default:
		}
	}
	go func() {
		done <- w.store.Watch(ctx,
			func(hints []state.Hint) { note(func() { v.got = append(v.got, hints...) }) },
			func(on bool) { note(func() { v.told = append(v.told, on) }) })
	}()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				w.t.Errorf("Watch ended with %v", err)
			}
		case <-time.After(patience):
			w.t.Error("Watch did not end with its context")
		}
	})
	v.until("all", func() bool { return slices.Contains(v.got, state.Hint{Kind: state.KindAll}) })
	v.until("whether documents are notified", func() bool {
		return len(v.told) > 0 && v.told[len(v.told)-1] == w.Notified
	})
	v.forget()
	return v
}

// until waits until what was heard is enough.
func (v *watching) until(what string, enough func() bool) {
	v.w.t.Helper()
	timeout := time.After(patience)
	for {
		v.mu.Lock()
		done := enough()
		v.mu.Unlock()
		if done {
			return
		}
		select {
		case <-v.news:
		case <-timeout:
			v.mu.Lock()
			got := fmt.Sprint(v.got, v.told)
			v.mu.Unlock()
			v.w.t.Fatalf("never heard of %s; heard %s", what, got)
		}
	}
}

func (v *watching) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got = nil
}

// hears waits for a hint of that kind at that revision; zero: at any.
func (v *watching) hears(kind state.Kind, id string, rev int64) {
	v.w.t.Helper()
	v.until(fmt.Sprintf("%s %s at %d", kind, id, rev), func() bool {
		return slices.ContainsFunc(v.got, func(h state.Hint) bool {
			return h.Kind == kind && h.ID == id && (rev == 0 || h.Rev == rev)
		})
	})
}

func testHints(_ *testing.T, w *world) {
	v := w.watch()
	s := w.admit("s1", "u")
	v.hears(state.KindSession, "s1", s.Rev)
	_, owner := w.registered("c1", 2)
	v.hears(state.KindContainer, "c1", w.container("c1").Rev)
	c, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot, Addr: "10.0.0.1:80"})
	w.ok(err)
	v.hears(state.KindContainer, "c1", c.Rev)
	s = w.bind("s1", "c1")
	v.hears(state.KindSession, "s1", s.Rev)
	v.hears(state.KindContainer, "c1", w.container("c1").Rev)
	s, _, err = w.store.Ready(w.ctx, owner, "s1", s.BindRev, false)
	w.ok(err)
	v.hears(state.KindSession, "s1", s.Rev)
	w.ok(w.store.Touch(w.ctx, owner, []state.Activity{{Session: "s1", BindRev: s.BindRev, Attached: 1}}))
	quiet := w.session("s1")
	report, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot, Health: state.Health{CPU: 0.5}})
	w.ok(err)
	l, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "l1", Input: []byte(`{}`)})
	w.ok(err)
	v.hears(state.KindLaunch, "l1", l.Rev)
	// Hints come in order: what was to be quiet before this one was.
	for _, h := range v.got {
		if h.Rev == quiet.Rev || h.Rev == report.Rev {
			w.t.Errorf("activity and punctual reports are for relists, but were hinted at: %v", h)
		}
	}
	l, err = w.store.UpdateLaunch(w.ctx, w.lead(), "l1", state.LaunchUpdate{Tries: 1})
	w.ok(err)
	v.hears(state.KindLaunch, "l1", l.Rev)
	v.forget()
	w.ok(w.store.ForgetLaunch(w.ctx, w.lead(), "l1"))
	v.hears(state.KindLaunch, "l1", 0)
	w.ok(w.store.ReleaseLease(w.ctx, replica, w.lead().Epoch))
	v.hears(state.KindLease, "", 0)
	w.ok(w.store.CreateDocument(w.ctx, "d1", []byte(`{}`), time.Hour))
	v.hears(state.KindDocument, "d1", 0)
	v.forget()
	w.ok(w.store.EditDocument(w.ctx, "d1", 0, set("a", 1)))
	v.hears(state.KindDocument, "d1", 0)
	w.ok(w.store.Wake(w.ctx, state.Hint{Kind: state.KindFleet, ID: "arn:aws:ecs:x:1:task/c/1"}, state.Hint{Kind: state.KindAll}))
	w.ok(w.store.Wake(w.ctx))
	v.hears(state.KindFleet, "arn:aws:ecs:x:1:task/c/1", 0)
	v.hears(state.KindAll, "", 0)

	// Two watch, both hear; and a burst that no single read takes arrives whole.
	other := w.watch()
	v.forget()
	for i := range 1100 {
		w.ok(w.store.Wake(w.ctx, state.Hint{Kind: state.KindSession, ID: fmt.Sprintf("b%d", i), Rev: int64(i + 1)}))
	}
	for _, each := range []*watching{v, other} {
		each.until("the whole burst", func() bool {
			if len(each.got) < 1100 {
				return false
			}
			seen := map[string]bool{}
			for _, h := range each.got {
				seen[h.ID] = true
			}
			for i := range 1100 {
				if !seen[fmt.Sprintf("b%d", i)] {
					return false
				}
			}
			return true
		})
	}
}

func testNotifications(t *testing.T, w *world) {
	v := w.watch()
	w.Set("s1", `{"status":"pending"}`, time.Hour)
	if !w.Notified {
		// A hint of our own comes after whatever the write could have caused.
		w.ok(w.store.Wake(w.ctx, state.Hint{Kind: state.KindFleet}))
		v.hears(state.KindFleet, "", 0)
		if slices.ContainsFunc(v.got, func(h state.Hint) bool { return h.Kind == state.KindDocument }) {
			t.Fatalf("heard of a document: %v", v.got)
		}
		return
	}
	v.hears(state.KindDocument, "s1", 0)
	v.forget()
	w.Set("s1", `{"status":"terminated"}`, time.Minute)
	v.hears(state.KindDocument, "s1", 0)
	v.forget()
	w.Delete("s1")
	v.hears(state.KindDocument, "s1", 0)
	w.Spoil("s2")
	w.Set("s3", `{}`, 50*time.Millisecond)
	v.hears(state.KindDocument, "s3", 0)
}
