package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// Limits of what combines calls.
const (
	// maxFlights is how many pipelines are under way at once. While they are, calls gather for
	// the next one; a call that finds one free leaves at once and alone.
	maxFlights = 3
	// maxFlight bounds one pipeline: Redis answers nobody else while it carries one out.
	maxFlight = 64
	// maxGathering is how long a call may wait for its flight: as long as one alone waits for a
	// connection. One that has waited longer is not sent: whoever made it checked its authority
	// then, not now.
	maxGathering = callTimeout
)

// combiner sends the calls of many goroutines in common pipelines, so that a thousand writes
// at once take some twenty round trips and not a thousand. Each call is carried out and
// answered by itself, in any order among those that are made at the same time.
type combiner struct {
	client redis.UniversalClient

	mu      sync.Mutex // guards the fields below
	waiting []*combined
	flying  int
	closed  bool
	flights sync.WaitGroup
}

// combined is one call.
type combined struct {
	ctx   context.Context //nolint:containedctx // of the call that waits for it
	since time.Time
	// put adds the call to a pipeline; whole says to send the script's text, not its digest.
	put  func(p redis.Pipeliner, whole bool) redis.Cmder
	cmd  redis.Cmder // set before done is closed, unless err is
	err  error
	done chan struct{}
}

var errNotSent = fmt.Errorf("%w: the call waited too long and was not sent", state.ErrUnavailable)

// run has the call made and waits for its answer.
func (c *combiner) run(ctx context.Context, put func(p redis.Pipeliner, whole bool) redis.Cmder) (redis.Cmder, error) {
	mine := &combined{ctx: ctx, since: time.Now(), put: put, done: make(chan struct{})}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, redis.ErrClosed
	}
	c.waiting = append(c.waiting, mine)
	if c.flying < maxFlights {
		c.flying++
		c.flights.Go(c.fly)
	}
	c.mu.Unlock()
	select {
	case <-mine.done:
		return mine.cmd, mine.err
	case <-ctx.Done():
		return nil, ctx.Err() // it may be carried out all the same
	}
}

// fly sends pipelines until nothing waits.
func (c *combiner) fly() {
	for {
		c.mu.Lock()
		n := min(len(c.waiting), maxFlight)
		if n == 0 {
			c.flying--
			c.mu.Unlock()
			return
		}
		batch := c.waiting[:n:n]
		c.waiting = c.waiting[n:]
		c.mu.Unlock()
		c.send(batch)
	}
}

// send makes one pipeline of the calls, and another of those whose script Redis did not know.
func (c *combiner) send(batch []*combined) {
	ready := make([]*combined, 0, len(batch))
	for _, m := range batch {
		switch {
		case m.ctx.Err() != nil:
			m.err = m.ctx.Err()
			close(m.done)
		case time.Since(m.since) > maxGathering:
			m.err = errNotSent
			close(m.done)
		default:
			ready = append(ready, m)
		}
	}
	again := c.exec(ready, false)
	c.exec(again, true)
}

// exec carries the calls out and gives those whose script was not there.
func (c *combiner) exec(calls []*combined, whole bool) (unknown []*combined) {
	if len(calls) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*callTimeout)
	defer cancel()
	pipe := c.client.Pipeline()
	for _, m := range calls {
		m.cmd = m.put(pipe, whole)
	}
	_, _ = pipe.Exec(ctx) // the whole's error is that of its first command: each is looked at by itself
	for _, m := range calls {
		if !whole && redis.HasErrorPrefix(m.cmd.Err(), "NOSCRIPT") {
			unknown = append(unknown, m)
			continue
		}
		close(m.done)
	}
	return unknown
}

// close refuses further calls and waits for those that are under way.
func (c *combiner) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.flights.Wait()
}

// script runs a script in a common pipeline.
func (c *combiner) script(ctx context.Context, s *redis.Script, keys []string, args []any) (*redis.Cmd, error) {
	cmd, err := c.run(ctx, func(p redis.Pipeliner, whole bool) redis.Cmder {
		if whole {
			return s.Eval(ctx, p, keys, args...)
		}
		return s.EvalSha(ctx, p, keys, args...)
	})
	if err != nil {
		return nil, err
	}
	ran, ok := cmd.(*redis.Cmd)
	if !ok {
		return nil, errors.New("a script was answered otherwise than a script")
	}
	return ran, nil
}

// get reads one key in a common pipeline.
func (c *combiner) get(ctx context.Context, key string) ([]byte, error) {
	cmd, err := c.run(ctx, func(p redis.Pipeliner, _ bool) redis.Cmder { return p.Get(ctx, key) })
	if err != nil {
		return nil, err
	}
	read, ok := cmd.(*redis.StringCmd)
	if !ok {
		return nil, errors.New("a GET was answered otherwise than a GET")
	}
	return read.Bytes()
}
