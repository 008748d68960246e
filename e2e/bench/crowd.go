//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// crowd fills the service with sessions and tells what they cost while nothing happens.
func crowd(ctx context.Context, b *bench) error {
	const containers = 20
	slots := b.count(1000)
	n := containers * slots
	b.title("Crowd: %d sessions in %d containers", n, containers)
	s, err := b.startService(ctx, stage.Options{Containers: containers, Slots: slots, Notifications: true})
	if err != nil {
		return err
	}
	defer s.Close()
	const idleFor = 15 * time.Second
	calm, err := s.idle(ctx, idleFor)
	if err != nil {
		return err
	}
	memory, err := s.UsedMemory(ctx)
	if err != nil {
		return err
	}
	rss := stage.Resident(s.Pid())
	before, err := s.Commands(ctx)
	if err != nil {
		return err
	}

	created := make([]<-chan time.Time, n)
	begin := time.Now()
	const batch = 500
	for from := 0; from < n; from += batch {
		pipe := s.Redis.Pipeline()
		for i := from; i < min(from+batch, n); i++ {
			id, user := fmt.Sprintf("ses_crowd_%d", i), fmt.Sprintf("user_%d", i%2000)
			created[i], _ = s.Fakes.Expect(id)
			pipe.SetEx(ctx, "session:"+id, stage.DocumentOf(id, user, "pending"), stage.DocumentLife)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("writing documents: %w", err)
		}
	}
	written := time.Since(begin)
	var last time.Time
	for i := range created {
		at, err := s.Await(ctx, created[i], 150*time.Second)
		if err != nil {
			return fmt.Errorf("session %d of %d: %w", i, n, err)
		}
		if at.After(last) {
			last = at
		}
	}
	all := last.Sub(begin)
	// All are ready in Redis and projected, and the last reports are in.
	if err := s.settle(ctx, 90*time.Second); err != nil {
		return err
	}
	settled := time.Since(begin)
	after, err := s.Commands(ctx)
	if err != nil {
		return err
	}
	start := difference(after, before)
	memoryAfter, err := s.UsedMemory(ctx)
	if err != nil {
		return err
	}
	busy, err := s.idle(ctx, idleFor)
	if err != nil {
		return err
	}
	rssAfter := stage.Resident(s.Pid())
	// Now a client at each, as containers report it. The first round of reports is news.
	s.Fakes.Active.Store(true)
	if err := stage.Pause(ctx, 15*time.Second); err != nil {
		return err
	}
	driven, err := s.idle(ctx, idleFor)
	if err != nil {
		return err
	}

	per := float64(n)
	table(b.out, [][]string{
		{"what", "without sessions", fmt.Sprintf("%d, nobody connected", n), fmt.Sprintf("%d, all driven", n), "per session"},
		{"Redis calls per second", fmt.Sprintf("%.0f", calm.calls), fmt.Sprintf("%.0f", busy.calls), fmt.Sprintf("%.0f", driven.calls),
			fmt.Sprintf("%.3f, %.3f", (busy.calls-calm.calls)/per, (driven.calls-calm.calls)/per)},
		{"CPU of `serve`, ms per second", ms(calm.cpu), ms(busy.cpu), ms(driven.cpu), ""},
		{"Redis memory, MB", mb(memory), mb(memoryAfter), "", fmt.Sprintf("%.0f B", float64(memoryAfter-memory)/per)},
		{"`serve`, resident, MB", mb(rss), mb(rssAfter), "", fmt.Sprintf("%.0f B", float64(rssAfter-rss)/per)},
		{"Redis calls from wish to ready", "", fmt.Sprint(sum(start)), "", fmt.Sprintf("%.1f", float64(sum(start))/per)},
		{"first SETEX → nothing left to write", "", settled.Round(time.Second).String(), "", ""},
		{"first SETEX → last CREATE_SESSION", "", all.Round(10 * time.Millisecond).String(), "", fmt.Sprintf("%.0f/s", per/all.Seconds())},
	})
	fmt.Fprintf(b.out, "\nAll documents were written within %s. Calls of Redis include those that scripts make. ", written.Round(10*time.Millisecond))
	fmt.Fprintf(b.out, "Per second with nobody connected: %s; with all driven: %s. From wish to ready, per session: %s. Resident memory includes what Go's collector has not given back.\n",
		most(busy.by, busy.seconds, 8), most(driven.by, driven.seconds, 8), most(start, per, 8))
	return nil
}

// settle waits until the service writes hardly anything any more, or as long as is allowed.
func (s *service) settle(ctx context.Context, within time.Duration) error {
	const few = 60 // scripts per second: leases, reports
	for limit, quiet := time.Now().Add(within), 0; quiet < 3 && time.Now().Before(limit); {
		now, err := s.idle(ctx, 2*time.Second)
		if err != nil {
			return err
		}
		if float64(now.by["evalsha"])/now.seconds < few {
			quiet++
		} else {
			quiet = 0
		}
	}
	return nil
}

// idleness is what the service uses while nothing is asked of it.
type idleness struct {
	seconds float64
	calls   float64          // of Redis, per second
	by      map[string]int64 // in all
	cpu     time.Duration    // per second
}

func (s *service) idle(ctx context.Context, d time.Duration) (idleness, error) {
	before, err := s.Commands(ctx)
	if err != nil {
		return idleness{}, err
	}
	cpu, begin := treeCPU(s.Pid()), time.Now()
	if err := stage.Pause(ctx, d); err != nil {
		return idleness{}, err
	}
	after, err := s.Commands(ctx)
	if err != nil {
		return idleness{}, err
	}
	seconds := time.Since(begin).Seconds()
	by := difference(after, before)
	return idleness{seconds, float64(sum(by)) / seconds, by, time.Duration(float64(treeCPU(s.Pid())-cpu) / seconds)}, nil
}

func mb(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
