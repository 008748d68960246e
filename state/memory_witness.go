package state

import (
	"context"
	"fmt"
	"time"
)

// testimonyOf names who speaks of which container.
type testimonyOf struct{ container, replica string }

// Testify records what a replica knows of silent containers.
func (m *Memory) Testify(ctx context.Context, given []Testimony) error {
	err := m.read(ctx, func(now time.Time) error {
		for _, t := range given {
			if !ValidID(t.Container) || !ValidID(t.Replica) || t.BootID == "" {
				return fmt.Errorf("%w: container, life and replica are wanted", ErrInvalid)
			}
		}
		for of, t := range m.testimonies {
			if now.Sub(t.At) >= TestimonyKept {
				delete(m.testimonies, of)
			}
		}
		for _, t := range given {
			t.Silent, t.Quiet, t.At = t.Silent.Truncate(time.Millisecond), t.Quiet.Truncate(time.Millisecond), now
			m.testimonies[testimonyOf{t.Container, t.Replica}] = t
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("testifying of %d containers: %w", len(given), err)
	}
	return nil
}

// Testimonies gives what was said of these containers lately.
func (m *Memory) Testimonies(ctx context.Context, containers []string) ([]Testimony, error) {
	var all []Testimony
	err := m.read(ctx, func(now time.Time) error {
		wanted := make(map[string]bool, len(containers))
		for _, id := range containers {
			wanted[id] = true
		}
		for of, t := range m.testimonies {
			if wanted[of.container] && now.Sub(t.At) < TestimonyKept {
				all = append(all, t)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the testimonies of %d containers: %w", len(containers), err)
	}
	return all, nil
}
