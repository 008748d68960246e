package state

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Launch reads one launch.
func (m *Memory) Launch(ctx context.Context, id string) (*Launch, error) {
	var got *Launch
	err := m.read(ctx, func(time.Time) error {
		l, ok := m.launches[id]
		if !ok {
			return ErrNotFound
		}
		got = l
		return nil
	})
	return launchOrError(got, err, "reading", id)
}

// CreateLaunch stores a new launch.
func (m *Memory) CreateLaunch(ctx context.Context, by Authority, l Launch) (*Launch, error) {
	err := m.write(ctx, func(now time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		if !ValidID(l.ID) {
			return fmt.Errorf("%w: not an id", ErrInvalid)
		}
		if _, ok := m.launches[l.ID]; ok {
			return ErrExists
		}
		l.Input = slices.Clone(l.Input)
		l.CreatedAt = now
		m.putLaunch(&l)
		return nil
	})
	return launchOrError(&l, err, "creating", l.ID)
}

// UpdateLaunch records how a launch went.
func (m *Memory) UpdateLaunch(ctx context.Context, by Authority, id string, u LaunchUpdate) (*Launch, error) {
	var got *Launch
	err := m.write(ctx, func(time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		old, ok := m.launches[id]
		if !ok {
			return ErrNotFound
		}
		l, changed, err := u.Apply(old)
		if err != nil {
			return err
		}
		if c, registered := m.containers[id]; u.GivesUp(old) && registered && c.Phase != Stopping && c.Phase != Gone {
			return conflict("its container is %s", c.Phase)
		}
		if changed {
			m.putLaunch(l)
		}
		got = l
		return nil
	})
	return launchOrError(got, err, "updating", id)
}

// Apply gives the launch as it is after the update, and whether that differs. l stays as it
// is. ErrConflict if the launch is closed with another outcome; but one that was refused may be given up:
// a call that was late on its way may have started its task after all.
func (u LaunchUpdate) Apply(l *Launch) (*Launch, bool, error) {
	if !l.Open() && u.Outcome != "" && u.Outcome != l.Outcome && !u.GivesUp(l) {
		return nil, false, conflict("the launch is %s", l.Outcome)
	}
	next := *l
	if u.TaskARN != "" {
		next.TaskARN = u.TaskARN
	}
	if u.Outcome != "" {
		next.Outcome = u.Outcome
	}
	if u.Message != "" {
		next.Message = u.Message
	}
	if u.Tries != 0 {
		next.Tries = u.Tries
	}
	if u.Cause != "" {
		next.Cause = u.Cause
	}
	if !u.AnsweredAt.IsZero() {
		next.AnsweredAt = u.AnsweredAt
	}
	if !u.SettledAt.IsZero() {
		next.SettledAt = u.SettledAt
	}
	changed := next.TaskARN != l.TaskARN || next.Outcome != l.Outcome || next.Message != l.Message || next.Tries != l.Tries ||
		next.Cause != l.Cause || !next.AnsweredAt.Equal(l.AnsweredAt) || !next.SettledAt.Equal(l.SettledAt)
	if !changed {
		return l, false, nil
	}
	return &next, true, nil
}

// GivesUp tells whether the update is the one that gives l up. One that was refused keeps its cause: who
// gives it up with another had not heard of that.
func (u LaunchUpdate) GivesUp(l *Launch) bool {
	return u.Outcome == Expired && (l.Open() || l.Outcome == Refused && u.Cause == "")
}

// ForgetLaunch removes a launch.
func (m *Memory) ForgetLaunch(ctx context.Context, by Authority, id string) error {
	err := m.write(ctx, func(time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		if _, ok := m.launches[id]; ok {
			delete(m.launches, id)
			m.hint(Hint{Kind: KindLaunch, ID: id, Rev: m.stamp()})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forgetting launch %s: %w", id, err)
	}
	return nil
}

// putLaunch stores a record that nobody changes any more, and hints at it.
func (m *Memory) putLaunch(l *Launch) {
	l.Rev = m.stamp()
	m.launches[l.ID] = l
	m.hint(Hint{Kind: KindLaunch, ID: l.ID, Rev: l.Rev})
}

// launchOrError names what was being done in an error.
func launchOrError(l *Launch, err error, verb, id string) (*Launch, error) {
	if err != nil {
		return nil, fmt.Errorf("%s launch %s: %w", verb, id, err)
	}
	return l, nil
}
