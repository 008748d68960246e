package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	readBlock  = 5 * time.Second // one blocking read of the stream
	readCount  = 512             // hints of one read
	retryPause = 200 * time.Millisecond
	retryLimit = 2 * time.Second
)

// Wake leaves hints for every replica.
func (s *Store) Wake(ctx context.Context, hints ...state.Hint) error {
	if len(hints) == 0 {
		return nil
	}
	if err := s.client.XAdd(ctx, s.wakeUp(hints...)).Err(); err != nil {
		return fmt.Errorf("leaving %d hints: %w", len(hints), answer(err))
	}
	return nil
}

func (s *Store) wakeUp(hints ...state.Hint) *redis.XAddArgs {
	lines := make([]string, len(hints))
	for i, h := range hints {
		lines[i] = hintLine(h)
	}
	return &redis.XAddArgs{
		Stream: s.keys.wake, MaxLen: wakeLength, Approx: true, Values: []any{"h", strings.Join(lines, "\n")},
	}
}

// hintLine writes a hint as the scripts do: "kind rev id".
func hintLine(h state.Hint) string {
	return string(h.Kind) + " " + strconv.FormatInt(h.Rev, 10) + " " + strings.ReplaceAll(h.ID, "\n", "")
}

// parseHints reads the lines of one entry. What is no hint is passed over.
func parseHints(text string) []state.Hint {
	var hints []state.Hint
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		rev, id, ok := strings.Cut(rest, " ")
		if ok && kind != "" {
			hints = append(hints, state.Hint{Kind: state.Kind(kind), ID: id, Rev: number(rev)})
		}
	}
	return hints
}

// Watch calls see for every hint until ctx ends, whose error it returns. It gives KindAll
// whenever it has begun to listen, at first too.
func (s *Store) Watch(ctx context.Context, see func([]state.Hint), documents func(notified bool)) error {
	in := &inbox{woken: make(chan struct{}, 1)}
	var listeners sync.WaitGroup
	defer listeners.Wait()
	listeners.Go(func() { s.followStream(ctx, in) })
	listeners.Go(func() { s.followDocuments(ctx, in) })
	told, known := false, false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.woken:
		}
		hints, notified, settled := in.take()
		if documents != nil && settled && (!known || notified != told) {
			told, known = notified, true
			documents(notified)
		}
		if len(hints) > 0 {
			see(hints)
		}
	}
}

// inbox is where the listeners of one Watch put what they hear.
type inbox struct {
	woken chan struct{} // holds one token while there is something to look at

	mu       sync.Mutex // guards the fields below
	hints    []state.Hint
	pending  map[state.Hint]struct{} // what is in hints
	nodes    []string                // that are listened to; nil: none at present
	notified map[string]bool         // by node: whether notifications arrive, once that is known
	settled  bool                    // it was known of all nodes once
	follows  bool                    // the stream was followed once
}

func (in *inbox) add(hints ...state.Hint) {
	in.mu.Lock()
	for _, h := range hints {
		if _, ok := in.pending[h]; ok {
			continue
		}
		if in.pending == nil {
			in.pending = map[state.Hint]struct{}{}
		}
		in.pending[h] = struct{}{}
		in.hints = append(in.hints, h)
	}
	in.mu.Unlock()
	in.wake()
}

// expectNodes begins anew with these nodes, of which nothing is known; nil: none is listened to.
func (in *inbox) expectNodes(nodes []string) {
	in.mu.Lock()
	in.nodes, in.notified = nodes, map[string]bool{}
	in.mu.Unlock()
	in.wake()
}

// setNotified records what was found out about one node.
func (in *inbox) setNotified(node string, on bool) {
	in.mu.Lock()
	in.notified[node] = on
	in.mu.Unlock()
	in.wake()
}

// follow records that whatever is written to the stream from now on will be heard.
func (in *inbox) follow() {
	in.mu.Lock()
	in.follows = true
	in.mu.Unlock()
	in.wake()
}

// take empties the inbox. notified holds for all nodes; settled is false before all have
// been known once, and the stream was followed: who hears of documents hears of everything.
func (in *inbox) take() (hints []state.Hint, notified, settled bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	hints, in.hints, in.pending = in.hints, nil, nil
	notified = len(in.nodes) > 0
	for _, node := range in.nodes {
		notified = notified && in.notified[node]
	}
	if len(in.nodes) > 0 && len(in.notified) == len(in.nodes) {
		in.settled = true
	}
	return hints, notified, in.settled && in.follows
}

