package redisstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/wallcrawler/wallcrawler/state"
)

// Container reads one container.
func (s *Store) Container(ctx context.Context, id string) (*state.Container, error) {
	found, err := s.ContainersOf(ctx, []string{id})
	if err == nil && len(found) == 0 {
		err = state.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading container %s: %w", id, err)
	}
	return found[0], nil
}

// Register records a container's registration at replica r.Owner.
func (s *Store) Register(ctx context.Context, r state.Registration) (*state.Container, error) {
	if !state.ValidID(r.ID) || r.BootID == "" || r.Owner == "" || r.MaxSessions < 1 || !r.Dialect.Known() {
		return nil, fmt.Errorf("registering container %q: %w: id, life, owner and number of slots are wanted",
			r.ID, state.ErrInvalid)
	}
	claimed, err := json.Marshal(r.Claimed)
	if err != nil {
		return nil, fmt.Errorf("registering container %s: %w", r.ID, err)
	}
	return s.container(ctx, "registering", call{
		script: "register", container: r.ID, keys: []string{s.keys.pool, s.keys.launch(r.Launch)},
		args: []any{r.Launch, r.BootID, r.Protocol, r.MaxSessions, string(claimed), r.Owner, state.OwnerLease.Milliseconds(),
			dialectArg(r.Dialect), state.FormerLives},
	})
}

// Report records a container's report and renews its owner's lease.
func (s *Store) Report(ctx context.Context, by state.Authority, report state.Report) (*state.Container, error) {
	health, err := json.Marshal(report.Health)
	if err != nil {
		return nil, fmt.Errorf("reporting container %s: %w: %w", by.Container, state.ErrInvalid, err)
	}
	return s.container(ctx, "reporting", call{
		script: "report", by: by, container: by.Container,
		args: []any{report.BootID, report.Addr, report.TaskARN, report.DrainAck, string(health),
			state.OwnerLease.Milliseconds(), state.ReportLate.Milliseconds()},
	})
}

// Disown gives up the ownership of a link.
func (s *Store) Disown(ctx context.Context, by state.Authority) error {
	if _, err := s.run(ctx, call{script: "disown", by: by, container: by.Container}); err != nil {
		return fmt.Errorf("disowning container %s: %w", by.Container, err)
	}
	return nil
}

// Drain closes binding.
func (s *Store) Drain(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return s.container(ctx, "draining", call{script: "drain", by: by, container: id, args: []any{bootID}})
}

// Undrain opens a draining container again.
func (s *Store) Undrain(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return s.container(ctx, "undraining", call{script: "undrain", by: by, container: id, args: []any{bootID}})
}

// BeginStop is the point of no return.
func (s *Store) BeginStop(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return s.container(ctx, "stopping", call{script: "begin_stop", by: by, container: id, args: []any{bootID}})
}

// GiveUp is the point of no return of a container that hangs.
func (s *Store) GiveUp(ctx context.Context, by state.Authority, g state.GivingUp) (*state.Container, error) {
	return s.container(ctx, "giving up", call{
		script: "give_up", by: by, container: g.Container, args: []any{g.BootID, millis(g.SeenAt), millis(g.JudgedAt.Add(state.JudgedFor))},
	})
}

// MarkGone records that the container is no more.
func (s *Store) MarkGone(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return s.container(ctx, "marking as gone", call{
		script: "mark_gone", by: by, container: id, args: []any{bootID, state.GoneKept.Milliseconds()},
	})
}

// container runs a script that answers with a container.
func (s *Store) container(ctx context.Context, verb string, c call) (*state.Container, error) {
	reply, err := s.run(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("%s container %s: %w", verb, c.container, err)
	}
	var got *state.Container
	if len(reply) == 2 {
		hash, _ := reply[0].([]any)
		members, _ := reply[1].([]any)
		slots := make([]string, 0, len(members))
		for _, id := range members {
			slots = append(slots, str(id))
		}
		got = decodeContainer(c.container, hash, slots)
	}
	if got == nil {
		return nil, fmt.Errorf("%s container %s: script %s answered without a record", verb, c.container, c.script)
	}
	return got, nil
}
