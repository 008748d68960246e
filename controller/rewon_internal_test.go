package controller

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// gate is a place where calls wait while it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil: it is open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

// gated is a store that keeps whoever reads pool:desired waiting, which is the loop.
type gated struct {
	*state.Memory
	gate gate
}

func (g *gated) PoolDesired(ctx context.Context) ([]byte, error) {
	g.gate.pass()
	return g.Memory.PoolDesired(ctx)
}

// gatedFleet keeps the calls of launches waiting, whatever becomes of who made them.
type gatedFleet struct {
	prepared
	gate  gate
	calls atomic.Int64
}

func (g *gatedFleet) Run(context.Context, *state.Launch) (state.Task, error) {
	g.calls.Add(1)
	g.gate.pass()
	return state.Task{}, errors.New("no answer")
}
func (*gatedFleet) List(context.Context, ...string) ([]state.Task, error)     { return nil, nil }
func (*gatedFleet) Describe(context.Context, ...string) ([]state.Task, error) { return nil, nil }

// running is a controller that runs on a store in memory.
type running struct {
	*Controller
	t     *testing.T
	store *gated
	fleet *gatedFleet
	spins atomic.Bool
	reg   *prometheus.Registry

	mu  sync.Mutex
	log bytes.Buffer
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func run(t *testing.T, pool state.Pool) *running {
	r := &running{t: t, store: &gated{Memory: state.NewMemory(nil)}, fleet: &gatedFleet{}, reg: prometheus.NewRegistry()}
	mirror := state.NewMirror(r.store, state.MirrorOptions{})
	var looks atomic.Int64
	m := process
	m.now = func() time.Time {
		if looks.Add(1) > 1_000_000 { // far more often than in these tests' minutes
			r.spins.Store(true)
			return time.Now().Add(time.Hour) // which ends every lead
		}
		return time.Now()
	}
	r.Controller = New(Config{Replica: "r", Store: r.store, Mirror: mirror, Fleet: r.fleet, Policy: plan.Policy{Pool: pool},
		NewID: func() string { return "cnt_1" }, Log: slog.New(slog.NewTextHandler(r, nil)), Registerer: r.reg, machine: m})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = mirror.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

// reigns counts those that have begun.
func (r *running) reigns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.log.String(), "leadership gained")
}

// counted counts the ends that were.
func (r *running) counted() float64 {
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == "wallcrawler_session_end_total" {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// winAgain has the lead lost and won again under the same epoch before the loop can look.
func (r *running) winAgain() {
	r.t.Helper()
	had := r.lead.epochNow()
	r.store.gate.close()
	pass(desiredInterval) // of the bubble: the loop stands before the gate by then
	synctest.Wait()
	r.lead.lose()
	if err := r.bid(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if !r.lead.holds(had) {
		r.t.Fatalf("the lead is not held under epoch %d", had)
	}
	r.store.gate.open()
}

// pass lets that much of the bubble's time go by.
func pass(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

func document(id, status string) string {
	return `{"sessionId":"` + id + `","userId":"ann","status":"` + status + `","timeout":600000}`
}

// A lead that was lost and won again is another reign, also if the loop could not notice that it was lost,
// and the store has not either. What it has counted stays counted.
func TestALeadThatIsWonAgainUnderItsEpochIsAnotherReign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, state.Pool{MaxSessions: 1})
		end := func(id string) {
			r.store.SetDocument(id, document(id, "pending"), time.Hour)
			pass(2 * time.Second)
			r.store.SetDocument(id, document(id, "terminated"), time.Hour)
			pass(2 * time.Second)
		}
		pass(time.Second)
		epoch := r.lead.epochNow()
		for n := 1; n <= 3; n++ {
			end([]string{"", "a", "b", "c"}[n])
			if got := r.counted(); got != float64(n) {
				t.Errorf("in reign %d, %v ends are counted of %d", n, got, n)
			}
			r.winAgain()
			pass(5 * time.Second)
			if got := r.counted(); got != float64(n) {
				t.Errorf("after reign %d, %v ends are counted of %d", n, got, n)
			}
			if got := r.reigns(); got != n+1 || !r.Leading() || r.lead.epochNow() != epoch {
				t.Fatalf("%d reigns, want %d under epoch %d; leading %t under %d", got, n+1, epoch, r.Leading(), r.lead.epochNow())
			}
		}
		if r.spins.Load() {
			t.Error("the loop has not paused")
		}
	})
}

// No two calls for one launch are under way at once, whoever plans them: the next reign begins when
// all that the last one has begun has come back.
func TestAReignWaitsForTheCallsOfTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, state.Pool{Min: 1, Max: 1, MaxSessions: 1})
		r.fleet.gate.close()
		pass(5 * time.Second)
		if got := r.fleet.calls.Load(); got != 1 {
			t.Fatalf("%d calls are under way", got)
		}
		r.winAgain()
		pass(5 * time.Second)
		if got, calls := r.reigns(), r.fleet.calls.Load(); got != 1 || calls != 1 {
			t.Errorf("%d reigns have begun, and %d calls, while one is under way", got, calls)
		}
		r.fleet.gate.open()
		pass(5 * time.Second)
		if got := r.reigns(); got != 2 || r.fleet.calls.Load() < 2 {
			t.Errorf("%d reigns, and %d calls in all, once it has come back", got, r.fleet.calls.Load())
		}
		if r.spins.Load() {
			t.Error("the loop has not paused")
		}
	})
}
