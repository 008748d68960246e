package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	recordTimeout  = 5 * time.Second
	reportInterval = 4500 * time.Millisecond // containers report every 5 s
	activityGrain  = 15 * time.Second        // of lastActivity alone
	graceGrain     = 2 * time.Second
	// maxTries bounds the attempts at a write that the store answers with an error that
	// nobody foresaw: one bad record must not hold up all that follow.
	maxTries = 5
)

// fact is something to be written down, in the order in which it was learnt.
type fact struct {
	kind    factKind
	session string
	bindRev int64
	cold    bool
	reason  state.Reason
	message string
}

type factKind int

const (
	factReady    factKind = iota
	factRefused           // the container cannot serve the session and holds nothing of it
	factRejected          // no container could serve the session: its wishes are at fault
	factEnded             // the container holds nothing of the session any more
	factDrain             // the container drains by itself
	factLost              // the link is lost; message is the task's ARN
	factEnd               // a limit of the session's life is reached, for which reason names it
	factJudge             // ask the store whether the container may keep the session
)

// verdict says that the container must let go of a session.
type verdict struct {
	bindRev int64
	reason  state.Reason
}

// recorder writes down what a link learns, so that the socket never waits for the store.
// While the store is silent it keeps everything that happened and tries again.
type recorder struct {
	// set once in newRecorder
	link *link
	work chan struct{}   // holds one
	hard context.Context //nolint:containedctx // bounds the store's calls; ends after finish's grace
	kill context.CancelFunc

	mu       sync.Mutex // guards the following
	facts    []fact
	latest   *reportFact
	stopping bool
	stopped  chan struct{} // closed when run has returned
	sentence map[string]verdict

	// owned by run
	reportedAt time.Time
	drainAck   int64
	sessions   int
	warm       int
	touched    map[string]activity
	unknown    map[string]bool // sessions that the store does not know, told of once
	triedAt    time.Time       // the store's clock, when the first of facts was tried first; zero: not yet
}

// reportFact is the latest report, which alone is of interest.
type reportFact struct {
	report   state.Report
	sessions []wire.SessionReport
	at       time.Time
	urgent   bool
}

// activity is what was last written down of a session's clients.
type activity struct {
	bindRev    int64
	attached   int
	connected  bool
	active     time.Time
	graceUntil time.Time // zero: not running
}

func newRecorder(l *link) *recorder {
	r := &recorder{
		link: l, work: make(chan struct{}, 1), stopped: make(chan struct{}),
		sentence: map[string]verdict{}, touched: map[string]activity{}, unknown: map[string]bool{},
		drainAck: -1,
	}
	r.hard, r.kill = context.WithCancel(context.WithoutCancel(l.ctx))
	return r
}

// add has a fact written down.
func (r *recorder) add(f fact) {
	r.mu.Lock()
	r.facts = append(r.facts, f)
	r.mu.Unlock()
	r.signal()
}

// report has a report written down, unless the next one comes before its turn.
func (r *recorder) report(report state.Report, sessions []wire.SessionReport, urgent bool) {
	r.mu.Lock()
	if r.latest != nil {
		urgent = urgent || r.latest.urgent
	}
	r.latest = &reportFact{report: report, sessions: sessions, at: time.Now(), urgent: urgent}
	r.mu.Unlock()
	r.signal()
}

func (r *recorder) signal() {
	select {
	case r.work <- struct{}{}:
	default:
	}
}

// takeVerdicts gives the verdicts since the last call.
func (r *recorder) takeVerdicts() map[string]verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sentence) == 0 {
		return nil
	}
	taken := r.sentence
	r.sentence = map[string]verdict{}
	return taken
}

// finish lets run end once everything is written down, within grace, and waits for it.
func (r *recorder) finish(grace time.Duration) {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	r.signal()
	timer := time.AfterFunc(grace, r.kill)
	defer timer.Stop()
	<-r.stopped
}

