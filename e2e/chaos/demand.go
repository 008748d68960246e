//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// presence is the time in which one session wanted or had a slot; its end is zero while it does.
type presence struct{ from, to time.Time }

// presences are those of all sessions that the registry remembers, from its own records: what
// visitors have asked for in vain may have become sessions, too.
func (w *world) presences(ctx context.Context) ([]presence, error) {
	const prefix = "wallcrawler:{default}:"
	ids, err := w.redis.ZRange(ctx, prefix+"sessions", 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the sessions: %w", err)
	}
	all := make([]presence, 0, len(ids))
	for _, id := range ids {
		times, err := w.redis.HMGet(ctx, prefix+"session:"+id, "seenAt", "endedAt").Result()
		if err != nil {
			return nil, fmt.Errorf("reading session %s: %w", id, err)
		}
		all = append(all, presence{from: moment(times[0]), to: moment(times[1])})
	}
	return all, nil
}

// moment reads a time in ms as Redis gives it.
func moment(value any) time.Time {
	text, _ := value.(string)
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// peak is how many sessions there were at once, at most, since a time.
func peak(presences []presence, since time.Time) int {
	type change struct {
		at time.Time
		by int
	}
	var changes []change
	for _, s := range presences {
		if !s.to.IsZero() && s.to.Before(since) {
			continue
		}
		changes = append(changes, change{s.from, 1})
		if !s.to.IsZero() {
			changes = append(changes, change{s.to, -1})
		}
	}
	// A slot that is freed in the moment in which another is wanted serves that.
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.by, b.by)) })
	now, most := 0, 0
	for _, c := range changes {
		now += c.by
		most = max(most, now)
	}
	return most
}

// extra is how many containers may be started for that many sessions beyond those that are there
// anyway: none if they fit in, else what they need, and as many once more. A container that was
// started for one wave is idle soon, drained after 3 s, and missed by the next wave.
func extra(sessions int) int { return 2 * max(0, (sessions+slots-1)/slots-minContainers) }
