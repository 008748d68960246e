package state

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Container reads one container.
func (m *Memory) Container(ctx context.Context, id string) (*Container, error) {
	var got *Container
	err := m.read(ctx, func(time.Time) error {
		c, ok := m.containers[id]
		if !ok {
			return ErrNotFound
		}
		got = c.Container
		return nil
	})
	return containerOrError(got, err, "reading", id)
}

// Register records a container's registration at replica r.Owner.
func (m *Memory) Register(ctx context.Context, r Registration) (*Container, error) {
	var got *Container
	err := m.write(ctx, func(now time.Time) error {
		if !ValidID(r.ID) || r.BootID == "" || r.Owner == "" || r.MaxSessions < 1 || !r.Dialect.Known() {
			return fmt.Errorf("%w: id, life, owner and number of slots are wanted", ErrInvalid)
		}
		old, ok := m.containers[r.ID]
		if l, launched := m.launches[r.Launch]; !ok && launched && l.Outcome == Expired {
			return conflict("its launch was given up") // its task is being stopped
		}
		if !ok {
			old = &memoryContainer{Container: &Container{ID: r.ID}}
		} else if old.Phase == Stopping || old.Phase == Gone {
			return conflict("the container is %s", old.Phase)
		}
		c := *old.Container
		if slices.Contains(c.Former, r.BootID) {
			return conflict("the container lives as %s, and %s is over", c.BootID, r.BootID)
		}
		if c.BootID != r.BootID {
			former := c.Former
			if ok {
				former = append(slices.Clone(former), c.BootID)
			}
			c = Container{
				ID: c.ID, Launch: r.Launch, TaskARN: c.TaskARN, Protocol: r.Protocol, BootID: r.BootID,
				MaxSessions: r.MaxSessions, Phase: PendingVerification, Tenant: c.Tenant, Served: c.Served,
				DrainSeq: c.DrainSeq, OwnerSeq: c.OwnerSeq, RegisteredAt: now,
				Former: former[max(0, len(former)-FormerLives):],
			}
			if !ok {
				c.Slots = m.boundTo(r.ID, r.BootID) // they were given back, and its own record was not
			}
			if err := m.takeDialect(r, now); err != nil {
				return err
			}
		}
		c.Claimed = r.Claimed
		c.Owner = r.Owner
		c.OwnerSeq++
		c.OwnerUntil, c.LetGo = now.Add(OwnerLease), false
		c.SeenAt = now
		m.containers[r.ID] = old
		m.putContainer(&c, m.stamp())
		got = &c
		return nil
	})
	return containerOrError(got, err, "registering", r.ID)
}

// Report records a container's report and renews its owner's lease.
func (m *Memory) Report(ctx context.Context, by Authority, report Report) (*Container, error) {
	return m.changeContainer(ctx, by, by.Container, report.BootID, "reporting", func(c *Container, now time.Time) (effect, error) {
		if _, err := m.asOwner(by); err != nil {
			return unchanged, err
		}
		if c.Phase == Gone {
			return unchanged, conflict("the container is gone")
		}
		before := *c
		if report.Addr != "" {
			c.Addr = report.Addr
			if c.Phase == PendingVerification {
				c.Phase = ContainerReady
			}
		}
		if report.TaskARN != "" {
			c.TaskARN = report.TaskARN
		}
		// An acknowledgement of an order that was never given proves nothing.
		if report.DrainAck <= c.DrainSeq {
			c.DrainAck = max(c.DrainAck, report.DrainAck)
		}
		c.Health = report.Health
		c.SeenAt = now
		c.OwnerUntil, c.LetGo = now.Add(OwnerLease), false
		if c.Phase == before.Phase && c.Addr == before.Addr && c.TaskARN == before.TaskARN &&
			c.DrainAck == before.DrainAck && now.Sub(before.SeenAt) <= ReportLate {
			return quiet, nil
		}
		return news, nil
	})
}

// Disown gives up the ownership of a link.
func (m *Memory) Disown(ctx context.Context, by Authority) error {
	err := m.write(ctx, func(now time.Time) error {
		if _, ok := m.containers[by.Container]; !ok && by.Container != "" {
			return ErrNotFound
		}
		old, err := m.asOwner(by)
		if err != nil {
			return err
		}
		if old.LetGo {
			return nil
		}
		c := *old.Container
		c.OwnerUntil, c.LetGo = now, true
		m.putContainer(&c, m.stamp())
		return nil
	})
	if err != nil {
		return fmt.Errorf("disowning container %s: %w", by.Container, err)
	}
	return nil
}

// Drain closes binding.
func (m *Memory) Drain(ctx context.Context, by Authority, id, bootID string) (*Container, error) {
	return m.changeContainer(ctx, by, id, bootID, "draining", func(c *Container, _ time.Time) (effect, error) {
		if by.Container != "" {
			if by.Container != id {
				return unchanged, fmt.Errorf("%w: the owner of %s spoke", ErrFenced, by.Container)
			}
			if _, err := m.asOwner(by); err != nil {
				return unchanged, err
			}
		}
		asked := by.Container != "" && !c.Closing
		switch c.Phase {
		case Draining:
			c.Closing = c.Closing || asked
			if !asked {
				return unchanged, nil
			}
			return news, nil
		case ContainerReady:
			c.Phase = Draining
			c.Closing = c.Closing || asked
			c.DrainSeq++
			return news, nil
		default:
			return unchanged, conflict("the container is %s", c.Phase)
		}
	})
}