// run writes facts down until finish.
func (r *recorder) run() {
	defer close(r.stopped)
	defer r.kill()
	pause, tries := newBackoff(), 0
	for {
		f, report, stopping := r.next()
		var err error
		switch {
		case f != nil:
			if err = r.write(*f); err == nil {
				r.drop()
			}
		case report != nil:
			err = r.writeReport(report)
		case stopping:
			return
		default:
			select {
			case <-r.work:
			case <-r.hard.Done():
				return
			}
			continue
		}
		switch {
		case err == nil:
			pause, tries = newBackoff(), 0
		case r.hard.Err() != nil:
			return
		case errors.Is(err, state.ErrFenced) && r.evicted():
			r.link.stop(err)
			return
		case f != nil && !silent(err) && !errors.Is(err, state.ErrFenced) && tries >= maxTries:
			r.link.log.Error("fact not written: given up", "session", f.session, "error", err)
			r.drop()
			tries = 0
		default:
			if errors.Is(err, state.ErrRolledBack) {
				r.link.links.cfg.Mirror.Relist()
			}
			if tries++; tries == 1 {
				r.link.log.Warn("store not written: trying again", "error", err)
			}
			pause.wait(r.hard, nil)
		}
	}
}

// next gives what to write down: the first fact, else the latest report.
func (r *recorder) next() (*fact, *reportFact, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.facts) > 0 {
		f := r.facts[0]
		return &f, nil, r.stopping
	}
	report := r.latest
	r.latest = nil
	return nil, report, r.stopping
}

func (r *recorder) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts = r.facts[1:]
	r.triedAt = time.Time{}
}

// write writes one fact down. An error says that it is not written yet.
func (r *recorder) write(f fact) error {
	ctx, cancel := context.WithTimeout(r.hard, recordTimeout)
	defer cancel()
	store, mirror := r.link.links.cfg.Store, r.link.links.cfg.Mirror
	var s *state.Session
	var err error
	switch f.kind {
	case factReady:
		s, err = r.readied(ctx, f)
		if refused(err) && !r.denied(err, f.session) {
			return r.judge(ctx, f)
		}
	case factRefused:
		s, err = store.Refuse(ctx, r.link.by, f.session, f.bindRev, f.message)
		if refused(err) && !r.denied(err, f.session) {
			err = r.release(ctx, f.session)
		}
	case factRejected:
		s, err = store.End(ctx, r.link.by, state.End{
			Session: f.session, BindRev: f.bindRev, Reason: state.Failed, Message: f.message, Confirmed: true,
		})
		if refused(err) && !r.denied(err, f.session) {
			err = r.release(ctx, f.session)
		}
	case factEnded:
		s, err = r.end(ctx, f)
	case factEnd:
		s, err = store.End(ctx, r.link.by, state.End{Session: f.session, BindRev: f.bindRev, Reason: f.reason, Message: f.message})
	case factDrain:
		var c *state.Container
		c, err = store.Drain(ctx, r.link.by, r.link.id, r.link.bootID)
		if err == nil {
			mirror.ApplyContainer(c)
			r.link.log.Info("container draining", "because", "it was told to stop")
		}
	case factLost:
		// Only a hint: if it is lost, the next look at the tasks finds the same.
		if err := store.Wake(ctx, state.Hint{Kind: state.KindFleet, ID: f.message}); err != nil {
			r.link.log.Warn("leader not woken", "error", err)
		}
	case factJudge:
		return r.judge(ctx, f)
	}
	if r.denied(err, f.session) {
		return fmt.Errorf("%w: %w", state.ErrRolledBack, err)
	}
	if err == nil && s != nil {
		mirror.ApplySession(s)
		r.link.log.Info("session recorded", "session", s.ID, "phase", string(s.Phase), "reason", string(s.Reason), "refused", s.Refused)
	}
	if refused(err) {
		return nil
	}
	return err
}

// readied records that a session has its browser, and observes once how long its start took.
// The store knows which write made the session ready. Of a write whose answer was lost it says
// so to nobody: then the session's own time tells, as only the owner may write it.
func (r *recorder) readied(ctx context.Context, f fact) (*state.Session, error) {
	mirror := r.link.links.cfg.Mirror
	if known, ok := mirror.Session(f.session); r.triedAt.IsZero() && ok && known.Phase == state.Bound && known.BindRev == f.bindRev {
		r.triedAt = mirror.Now()
	}
	s, first, err := r.link.links.cfg.Store.Ready(ctx, r.link.by, f.session, f.bindRev, f.cold)
	if err != nil {
		return nil, err
	}
	if first || !r.triedAt.IsZero() && !s.ReadyAt.Before(r.triedAt.Truncate(time.Millisecond)) {
		r.link.links.metrics.readied(s)
	}
	return s, nil
}

