package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// Note records an event.
func (s *Store) Note(ctx context.Context, e state.Event) error {
	e = e.Clipped()
	err := s.client.XAdd(ctx, &redis.XAddArgs{
		Stream: s.keys.events, MaxLen: state.EventsKept, Approx: true,
		Values: []any{"kind", string(e.Kind), "object", e.Object, "reason", string(e.Reason), "message", e.Message},
	}).Err()
	if err != nil {
		return fmt.Errorf("noting an event: %w", answer(err))
	}
	return nil
}

// Tail gives the latest n events, the oldest of them first.
func (s *Store) Tail(ctx context.Context, n int) ([]state.Event, error) {
	if n <= 0 {
		return nil, nil
	}
	entries, err := s.client.XRevRangeN(ctx, s.keys.events, "+", "-", int64(n)).Result()
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", answer(err))
	}
	events := make([]state.Event, len(entries))
	for i, entry := range entries {
		// A stream draws its ids from the server's clock.
		ms, _, _ := strings.Cut(entry.ID, "-")
		text := func(field string) string { return str(entry.Values[field]) }
		events[i] = state.Event{
			At: time.UnixMilli(number(ms)).UTC(), Kind: state.Kind(text("kind")), Object: text("object"),
			Reason: state.EventReason(text("reason")), Message: text("message"),
		}
	}
	slices.Reverse(events)
	return events, nil
}
