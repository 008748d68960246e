package state

import (
	"maps"
	"slices"
	"time"
)

// Feed is a Watch that its reader asks, for drivers that step everything by hand.
type Feed struct {
	m *Memory
	w *memoryWatcher
}

// Follow begins to collect hints; KindAll is the first.
func (m *Memory) Follow() *Feed {
	w := &memoryWatcher{pending: []Hint{{Kind: KindAll}}, woken: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[w] = struct{}{}
	return &Feed{m, w}
}

// Waiting tells whether there are hints to take.
func (f *Feed) Waiting() bool {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return len(f.w.pending) > 0
}

// Take gives the hints since the last call, and whether foreign edits of documents are hinted
// at.
func (f *Feed) Take() (hints []Hint, documents bool) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	hints, f.w.pending = f.w.pending, nil
	return hints, f.m.notified
}

// Stop ends the feed.
func (f *Feed) Stop() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	delete(f.m.watchers, f.w)
}

// Records gives all sessions and containers, sorted by id, as somebody who looks on: unlike
// Index, it counts as no reading of the store.
func (m *Memory) Records() (sessions []*Session, containers []*Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		sessions = append(sessions, m.sessions[id].Session)
	}
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		containers = append(containers, m.containers[id].Container)
	}
	return sessions, containers
}

// SetSeen says which revision the caller of the next calls has seen, and Seen what it has seen
// after them. Left alone, all who share the store are one process that remembers for ever;
// processes that come and go remember each for itself.
func (m *Memory) SetSeen(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = rev
}

// Seen is the highest revision that the caller of the latest calls has seen.
func (m *Memory) Seen() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// LoseLease takes the lease from whoever holds it, as an eviction of its key does.
func (m *Memory) LoseLease() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leader, m.leaderUntil = "", time.Time{}
}