// Undrain opens a draining container again.
func (m *Memory) Undrain(ctx context.Context, by Authority, id, bootID string) (*Container, error) {
	return m.changeContainer(ctx, by, id, bootID, "undraining", func(c *Container, _ time.Time) (effect, error) {
		if err := m.asLeader(by); err != nil {
			return unchanged, err
		}
		switch {
		case c.Phase == ContainerReady:
			return unchanged, nil
		case c.Closing:
			return unchanged, conflict("the container is closing by itself")
		case c.Phase == Draining:
			c.Phase = ContainerReady
			return news, nil
		}
		return unchanged, conflict("the container is %s", c.Phase)
	})
}

// BeginStop is the point of no return.
func (m *Memory) BeginStop(ctx context.Context, by Authority, id, bootID string) (*Container, error) {
	return m.changeContainer(ctx, by, id, bootID, "stopping", func(c *Container, _ time.Time) (effect, error) {
		if err := m.asLeader(by); err != nil {
			return unchanged, err
		}
		switch {
		case c.Phase == Stopping:
			return unchanged, nil
		case c.Phase != Draining && c.Phase != PendingVerification:
			return unchanged, conflict("the container is %s", c.Phase)
		case c.Phase == Draining && c.DrainAck != c.DrainSeq:
			return unchanged, conflict("the order to drain is %d, acknowledged is %d", c.DrainSeq, c.DrainAck)
		case c.Used() > 0:
			return unchanged, conflict("%d slots are taken", c.Used())
		}
		c.Phase = Stopping
		return news, nil
	})
}

// GiveUp is the point of no return of a container that hangs.
func (m *Memory) GiveUp(ctx context.Context, by Authority, g GivingUp) (*Container, error) {
	return m.changeContainer(ctx, by, g.Container, g.BootID, "giving up", func(c *Container, now time.Time) (effect, error) {
		if err := m.asLeader(by); err != nil {
			return unchanged, err
		}
		switch {
		case c.Phase == Stopping && c.GivenUp():
			return unchanged, nil
		case c.Phase != ContainerReady && c.Phase != Draining:
			return unchanged, conflict("the container is %s", c.Phase)
		case c.SeenAt.After(g.SeenAt):
			return unchanged, conflict("the container was heard %s ago", now.Sub(c.SeenAt))
		case now.Sub(g.JudgedAt) > JudgedFor:
			return unchanged, conflict("the container was found to hang %s ago", now.Sub(g.JudgedAt))
		}
		c.Phase, c.HungAt, c.Slots = Stopping, now, nil
		return news, nil
	})
}

// MarkGone records that the container is no more.
func (m *Memory) MarkGone(ctx context.Context, by Authority, id, bootID string) (*Container, error) {
	return m.changeContainer(ctx, by, id, bootID, "marking as gone", func(c *Container, now time.Time) (effect, error) {
		if err := m.asLeader(by); err != nil {
			return unchanged, err
		}
		if c.Phase == Gone {
			return unchanged, nil
		}
		c.Phase = Gone
		c.Slots = nil
		m.containers[id].keptUntil = now.Add(GoneKept)
		m.keep(now.Add(GoneKept), now)
		return news, nil
	})
}

// changeContainer runs change on a copy of the container in the life that is named, and
// stores it if change says so.
func (m *Memory) changeContainer(
	ctx context.Context, by Authority, id, bootID, verb string, change func(c *Container, now time.Time) (effect, error),
) (*Container, error) {
	var got *Container
	err := m.write(ctx, func(now time.Time) error {
		if by.Container == "" {
			if err := m.asLeader(by); err != nil {
				return err
			}
		}
		old, ok := m.containers[id]
		if !ok {
			return ErrNotFound
		}
		if by.Container == id {
			if _, err := m.asOwner(by); err != nil {
				return err
			}
		}
		if old.BootID != bootID {
			return conflict("the container lives as %s, not as %s", old.BootID, bootID)
		}
		c := *old.Container
		did, err := change(&c, now)
		if err != nil {
			return err
		}
		got = &c
		switch did {
		case unchanged:
			got = old.Container
		case quiet:
			m.keepContainer(&c, m.stamp())
		case news:
			m.putContainer(&c, m.stamp())
		}
		return nil
	})
	return containerOrError(got, err, verb, id)
}

// effect is what a change of a record amounts to. Quiet changes leave no hint: they are
// frequent, nobody waits for them, and the relist carries them.
type effect int

const (
	unchanged effect = iota
	quiet
	news
)

// keepContainer stores a record that nobody changes any more.
func (m *Memory) keepContainer(c *Container, rev int64) {
	c.Rev = rev
	m.containers[c.ID].Container = c
}

// putContainer stores a record that nobody changes any more, and hints at it.
func (m *Memory) putContainer(c *Container, rev int64) {
	m.keepContainer(c, rev)
	m.hint(Hint{Kind: KindContainer, ID: c.ID, Rev: rev})
}

// containerOrError names what was being done in an error.
func containerOrError(c *Container, err error, verb, id string) (*Container, error) {
	if err != nil {
		return nil, fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	return c, nil
}
