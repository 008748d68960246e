package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// testimonies (hash replica → "ms silentMs quietMs bootId", with a TTL) is what replicas know of
// a container that is silent.
func (k *keys) testimonies(container string) string { return k.prefix + "witness:" + container }

// Testify records what a replica knows of silent containers.
func (s *Store) Testify(ctx context.Context, given []state.Testimony) error {
	if len(given) == 0 {
		return nil
	}
	c := call{script: "testify", args: []any{state.TestimonyKept.Milliseconds()}}
	for _, t := range given {
		if !state.ValidID(t.Container) || !state.ValidID(t.Replica) || t.BootID == "" {
			return fmt.Errorf("testifying of container %q: %w: container, life and replica are wanted", t.Container, state.ErrInvalid)
		}
		c.keys = append(c.keys, s.keys.testimonies(t.Container))
		c.args = append(c.args, t.Replica, t.Silent.Milliseconds(), t.Quiet.Milliseconds(), t.BootID)
	}
	if _, err := s.run(ctx, c); err != nil {
		return fmt.Errorf("testifying of %d containers: %w", len(given), err)
	}
	return nil
}

// Testimonies gives what was said of these containers lately.
func (s *Store) Testimonies(ctx context.Context, containers []string) ([]state.Testimony, error) {
	if len(containers) == 0 {
		return nil, nil
	}
	found := make([]*redis.MapStringStringCmd, len(containers))
	_, err := s.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range containers {
			found[i] = pipe.HGetAll(ctx, s.keys.testimonies(id))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the testimonies of %d containers: %w", len(containers), answer(err))
	}
	var all []state.Testimony
	for i, id := range containers {
		for replica, text := range found[i].Val() {
			t := decodeTestimony(text)
			t.Container, t.Replica = id, replica
			all = append(all, t)
		}
	}
	return all, nil
}

func decodeTestimony(text string) state.Testimony {
	at, rest, _ := strings.Cut(text, " ")
	silent, rest, _ := strings.Cut(rest, " ")
	quiet, boot, _ := strings.Cut(rest, " ")
	return state.Testimony{
		BootID: boot, At: moment(at),
		Silent: time.Duration(number(silent)) * time.Millisecond, Quiet: time.Duration(number(quiet)) * time.Millisecond,
	}
}
