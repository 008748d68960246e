// Package sim is a world for the controller to be wrong in: replicas that run the real mirror,
// the real plan and the real execution, over the store in memory, and around them a seeded
// model of everything else: ECS, containers of both versions and the links to them, requesters,
// and faults. It is single-threaded and replayable: one seed is one story, step by step. A
// checker compares what is done with what is true, after every step.
package sim

import (
	"container/heap"
	"context"
	"fmt"
	"hash"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// epochZero is when every world begins, by its store's clock.
var epochZero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// World is one simulated deployment.
type World struct {
	seed   uint64
	brisk  bool       // sessions are short, containers come and go, and faults fall where few do
	rng    *rand.Rand // of everything but the faults
	now    time.Duration
	events eventHeap
	order  uint64

	idle    []*proc // coroutines to be used again
	current *proc

	store    *state.Memory
	epoch    int64  // the highest that was granted
	saved    func() // has the store lose what was written since
	savedAt  time.Duration
	savedIn  int64 // the epoch then
	policy   plan.Policy
	tick     time.Duration
	protocol int
	replicas []*replica
	ecs      *cloud
	procs    map[string]*process // by container id
	people   *people
	storm    *storm
	check    *checker

	tally *Tally
	trace hash.Hash64
	story []line // kept when asked for
	tell  bool
	ids   int
}

// line is one sentence of a story.
type line struct {
	at   time.Duration
	text string
}

// event is something that will happen.
type event struct {
	at    time.Duration
	order uint64
	do    func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *eventHeap) Push(x any) { *h = append(*h, x.(event)) }

// Pop implements heap.Interface.
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// after has something happen later.
func (w *World) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now + max(0, d), w.order, do})
}

// clock is the store's.
func (w *World) clock() time.Time { return epochZero.Add(w.now) }

// between draws a time.
func (w *World) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// chance is true once in n times.
func (w *World) chance(n int) bool { return w.rng.IntN(n) == 0 }

func (w *World) newID(prefix string) string {
	w.ids++
	return fmt.Sprintf("%s%d", prefix, w.ids)
}

// note adds to the trace and, if it is told, to the story.
func (w *World) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	_, _ = fmt.Fprintf(w.trace, "%d %s\n", w.now, text)
	if w.tell {
		w.story = append(w.story, line{w.now, text})
	}
}

// run lets the world go on until then.
func (w *World) run(until time.Duration) {
	for len(w.events) > 0 && w.events[0].at <= until && w.check.broken == nil {
		e := heap.Pop(&w.events).(event)
		w.now = max(w.now, e.at)
		e.do()
		w.tally.Steps++
		w.check.step()
		for _, r := range w.replicas {
			r.stir()
		}
	}
	w.now = max(w.now, until)
}

// proc is a coroutine: code of a replica's that waits in the middle.
type proc struct {
	w     *World
	r     *replica
	life  int // of the replica
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	job   func()
	over  func()
	void  bool // killed
}

// killed is what unwinds a coroutine of a replica that is no more.
type killed struct{}

// spawn runs a job of a replica's in a coroutine, over after it unless it is killed.
func (w *World) spawn(r *replica, job, over func()) {
	if w.current != nil {
		panic("a coroutine was begun in another")
	}
	var p *proc
	if n := len(w.idle); n > 0 {
		p, w.idle = w.idle[n-1], w.idle[:n-1]
	} else {
		p = &proc{w: w}
		p.next, p.stop = iter.Pull(p.loop)
	}
	p.r, p.life, p.job, p.over = r, r.life, job, over
	r.running[p] = struct{}{}
	p.resume()
}

func (p *proc) loop(yield func(struct{}) bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, dead := r.(killed); !dead {
				panic(fmt.Sprintf("seed %d: %v\n%s", p.w.seed, r, debug.Stack()))
			}
		}
	}()
	p.yield = yield
	for p.job != nil {
		p.job()
		delete(p.r.running, p)
		p.job = nil
		if !yield(struct{}{}) {
			return
		}
	}
}

// resume lets a coroutine go on, unless its replica is stopped or no more.
func (p *proc) resume() {
	if p.void || p.r.life != p.life {
		return
	}
	if p.r.pausedUntil > p.w.now {
		p.w.after(p.r.pausedUntil-p.w.now, p.resume)
		return
	}
	p.w.current = p
	p.next()
	p.w.current = nil
	if p.job != nil || p.void {
		return // it waits, or is no more
	}
	over := p.over
	p.over = nil
	p.w.idle = append(p.w.idle, p)
	if over != nil {
		over()
	}
}

// sleep lets the world go on for a while. Nothing else being due, it is just later.
func (w *World) sleep(d time.Duration) {
	p := w.current
	if p.r.pausedUntil <= w.now+d && (len(w.events) == 0 || w.events[0].at > w.now+d) {
		w.now += d
		return
	}
	w.after(d, p.resume)
	if !p.yield(struct{}{}) {
		panic(killed{})
	}
	if p.void {
		panic(killed{})
	}
}

// end lets go of all coroutines.
func (w *World) end() {
	for _, r := range w.replicas {
		r.abandon()
	}
	for _, p := range w.idle {
		p.stop()
	}
}

var background = context.Background()

func newTrace() hash.Hash64 { return fnv.New64a() }
