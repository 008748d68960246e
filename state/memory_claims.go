package state

import (
	"context"
	"fmt"
	"time"
)

// memoryClaims is what a Memory holds of replicas and of the pool's dialect; the version in
// force is among the notes of the pool.
type memoryClaims struct {
	replicas  map[string]Replica
	refused   int
	refusedAt time.Time
}

// Claim makes t.Owner the owner of a container's link.
func (m *Memory) Claim(ctx context.Context, t Takeover) (*Container, error) {
	var got *Container
	err := m.write(ctx, func(now time.Time) error {
		if t.Owner == "" {
			return fmt.Errorf("%w: the claimant is wanted", ErrInvalid)
		}
		old, ok := m.containers[t.Container]
		switch {
		case !ok:
			return ErrNotFound
		case old.Phase == Gone:
			return conflict("the container is gone")
		case old.OwnerSeq != t.OwnerSeq:
			return conflict("the owner's sequence is %d, not %d", old.OwnerSeq, t.OwnerSeq)
		case old.OwnerUntil.After(now):
			return conflict("the owner's lease has not run out")
		case !old.LetGo && !t.Unreachable:
			return conflict("the owner has not let go")
		}
		c := *old.Container
		c.Owner = t.Owner
		c.OwnerSeq++
		c.OwnerUntil = now.Add(OwnerLease)
		c.LetGo = false
		m.putContainer(&c, m.stamp())
		got = &c
		return nil
	})
	return containerOrError(got, err, "claiming", t.Container)
}

// Announce says that the replica is there.
func (m *Memory) Announce(ctx context.Context, r Replica) error {
	err := m.read(ctx, func(now time.Time) error {
		if !ValidID(r.ID) {
			return fmt.Errorf("%w: not an id", ErrInvalid)
		}
		for id, other := range m.claims.replicas {
			if now.Sub(other.SeenAt) >= ReplicaKept {
				delete(m.claims.replicas, id)
			}
		}
		r.SeenAt = now
		m.claims.replicas[r.ID] = r
		return nil
	})
	if err != nil {
		return fmt.Errorf("announcing replica %q: %w", r.ID, err)
	}
	return nil
}

// Withdraw says that the replica stops.
func (m *Memory) Withdraw(ctx context.Context, id string) error {
	err := m.read(ctx, func(time.Time) error {
		delete(m.claims.replicas, id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("withdrawing replica %q: %w", id, err)
	}
	return nil
}

// Replicas lists those that have announced themselves.
func (m *Memory) Replicas(ctx context.Context) ([]Replica, error) {
	var all []Replica
	err := m.read(ctx, func(now time.Time) error {
		for _, r := range m.claims.replicas {
			if now.Sub(r.SeenAt) < ReplicaKept {
				all = append(all, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the replicas: %w", err)
	}
	return all, nil
}

// PoolDialect reads the pool's dialect.
func (m *Memory) PoolDialect(ctx context.Context) (PoolDialect, error) {
	var d PoolDialect
	err := m.read(ctx, func(time.Time) error {
		d = PoolDialect{Protocol: m.shown.poolNotes.Dialect, Refused: m.claims.refused, RefusedAt: m.claims.refusedAt}
		return nil
	})
	if err != nil {
		return PoolDialect{}, fmt.Errorf("reading the pool's dialect: %w", err)
	}
	return d, nil
}

// ForgetDialect takes the pool's dialect out of force.
func (m *Memory) ForgetDialect(ctx context.Context, by Authority) error {
	err := m.write(ctx, func(time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		for _, c := range m.containers {
			if c.Phase != Gone {
				return conflict("container %s is %s", c.ID, c.Phase)
			}
		}
		m.shown.poolNotes.Dialect = 0
		m.claims.refused, m.claims.refusedAt = 0, time.Time{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forgetting the pool's dialect: %w", err)
	}
	return nil
}

// takeDialect settles the dialect for a container's new life, or refuses it. Refusing leaves
// nothing but its own count.
func (m *Memory) takeDialect(r Registration, now time.Time) error {
	if r.Dialect == "" {
		return nil
	}
	want := r.Dialect.Fixed()
	if want == 0 {
		want = m.shown.poolNotes.Dialect
	}
	if want != 0 && want != r.Protocol {
		m.claims.refused++
		m.claims.refusedAt = now
		return otherDialect(want, r.Protocol)
	}
	m.shown.poolNotes.Dialect = r.Protocol
	m.claims.refused, m.claims.refusedAt = 0, time.Time{}
	return nil
}
