package state

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// DefaultRelist is how often a mirror reads the index of everything, healing missed hints.
const DefaultRelist = 5 * time.Second

// gapAtLeast is longer than a mirror that is well goes without a read.
const gapAtLeast = 8 * time.Second

// MirrorOptions tune a Mirror.
type MirrorOptions struct {
	Relist time.Duration // interval between relists, jittered by a fifth; zero: DefaultRelist
	Log    *slog.Logger  // nil: none

	Now func() time.Time // this process's monotonic clock; nil: time.Now
}

// Mirror is one replica's copy of the control records. Hints say what to read again, a
// jittered relist heals what they missed, and a replica's own writes are applied as they
// return. Everything that it hands out is shared and must not be changed.
//
// It trusts revisions, not the order of arrival: an older record never replaces a newer one.
type Mirror struct {
	src    Source
	relist time.Duration
	log    *slog.Logger
	now    func() time.Time

	kick chan struct{} // asks for a relist now; holds one

	mu          sync.Mutex // guards the fields below
	sessions    table[*Session]
	containers  table[*Container]
	launches    table[*Launch]
	waiters     map[string][]chan struct{} // by session id; closed when that session changes
	subscribers map[int]func([]Hint)
	nextSub     int
	documents   bool    // foreign edits of documents are notified
	filling     Filling // as last seen
	seq         int64   // highest of the store's clock seen
	trouble     string  // the store has lost data, and was not given it back yet
	doubted     doubts
	reborn      string        // how the store shows something that was over; empty: it does not
	storeTime   time.Time     // the store's clock, read at readAt
	readAt      time.Time     // last good read; monotonic
	listedAt    time.Time     // last time that the index was read and followed; monotonic
	listedFrom  time.Time     // when that reading began; monotonic
	listedIn    time.Duration // how long it took, with all that it read
	knew        int64         // the store's clock when it was last so, and whole
	reading     time.Time     // when the reading under way began; zero: none is
	givingBack  bool          // what the store has lost, right now
	gaveBack    time.Time     // when that was last done; monotonic
	lostAt      time.Time     // when an old memory first found a loss, for which it waits; monotonic
	gap         Gap
	synced      bool
}

// NewMirror returns an empty mirror of src. Run fills it.
func NewMirror(src Source, o MirrorOptions) *Mirror {
	if o.Relist <= 0 {
		o.Relist = DefaultRelist
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Mirror{
		src:         src,
		relist:      o.Relist,
		log:         o.Log,
		now:         o.Now,
		kick:        make(chan struct{}, 1),
		sessions:    newTable[*Session](),
		containers:  newTable[*Container](),
		launches:    newTable[*Launch](),
		waiters:     map[string][]chan struct{}{},
		subscribers: map[int]func([]Hint){},
	}
}

// relistRetry is the pause after a relist that went wrong, before jitter.
const relistRetry = 500 * time.Millisecond

// Run watches and relists until ctx ends. It outlives outages of the store.
func (m *Mirror) Run(ctx context.Context) error {
	watching := make(chan error, 1)
	go func() {
		watching <- m.src.Watch(ctx, func(hints []Hint) { m.see(ctx, hints) }, m.setDocuments)
	}()
	defer func() { _ = <-watching }()

	timer := time.NewTimer(0)
	defer timer.Stop()
	healthy := true
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-watching:
			watching <- err // for the deferred wait
			return err
		case <-m.kick:
		case <-timer.C:
		}
		next := m.relist
		err := m.readAll(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			next = relistRetry
			if healthy {
				m.log.Warn("store unreadable", "error", err)
			}
		case !healthy:
			m.log.Info("store readable again")
		}
		healthy = err == nil
		timer.Reset(next*4/5 + rand.N(next*2/5+1))
	}
}

// Refresh is one relist, for a driver that steps a mirror in place of Run.
func (m *Mirror) Refresh(ctx context.Context) error { return m.readAll(ctx) }

// See takes in what a Watch has seen, for a driver that steps a mirror in place of Run:
// documents tells whether foreign edits of documents are hinted at.
func (m *Mirror) See(ctx context.Context, hints []Hint, documents bool) {
	m.setDocuments(documents)
	m.see(ctx, hints)
}

// RelistAsked tells whether a relist was asked for since the last call, for a driver that
// steps a mirror in place of Run.
func (m *Mirror) RelistAsked() bool {
	select {
	case <-m.kick:
		return true
	default:
		return false
	}
}

// Relist asks for a relist now.
func (m *Mirror) Relist() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *Mirror) setDocuments(notified bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.documents = notified
}

