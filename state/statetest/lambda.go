package statetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// rounds of the Lambdas' edits against ours.
const lambdaRounds = 1000

// testLambdas replays what a Lambda does: it reads the document, parses it, changes a field
// and writes the whole back, without looking whether anybody was there in between. That may
// undo an edit of ours, which we then make again. Ours must never undo one of theirs, and least
// of all the last: "terminated".
func testLambdas(t *testing.T, w *world) {
	w.Set("s1", `{"sessionId":"s1","status":"pending","foreign":0,"list":[],"big":9007199254740993}`, time.Hour)
	done := make(chan struct{})
	var ours sync.WaitGroup
	edit := func(change func(n int) error) {
		ours.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if err := change(n); err != nil && !errors.Is(err, state.ErrConflict) {
					t.Errorf("edit %d: %v", n, err)
					return
				}
			}
		})
	}
	unlessFinal := func(edit func([]byte) ([]byte, error)) func([]byte) ([]byte, error) {
		return func(text []byte) ([]byte, error) {
			if spec, err := state.ParseSpec("s1", text); err != nil || spec.Final() {
				return nil, err
			}
			return edit(text)
		}
	}
	edit(func(n int) error {
		return w.store.AnnotateDocument(w.ctx, "s1", unlessFinal(set("lastActivity", fmt.Sprintf("t%d", n))))
	})
	edit(func(n int) error {
		return w.store.EditDocument(w.ctx, "s1", 0, unlessFinal(set("status", []string{"ready", "ended"}[n%2])))
	})
	for n := 1; n <= lambdaRounds; n++ {
		// Read, modify, write: JSON.parse and JSON.stringify, with the time to live that is left.
		var fields map[string]json.RawMessage
		text, ttl := w.Foreign.Read("session:s1")
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			t.Errorf("round %d: %q: %v", n, text, err)
			break
		}
		if got := string(fields["foreign"]); got != fmt.Sprint(n-1) {
			t.Errorf("round %d finds %s of the round before: its edit was lost", n, got)
			break
		}
		if string(fields["list"]) != "[]" || string(fields["big"]) != "9007199254740993" || ttl <= 0 {
			t.Errorf("round %d finds %s for %v", n, text, ttl)
			break
		}
		fields["foreign"] = json.RawMessage(fmt.Sprint(n))
		written, err := json.Marshal(fields)
		w.ok(err)
		w.Set("s1", string(written), ttl)
	}
	final := fmt.Sprintf(`{"sessionId":"s1","status":"terminated","foreign":%d,"list":[]}`, lambdaRounds)
	w.Set("s1", final, 300*time.Second)
	close(done)
	ours.Wait()
	if doc := w.document("s1"); string(doc.Text) != final || doc.TTL <= 250*time.Second || doc.TTL > 300*time.Second {
		t.Errorf("at last %s for %v, want %s for 300 s", doc.Text, doc.TTL, final)
	}
}
