package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
)

// updateTries bounds how often a launch is read again because somebody else wrote it.
const updateTries = 5

// Launch reads one launch.
func (s *Store) Launch(ctx context.Context, id string) (*state.Launch, error) {
	found, err := s.LaunchesOf(ctx, []string{id})
	if err == nil && len(found) == 0 {
		err = state.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading launch %s: %w", id, err)
	}
	return found[0], nil
}

// CreateLaunch stores a new launch.
func (s *Store) CreateLaunch(ctx context.Context, by state.Authority, l state.Launch) (*state.Launch, error) {
	made, err := s.createLaunch(ctx, by, l)
	if err != nil {
		return nil, fmt.Errorf("creating launch %s: %w", l.ID, err)
	}
	return made, nil
}

func (s *Store) createLaunch(ctx context.Context, by state.Authority, l state.Launch) (*state.Launch, error) {
	if !state.ValidID(l.ID) {
		return nil, fmt.Errorf("%w: not an id", state.ErrInvalid)
	}
	l.CreatedAt = time.Time{}
	text, err := encodeLaunch(&l)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", state.ErrInvalid, err)
	}
	reply, err := s.run(ctx, s.launchCall("launch_create", by, l.ID, strings.TrimPrefix(text, "{")))
	if err != nil {
		return nil, err
	}
	return decodeLaunch(str(reply[0]), integer(reply[1]))
}

// UpdateLaunch records how a launch went. It reads before it writes: a launch is updated a
// few times in its life, and its text is not for a script to take apart.
func (s *Store) UpdateLaunch(
	ctx context.Context, by state.Authority, id string, u state.LaunchUpdate,
) (*state.Launch, error) {
	for range updateTries {
		got, err := s.updateLaunch(ctx, by, id, u)
		if errors.Is(err, errChanged) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("updating launch %s: %w", id, err)
		}
		return got, nil
	}
	return nil, fmt.Errorf("updating launch %s: %w: somebody else kept changing it", id, state.ErrConflict)
}

func (s *Store) updateLaunch(
	ctx context.Context, by state.Authority, id string, u state.LaunchUpdate,
) (*state.Launch, error) {
	// A launch that is not there goes through the script as well: it knows whether the
	// caller may ask.
	text, err := s.client.Get(ctx, s.keys.launch(id)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, answer(err)
	}
	next, refused := &state.Launch{}, error(nil)
	after, givesUp := text, 0
	if err == nil {
		old, err := decodeLaunch(text, 0)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", state.ErrInvalid, err)
		}
		var changed bool
		if next, changed, refused = u.Apply(old); changed {
			if after, err = encodeLaunch(next); err != nil {
				return nil, fmt.Errorf("%w: %w", state.ErrInvalid, err)
			}
		}
		if u.GivesUp(old) {
			givesUp = 1
		}
	}
	update := s.launchCall("launch_update", by, id, text, after, givesUp)
	update.keys = append(update.keys, s.keys.container(id))
	reply, err := s.run(ctx, update)
	if err == nil {
		err = refused
	}
	if err != nil {
		return nil, err
	}
	got := *next
	got.Rev = integer(reply[0])
	return &got, nil
}

// ForgetLaunch removes a launch.
func (s *Store) ForgetLaunch(ctx context.Context, by state.Authority, id string) error {
	if _, err := s.run(ctx, s.launchCall("launch_forget", by, id)); err != nil {
		return fmt.Errorf("forgetting launch %s: %w", id, err)
	}
	return nil
}

func (s *Store) launchCall(script string, by state.Authority, id string, args ...any) call {
	return call{
		script: script, by: by, container: id, keys: []string{s.keys.launch(id), s.keys.launches}, args: args,
	}
}
