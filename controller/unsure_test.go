package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// forgetful is a store whose first answer to an intent is lost, and which then does not give it once.
type forgetful struct {
	*state.Memory
	lost, unread bool
}

func (f *forgetful) Launch(ctx context.Context, id string) (*state.Launch, error) {
	if !f.unread {
		f.unread = true
		return nil, fmt.Errorf("%w: no answer", state.ErrUnavailable)
	}
	return f.Memory.Launch(ctx, id)
}

func (f *forgetful) CreateLaunch(ctx context.Context, by state.Authority, l state.Launch) (*state.Launch, error) {
	got, err := f.Memory.CreateLaunch(ctx, by, l)
	if !f.lost && err == nil {
		f.lost = true
		return nil, fmt.Errorf("%w: no answer", state.ErrUnavailable)
	}
	return got, err
}

// prepared is a fleet that only prepares.
type prepared struct{ state.Fleet }

func (prepared) Prepare(string, int) (input json.RawMessage, port int, err error) {
	return []byte(`{}`), 8080, nil
}
func (prepared) Target() string { return "somewhere" }

// The mirror does not know of an intent whose answer was lost until its next listing, which may fail for
// a while. The plan wants it again meanwhile, and that must not become a second container.
func TestAnIntentWhoseAnswerWasLostIsNotRecordedTwice(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store := &forgetful{Memory: state.NewMemory(func() time.Time { return now })}
	ids := 0
	c := New(Config{Replica: "r", Store: store, Mirror: state.NewMirror(store, state.MirrorOptions{}), Fleet: prepared{}, NewID: func() string {
		ids++
		return fmt.Sprintf("cnt_%d", ids)
	}})
	if err := c.bid(t.Context()); err != nil {
		t.Fatal(err)
	}
	by := state.Authority{Epoch: c.lead.epochNow()}
	want := []error{state.ErrUnavailable, state.ErrUnavailable, nil, nil}
	for i, wanted := range want {
		if err := c.recordLaunch(t.Context(), by, plan.Launch{MaxSessions: 1}); !errors.Is(err, wanted) {
			t.Errorf("attempt %d: %v, want %v", i+1, err, wanted)
		}
		index, err := store.Index(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if recorded := map[int]int{0: 1, 1: 1, 2: 1, 3: 2}[i]; len(index.Launches) != recorded {
			t.Errorf("attempt %d: %v are recorded, want %d", i+1, index.Launches, recorded)
		}
		if known := map[int]int{0: 0, 1: 0, 2: 1, 3: 2}[i]; len(c.cfg.Mirror.Launches()) != known {
			t.Errorf("attempt %d: %d are known, want %d", i+1, len(c.cfg.Mirror.Launches()), known)
		}
	}
}
