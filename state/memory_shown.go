package state

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
)

// memoryShown is what a Memory holds beside the control records.
type memoryShown struct {
	desired      *memoryText                    // pool:desired
	pool         string                         // pool:state
	health       map[string]memoryText          // container:{id}:health
	noted        map[string]map[string]struct{} // container:{id}:sessions
	poolNotes    PoolNotes
	events       []Event
	lastEvent    int  // number of the latest event
	desiredAlien bool // pool:desired is not a string
}

// memoryText is a string with a time to live.
type memoryText struct {
	text  string
	until time.Time // zero: for ever
}

func (t *memoryText) over(now time.Time) bool {
	return t == nil || !t.until.IsZero() && !now.Before(t.until)
}

// SetPoolDesired writes pool:desired as an operator would. Zero ttl means none.
func (m *Memory) SetPoolDesired(text string, ttl time.Duration) {
	m.desire(func() {
		m.shown.desired = &memoryText{text: text}
		if ttl > 0 {
			m.shown.desired.until = m.now().Add(ttl)
		}
	})
}

// DeletePoolDesired removes pool:desired as an operator would.
func (m *Memory) DeletePoolDesired() { m.desire(func() { m.shown.desired = nil }) }

// SpoilPoolDesired puts something that is not a string in the place of pool:desired.
func (m *Memory) SpoilPoolDesired() { m.desire(func() { m.shown.desiredAlien = true }) }

func (m *Memory) desire(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shown.desiredAlien = false
	change()
	if m.notified {
		m.hint(Hint{Kind: KindPool})
	}
}

// NoteV1 notes a session in container:{id}:sessions, as a v1 container does.
func (m *Memory) NoteV1(container, session string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shown.noted[container] == nil {
		m.shown.noted[container] = map[string]struct{}{}
	}
	m.shown.noted[container][session] = struct{}{}
}

// UnnoteV1 takes a session off container:{id}:sessions, as a v1 container does.
func (m *Memory) UnnoteV1(container, session string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.shown.noted[container], session)
}

// ShownHealth gives container:{id}:health as others read it, and what is left of its time to
// live; empty if there is none.
func (m *Memory) ShownHealth(container string) (string, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.shown.health[container]
	now := m.now()
	if !ok || h.over(now) {
		return "", 0
	}
	return h.text, h.until.Sub(now)
}

// ShownPool gives pool:state as others read it; empty if there is none.
func (m *Memory) ShownPool() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shown.pool
}

// PoolDesired reads pool:desired.
func (m *Memory) PoolDesired(ctx context.Context) ([]byte, error) {
	var text []byte
	err := m.read(ctx, func(time.Time) error {
		switch {
		case m.shown.desiredAlien:
			return fmt.Errorf("%w: %w", ErrInvalid, errAlien)
		case !m.shown.desired.over(m.now()):
			text = []byte(m.shown.desired.text)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading pool:desired: %w", err)
	}
	return text, nil
}

// PoolNotes reads what the leaders have noted of the pool.
func (m *Memory) PoolNotes(ctx context.Context) (PoolNotes, error) {
	var notes PoolNotes
	err := m.read(ctx, func(time.Time) error {
		notes = m.shown.poolNotes
		return nil
	})
	if err != nil {
		return PoolNotes{}, fmt.Errorf("reading the pool's notes: %w", err)
	}
	return notes, nil
}

// NotePool notes what u has set.
func (m *Memory) NotePool(ctx context.Context, by Authority, u PoolUpdate) error {
	err := m.write(ctx, func(time.Time) error {
		if err := m.asLeader(by); err != nil {
			return err
		}
		notes := &m.shown.poolNotes
		if !u.ListedAt.IsZero() {
			notes.ListedAt = u.ListedAt.Truncate(time.Millisecond).UTC()
		}
		if u.Obeyed != nil {
			notes.Obeyed = nil
			if *u.Obeyed != "" {
				notes.Obeyed = []byte(*u.Obeyed)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting the pool: %w", err)
	}
	return nil
}

// AnnotateDocument is EditDocument without a hint.
func (m *Memory) AnnotateDocument(ctx context.Context, id string, edit func(text []byte) ([]byte, error)) error {
	return m.editDocument(ctx, id, 0, false, edit)
}

// ShowHealth writes container:{id}:health.
func (m *Memory) ShowHealth(ctx context.Context, h ContainerHealth) error {
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("showing the health of container %s: %w", h.ContainerID, err)
	}
	err = m.read(ctx, func(time.Time) error {
		if !ValidID(h.ContainerID) {
			return fmt.Errorf("%w: not an id", ErrInvalid)
		}
		m.shown.health[h.ContainerID] = memoryText{text: string(text), until: m.now().Add(HealthShown)}
		return nil
	})
	if err != nil {
		return fmt.Errorf("showing the health of container %s: %w", h.ContainerID, err)
	}
	return nil
}

// ShowPool writes pool:state.
func (m *Memory) ShowPool(ctx context.Context, p PoolState) error {
	text, err := json.Marshal(p)
	if err == nil {
		err = m.read(ctx, func(time.Time) error {
			m.shown.pool = string(text)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("showing the pool: %w", err)
	}
	return nil
}

// V1Has tells whether the container has noted the session.
func (m *Memory) V1Has(ctx context.Context, container, session string) (bool, error) {
	found := false
	err := m.read(ctx, func(time.Time) error {
		_, found = m.shown.noted[container][session]
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("reading the notes of container %s: %w", container, err)
	}
	return found, nil
}

// V1Count counts the sessions that the container has noted.
func (m *Memory) V1Count(ctx context.Context, container string) (int, error) {
	n := 0
	err := m.read(ctx, func(time.Time) error {
		n = len(m.shown.noted[container])
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("counting the notes of container %s: %w", container, err)
	}
	return n, nil
}

// V1Forget removes the notes of a container that is gone.
func (m *Memory) V1Forget(ctx context.Context, container string) error {
	err := m.read(ctx, func(time.Time) error {
		delete(m.shown.noted, container)
		return nil
	})
	if err != nil {
		return fmt.Errorf("removing the notes of container %s: %w", container, err)
	}
	return nil
}

// Note records an event.
func (m *Memory) Note(ctx context.Context, e Event) error {
	err := m.read(ctx, func(now time.Time) error {
		e = e.Clipped()
		m.shown.lastEvent++
		e.ID, e.At = fmt.Sprintf("%d-0", m.shown.lastEvent), now
		if len(m.shown.events) >= EventsKept {
			m.shown.events = slices.Delete(m.shown.events, 0, len(m.shown.events)-EventsKept+1)
		}
		m.shown.events = append(m.shown.events, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting an event: %w", err)
	}
	return nil
}

// Tail gives the latest n events, the oldest of them first.
func (m *Memory) Tail(ctx context.Context, n int) ([]Event, error) {
	var tail []Event
	err := m.read(ctx, func(time.Time) error {
		tail = slices.Clone(m.shown.events[max(0, len(m.shown.events)-max(0, n)):])
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	return tail, nil
}

// EventsAfter gives the first n events after one.
func (m *Memory) EventsAfter(ctx context.Context, id string, n int) ([]Event, error) {
	major, _, err := EventNumbers(id)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	after := int(min(major, math.MaxInt32))
	var next []Event
	err = m.read(ctx, func(time.Time) error {
		first := m.shown.lastEvent - len(m.shown.events) + 1
		from := min(max(0, after+1-first), len(m.shown.events))
		next = slices.Clone(m.shown.events[from:min(len(m.shown.events), from+max(0, n))])
		return nil
	})
	return next, err
}
