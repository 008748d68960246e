package redisstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/wallcrawler/wallcrawler/state"
)

// ShowHealth writes container:{id}:health.
func (s *Store) ShowHealth(ctx context.Context, h state.ContainerHealth) error {
	if !state.ValidID(h.ContainerID) {
		return fmt.Errorf("showing the health of a container: %w: not an id", state.ErrInvalid)
	}
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("showing the health of container %s: %w", h.ContainerID, err)
	}
	if err := s.client.Set(ctx, healthKey(h.ContainerID), text, state.HealthShown).Err(); err != nil {
		return fmt.Errorf("showing the health of container %s: %w", h.ContainerID, answer(err))
	}
	return nil
}

// V1Has tells whether the container has noted the session.
func (s *Store) V1Has(ctx context.Context, container, session string) (bool, error) {
	found, err := s.client.HExists(ctx, notesKey(container), session).Result()
	if err != nil {
		return false, fmt.Errorf("reading the notes of container %s: %w", container, answer(err))
	}
	return found, nil
}

// V1Count counts the sessions that the container has noted.
func (s *Store) V1Count(ctx context.Context, container string) (int, error) {
	n, err := s.client.HLen(ctx, notesKey(container)).Result()
	if err != nil {
		return 0, fmt.Errorf("counting the notes of container %s: %w", container, answer(err))
	}
	return int(n), nil
}

// V1Forget removes the notes of a container that is gone.
func (s *Store) V1Forget(ctx context.Context, container string) error {
	if err := s.client.Del(ctx, notesKey(container)).Err(); err != nil {
		return fmt.Errorf("removing the notes of container %s: %w", container, answer(err))
	}
	return nil
}
