package redisstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// The fields of the pool's notes that say how its dialect fares.
const (
	noteRefused   = "refused"
	noteRefusedAt = "refusedAt"
)

// Claim makes t.Owner the owner of a container's link.
func (s *Store) Claim(ctx context.Context, t state.Takeover) (*state.Container, error) {
	if t.Owner == "" {
		return nil, fmt.Errorf("claiming container %s: %w: the claimant is wanted", t.Container, state.ErrInvalid)
	}
	return s.container(ctx, "claiming", call{
		script: "claim", container: t.Container,
		args: []any{t.OwnerSeq, t.Owner, state.OwnerLease.Milliseconds(), flag(t.Unreachable)},
	})
}

// Announce says that the replica is there.
func (s *Store) Announce(ctx context.Context, r state.Replica) error {
	if !state.ValidID(r.ID) || strings.ContainsAny(r.Addr, " \n") {
		return fmt.Errorf("announcing replica %q: %w: an id and an address are wanted", r.ID, state.ErrInvalid)
	}
	_, err := s.run(ctx, call{
		script: "announce", keys: []string{s.keys.replica(r.ID), s.keys.replicas()},
		args: []any{r.ID, r.Addr, r.Version, state.ReplicaTTL.Milliseconds(), state.ReplicaKept.Milliseconds()},
	})
	if err != nil {
		return fmt.Errorf("announcing replica %s: %w", r.ID, err)
	}
	return nil
}

// Withdraw says that the replica stops.
func (s *Store) Withdraw(ctx context.Context, id string) error {
	_, err := s.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Del(ctx, s.keys.replica(id))
		pipe.HDel(ctx, s.keys.replicas(), id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("withdrawing replica %s: %w", id, answer(err))
	}
	return nil
}

// Replicas lists those that have announced themselves.
func (s *Store) Replicas(ctx context.Context) ([]state.Replica, error) {
	found, err := s.client.HGetAll(ctx, s.keys.replicas()).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the replicas: %w", answer(err))
	}
	all := make([]state.Replica, 0, len(found))
	for id, text := range found {
		seenAt, rest, _ := strings.Cut(text, " ")
		addr, version, _ := strings.Cut(rest, " ")
		all = append(all, state.Replica{ID: id, Addr: addr, Version: version, SeenAt: moment(seenAt)})
	}
	return all, nil
}

// PoolDialect reads the pool's dialect.
func (s *Store) PoolDialect(ctx context.Context) (state.PoolDialect, error) {
	v, err := s.client.HMGet(ctx, s.keys.pool, noteDialect, noteRefused, noteRefusedAt).Result()
	if err != nil {
		return state.PoolDialect{}, fmt.Errorf("reading the pool's dialect: %w", answer(err))
	}
	return state.PoolDialect{
		Protocol: int(number(str(v[0]))), Refused: int(number(str(v[1]))), RefusedAt: moment(str(v[2])),
	}, nil
}

// ForgetDialect takes the pool's dialect out of force.
func (s *Store) ForgetDialect(ctx context.Context, by state.Authority) error {
	ids, err := s.client.ZRange(ctx, s.keys.containers, 0, -1).Result()
	if err != nil {
		return fmt.Errorf("forgetting the pool's dialect: %w", answer(err))
	}
	keys := []string{s.keys.pool}
	for _, id := range ids {
		keys = append(keys, s.keys.container(id))
	}
	if _, err := s.run(ctx, call{script: "dialect_forget", by: by, keys: keys}); err != nil {
		return fmt.Errorf("forgetting the pool's dialect: %w", err)
	}
	return nil
}

// dialectArg is what the script of a registration is told of the dialect: empty for all
// versions, auto, or the one version.
func dialectArg(d state.Dialect) any {
	if n := d.Fixed(); n != 0 {
		return n
	}
	return string(d)
}

// replica (hash, with a TTL) is a replica that is alive.
func (k *keys) replica(id string) string { return k.prefix + "replica:" + id }

// replicas (hash id → "ms address version") remembers where replicas are or were.
func (k *keys) replicas() string { return k.prefix + "replicas" }