// DocumentsNotified tells whether foreign edits of documents arrive as hints.
func (m *Mirror) DocumentsNotified() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.documents
}

// see reads what hints name and passes them on to the subscribers.
func (m *Mirror) see(ctx context.Context, hints []Hint) {
	var sessions, containers, launches []string
	pass := make([]Hint, 0, len(hints))
	m.mu.Lock()
	for _, h := range hints {
		known := false
		switch h.Kind {
		case KindSession:
			if known = m.sessions.has(h.ID, h.Rev); !known {
				sessions = append(sessions, h.ID)
			}
		case KindContainer:
			if known = m.containers.has(h.ID, h.Rev); !known {
				containers = append(containers, h.ID)
			}
		case KindLaunch:
			if known = m.launches.has(h.ID, h.Rev); !known {
				launches = append(launches, h.ID)
			}
		case KindAll:
			m.Relist()
		case KindDocument, KindFleet, KindPool, KindLease: // not kept here: passed on
		}
		if !known {
			pass = append(pass, h)
		}
	}
	m.mu.Unlock()

	if _, err := m.read(ctx, sessions, containers, launches); err != nil && ctx.Err() == nil {
		m.log.Warn("hinted records unreadable", "error", err)
		m.Relist()
	}
	m.publish(pass)
}

// read fetches records and applies them, without telling the subscribers. It gives what it
// found.
func (m *Mirror) read(ctx context.Context, sessions, containers, launches []string) (found Records, err error) {
	if len(sessions) > 0 {
		if found.Sessions, err = m.src.SessionsOf(ctx, sessions); err != nil {
			return found, err
		}
	}
	if len(containers) > 0 {
		if found.Containers, err = m.src.ContainersOf(ctx, containers); err != nil {
			return found, err
		}
	}
	if len(launches) > 0 {
		if found.Launches, err = m.src.LaunchesOf(ctx, launches); err != nil {
			return found, err
		}
	}
	ss, cs, ls := found.Sessions, found.Containers, found.Launches
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range ss {
		if !m.contradicts(s) && m.sessions.put(s) {
			m.stir(s.ID)
		}
	}
	for _, c := range cs {
		if !m.contradictsStop(c) {
			m.containers.put(c)
		}
	}
	for _, l := range ls {
		m.launches.put(l)
	}
	// What is missing may have been lost with the store, and only a whole index may say so; but
	// a launch that is old enough was forgotten on purpose.
	for _, id := range launches {
		known, ok := m.launches.byID[id]
		switch {
		case !ok || slices.ContainsFunc(ls, func(l *Launch) bool { return l.ID == id }):
		case m.storeTime.Before(known.CreatedAt.Add(LaunchKept)):
			m.Relist()
		default:
			m.launches.remove(id)
		}
	}
	if len(ss)+len(cs)+len(ls) > 0 {
		m.advance(m.now())
	}
	return found, nil
}

// advance notes a good read now, carrying the store's clock forward. Callers hold mu.
func (m *Mirror) advance(now time.Time) {
	if m.readAt.IsZero() {
		return // the store's clock is not known before the first index
	}
	m.noteGap(now)
	m.storeTime = m.storeTime.Add(now.Sub(m.readAt))
	m.readAt = now
}

// noteGap notes, before a good read counts, how long there was none. Callers hold mu.
func (m *Mirror) noteGap(now time.Time) {
	if d := now.Sub(m.readAt); !m.readAt.IsZero() && d > gapAtLeast {
		m.gap = Gap{From: m.storeTime, Until: m.storeTime.Add(d)}
	}
}

// Gap is a time in which the store was not read: what others tell by way of the store was not
// heard, and they could not tell it.
type Gap struct {
	From, Until time.Time // the store's clock
}

// Gap gives the latest one, or the zero value.
func (m *Mirror) Gap() Gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gap
}

// slowRead is how long a reading of the index may take and still tell the time well.
const slowRead = 2 * time.Second

// setClock takes in that the store read its clock at some moment between before and after. What
// is known of it already stays as far as that allows: an answer that took long, or that nobody
// came to look at, says little. Of the first answer the earliest is taken: a clock that is ahead
// would end sessions too early. Callers hold mu.
func (m *Mirror) setClock(read, before, after time.Time) {
	earliest, latest := read, read.Add(after.Sub(before))
	if m.readAt.IsZero() {
		m.storeTime, m.readAt = earliest, after
	}
	if after.Sub(before) > slowRead {
		m.Relist() // for a clock that is known better
	}
	m.advance(after)
	if m.storeTime.Before(earliest) {
		m.storeTime = earliest
	} else if m.storeTime.After(latest) {
		m.storeTime = latest
	}
}

