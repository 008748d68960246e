package state

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"
)

// How long records outlive their end. Every store keeps to these.
const (
	// LeaseTTL is how long the leadership lasts after it was taken or renewed.
	LeaseTTL = 6 * time.Second
	// EndedListed is how long an ended session stays in the index.
	EndedListed = 5 * time.Minute
	// EndedKept is how long an ended session is remembered at least, so that its id is never
	// reborn. A deadline further away than that keeps it until EndedMargin after the deadline.
	EndedKept = 24 * time.Hour
	// EndedMargin covers a document that outlives the deadline a little.
	EndedMargin = time.Hour
	// GoneKept is how long a container that is gone is remembered.
	GoneKept = 10 * time.Minute
)

// editTries bounds how often EditDocument reads and tries again.
const editTries = 10

// ReportLate is the silence after which a container's next report is news to the other
// replicas at once. A punctual report that tells nothing new waits for their relist.
const ReportLate = 7500 * time.Millisecond

// TouchGrain is the change of a reported time that is worth a write.
const TouchGrain = time.Second

// Memory is a Store in this process: for tests, for simulation, for one process alone.
// It behaves like the one on Redis and passes the same suite. It starts no goroutine, waits
// for nothing but its own short lock, and sees time only through the clock that it is given.
// Its methods may be called from several goroutines; the records that they return are
// immutable.
type Memory struct {
	now func() time.Time // set once in NewMemory

	mu          sync.Mutex // guards the fields below
	failure     error
	incarnation string
	givenBack   int64     // see Index.GivenBack
	lostAt      time.Time // data was lost then that may still be missing; zero: none
	whole       bool      // a leader has found that nothing is missing
	seq         int64     // the store's revision clock
	seen        int64     // the highest seq that callers have seen: above seq after a loss
	epoch       int64
	leader      string
	leaderUntil time.Time

	sessions   map[string]*memorySession
	containers map[string]*memoryContainer
	launches   map[string]*Launch
	forgetAt   time.Time // the first moment at which a record may be forgotten; zero: none
	documents  map[string]memoryDocument
	shown      memoryShown
	claims     memoryClaims

	testimonies map[testimonyOf]Testimony
	notified    bool // foreign writes of documents are hinted at
	watchers    map[*memoryWatcher]struct{}
}

// memorySession is a session and when it is forgotten.
type memorySession struct {
	*Session
	listedUntil time.Time // zero: for ever
	keptUntil   time.Time // zero: for ever
}

// memoryContainer is a container and what the record does not show.
type memoryContainer struct {
	*Container
	keptUntil time.Time // zero: for ever
}

var _ Store = (*Memory)(nil)

// NewMemory makes an empty store whose clock is now; nil means time.Now.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	m := &Memory{now: now, notified: true, watchers: map[*memoryWatcher]struct{}{}}
	m.clear()
	return m
}

// clear makes everything as in a new store. m.mu is held, or nobody else knows m yet.
func (m *Memory) clear() {
	m.incarnation = ""
	m.lostAt, m.whole, m.givenBack = time.Time{}, false, 0
	m.seq = 0
	m.epoch = 0
	m.leader, m.leaderUntil = "", time.Time{}
	m.sessions = map[string]*memorySession{}
	m.containers = map[string]*memoryContainer{}
	m.launches = map[string]*Launch{}
	m.documents = map[string]memoryDocument{}
	m.shown = memoryShown{noted: map[string]map[string]struct{}{}, health: map[string]memoryText{}}
	m.claims = memoryClaims{replicas: map[string]Replica{}}
	m.testimonies = map[testimonyOf]Testimony{}
	m.forgetAt = time.Time{}
}

// FailWith makes every call answer ErrUnavailable, wrapping err, until it is given nil.
// Watchers hear nothing meanwhile, and KindAll afterwards.
func (m *Memory) FailWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	recovered := m.failure != nil && err == nil
	m.failure = err
	if recovered {
		m.hint(Hint{Kind: KindAll})
	}
}

// Wipe loses everything, as a store that restarts empty. Writes that stamp revisions answer
// ErrRolledBack until somebody has restored what they saw.
func (m *Memory) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
}

// Ping tells whether the store answers.
func (m *Memory) Ping(ctx context.Context) error {
	return m.read(ctx, func(time.Time) error { return nil })
}

