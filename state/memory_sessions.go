package state

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Session reads one session.
func (m *Memory) Session(ctx context.Context, id string) (*Session, error) {
	var got *Session
	err := m.read(ctx, func(time.Time) error {
		s, ok := m.sessions[id]
		if !ok {
			return ErrNotFound
		}
		got = s.Session
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading session %s: %w", id, err)
	}
	return got, nil
}

// Admit makes a pending session of a document.
func (m *Memory) Admit(ctx context.Context, by Authority, a Admission) (*Session, error) {
	var made *Session
	err := m.write(ctx, func(now time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		if !ValidID(a.ID) {
			return fmt.Errorf("%w: not an id", ErrInvalid)
		}
		if s, ok := m.sessions[a.ID]; ok {
			if s.Phase == Ended {
				// Its document is still about: remember it for longer.
				if until := endedUntil(now, now.Add(a.Remaining)); until.After(s.keptUntil) {
					s.keptUntil = until
				}
			}
			return ErrExists
		}
		made = &Session{
			ID: a.ID, Spec: slices.Clone(a.Spec), Origin: a.Origin, UserID: a.UserID, KeepAlive: a.KeepAlive,
			Phase: Pending, Deadline: now.Add(a.Remaining).Truncate(time.Millisecond), SeenAt: now,
		}
		m.sessions[a.ID] = &memorySession{}
		m.putSession(made, m.stamp(), now)
		return nil
	})
	return sessionOrError(made, err, "admitting", a.ID)
}

// Bind gives a pending session a slot.
func (m *Memory) Bind(ctx context.Context, by Authority, b Binding) (*Session, error) {
	return m.changeSession(ctx, by, b.Session, "binding", func(s *Session, now time.Time) (bool, error) {
		if err := m.asLeader(by); err != nil {
			return false, err
		}
		if s.Phase != Pending {
			return false, conflict("the session is %s", s.Phase)
		}
		if s.Excludes(b.Container) {
			return false, conflict("container %s has failed the session before", b.Container)
		}
		c, ok := m.containers[b.Container]
		if !ok {
			return false, conflict("container %s is unknown", b.Container)
		}
		if c.Phase != ContainerReady || c.BootID != b.BootID {
			return false, conflict("container %s is %s in life %s", b.Container, c.Phase, c.BootID)
		}
		if !c.Takes(s.UserID, b.Dedicated) {
			return false, conflict("container %s has served another user", b.Container)
		}
		if c.Free() == 0 {
			return false, fmt.Errorf("%w: container %s", ErrFull, b.Container)
		}
		rev := m.stamp()
		host := *c.Container
		switch c.Served {
		case "", "=" + s.UserID:
			host.Served = "=" + s.UserID
		default:
			host.Served = "*"
		}
		host.Slots = withID(c.Slots, s.ID)
		if b.Dedicated {
			host.Tenant = s.UserID
		}
		m.putContainer(&host, rev)
		s.Phase, s.Container, s.BootID, s.BindRev = Bound, b.Container, b.BootID, rev
		s.Attempts++
		s.Refused, s.Message, s.Cold = "", "", false
		s.BoundAt = now
		s.Rev = rev
		return true, nil
	})
}

// Unbind takes a bound session back before its first ready.
func (m *Memory) Unbind(ctx context.Context, by Authority, u Unbinding) (*Session, error) {
	return m.changeSession(ctx, by, u.Session, "unbinding", func(s *Session, _ time.Time) (bool, error) {
		if err := m.asLeader(by); err != nil {
			return false, err
		}
		if s.Phase != Bound || s.BindRev != u.BindRev {
			return false, conflict("the session is %s under binding %d", s.Phase, s.BindRev)
		}
		s.Rev = m.stamp()
		if c, ok := m.containers[s.Container]; ok && (c.Phase == Gone || s.Refused != "") {
			m.freeSlot(c, s.ID, s.Rev)
		}
		if !s.Excludes(s.Container) {
			s.Excluded = append(slices.Clone(s.Excluded), s.Container)
		}
		s.Phase, s.Container, s.BootID, s.Refused, s.Message = Pending, "", "", "", u.Why
		s.BoundAt = time.Time{}
		return true, nil
	})
}

// Ready tells that the browser is there.
func (m *Memory) Ready(ctx context.Context, by Authority, id string, bindRev int64, cold bool) (s *Session, first bool, err error) {
	s, err = m.changeSession(ctx, by, id, "readying", func(s *Session, now time.Time) (bool, error) {
		if err := m.ownsSession(by, s, bindRev); err != nil {
			return false, err
		}
		switch {
		case s.Phase == Ready:
			return false, nil
		case s.Phase != Bound || s.Refused != "":
			return false, conflict("the session is %s", s.Phase)
		}
		s.Phase, s.ReadyAt, s.LastActivity, s.Cold = Ready, now, now, cold
		first = true
		return true, nil
	})
	return s, first, err
}

// Refuse records that the container cannot serve the session.
func (m *Memory) Refuse(ctx context.Context, by Authority, id string, bindRev int64, why string) (*Session, error) {
	if why == "" {
		why = "refused"
	}
	return m.changeSession(ctx, by, id, "refusing", func(s *Session, _ time.Time) (bool, error) {
		if err := m.ownsSession(by, s, bindRev); err != nil {
			return false, err
		}
		if s.Phase != Bound {
			return false, conflict("the session is %s", s.Phase)
		}
		if s.Refused != "" {
			return false, nil
		}
		s.Rev = m.stamp()
		s.Refused = why
		m.freeSlot(m.containers[s.Container], s.ID, s.Rev)
		return true, nil
	})
}

// End starts or finishes an end.
func (m *Memory) End(ctx context.Context, by Authority, e End) (*Session, error) {
	return m.changeSession(ctx, by, e.Session, "ending", func(s *Session, now time.Time) (bool, error) {
		if by.Container != "" {
			if err := m.ownsSession(by, s, e.BindRev); err != nil {
				return false, err
			}
		} else if err := m.asLeader(by); err != nil {
			return false, err
		}
		if e.BindRev != 0 && e.BindRev != s.BindRev {
			return false, conflict("the session is under binding %d", s.BindRev)
		}
		switch {
		case s.Phase == Ended, s.Phase == Ending && !e.Confirmed:
			return false, conflict("the session is %s", s.Phase)
		case s.Phase != Ending:
			if !slices.Contains(Reasons(), e.Reason) {
				return false, fmt.Errorf("%w: reason %q", ErrInvalid, e.Reason)
			}
			if by.Container == "" && e.Reason == DeadlinePassed && now.Before(s.Deadline) {
				return false, conflict("its deadline is %s, in %s", s.Deadline.UTC().Format(time.RFC3339), s.Deadline.Sub(now))
			}
			if by.Container == "" && e.Reason == Failed && s.Phase == Ready {
				return false, conflict("the session has become ready")
			}
			if by.Container == "" && e.Reason == Failed && s.Phase == Bound && e.BindRev == 0 {
				return false, conflict("the session has been bound")
			}
			s.Reason, s.Message = e.Reason, e.Message
		}
		s.Rev = m.stamp()
		// What its container has refused is held by nobody: there is no slot to be given back.
		if s.Phase != Pending && s.Refused == "" && !e.Confirmed {
			s.Phase = Ending
			return true, nil
		}
		if c, ok := m.containers[s.Container]; ok && s.Phase != Pending {
			m.freeSlot(c, s.ID, s.Rev)
		}
		s.Phase, s.EndedAt, s.Attached, s.GraceUntil = Ended, now, 0, time.Time{}
		return true, nil
	})
}

// Release frees a slot that a session holds although it is bound elsewhere.
func (m *Memory) Release(ctx context.Context, by Authority, container, id string) error {
	err := m.write(ctx, func(time.Time) error {
		c, ok := m.containers[container]
		if by.Container != "" {
			if by.Container != container {
				return fmt.Errorf("%w: the owner of %s spoke for container %s", ErrFenced, by.Container, container)
			}
			if _, err := m.asOwner(by); err != nil {
				return err
			}
		} else if err := m.asLeader(by); err != nil {
			return err
		} else if ok && c.Phase != Gone {
			return conflict("container %s is %s", container, c.Phase)
		}
		if !ok {
			return nil
		}
		if s, known := m.sessions[id]; known && s.BoundTo(container, c.BootID) && s.Refused == "" && c.Phase != Gone {
			return conflict("session %s is %s there", id, s.Phase)
		}
		if slices.Contains(c.Slots, id) {
			m.freeSlot(c, id, m.stamp())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("releasing the slot of session %s in container %s: %w", id, container, err)
	}
	return nil
}

// Touch records what an owner's container reports of its clients.
func (m *Memory) Touch(ctx context.Context, by Authority, activities []Activity) error {
	err := m.write(ctx, func(now time.Time) error {
		if _, err := m.asOwner(by); err != nil {
			return err
		}
		for _, a := range activities {
			old, ok := m.sessions[a.Session]
			if !ok || m.ownsSession(by, old.Session, a.BindRev) != nil {
				continue
			}
			s := *old.Session
			if touch(&s, a, now) {
				m.keepSession(&s, m.stamp(), now)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording activity in container %s: %w", by.Container, err)
	}
	return nil
}

// touch changes s as a says and tells whether that is worth a write.
func touch(s *Session, a Activity, now time.Time) bool {
	changed := s.Attached != a.Attached
	s.Attached = a.Attached
	if a.Connected && s.FirstConnectAt.IsZero() {
		s.FirstConnectAt, changed = now, true
	}
	if active := now.Add(-a.IdleFor).Truncate(time.Millisecond); active.Sub(s.LastActivity) >= TouchGrain {
		s.LastActivity, changed = active, true
	}
	switch {
	case !a.GraceRunning && a.GraceLeft <= 0:
		changed = changed || !s.GraceUntil.IsZero()
		s.GraceUntil = time.Time{}
	default:
		until := now.Add(a.GraceLeft).Truncate(time.Millisecond)
		if s.GraceUntil.IsZero() || until.Sub(s.GraceUntil).Abs() >= TouchGrain {
			s.GraceUntil, changed = until, true
		}
	}
	return changed
}

// Amend changes what a requester may change after admission.
func (m *Memory) Amend(ctx context.Context, by Authority, a Amendment) (*Session, error) {
	return m.changeSession(ctx, by, a.Session, "amending", func(s *Session, now time.Time) (bool, error) {
		if err := m.asLeader(by); err != nil {
			return false, err
		}
		if !s.Live() {
			return false, conflict("the session is %s", s.Phase)
		}
		if len(a.Spec) > 0 {
			s.Spec = slices.Clone(a.Spec)
		}
		s.KeepAlive = a.KeepAlive
		s.Deadline = now.Add(a.Remaining).Truncate(time.Millisecond)
		return true, nil
	})
}

// Wait adds to the time that pending sessions have waited under a held lease.
func (m *Memory) Wait(ctx context.Context, by Authority, ids []string, more time.Duration) error {
	err := m.write(ctx, func(now time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		for _, id := range ids {
			old, ok := m.sessions[id]
			if !ok || old.Phase != Pending {
				continue
			}
			s := *old.Session
			s.Waited += more.Truncate(time.Millisecond)
			m.keepSession(&s, m.stamp(), now)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("counting the wait of %d sessions: %w", len(ids), err)
	}
	return nil
}

// changeSession runs change on a copy of the session and stores it if change says so. A
// change that had to stamp other records too leaves its revision in Rev.
func (m *Memory) changeSession(
	ctx context.Context, by Authority, id, verb string, change func(s *Session, now time.Time) (bool, error),
) (*Session, error) {
	var got *Session
	err := m.write(ctx, func(now time.Time) error {
		if by.Container == "" {
			if err := m.asLeader(by); err != nil {
				return err
			}
		}
		old, ok := m.sessions[id]
		if !ok {
			return ErrNotFound
		}
		s := *old.Session
		write, err := change(&s, now)
		if err != nil {
			return err
		}
		if !write {
			got = old.Session
			return nil
		}
		rev := s.Rev
		if rev == old.Rev {
			rev = m.stamp()
		}
		m.putSession(&s, rev, now)
		got = &s
		return nil
	})
	return sessionOrError(got, err, verb, id)
}

// putSession stores a record that nobody changes any more, and hints at it.
func (m *Memory) putSession(s *Session, rev int64, now time.Time) {
	m.keepSession(s, rev, now)
	m.hint(Hint{Kind: KindSession, ID: s.ID, Rev: rev})
}

// keepSession stores a record that nobody changes any more.
func (m *Memory) keepSession(s *Session, rev int64, now time.Time) {
	s.Rev = rev
	kept := m.sessions[s.ID]
	kept.Session = s
	if s.Phase == Ended && kept.keptUntil.IsZero() {
		kept.listedUntil = now.Add(EndedListed)
		kept.keptUntil = endedUntil(now, s.Deadline)
		m.keep(kept.keptUntil, now)
	}
}

// endedUntil is when a session that ended now, with that deadline, may be forgotten.
func endedUntil(now, deadline time.Time) time.Time {
	until := now.Add(EndedKept)
	if late := deadline.Add(EndedMargin); late.After(until) {
		return late
	}
	return until
}

// ownsSession checks that by is the owner of the container that holds s under bindRev.
func (m *Memory) ownsSession(by Authority, s *Session, bindRev int64) error {
	c, err := m.asOwner(by)
	if err != nil {
		return err
	}
	if !s.BoundTo(c.ID, c.BootID) || s.BindRev != bindRev || c.Phase == Gone {
		return conflict("session %s is %s, not bound to container %s under binding %d", s.ID, s.Phase, c.ID, bindRev)
	}
	return nil
}

// freeSlot takes a session's slot away, if it has one, under rev.
func (m *Memory) freeSlot(c *memoryContainer, id string, rev int64) {
	if !slices.Contains(c.Slots, id) {
		return
	}
	host := *c.Container
	host.Slots = slices.DeleteFunc(slices.Clone(c.Slots), func(held string) bool { return held == id })
	m.putContainer(&host, rev)
}

// withID gives a sorted copy of ids with id in it.
func withID(ids []string, id string) []string {
	set := map[string]struct{}{id: {}}
	for _, held := range ids {
		set[held] = struct{}{}
	}
	return slices.Sorted(maps.Keys(set))
}

// sessionOrError names what was being done in an error.
func sessionOrError(s *Session, err error, verb, id string) (*Session, error) {
	if err != nil {
		return nil, fmt.Errorf("%s session %s: %w", verb, id, err)
	}
	return s, nil
}
