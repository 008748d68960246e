package sim

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// Options say what to simulate.
type Options struct {
	Storms  int             // of each world; 0: 4
	Without func(Kind) bool // kinds of faults that do not fall; nil: none
	// keep says which faults of the seed's list fall; nil: all.
	keep func(n int) bool
	tell bool
}

// Result is how one world went.
type Result struct {
	Seed   uint64
	Trace  uint64 // hash of every step: the same seed gives the same
	Broken *Violation
	Tally  Tally

	faults  []Fault
	story   []line
	setting string
}

// calmFor is how long it is calm after each storm: within it, what is desired must be so. After the
// worst of storms the circuit of launches opens again after 5 minutes, and the task that is tried
// then may take 200 s to start.
const calmFor = 9 * time.Minute

// Run lives through the world of one seed.
func Run(seed uint64, o Options) (result Result) {
	if o.Storms == 0 {
		o.Storms = 4
	}
	if o.Without == nil {
		o.Without = func(Kind) bool { return false }
	}
	w := newWorld(seed, o)
	defer w.end()
	defer func() {
		result = Result{Seed: seed, Trace: w.trace.Sum64(), Broken: w.check.broken, Tally: *w.tally, faults: w.storm.faults, story: w.story, setting: w.setting()}
	}()
	for i, until := range w.storm.until {
		w.storm.period = i
		if w.storm.calm() {
			w.calmDown()
		}
		w.run(until)
		if w.storm.calm() && w.check.broken == nil {
			w.check.settled()
		}
		if w.check.broken != nil {
			break
		}
	}
	w.tally.Time, w.tally.Worlds = w.now, 1
	return result
}

func newWorld(seed uint64, o Options) *World {
	w := &World{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), procs: map[string]*process{}, tally: newTally(), trace: newTrace(), tell: o.tell}
	w.brisk = seed%2 == 0
	w.store = state.NewMemory(w.clock)
	w.check = newChecker(w)
	w.ecs = &cloud{w: w, tasks: map[string]*task{}}
	w.protocol = min(1+w.rng.IntN(3), 2) // two worlds in three are of version 2
	w.tick = []time.Duration{time.Second, 5 * time.Second}[w.rng.IntN(2)]
	w.policy = plan.Policy{
		Pool: state.Pool{
			Min: w.rng.IntN(3), Max: 3 + w.rng.IntN(8), WarmSlots: w.rng.IntN(3), MaxSessions: 1 + w.rng.IntN(4),
			Spread: w.chance(3), Dedicated: w.chance(4),
		},
		ScaleDownHold: w.between(10*time.Second, 2*time.Minute),
	}
	if w.brisk {
		w.policy.ScaleDownHold = w.between(2*time.Second, 10*time.Second)
	}
	w.people = &people{w: w, wishes: map[string]*wish{}, rate: w.between(4*time.Second, 40*time.Second)}
	if w.brisk {
		w.people.rate = w.between(2*time.Second, 8*time.Second)
	}
	w.storm = &storm{w: w}
	at := time.Duration(0)
	for i := range o.Storms {
		length := w.between(2*time.Minute, 8*time.Minute)
		quiet := 10 * time.Second // in which a world may begin well
		if w.brisk {
			quiet = 0
		}
		w.storm.faults = append(w.storm.faults, makeFaults(seed*131+uint64(i), at+quiet, length-quiet, w.brisk, o.Without)...)
		w.storm.until = append(w.storm.until, at+length, at+length+calmFor)
		at += length + calmFor
	}
	for i := range w.storm.faults {
		w.storm.faults[i].N = i
	}
	if o.keep != nil {
		w.storm.faults = slices.DeleteFunc(w.storm.faults, func(f Fault) bool { return !o.keep(f.N) })
	}
	for n := range 1 + w.rng.IntN(3) {
		w.replicas = append(w.replicas, w.newReplica(n+1))
	}
	w.people.begin()
	w.saveLater()
	return w
}

// saveLater notes now and then what a failover would go back to.
func (w *World) saveLater() {
	w.after(w.between(time.Second, 20*time.Second), func() {
		w.saved, w.savedAt, w.savedIn = w.store.Checkpoint(), w.now, cmp.Or(w.check.losses.epoch, w.epoch)
		w.saveLater()
	})
}

// calmDown ends every fault that lasts.
func (w *World) calmDown() {
	w.note("the weather is calm")
	for _, r := range w.replicas {
		r.keptUntil = max(r.keptUntil, min(w.now, max(r.cutUntil, r.blindUntil, w.storm.outageUntil)))
	}
	w.storm.outageUntil = 0
	for i := range w.storm.armed {
		w.storm.armed[i] = nil
	}
	for _, r := range w.replicas {
		r.cutUntil, r.deafUntil, r.blindUntil = 0, 0, 0
	}
	w.ecs.throttledUntil, w.ecs.droughtUntil, w.ecs.brokenUntil, w.ecs.loseAnswers, w.ecs.startBadly = 0, 0, 0, 0, nil
	w.store.DeletePoolDesired()
	for _, id := range sortedKeys(w.procs) {
		p := w.procs[id]
		p.hungUntil = min(p.hungUntil, w.now)
		p.lies, p.refuses, p.slow = false, 0, 0
	}
}

func (w *World) setting() string {
	p := w.policy.Pool
	return fmt.Sprintf("%d replicas, %d to %d containers of version %d with %d slots, %d of them warm, dedicated %t, spread %t; a session every %s",
		len(w.replicas), p.Min, p.Max, w.protocol, p.MaxSessions, p.WarmSlots, p.Dedicated, p.Spread, w.people.rate.Round(time.Second))
}

// Many lives through the worlds of many seeds, until some time has gone by, on all cores. It
// stops at the first that breaks a promise.
func Many(first uint64, worlds int, until func() bool, o Options) (total Tally, failed []Result) {
	total = *newTally()
	var (
		mu   sync.Mutex
		next atomic.Uint64
		wg   sync.WaitGroup
		stop atomic.Bool
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() && !until() {
				n := next.Add(1) - 1
				if n >= uint64(worlds) {
					return
				}
				r := Run(first+n, o)
				if n%50 == 0 && r.Broken == nil {
					if again := Run(first+n, o); again.Trace != r.Trace {
						r.Broken = &Violation{Rule: "replay", Text: errors.New("the same seed gave another story").Error()}
					}
					r.Tally.Replayed++
				}
				mu.Lock()
				total.Add(r.Tally)
				if r.Broken != nil {
					failed = append(failed, r)
					stop.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return total, failed
}
