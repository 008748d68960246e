package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// Index lists the control records.
func (s *Store) Index(ctx context.Context) (state.Index, error) {
	ix, err := s.index(ctx)
	if err != nil {
		return state.Index{}, fmt.Errorf("reading the index: %w", err)
	}
	return ix, nil
}

func (s *Store) index(ctx context.Context) (state.Index, error) {
	k := &s.keys
	seen := s.seen.Load() // before the store is asked: what is read then is not to be below it
	reply, err := s.eval(ctx, "index", []string{k.seq, k.incarnation, k.leaving, k.sessions, k.containers, k.pool}, rand.Text())
	if err != nil {
		return state.Index{}, err
	}
	if len(reply) != 6 {
		return state.Index{}, errors.New("script index gave a short answer")
	}
	ix := state.Index{Seq: integer(reply[0]), Seen: seen, Time: moment(str(reply[2])), GivenBack: integer(reply[5])}
	ix.Filling = state.Filling{
		Incarnation: str(reply[1]), LostAt: moment(str(reply[3])), Whole: str(reply[4]) == str(reply[1]),
	}
	pipe := s.client.Pipeline()
	pipe.SetNX(ctx, deploymentKey, s.name, 0)
	name := pipe.Get(ctx, deploymentKey)
	sessions := pipe.ZRangeWithScores(ctx, k.sessions, 0, -1)
	containers := pipe.ZRangeWithScores(ctx, k.containers, 0, -1)
	launches := pipe.ZRangeWithScores(ctx, k.launches, 0, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return state.Index{}, answer(err)
	}
	if name.Val() != s.name {
		return state.Index{}, fmt.Errorf("%w: %s", state.ErrOtherDeployment, name.Val())
	}
	ix.Sessions, ix.Containers, ix.Launches = revs(sessions.Val()), revs(containers.Val()), revs(launches.Val())
	s.see(ix.Seq)
	return ix, nil
}

func revs(members []redis.Z) map[string]int64 {
	by := make(map[string]int64, len(members))
	for _, m := range members {
		if id, ok := m.Member.(string); ok {
			by[id] = int64(m.Score) // whole, below 2^53
		}
	}
	return by
}

// SessionsOf reads many sessions.
func (s *Store) SessionsOf(ctx context.Context, ids []string) ([]*state.Session, error) {
	found := make([]*state.Session, 0, len(ids))
	for part := range slices.Chunk(ids, readBatch) {
		pipe := s.client.Pipeline()
		hashes := make([]*redis.MapStringStringCmd, len(part))
		for i, id := range part {
			hashes[i] = pipe.HGetAll(ctx, s.keys.session(id))
		}
		_, _ = pipe.Exec(ctx) // each answer is looked at by itself
		for i, id := range part {
			if err := s.quarantine(hashes[i].Err(), id); err != nil {
				return nil, fmt.Errorf("reading %d sessions: %w", len(ids), err)
			}
			if got := decodeSession(id, flat(hashes[i].Val())); got != nil {
				s.homes.learn(got)
				found = append(found, got)
			}
		}
	}
	return found, nil
}

// ContainersOf reads many containers. A slot that changes between the two reads of one shows
// early, under the older revision, and the newer one brings it back.
func (s *Store) ContainersOf(ctx context.Context, ids []string) ([]*state.Container, error) {
	found := make([]*state.Container, 0, len(ids))
	for part := range slices.Chunk(ids, readBatch) {
		pipe := s.client.Pipeline()
		hashes, slots := make([]*redis.MapStringStringCmd, len(part)), make([]*redis.StringSliceCmd, len(part))
		for i, id := range part {
			hashes[i] = pipe.HGetAll(ctx, s.keys.container(id))
			slots[i] = pipe.SMembers(ctx, s.keys.slots(id))
		}
		_, _ = pipe.Exec(ctx) // each answer is looked at by itself
		for i, id := range part {
			if err := s.quarantine(cmp.Or(hashes[i].Err(), slots[i].Err()), id); err != nil {
				return nil, fmt.Errorf("reading %d containers: %w", len(ids), err)
			}
			if got := decodeContainer(id, flat(hashes[i].Val()), slots[i].Val()); got != nil {
				found = append(found, got)
			}
		}
	}
	return found, nil
}

// LaunchesOf reads many launches, their revisions first, for the same reason.
func (s *Store) LaunchesOf(ctx context.Context, ids []string) ([]*state.Launch, error) {
	found := make([]*state.Launch, 0, len(ids))
	for part := range slices.Chunk(ids, readBatch) {
		pipe := s.client.Pipeline()
		revs := pipe.ZMScore(ctx, s.keys.launches, part...)
		texts := make([]*redis.StringCmd, len(part))
		for i, id := range part {
			texts[i] = pipe.Get(ctx, s.keys.launch(id))
		}
		_, _ = pipe.Exec(ctx) // each answer is looked at by itself
		if err := revs.Err(); err != nil {
			return nil, fmt.Errorf("reading %d launches: %w", len(ids), answer(err))
		}
		for i, id := range part {
			text, err := texts[i].Result()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err := s.quarantine(err, id); err != nil {
				return nil, fmt.Errorf("reading %d launches: %w", len(ids), err)
			}
			l, err := decodeLaunch(text, int64(revs.Val()[i]))
			if err != nil {
				s.log.Error("control record unreadable", "record", id, "error", err)
				continue
			}
			found = append(found, l)
		}
	}
	return found, nil
}

// quarantine lets a record pass as missing whose key holds another type, so that one broken
// key stops nobody else's. Any other error is the caller's.
func (s *Store) quarantine(err error, id string) error {
	if err == nil {
		return nil
	}
	if wrongType(err) {
		s.log.Error("control record unreadable", "record", id, "error", err)
		return nil
	}
	return answer(err)
}

// wrongType tells whether a key holds another type than was asked for.
func wrongType(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE") }
