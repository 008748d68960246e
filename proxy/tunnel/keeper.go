package tunnel

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// KeeperConfig is what a Keeper is made of.
type KeeperConfig struct {
	// Ping is for how long nothing may move before the client is pinged: load balancers cut
	// connections that are silent for a minute. Zero: DefaultPing.
	Ping time.Duration
	// Stall is how long a client may take nothing of what waits for it. Zero: DefaultStall.
	Stall time.Duration

	// Tick is how often the keeper looks. Zero: a second, which is what its times are exact to.
	Tick time.Duration
}

// The usual limits.
const (
	DefaultPing  = 20 * time.Second
	DefaultStall = 25 * time.Second

	keeperTick = time.Second
)

// chattyReads is how often a connection is read before it is worth a call to make each of
// those that follow one less.
const chattyReads = 8

// Keeper looks after tunnels: it takes idle ones their goroutines, pings clients that hear
// nothing, closes those that take nothing, and finds peers that are not there any more. One
// goroutine does that for all of them: no tunnel has a timer.
type Keeper struct {
	// set once in NewKeeper
	cfg       KeeperConfig
	parking   *parking
	uncounted int // see source

	looks atomic.Uint64 // for tests

	mu      sync.Mutex // guards the following
	tunnels []*Tunnel  // each knows its place
	parked  int        // directions parked since the last trim
}

// watch is what the keeper remembers of a flow. It alone touches it.
type watch struct {
	bytes  uint64        // seen at the last look
	quiet  time.Duration // likewise, but from the last ping on
	silent time.Duration // for how long nothing has come
	ask    time.Duration // how long that must be before the kernel is asked whether the peer is there
	taken  uint64        // by the destination's kernel, while a write to it blocks
	stuck  time.Duration // for how long it has taken nothing
}

// NewKeeper returns a Keeper. Tunnels are not looked after before Run.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Ping == 0 {
		cfg.Ping = DefaultPing
	}
	if cfg.Stall == 0 {
		cfg.Stall = DefaultStall
	}
	if cfg.Tick == 0 {
		cfg.Tick = keeperTick
	}
	return &Keeper{cfg: cfg, parking: newParking(), uncounted: chattyReads}
}

// Run looks after tunnels until ctx ends. It must be called once at most.
func (k *Keeper) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	if err := k.parking.open(); err != nil {
		return err
	}
	group.Go(func() { k.parking.run(ctx) })
	ticker := time.NewTicker(k.cfg.Tick)
	defer ticker.Stop()
	trimmed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if newly := k.look(); newly == 0 && k.trimmable() && time.Since(trimmed) > trimEvery {
			debug.FreeOSMemory()
			trimmed = time.Now()
		}
	}
}

const (
	// trimEvery is how often memory is given back to the system at most: it costs a collection.
	trimEvery = 10 * time.Second
	// trimAfter is how many directions have been parked before it is worth that.
	trimAfter = 1000
	// trimMemory is how much must be there to be given back.
	trimMemory = 8 << 20
)

// trimmable tells whether parking has left much memory that nobody uses.
func (k *Keeper) trimmable() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.parked < trimAfter {
		return false
	}
	k.parked = 0
	samples := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64()+samples[1].Value.Uint64() > trimMemory
}

// look has a look at each tunnel, and tells how many directions it has asked to be parked.
func (k *Keeper) look() (asked int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tunnels {
		asked += k.lookAt(t)
	}
	k.parked += asked
	k.looks.Add(1)
	return asked
}

func (k *Keeper) lookAt(t *Tunnel) (asked int) {
	if !t.tuned {
		// The kernel needs longer than this to find anything out: a tunnel that is over by now is
		// spared the cost.
		t.tuned = true
		t.tune(clientTimeout(k.cfg.Stall))
	}
	for _, f := range t.flows() {
		w := &f.watch
		if n := f.bytes.Load(); n != w.bytes {
			*w = watch{bytes: n}
			continue
		}
		if w.silent += k.cfg.Tick; w.silent >= max(w.ask, lostAfter) {
			since := unheard(f.src)
			if since >= lostAfter {
				t.lose(f)
			}
			w.ask = w.silent + max(lostAfter-since, k.cfg.Tick)
		}
		if w.quiet += k.cfg.Tick; w.quiet < 2*k.cfg.Tick {
			continue
		}
		if f.sink.blocked.Load() {
			// One write may be long, and its reader slow: the kernel knows whether any of it is taken.
			if f.to() != Client {
				continue
			}
			if n := acknowledged(f.dst); n != w.taken {
				w.taken, w.stuck = n, 0
			} else if w.stuck += k.cfg.Tick; w.stuck >= k.cfg.Stall {
				t.stall()
			}
		} else if w.quiet == 2*k.cfg.Tick && t.call(f, wishPark) {
			asked++
		}
	}
	// The connection is silent if neither side has said anything.
	up, down := &t.toBackend.watch, &t.toClient.watch
	if min(up.quiet, down.quiet) >= k.cfg.Ping && !t.toClient.sink.blocked.Load() {
		up.quiet, down.quiet = 0, 0 // so that what the ping wakes is parked again
		if !t.cfg.PlainClient {
			t.call(&t.toClient, wishPing)
		}
	}
	return asked
}

func (k *Keeper) add(t *Tunnel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t.at = len(k.tunnels)
	k.tunnels = append(k.tunnels, t)
}

// remove forgets a tunnel that add may not have seen yet.
func (k *Keeper) remove(t *Tunnel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last := len(k.tunnels) - 1
	if t.at > last || k.tunnels[t.at] != t {
		return
	}
	k.tunnels[t.at] = k.tunnels[last]
	k.tunnels[t.at].at = t.at
	k.tunnels[last] = nil
	k.tunnels = k.tunnels[:last]
}
