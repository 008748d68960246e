package proxy

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// What clients are told when this replica stops: connect again, your page is there.
const (
	drainCode   = 1012
	drainReason = "replica draining: connect again"
	// drainSpread is over how long connections are cut, so that the clients do not all come
	// back in one moment.
	drainSpread = 2 * time.Second
)

// Drain takes no new clients and lets those that are here finish. After limit, or when ctx
// ends, it closes them with 1012, one after the other in random order. It returns when none is
// left. Waiting requests are refused at once.
func (r *Relay) Drain(ctx context.Context, limit time.Duration) {
	r.mu.Lock()
	if !r.drain {
		r.drain = true
		r.endLife()
	}
	r.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.none():
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	r.closeAll(ctx)
	<-r.none()
	r.fetch.CloseIdleConnections()
}

// none is closed when no client is left.
func (r *Relay) none() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.countLocked() == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	return r.empty
}

// closeAll tells every client to go, without waiting for them.
func (r *Relay) closeAll(ctx context.Context) {
	r.mu.Lock()
	r.cut = true
	live := slices.Collect(maps.Keys(r.live))
	guests := slices.Collect(maps.Keys(r.guests))
	r.mu.Unlock()
	rand.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	pause := time.Duration(0)
	if len(live) > 1 {
		pause = min(drainSpread/time.Duration(len(live)), 50*time.Millisecond)
	}
	for _, c := range guests {
		c.end(closeAway, reasonShutdown, false)
	}
	for _, v := range live {
		v.tunnel.Close(v.farewell.Code, v.farewell.Reason)
		if pause > 0 {
			sleep(ctx, pause/2+rand.N(pause))
		}
	}
}

func (r *Relay) isDraining() bool { return r.life.Err() != nil }

// untilDrain derives a context that also ends when the drain begins. Its cancel must
// be called.
func (r *Relay) untilDrain(parent context.Context) (context.Context, context.CancelFunc) {
	if parent.Done() == nil {
		return r.life, func() {} // all that the parent would add is values, which nobody asks for
	}
	ctx, end := context.WithCancel(parent)
	stop := context.AfterFunc(r.life, end)
	return ctx, func() {
		stop()
		end()
	}
}
