package state

import (
	"context"
	"time"
)

// memoryWatcher is one running Watch.
type memoryWatcher struct {
	pending []Hint        // guarded by Memory.mu
	woken   chan struct{} // holds one token while there is something to look at
}

// wake makes the watcher look. Memory.mu is held.
func (w *memoryWatcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// hint leaves hints with every watcher. m.mu is held.
func (m *Memory) hint(hints ...Hint) {
	if m.failure != nil {
		return
	}
	for w := range m.watchers {
		w.pending = append(w.pending, hints...)
		w.wake()
	}
}

// Watch calls see for every hint until ctx ends, whose error it returns; KindAll first.
func (m *Memory) Watch(ctx context.Context, see func([]Hint), documents func(notified bool)) error {
	w := &memoryWatcher{pending: []Hint{{Kind: KindAll}}, woken: make(chan struct{}, 1)}
	w.wake()
	m.mu.Lock()
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	told, known := false, false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.woken:
		}
		m.mu.Lock()
		hints, notified := w.pending, m.notified
		w.pending = nil
		m.mu.Unlock()
		if documents != nil && (!known || told != notified) {
			told, known = notified, true
			documents(notified)
		}
		if len(hints) > 0 {
			see(hints)
		}
	}
}

// Wake leaves hints for every replica.
func (m *Memory) Wake(ctx context.Context, hints ...Hint) error {
	return m.read(ctx, func(time.Time) error {
		m.hint(hints...)
		return nil
	})
}

// Index lists the control records.
func (m *Memory) Index(ctx context.Context) (Index, error) {
	ix := Index{Sessions: map[string]int64{}, Containers: map[string]int64{}, Launches: map[string]int64{}}
	err := m.read(ctx, func(now time.Time) error {
		m.seq = max(m.seq, 1)
		for id, s := range m.sessions {
			if s.listedUntil.IsZero() || now.Before(s.listedUntil) {
				ix.Sessions[id] = s.Rev
			}
		}
		for id, c := range m.containers {
			ix.Containers[id] = c.Rev
		}
		for id, l := range m.launches {
			ix.Launches[id] = l.Rev
		}
		ix.Filling = Filling{Incarnation: m.newIncarnation(), LostAt: m.lostAt, Whole: m.whole}
		ix.Seq, ix.Seen, ix.Time, ix.GivenBack = m.seq, m.seen, now, m.givenBack
		return nil
	})
	return ix, err
}

// SessionsOf reads many sessions.
func (m *Memory) SessionsOf(ctx context.Context, ids []string) ([]*Session, error) {
	found := make([]*Session, 0, len(ids))
	err := m.read(ctx, func(time.Time) error {
		for _, id := range ids {
			if s, ok := m.sessions[id]; ok {
				found = append(found, s.Session)
			}
		}
		return nil
	})
	return found, err
}

// ContainersOf reads many containers.
func (m *Memory) ContainersOf(ctx context.Context, ids []string) ([]*Container, error) {
	found := make([]*Container, 0, len(ids))
	err := m.read(ctx, func(time.Time) error {
		for _, id := range ids {
			if c, ok := m.containers[id]; ok {
				found = append(found, c.Container)
			}
		}
		return nil
	})
	return found, err
}

// LaunchesOf reads many launches.
func (m *Memory) LaunchesOf(ctx context.Context, ids []string) ([]*Launch, error) {
	found := make([]*Launch, 0, len(ids))
	err := m.read(ctx, func(time.Time) error {
		for _, id := range ids {
			if l, ok := m.launches[id]; ok {
				found = append(found, l)
			}
		}
		return nil
	})
	return found, err
}
