package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

// gate stops pipelines on their way to Redis until it is opened, and counts them.
type gate struct {
	pipelines atomic.Int64
	mu        sync.Mutex
	open      chan struct{} // guarded by mu; nil: nothing is held
}

func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		close(g.open)
		g.open = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open != nil {
		<-open
	}
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		g.pipelines.Add(1)
		g.pass()
		return next(ctx, cmds)
	}
}

// gated opens a store whose pipelines go through a gate, and leads.
func gated(t *testing.T) (*redisstore.Store, *gate, state.Authority, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	c := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DisableIdentity: true, Protocol: 2})
	t.Cleanup(func() { _ = c.Close() })
	s := open(t, redisstore.Options{Client: c})
	epoch, _, err := s.AcquireLease(t.Context(), "one", 0)
	must(t, err)
	g := &gate{}
	t.Cleanup(g.release) // before the store is closed
	c.AddHook(g)
	return s, g, state.Authority{Epoch: epoch}, server
}

func admission(i int) state.Admission {
	return state.Admission{ID: fmt.Sprintf("ses_%d", i), Spec: []byte(`{}`), Origin: state.OriginForeign, Remaining: time.Hour}
}

func TestWritesAtTheSameTimeShareTheirRoundTrips(t *testing.T) {
	s, g, by, server := gated(t)
	for round := range 2 {
		g.hold()
		before := g.pipelines.Load()
		const writes = 200
		var group sync.WaitGroup
		for i := range writes {
			group.Go(func() {
				_, err := s.Admit(t.Context(), by, admission(writes*round+i))
				for errors.Is(err, state.ErrUnavailable) && t.Context().Err() == nil {
					_, err = s.Admit(t.Context(), by, admission(writes*round+i)) // a busy machine: it was not sent
				}
				if err != nil && !errors.Is(err, state.ErrExists) {
					t.Error(err)
				}
			})
		}
		await(t, "the first pipeline is on its way", func() bool { return g.pipelines.Load() > before })
		g.release()
		group.Wait()
		// The first leave alone, the others together, and all of a pipeline again whose script
		// Redis did not know.
		if n := g.pipelines.Load() - before; n > writes/2 {
			t.Errorf("%d writes took %d round trips", writes, n)
		}
		ix, err := s.Index(t.Context())
		must(t, err)
		if len(ix.Sessions) != writes*(round+1) {
			t.Errorf("%d sessions are there", len(ix.Sessions))
		}
		must(t, flushScripts(t, server.Addr()))
	}
}

func TestEachWriteIsAnsweredByItself(t *testing.T) {
	s, _, by, _ := gated(t)
	var group sync.WaitGroup
	var exists atomic.Int64
	for i := range 100 {
		group.Go(func() {
			_, err := s.Admit(t.Context(), by, admission(i%50))
			switch {
			case errors.Is(err, state.ErrExists):
				exists.Add(1)
			case err != nil:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if exists.Load() != 50 {
		t.Errorf("%d of 100 writes found their session there, want 50", exists.Load())
	}
}

func TestAWriteThatIsGivenUpBeforeItIsSentIsNotSent(t *testing.T) {
	s, g, by, _ := gated(t)
	g.hold()
	var group sync.WaitGroup
	for i := range 3 { // as many as there may be pipelines, each on its way before the next
		group.Go(func() {
			if _, err := s.Admit(t.Context(), by, admission(i)); err != nil {
				t.Error(err)
			}
		})
		await(t, "a pipeline is on its way", func() bool { return g.pipelines.Load() == int64(i+1) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Admit(ctx, by, admission(3)); !errors.Is(err, context.Canceled) {
		t.Errorf("the write that was given up gave %v", err)
	}
	g.release()
	group.Wait()
	if _, err := s.Admit(t.Context(), by, admission(4)); err != nil {
		t.Error(err)
	}
	if _, err := s.Session(t.Context(), "ses_3"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the write that was given up was carried out: %v", err)
	}
	must(t, s.Close())
	if _, err := s.Admit(t.Context(), by, admission(5)); err == nil {
		t.Error("a closed store writes")
	}
}

// flushScripts makes Redis forget every script.
func flushScripts(t *testing.T, addr string) error {
	return client(t, addr).ScriptFlush(t.Context()).Err()
}

// await waits for the condition.
func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !met() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
