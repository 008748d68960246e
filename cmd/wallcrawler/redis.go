package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// localRedis is a Redis in this process. Its keys expire, which takes a push: its clock for
// that stands still by itself.
type localRedis struct {
	server *miniredis.Miniredis
	stop   chan struct{}
	done   sync.WaitGroup
}

// redisTick is how late a key may expire.
const redisTick = 50 * time.Millisecond

func startRedis() (*localRedis, error) {
	r := &localRedis{server: miniredis.NewMiniRedis(), stop: make(chan struct{})}
	if err := r.server.Start(); err != nil {
		return nil, fmt.Errorf("starting Redis in this process: %w: give one with --redis", err)
	}
	r.done.Go(func() {
		tick := time.NewTicker(redisTick)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-r.stop:
				return
			case now := <-tick.C:
				r.server.FastForward(now.Sub(last))
				last = now
			}
		}
	})
	return r, nil
}

func (r *localRedis) addr() string { return r.server.Addr() }

func (r *localRedis) close() {
	close(r.stop)
	r.done.Wait()
	r.server.Close()
}
