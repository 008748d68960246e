//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// document measures from a foreign writer's SETEX to CREATE_SESSION on the container's link.
// The writer and the containers are in this process: one clock.
func document(ctx context.Context, b *bench) error {
	b.title("Document: a foreign SETEX → CREATE_SESSION on the link")
	const notified = "with notifications, one at a time"
	var life map[string]int64
	var sessions int
	rows := [][]string{timesHead()}
	measure := func(o stage.Options, what, goal string, run func(*service) (sample, sample, error)) error {
		s, err := b.startService(ctx, o)
		if err != nil {
			return err
		}
		defer s.Close()
		before, err := s.Commands(ctx)
		if err != nil {
			return err
		}
		created, ended, err := run(s)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if what == notified {
			after, err := s.Commands(ctx)
			if err != nil {
				return err
			}
			life, sessions = difference(after, before), len(created)
		}
		rows = append(rows, timesRow(what, created, goal))
		if len(ended) > 0 {
			rows = append(rows, timesRow("the same, `terminated` → DESTROY_SESSION", ended, ""))
		}
		return nil
	}

	small := stage.Options{Containers: 2, Slots: 1000}
	noted := small
	noted.Notifications = true
	if err := measure(noted, notified, "p99 ≤ 25", func(s *service) (sample, sample, error) { return s.oneByOne(ctx, b.count(400)) }); err != nil {
		return err
	}
	if err := measure(small, "without, written at random times over 15 s", "≤ the relist, 5 s", func(s *service) (sample, sample, error) {
		created, err := s.spread(ctx, b.count(300), 15*time.Second)
		return created, nil, err
	}); err != nil {
		return err
	}
	table(b.out, rows)
	fmt.Fprintf(b.out, "\nReal redis-server, `serve`, 2 containers that hold no browser and answer at once. ")
	fmt.Fprintf(b.out, "In the first run Redis was called %.1f times per session from wish to end, relists, leases and reports of that time included: %s.\n",
		float64(sum(life))/float64(sessions), most(life, float64(sessions), 10))
	return nil
}

// oneByOne writes a document, waits for its CREATE, terminates it, and waits for its DESTROY.
func (s *service) oneByOne(ctx context.Context, n int) (created, ended sample, err error) {
	const ignored = 10
	for i := range n + ignored {
		id := fmt.Sprintf("ses_one_%d", i)
		user := fmt.Sprintf("user_%d", i%20)
		toCreate, toEnd := s.Fakes.Expect(id)
		begin := time.Now()
		if err := s.Write(ctx, id, user, "pending"); err != nil {
			return nil, nil, err
		}
		at, err := s.Await(ctx, toCreate, 30*time.Second)
		if err != nil {
			return nil, nil, err
		}
		took := at.Sub(begin)
		// Not in step with whatever the service does after a binding.
		if err := stage.Pause(ctx, rand.N(20*time.Millisecond)); err != nil {
			return nil, nil, err
		}
		begin = time.Now()
		if err := s.Write(ctx, id, user, "terminated"); err != nil {
			return nil, nil, err
		}
		if at, err = s.Await(ctx, toEnd, 30*time.Second); err != nil {
			return nil, nil, err
		}
		if i >= ignored {
			created, ended = append(created, took), append(ended, at.Sub(begin))
		}
		if err := stage.Pause(ctx, rand.N(20*time.Millisecond)); err != nil {
			return nil, nil, err
		}
	}
	return created, ended, nil
}

// spread writes documents at random times, whatever becomes of those before.
func (s *service) spread(ctx context.Context, n int, over time.Duration) (sample, error) {
	gaps := make([]time.Duration, n)
	for i := range gaps {
		gaps[i] = rand.N(over)
	}
	slices.Sort(gaps)
	begins := make([]time.Time, n)
	creates := make([]<-chan time.Time, n)
	start := time.Now()
	for i := range n {
		if err := stage.Pause(ctx, time.Until(start.Add(gaps[i]))); err != nil {
			return nil, err
		}
		id := fmt.Sprintf("ses_spread_%d", i)
		creates[i], _ = s.Fakes.Expect(id)
		begins[i] = time.Now()
		if err := s.Write(ctx, id, fmt.Sprintf("user_%d", i%20), "pending"); err != nil {
			return nil, err
		}
	}
	var created sample
	for i := range n {
		at, err := s.Await(ctx, creates[i], 30*time.Second)
		if err != nil {
			return nil, err
		}
		created = append(created, at.Sub(begins[i]))
	}
	return created, nil
}

func difference(after, before map[string]int64) map[string]int64 {
	d := map[string]int64{}
	for name, n := range after {
		if n > before[name] && name != "info" {
			d[name] = n - before[name]
		}
	}
	return d
}

func sum(counts map[string]int64) int64 {
	var n int64
	for _, v := range counts {
		n += v
	}
	return n
}

// most lists the commands that were called most, per unit.
func most(counts map[string]int64, per float64, n int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return int(counts[b] - counts[a]) })
	var text []string
	for _, name := range names[:min(n, len(names))] {
		text = append(text, fmt.Sprintf("%s %.1f", name, float64(counts[name])/per))
	}
	return strings.Join(text, ", ")
}
