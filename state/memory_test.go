package state_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/statetest"
)

// clock is a wall clock that a test moves by hand on top of the real one.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func TestMemory(t *testing.T) {
	for name, notified := range map[string]bool{"notified": true, "unnotified": false} {
		t.Run(name, func(t *testing.T) {
			statetest.Run(t, func(*testing.T) statetest.Harness {
				var c clock
				m := state.NewMemory(c.now)
				m.NotifyDocuments(notified)
				return statetest.Harness{
					Store: m, Set: m.SetDocument, Delete: m.DeleteDocument, Spoil: m.SpoilDocument,
					Foreign: foreign(m),
					Wipe:    m.Wipe, Advance: c.advance, Notified: notified,
				}
			})
		})
	}
}

func foreign(m *state.Memory) statetest.Foreign {
	return statetest.Foreign{
		Desire: m.SetPoolDesired, Undesire: m.DeletePoolDesired, SpoilDesired: m.SpoilPoolDesired, NoteV1: m.NoteV1,
		Read: func(key string) (string, time.Duration) {
			if key == "pool:state" {
				return m.ShownPool(), 0
			}
			if id, ok := strings.CutPrefix(key, "session:"); ok {
				d, _ := m.Document(context.Background(), id)
				return string(d.Text), d.TTL
			}
			return m.ShownHealth(strings.TrimSuffix(strings.TrimPrefix(key, "container:"), ":health"))
		},
	}
}

func TestMemoryAnswersUnavailableWhileFailing(t *testing.T) {
	m := state.NewMemory(nil)
	cause := errors.New("the cable is out")
	m.FailWith(cause)
	ctx := t.Context()
	for name, err := range map[string]error{
		"Ping":     m.Ping(ctx),
		"Index":    second(m.Index(ctx)),
		"Session":  second(m.Session(ctx, "s")),
		"Register": second(m.Register(ctx, state.Registration{})),
		"Document": second(m.Document(ctx, "s")),
		"Wake":     m.Wake(ctx, state.Hint{Kind: state.KindAll}),
	} {
		if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.FailWith(nil)
	if err := m.Ping(ctx); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestMemoryInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := state.NewMemory(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var heard []state.Hint
		done := make(chan error, 1)
		go func() {
			done <- m.Watch(ctx, func(hints []state.Hint) { heard = append(heard, hints...) }, nil)
		}()
		synctest.Wait()
		heard = nil
		m.SetDocument("s1", `{}`, time.Minute)
		synctest.Wait()
		if len(heard) != 1 || heard[0] != (state.Hint{Kind: state.KindDocument, ID: "s1"}) {
			t.Fatalf("heard %v", heard)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // in virtual time
		m.ExpireDocuments()
		synctest.Wait()
		if len(heard) != 2 {
			t.Fatalf("heard %v, want the expiry too", heard)
		}
		m.FailWith(errors.New("out"))
		m.SetDocument("s2", `{}`, 0)
		synctest.Wait()
		m.FailWith(nil)
		synctest.Wait()
		if len(heard) != 3 || heard[2].Kind != state.KindAll {
			t.Fatalf("heard %v, want to be told to look at everything", heard)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	})
}