func (in *inbox) wake() {
	select {
	case in.woken <- struct{}{}:
	default:
	}
}

// followStream reads the stream of hints until ctx ends, through every outage.
func (s *Store) followStream(ctx context.Context, in *inbox) {
	s.persist(ctx, "hints lost", func() error {
		client, err := s.listener(ctx, s.keys.wake)
		if err != nil {
			return err
		}
		// A blocked read hears of nothing but its connection.
		stop := context.AfterFunc(ctx, func() { _ = client.Close() })
		defer func() {
			if stop() {
				_ = client.Close()
			}
		}()
		return s.readStream(ctx, client, in)
	})
}

// readStream reads on from the stream's end until something goes wrong.
func (s *Store) readStream(ctx context.Context, client *redis.Client, in *inbox) error {
	last, err := s.lastHint(ctx, client)
	if err != nil {
		return err
	}
	in.add(state.Hint{Kind: state.KindAll})
	in.follow()
	for {
		streams, err := client.XRead(ctx, &redis.XReadArgs{
			Streams: []string{s.keys.wake, last}, Count: readCount, Block: readBlock,
		}).Result()
		switch {
		case errors.Is(err, redis.Nil):
			// Silence is all that a stream gives which was lost and has begun anew with
			// smaller ids.
			end, err := s.lastHint(ctx, client)
			if err != nil {
				return err
			}
			if before(end, last) {
				last = end
				in.add(state.Hint{Kind: state.KindAll})
			}
			continue
		case err != nil:
			return err
		}
		for _, stream := range streams {
			if len(stream.Messages) == readCount && s.trimmedPast(ctx, client, last) {
				in.add(state.Hint{Kind: state.KindAll})
			}
			for _, m := range stream.Messages {
				last = m.ID
				text, _ := m.Values["h"].(string)
				in.add(parseHints(text)...)
			}
		}
	}
}

// lastHint gives the id of the stream's last entry.
func (s *Store) lastHint(ctx context.Context, client *redis.Client) (string, error) {
	end, err := client.XRevRangeN(ctx, s.keys.wake, "+", "-", 1).Result()
	if err != nil {
		return "", err
	}
	if len(end) == 0 {
		return "0-0", nil
	}
	return end[0].ID, nil
}

// trimmedPast tells whether entries after id have been dropped already: we were too slow.
func (s *Store) trimmedPast(ctx context.Context, client *redis.Client, id string) bool {
	first, err := client.XRangeN(ctx, s.keys.wake, "-", "+", 1).Result()
	return err == nil && len(first) == 1 && before(id, first[0].ID) && id != "0-0"
}

// before orders the ids of a stream.
func before(a, b string) bool {
	aMs, aSeq, _ := strings.Cut(a, "-")
	bMs, bSeq, _ := strings.Cut(b, "-")
	if number(aMs) != number(bMs) {
		return number(aMs) < number(bMs)
	}
	return number(aSeq) < number(bSeq)
}

// listener makes a client with connections of its own to the node that has key, so that
// closing it ends a blocked read. The caller closes it.
func (s *Store) listener(ctx context.Context, key string) (*redis.Client, error) {
	var o redis.Options
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		node, err := c.MasterForKey(ctx, key)
		if err != nil {
			return nil, err
		}
		o = *node.Options()
	case *redis.Client:
		o = *c.Options()
	default:
		return nil, fmt.Errorf("client %T is not for one server, Sentinel or a cluster", c)
	}
	o.PoolSize, o.MinIdleConns, o.MaxIdleConns, o.MaxRetries = 2, 0, 0, -1
	return redis.NewClient(&o), nil
}

// persist does it again and again until ctx ends, pausing longer after each quick failure.
func (s *Store) persist(ctx context.Context, trouble string, do func() error) {
	pause := retryPause
	for ctx.Err() == nil {
		began := time.Now()
		err := do()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > retryLimit {
			pause = retryPause
		}
		s.log.Warn("watching interrupted", "because", trouble, "error", err, "retryIn", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, retryLimit)
	}
}