// denied tells whether the store denies a session that is mirrored as live: it has lost it,
// and what is to be written of it must wait until it is back.
func (r *recorder) denied(err error, session string) bool {
	if !errors.Is(err, state.ErrNotFound) {
		return false
	}
	mirror := r.link.links.cfg.Mirror
	s, known := mirror.Session(session)
	if !known || s.Phase == state.Ended {
		return false
	}
	mirror.Doubt(state.KindSession, session)
	return true
}

// evicted asks whether the container has another owner or another life, or is gone, after the
// store has refused a write as fenced. A store that knows no such container has lost its
// memory: that ends no link.
func (r *recorder) evicted() bool {
	ctx, cancel := context.WithTimeout(r.hard, recordTimeout)
	defer cancel()
	c, err := r.link.links.cfg.Store.Container(ctx, r.link.id)
	if errors.Is(err, state.ErrNotFound) {
		r.link.links.cfg.Mirror.Doubt(state.KindContainer, r.link.id)
	}
	if err != nil {
		return false
	}
	r.link.links.cfg.Mirror.ApplyContainer(c)
	return c.OwnerSeq != r.link.seq || c.BootID != r.link.bootID || c.Phase == state.Gone
}

// silent tells whether the store has not answered, or cannot now.
func silent(err error) bool {
	return errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrRolledBack) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// refused tells whether the store has answered, and the answer is no.
func refused(err error) bool {
	return errors.Is(err, state.ErrConflict) || errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrInvalid)
}

// end records that the container holds nothing of a session any more.
func (r *recorder) end(ctx context.Context, f fact) (*state.Session, error) {
	store := r.link.links.cfg.Store
	known, ok := r.link.links.cfg.Mirror.Session(f.session)
	if ok && known.Phase == state.Bound && known.BindRev == f.bindRev && failure(f.reason) {
		// Before the first ready nothing is lost yet: another container may serve it.
		why := f.message
		if why == "" {
			why = "the container gave it up: " + string(f.reason)
		}
		s, err := store.Refuse(ctx, r.link.by, f.session, f.bindRev, why)
		if !refused(err) {
			return s, err
		}
	}
	s, err := store.End(ctx, r.link.by, state.End{
		Session: f.session, BindRev: f.bindRev, Reason: f.reason, Message: f.message, Confirmed: true,
	})
	if refused(err) && !r.denied(err, f.session) {
		return nil, r.release(ctx, f.session)
	}
	return s, err
}

// failure tells whether a reason is the container's fault and not the session's own end.
func failure(reason state.Reason) bool {
	switch reason {
	case state.Failed, state.BrowserCrashed, state.ContainerLost, state.StoppedExternally, state.Shutdown:
		return true
	default:
		return false
	}
}

// release frees the slot of a session that is bound elsewhere, or over.
func (r *recorder) release(ctx context.Context, session string) error {
	if c, ok := r.link.links.cfg.Mirror.Container(r.link.id); ok {
		if s, known := r.link.links.cfg.Mirror.Session(session); known && s.Phase == state.Ended && !slices.Contains(c.Slots, session) {
			return nil // the end has freed it
		}
	}
	return r.link.links.cfg.Store.Release(ctx, r.link.by, r.link.id, session)
}

// judge asks the store whether the container may keep a session under a binding, and leaves
// a verdict if not.
func (r *recorder) judge(ctx context.Context, f fact) error {
	mirror := r.link.links.cfg.Mirror
	s, err := r.link.links.cfg.Store.Session(ctx, f.session)
	switch {
	case r.denied(err, f.session):
		return fmt.Errorf("%w: %w", state.ErrRolledBack, err)
	case errors.Is(err, state.ErrNotFound):
		// The store remembers ended sessions longer than any browser lives: one that it does
		// not know was lost with the store's data, and its client may well be at work. It is
		// kept; its container ends it at its deadline.
		if !r.unknown[f.session] {
			r.unknown[f.session] = true
			r.link.log.Warn("session kept that the store does not know: has the store lost data?", "session", f.session)
		}
		return nil
	case err != nil:
		return err
	}
	delete(r.unknown, f.session)
	mirror.ApplySession(s)
	if s.BoundTo(r.link.id, r.link.bootID) && s.BindRev >= f.bindRev && s.Refused == "" {
		return nil
	}
	if s.Rev < f.bindRev {
		return nil // the store is older than the binding: it was rolled back
	}
	r.sentenceTo(f, s.Reason)
	return nil
}