// Close does nothing: there is nothing to let go of.
func (m *Memory) Close() error { return nil }

// AcquireLease takes or renews the leadership for replica.
func (m *Memory) AcquireLease(ctx context.Context, replica string, had int64) (int64, time.Duration, error) {
	var epoch int64
	err := m.read(ctx, func(now time.Time) error {
		held := m.leader != "" && now.Before(m.leaderUntil)
		switch {
		case held && m.leader != replica:
			return fmt.Errorf("%w: %s leads", ErrConflict, m.leader)
		case !held || m.epoch < had:
			m.epoch = max(m.epoch+1, had+1, now.UnixMilli())
			m.leader = replica
		}
		m.leaderUntil = now.Add(LeaseTTL)
		epoch = m.epoch
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("acquiring the lease: %w", err)
	}
	return epoch, LeaseTTL, nil
}

// ReleaseLease gives the leadership up if replica holds it under epoch.
func (m *Memory) ReleaseLease(ctx context.Context, replica string, epoch int64) error {
	return m.read(ctx, func(time.Time) error {
		if m.leader == replica && m.epoch == epoch {
			m.leader, m.leaderUntil = "", time.Time{}
			m.hint(Hint{Kind: KindLease})
		}
		return nil
	})
}

// read runs do under the lock, at the store's time.
func (m *Memory) read(ctx context.Context, do func(now time.Time) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, m.failure)
	}
	now := m.now().Truncate(time.Millisecond).UTC()
	m.forget(now)
	return do(now)
}

// write runs do as read does, for a change that stamps revisions.
func (m *Memory) write(ctx context.Context, do func(now time.Time) error) error {
	return m.read(ctx, func(now time.Time) error {
		if m.seq < m.seen {
			return ErrRolledBack
		}
		return do(now)
	})
}

// forget drops the records whose time is up.
func (m *Memory) forget(now time.Time) {
	if m.forgetAt.IsZero() || now.Before(m.forgetAt) {
		return
	}
	m.forgetAt = time.Time{}
	for id, s := range m.sessions {
		if m.keep(s.keptUntil, now) {
			delete(m.sessions, id)
		}
	}
	for id, c := range m.containers {
		if m.keep(c.keptUntil, now) {
			delete(m.containers, id)
		}
	}
}

// keep plans to forget a record at that time, zero meaning never, and tells whether that
// has come already.
func (m *Memory) keep(until, now time.Time) (over bool) {
	switch {
	case until.IsZero():
		return false
	case !now.Before(until):
		return true
	case m.forgetAt.IsZero() || until.Before(m.forgetAt):
		m.forgetAt = until
	}
	return false
}

// stamp draws the next revision.
func (m *Memory) stamp() int64 {
	m.seq = max(m.seq+1, m.now().UnixMicro())
	m.seen = m.seq
	return m.seq
}

// asLeader checks a leader's authority.
func (m *Memory) asLeader(by Authority) error {
	if by.Container != "" || by.Epoch == 0 || by.Epoch != m.epoch {
		return fmt.Errorf("%w: the epoch is %d, the write's is %d", ErrFenced, m.epoch, by.Epoch)
	}
	return nil
}

// asOwner checks a link owner's authority and gives its container.
func (m *Memory) asOwner(by Authority) (*memoryContainer, error) {
	if by.Container == "" || by.Epoch != 0 {
		return nil, fmt.Errorf("%w: a link owner's authority is wanted", ErrFenced)
	}
	c, ok := m.containers[by.Container]
	if !ok {
		return nil, fmt.Errorf("%w: container %s is unknown", ErrFenced, by.Container)
	}
	if c.OwnerSeq != by.OwnerSeq {
		return nil, fmt.Errorf("%w: the owner's sequence of container %s is %d, the write's is %d",
			ErrFenced, by.Container, c.OwnerSeq, by.OwnerSeq)
	}
	return c, nil
}

// newIncarnation names the store until it is wiped.
func (m *Memory) newIncarnation() string {
	if m.incarnation == "" {
		m.incarnation = rand.Text()
	}
	return m.incarnation
}

// conflict is ErrConflict with the reason.
func conflict(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConflict, fmt.Sprintf(format, args...))
}
