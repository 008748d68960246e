package redisstore

import (
	"context"
	"fmt"
	"math"
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
		Values: []any{"kind", string(e.Kind), "object", e.Object, "reason", string(e.Reason), "message", e.Message, "user", e.User},
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
	events := eventsOf(entries)
	slices.Reverse(events)
	return events, nil
}

// EventsAfter gives the first n events after one.
func (s *Store) EventsAfter(ctx context.Context, id string, n int) ([]state.Event, error) {
	major, minor, err := state.EventNumbers(id)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	if n <= 0 || major == math.MaxUint64 && minor == math.MaxUint64 {
		return nil, nil
	}
	entries, err := s.client.XRangeN(ctx, s.keys.events, "("+id, "+", int64(n)).Result()
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", answer(err))
	}
	return eventsOf(entries), nil
}

func eventsOf(entries []redis.XMessage) []state.Event {
	events := make([]state.Event, len(entries))
	for i, entry := range entries {
		// A stream draws its ids from the server's clock.
		ms, _, _ := strings.Cut(entry.ID, "-")
		text := func(field string) string { return str(entry.Values[field]) }
		events[i] = state.Event{
			ID: entry.ID, At: time.UnixMilli(number(ms)).UTC(), Kind: state.Kind(text("kind")), Object: text("object"),
			Reason: state.EventReason(text("reason")), Message: text("message"), User: text("user"),
		}
	}
	return events
}
