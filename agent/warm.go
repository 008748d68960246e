package agent

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"
)

const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 5 * time.Second
	shortLife    = 10 * time.Second // a warm browser that dies younger counts as a failed start
)

// startFunc starts a browser and returns it once it can be driven.
type startFunc func(context.Context, settings) (*browser, error)

// pool keeps browsers ready, so that a session need not wait for one. It owns them until they
// are taken.
type pool struct {
	// set once in newPool
	start  startFunc
	size   int // wanted
	most   int // sessions
	delay  time.Duration
	plain  settings
	held   func() int // sessions now
	tell   func()     // the number of browsers ready has changed
	log    *slog.Logger
	kick   chan struct{}
	starts chan struct{} // bounds the starts under way: more would only slow each other down

	mu       sync.Mutex // guards the following
	ready    []*browser
	refill   *refill // under way and not claimed
	failures int     // starts failed in a row
	deaths   int     // warm browsers in a row that died young and unused
	lastErr  error
	stopped  bool
}

// refill is a warm browser being started. A session that finds no other claims it.
type refill struct {
	claimed bool // guarded by pool.mu
	done    chan struct{}
	browser *browser
	err     error
}

func newPool(start startFunc, cfg Config, held func() int, tell func(), log *slog.Logger) *pool {
	return &pool{
		start: start, size: cfg.Warm, most: cfg.MaxSessions, delay: cfg.WarmDelay,
		plain: settings{viewport: cfg.DefaultViewport}, held: held, tell: tell, log: log,
		kick:   make(chan struct{}, 1),
		starts: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
	}
}

// take gives a browser for those settings: a warm one if they need no flags of their own and
// there is one; else cold is true. The caller owns it.
func (p *pool) take(ctx context.Context, want settings) (b *browser, cold bool, err error) {
	if !want.cold {
		b, r := p.claim()
		if b != nil {
			p.adjust()
			return b, false, nil
		}
		if r != nil {
			b, err := p.await(ctx, r)
			p.adjust()
			if b != nil || ctx.Err() != nil {
				return b, true, err
			}
		}
	}
	b, err = p.startBounded(ctx, want)
	p.adjust()
	return b, true, err
}

// claim takes a ready browser, else the one being started.
func (p *pool) claim() (*browser, *refill) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.ready) > 0 {
		b := p.ready[0]
		p.ready = p.ready[1:]
		if b.alive() {
			p.deaths = 0
			return b, nil
		}
	}
	r := p.refill
	if r != nil {
		r.claimed, p.refill = true, nil
	}
	return nil, r
}

// await waits for a claimed start. Called off, it leaves the browser to the others.
func (p *pool) await(ctx context.Context, r *refill) (*browser, error) {
	select {
	case <-r.done:
		return r.browser, r.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-r.done:
		if r.browser != nil {
			p.ready = append(p.ready, r.browser)
		}
	default:
		r.claimed = false
	}
	return nil, ctx.Err()
}

func (p *pool) startBounded(ctx context.Context, want settings) (*browser, error) {
	select {
	case p.starts <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.starts }()
	return p.start(ctx, want)
}

// adjust has the pool look again: sessions came or went, or a browser did. It never blocks.
func (p *pool) adjust() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// stop ends the warm browsers and lets no other be started. It does not wait.
func (p *pool) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.adjust()
}

// count is the number of browsers ready.
func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// trouble is why the last start of a warm browser failed, nil if it did not.
func (p *pool) trouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastErr
}

// run keeps the pool filled until ctx ends, then ends every browser in it.
func (p *pool) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var notBefore, shortSince time.Time
	for {
		surplus, short := p.plan(p.held())
		for _, b := range surplus {
			b.kill()
		}
		switch {
		case !short:
			shortSince = time.Time{}
		case ctx.Err() != nil:
		default:
			now := time.Now()
			if shortSince.IsZero() {
				shortSince = now
			}
			if wait := max(notBefore.Sub(now), p.delay-now.Sub(shortSince)); wait > 0 {
				timer.Reset(wait)
				break
			}
			p.fill(ctx)
			p.tell()
			notBefore, shortSince = time.Now().Add(p.pause()), time.Time{}
			continue
		}
		select {
		case <-ctx.Done():
			p.stop()
			surplus, _ := p.plan(0)
			for _, b := range surplus {
				b.kill()
			}
			return
		case <-p.kick:
		case <-timer.C:
		}
	}
}

// plan drops the dead, takes out what is too much beside that many sessions, and tells
// whether another is wanted. There is never more than one browser beyond the slots.
func (p *pool) plan(sessions int) (surplus []*browser, short bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	alive := p.ready[:0:0]
	for _, b := range p.ready {
		if b.alive() {
			alive = append(alive, b)
			continue
		}
		p.log.Warn("warm browser died", "status", b.state.String())
		p.deaths++
		if time.Since(b.started) > shortLife {
			p.deaths = 0
		}
	}
	keep := max(0, min(p.size, p.most+1-sessions))
	want := keep
	if sessions >= p.most {
		want = 0 // nobody could take it
	}
	if p.stopped {
		keep, want = 0, 0
	}
	if len(alive) > keep {
		surplus = alive[keep:]
		alive = alive[:keep]
	}
	p.ready = alive
	return surplus, len(alive) < want
}

// fill starts one browser for the pool, or for the session that claims it meanwhile.
func (p *pool) fill(ctx context.Context) {
	r := &refill{done: make(chan struct{})}
	p.mu.Lock()
	p.refill = r
	p.mu.Unlock()

	r.browser, r.err = p.startBounded(ctx, p.plain)

	p.mu.Lock()
	defer p.mu.Unlock()
	close(r.done)
	if p.refill == r {
		p.refill = nil
	}
	if r.err != nil {
		if !errors.Is(r.err, context.Canceled) {
			p.failures++
			p.lastErr = r.err
			p.log.Warn("warm browser not started", "error", r.err.Error(), "failures", p.failures)
		}
		return
	}
	if p.lastErr != nil {
		p.log.Info("warm browser started again", "failures", p.failures)
	}
	p.lastErr, p.failures = nil, 0
	b := r.browser
	b.onExit(p.adjust)
	if !r.claimed {
		p.ready = append(p.ready, b)
	}
}

// pause is how long to wait before the next start: nothing, unless starts keep failing.
func (p *pool) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	bad := max(p.failures, p.deaths)
	if bad == 0 {
		return 0
	}
	return min(firstBackoff<<min(bad-1, 10), maxBackoff)
}