// readAll is one relist: the index, then only the records that changed. A store that has lost
// data is given back what this mirror remembers, and read again.
func (m *Mirror) readAll(ctx context.Context) error {
	seen := m.highest()
	before := m.now()
	m.setReading(before)
	defer m.setReading(time.Time{})
	index, err := m.src.Index(ctx)
	if err != nil {
		return err
	}
	after := m.now()
	seen = max(seen, index.Seen)

	m.mu.Lock()
	lost := m.lost(index, seen)
	if f := m.filling; f.Incarnation != index.Incarnation || !f.LostAt.Equal(index.LostAt) {
		// What could not be had while the store lost data, or was given it back, may be there now.
		clear(m.sessions.unreadable)
		clear(m.containers.unreadable)
		clear(m.launches.unreadable)
	}
	doubted := m.doubted
	m.doubted = doubts{}
	if m.memoryAge() > maxMemory {
		// What is missing may have left in peace: its records, kept for longer, tell.
		for _, s := range m.sessions.missing(index.Sessions, index.Seq) {
			doubted.sessions = append(doubted.sessions, s.ID)
		}
	}
	sessions := append(m.sessions.stale(index.Sessions), doubted.sessions...)
	containers := append(m.containers.stale(index.Containers), doubted.containers...)
	launches := m.launches.stale(index.Launches)
	m.mu.Unlock()
	if lost != "" {
		switch m.standing(lost, index) {
		case giveBack:
			return m.restore(ctx, lost, seen)
		case waitForOthers:
			return nil
		case yieldToOthers:
			doubted = doubts{} // they are over
		}
	}

	found, err := m.read(ctx, sessions, containers, launches)
	if err != nil {
		return err
	}
	if lost = m.missing(doubted, found); lost != "" {
		return m.restore(ctx, lost, seen)
	}

	m.mu.Lock()
	m.filling, m.seq, m.trouble, m.lostAt = index.Filling, max(m.seq, index.Seq), "", time.Time{}
	if index.Whole && index.LostAt.IsZero() {
		m.knew = index.Seq
	}
	m.tellForgotten(index)
	var hints []Hint
	for _, id := range m.sessions.drop(index.Sessions, index.Seq) {
		m.stir(id)
		hints = append(hints, Hint{Kind: KindSession, ID: id})
	}
	for _, id := range m.containers.drop(index.Containers, index.Seq) {
		hints = append(hints, Hint{Kind: KindContainer, ID: id})
	}
	for _, id := range m.launches.drop(index.Launches, index.Seq) {
		hints = append(hints, Hint{Kind: KindLaunch, ID: id})
	}
	for _, id := range m.sessions.arrived(sessions, index.Sessions) {
		hints = append(hints, Hint{Kind: KindSession, ID: id})
	}
	for _, id := range m.containers.arrived(containers, index.Containers) {
		hints = append(hints, Hint{Kind: KindContainer, ID: id})
	}
	for _, id := range m.launches.arrived(launches, index.Launches) {
		hints = append(hints, Hint{Kind: KindLaunch, ID: id})
	}
	m.noteGap(after)
	m.setClock(index.Time, before, after)
	m.listedFrom, m.listedAt, m.listedIn = before, after, m.now().Sub(before)
	first := !m.synced
	m.synced = true
	m.mu.Unlock()

	if first {
		hints = append(hints, Hint{Kind: KindAll})
	}
	m.publish(hints)
	return nil
}

func (m *Mirror) setReading(began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reading = began
}

// stir wakes whoever awaits the session. Callers hold mu.
func (m *Mirror) stir(id string) {
	for _, c := range m.waiters[id] {
		close(c)
	}
	delete(m.waiters, id)
}

func (m *Mirror) publish(hints []Hint) {
	if len(hints) == 0 {
		return
	}
	m.mu.Lock()
	subscribers := make([]func([]Hint), 0, len(m.subscribers))
	for _, see := range m.subscribers {
		subscribers = append(subscribers, see)
	}
	m.mu.Unlock()
	for _, see := range subscribers {
		see(hints)
	}
}

// Subscribe calls see after each change, with hints at what changed, until cancel is
// called. see runs on the goroutine that made the change: it must return at once and must
// not call back into a write.
func (m *Mirror) Subscribe(see func([]Hint)) (cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nextSub
	m.nextSub++
	m.subscribers[n] = see
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subscribers, n)
	}
}