func (r *recorder) sentenceTo(f fact, reason state.Reason) {
	delete(r.unknown, f.session)
	r.mu.Lock()
	r.sentence[f.session] = verdict{bindRev: f.bindRev, reason: reason}
	r.mu.Unlock()
	r.link.wake()
}

// writeReport writes a report down if it is time, and what it says of clients if that has
// changed. A report that cannot be written is not tried again: the next one is better.
func (r *recorder) writeReport(f *reportFact) error {
	ctx, cancel := context.WithTimeout(r.hard, recordTimeout)
	defer cancel()
	store := r.link.links.cfg.Store
	due := f.urgent || time.Since(r.reportedAt) >= reportInterval ||
		f.report.DrainAck != r.drainAck || f.report.Health.Sessions != r.sessions || f.report.Health.Warm != r.warm
	if due {
		c, err := store.Report(ctx, r.link.by, f.report)
		switch {
		case errors.Is(err, state.ErrConflict):
			return errors.Join(state.ErrFenced, err) // gone, or another life
		case errors.Is(err, state.ErrNotFound):
			r.link.links.cfg.Mirror.Doubt(state.KindContainer, r.link.id)
			r.link.log.Warn("report not taken", "error", err)
			return nil
		case refused(err):
			r.link.log.Warn("report not taken", "error", err)
			return nil
		case err != nil:
			r.again(f)
			return err
		}
		r.reportedAt, r.drainAck, r.sessions, r.warm = time.Now(), f.report.DrainAck, f.report.Health.Sessions, f.report.Health.Warm
		r.link.links.cfg.Mirror.ApplyContainer(c)
	}
	changed, after := r.changes(f)
	if len(changed) == 0 {
		return nil
	}
	err := store.Touch(ctx, r.link.by, changed)
	if err == nil || refused(err) {
		r.touched = after
		return nil
	}
	r.again(f)
	return err
}

// again puts a report back, urgently, unless there is a newer one.
func (r *recorder) again(f *reportFact) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latest == nil {
		r.latest = f
	}
	r.latest.urgent = true
}

// changes gives what is worth writing down of the sessions' clients, and what will then have
// been written.
func (r *recorder) changes(f *reportFact) ([]state.Activity, map[string]activity) {
	var changed []state.Activity
	after := make(map[string]activity, len(f.sessions))
	late := time.Since(f.at)
	for _, s := range f.sessions {
		if !state.ValidID(s.SessionID) || s.Phase == wire.Starting {
			continue
		}
		idle := time.Duration(max(0, s.Idle)) * time.Millisecond
		now := activity{bindRev: s.BindRev, attached: s.Attached, connected: s.Connected, active: f.at.Add(-idle)}
		if s.GraceLeft >= 0 {
			now.graceUntil = f.at.Add(time.Duration(s.GraceLeft) * time.Millisecond)
		}
		last, known := r.touched[s.SessionID]
		if known && last.same(now) {
			after[s.SessionID] = last
			continue
		}
		after[s.SessionID] = now
		a := state.Activity{
			Session: s.SessionID, BindRev: s.BindRev, Attached: max(0, s.Attached), Connected: s.Connected,
			IdleFor: idle + late, GraceRunning: s.GraceLeft >= 0,
		}
		if a.GraceRunning {
			a.GraceLeft = max(0, time.Until(now.graceUntil))
		}
		changed = append(changed, a)
	}
	return changed, after
}

// same tells whether b says nothing new.
func (a activity) same(b activity) bool {
	return a.bindRev == b.bindRev && a.attached == b.attached && a.connected == b.connected &&
		b.active.Sub(a.active) < activityGrain &&
		a.graceUntil.IsZero() == b.graceUntil.IsZero() && a.graceUntil.Sub(b.graceUntil).Abs() < graceGrain
}
