package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// The fields of the pool's notes.
const (
	noteDialect  = "dialect" // written by registrations
	noteListedAt = "listedAt"
	noteObeyed   = "obeyed"
)

// PoolDesired reads pool:desired.
func (s *Store) PoolDesired(ctx context.Context) ([]byte, error) {
	text, err := s.client.Get(ctx, desiredKey).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case wrongType(err):
		return nil, fmt.Errorf("reading %s: %w: the key does not hold a string", desiredKey, state.ErrInvalid)
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", desiredKey, answer(err))
	}
	return text, nil
}

// PoolNotes reads what the leaders have noted of the pool.
func (s *Store) PoolNotes(ctx context.Context) (state.PoolNotes, error) {
	fields, err := s.client.HGetAll(ctx, s.keys.pool).Result()
	if err != nil {
		return state.PoolNotes{}, fmt.Errorf("reading the pool's notes: %w", answer(err))
	}
	notes := state.PoolNotes{Dialect: int(number(fields[noteDialect])), ListedAt: moment(fields[noteListedAt])}
	if text := fields[noteObeyed]; text != "" {
		notes.Obeyed = []byte(text)
	}
	return notes, nil
}

// NotePool notes what u has set.
func (s *Store) NotePool(ctx context.Context, by state.Authority, u state.PoolUpdate) error {
	var fields []any
	if !u.ListedAt.IsZero() {
		fields = append(fields, noteListedAt, u.ListedAt.UnixMilli())
	}
	if u.Obeyed != nil {
		fields = append(fields, noteObeyed, *u.Obeyed)
	}
	if _, err := s.run(ctx, call{script: "pool_note", by: by, keys: []string{s.keys.pool}, args: fields}); err != nil {
		return fmt.Errorf("noting the pool: %w", err)
	}
	return nil
}

// ShowPool writes pool:state.
func (s *Store) ShowPool(ctx context.Context, p state.PoolState) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("showing the pool: %w", err)
	}
	if err := s.client.Set(ctx, poolStateKey, text, 0).Err(); err != nil {
		return fmt.Errorf("showing the pool: %w", answer(err))
	}
	return nil
}