// ApplySession takes in what a write of this replica returned.
func (m *Mirror) ApplySession(s *Session) {
	if s == nil {
		return
	}
	m.mu.Lock()
	changed := !m.contradicts(s) && m.sessions.put(s)
	if changed {
		m.stir(s.ID)
	}
	m.mu.Unlock()
	if changed {
		m.publish([]Hint{{Kind: KindSession, ID: s.ID, Rev: s.Rev}})
	}
}

// ApplyContainer takes in what a write of this replica returned.
func (m *Mirror) ApplyContainer(c *Container) {
	if c == nil {
		return
	}
	m.mu.Lock()
	changed := !m.contradictsStop(c) && m.containers.put(c)
	m.mu.Unlock()
	if changed {
		m.publish([]Hint{{Kind: KindContainer, ID: c.ID, Rev: c.Rev}})
	}
}

// ApplyLaunch takes in what a write of this replica returned.
func (m *Mirror) ApplyLaunch(l *Launch) {
	if l == nil {
		return
	}
	m.mu.Lock()
	changed := m.launches.put(l)
	m.mu.Unlock()
	if changed {
		m.publish([]Hint{{Kind: KindLaunch, ID: l.ID, Rev: l.Rev}})
	}
}

// DropLaunch takes in that this replica has forgotten a launch.
func (m *Mirror) DropLaunch(id string) {
	m.mu.Lock()
	m.launches.remove(id)
	m.mu.Unlock()
	m.publish([]Hint{{Kind: KindLaunch, ID: id}})
}

// Session gives the mirrored session of that id.
func (m *Mirror) Session(id string) (*Session, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions.byID[id]
	return s, ok
}

// Container gives the mirrored container of that id.
func (m *Mirror) Container(id string) (*Container, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.containers.byID[id]
	return c, ok
}

// Launch gives the mirrored launch of that id.
func (m *Mirror) Launch(id string) (*Launch, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.launches.byID[id]
	return l, ok
}

// Sessions lists the mirrored sessions, sorted by id.
func (m *Mirror) Sessions() []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions.list()
}

// Containers lists the mirrored containers, sorted by id.
func (m *Mirror) Containers() []*Container {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.containers.list()
}

// Launches lists the mirrored launches, sorted by id.
func (m *Mirror) Launches() []*Launch {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.launches.list()
}

// Await waits until done says so of the session's record, and returns that. done is asked at
// once and after each change, with nil while the session is unknown. When ctx ends first, its
// error is returned with the latest record, which may be nil.
func (m *Mirror) Await(ctx context.Context, id string, done func(*Session) bool) (*Session, error) {
	for {
		m.mu.Lock()
		s := m.sessions.byID[id]
		if done(s) {
			m.mu.Unlock()
			return s, nil
		}
		changed := make(chan struct{})
		m.waiters[id] = append(m.waiters[id], changed)
		m.mu.Unlock()

		select {
		case <-changed:
		case <-ctx.Done():
			m.forget(id, changed)
			return s, ctx.Err()
		}
	}
}

// forget removes a waiter that gave up.
func (m *Mirror) forget(id string, waiter chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.waiters[id][:0]
	for _, c := range m.waiters[id] {
		if c != waiter {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		delete(m.waiters, id)
		return
	}
	m.waiters[id] = kept
}

// Now is the store's clock, carried forward on this process's monotonic one. Zero before the
// first good read.
func (m *Mirror) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.readAt.IsZero() {
		return time.Time{}
	}
	return m.storeTime.Add(m.now().Sub(m.readAt))
}

// Age is the time since the store was last read without error; a day before the first time.
func (m *Mirror) Age() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.synced {
		return 24 * time.Hour
	}
	return m.now().Sub(m.readAt)
}

// ListedSince tells whether the store was read as a whole by a reading that began at t or later, on
// this process's monotonic clock: everything that was written before t is in this view then.
func (m *Mirror) ListedSince(t time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced && !m.listedFrom.Before(t)
}

// Listing tells when the last reading of the store as a whole began, on this process's monotonic
// clock, and how long it took, or the one under way has taken if that is longer (each call of it is
// bounded: it would have failed if the store did not answer); the zero time: there was none. Whoever gives a store back what it has
// lost, which can take longer than a reading, reaches it meanwhile: then that counts.
func (m *Mirror) Listing() (from time.Time, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from = m.listedFrom
	if m.gaveBack.After(from) {
		from = m.gaveBack
	}
	if m.givingBack {
		from = m.now()
	}
	took = m.listedIn
	if !m.reading.IsZero() {
		took = max(took, m.now().Sub(m.reading))
	}
	return from, took
}

// Synced tells whether the store was ever read as a whole.
func (m *Mirror) Synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}
