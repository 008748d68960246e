package proxy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// DESTROY is said again while the container still lists the session, and without a word of
// its own the container is believed after a while.
const (
	v1DestroyAgain = 10 * time.Second
	v1BelieveStore = 15 * time.Second
	v1AskAgain     = time.Second
)

// v1Order is what the service has ordered and learnt of one session of a v1 container.
type v1Order struct {
	created     bool // CREATE_SESSION was sent, by us or by an owner before us: never again
	createdOn   *v1Line
	createdAt   time.Time
	unsure      bool // nobody saw an answer to the order: the store tells
	readied     bool // its READY has been passed on
	adopted     bool // was bound before this link began
	expired     bool // a limit of its life was reported as reached
	destroyedAt time.Time
	firstAt     time.Time // of the first DESTROY
	reason      state.Reason
	askedAt     time.Time // the store
	probedAt    time.Time
	judgedAt    time.Time
	verify      bool // it is to be asked soon whether it holds the session
	ended       bool // its end was passed on
	failure     string
}

// v1Question asks the store about a session; an empty session asks for the number of all.
type v1Question struct{ session string }

type v1Reply struct {
	session string
	has     bool
	count   int
	err     error
}

// askStore answers questions about what the container has written down.
func (l *v1Line) askStore(ctx context.Context, questions []v1Question) []v1Reply {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	replies := make([]v1Reply, 0, len(questions))
	for _, q := range questions {
		r := v1Reply{session: q.session}
		if q.session == "" {
			r.count, r.err = l.cfg.Slots.V1Count(ctx, l.id)
		} else {
			r.has, r.err = l.cfg.Slots.V1Has(ctx, l.id, q.session)
		}
		replies = append(replies, r)
		if r.err != nil {
			break // the store is away: the rest is asked again
		}
	}
	return replies
}

// heed takes a notice of the container's in.
func (l *v1Line) heed(n wire.NoticeV1) {
	if n.Type == wire.HealthUpdate {
		l.cpu.add(n.CPUUsage, time.Now())
		l.memory = min(1, max(0, n.MemoryUsage))
		return
	}
	s := l.env.session([]byte(n.SessionID))
	if s == nil {
		l.links.envMetrics.drop(dropStranger)
		if n.Type == wire.SessionReady && state.ValidID(n.SessionID) {
			// Whatever it holds there, it must not, unless the store knows better.
			l.env.put(n.SessionID, 0, v1Over)
			l.links.hold(n.SessionID, l.id)
		}
		return
	}
	switch n.Type {
	case wire.SessionReady:
		l.heedReady(s)
	case wire.SessionError:
		l.heedError(s, clip(n.Error))
	case wire.SessionTimeout:
		l.heedTimeout(s)
	}
}

func (l *v1Line) heedReady(s *v1Session) {
	switch s.standing() {
	case v1Starting:
		if !s.order.createdAt.IsZero() {
			l.links.metrics.started(true, time.Since(s.order.createdAt))
		}
		l.readied(s)
	case v1Over:
		s.order.destroyedAt = time.Time{} // created behind our DESTROY: once more
	case v1Serving, v1Dormant:
	}
}

// readied notes that the session has a browser.
func (l *v1Line) readied(s *v1Session) {
	s.enter(v1Serving)
	s.order.unsure = false
	if !s.order.readied {
		s.order.readied = true
		l.rec.add(fact{kind: factReady, session: s.id, bindRev: s.bindRev, cold: true})
	}
}

func (l *v1Line) heedError(s *v1Session, why string) {
	s.mu.Lock()
	st, again := s.state, s.again
	s.mu.Unlock()
	if why == "" {
		why = "the container gave no reason"
	}
	switch {
	case (st == v1Over || st == v1Serving) && saysNotFound([]byte(why)):
		s.mu.Lock()
		s.absent = true // the next look at it sees to that
		s.mu.Unlock()
		s.order.failure = why
	case st == v1Over:
	case st == v1Starting && !again:
		s.enter(v1Over)
		s.order.ended = true
		l.rec.add(fact{kind: factRefused, session: s.id, bindRev: s.bindRev, message: why})
	case st == v1Starting:
		l.lost(s, state.Failed, why, errorNotice(s.id, why))
	default:
		// Its browser may live on. The answer to a keepalive tells.
		s.order.failure = why
		s.tell(errorNotice(s.id, why))
		s.order.verify = true
	}
}

func (l *v1Line) heedTimeout(s *v1Session) {
	s.mu.Lock()
	st, connected := s.state, s.connected
	s.mu.Unlock()
	switch {
	case st != v1Serving:
	case connected:
		l.lost(s, state.Idle, "its container ended it for want of commands", timeoutNotice(s.id))
	default:
		l.log.Info("session asleep", "session", s.id, "because", "it timed out before anybody came")
		s.order.created = false
		s.enter(v1Dormant)
	}
}

// lost records that the container holds nothing of the session any more.
func (l *v1Line) lost(s *v1Session, reason state.Reason, why string, last ...[]byte) {
	if s.order.ended {
		return
	}
	s.order.ended = true
	s.enter(v1Over)
	code, text := closingV1(reason)
	s.end(code, text, last...)
	l.rec.add(fact{kind: factEnded, session: s.id, bindRev: s.bindRev, reason: reason, message: why})
}

// advance orders what it takes to make the container hold what it should, and reports.
// Until it has spoken, nothing is known of it.
func (l *v1Line) advance() error {
	c, ok := l.container()
	if !ok || !l.opened {
		return nil
	}
	now := time.Now()
	verdicts := l.rec.takeVerdicts()
	var questions []v1Question
	starting := false
	var create []*state.Session
	for _, id := range l.concernedV1(c) {
		s, ok := l.links.cfg.Mirror.Session(id)
		var err error
		var question bool
		if ok && s.BoundTo(l.id, l.bootID) && s.Refused == "" {
			var wanted bool
			wanted, question, err = l.alignV1(s, now)
			if wanted {
				create = append(create, s)
			}
			starting = starting || s.Phase == state.Bound
		} else {
			question, err = l.clearV1(c, id, verdicts, now)
		}
		if err != nil {
			return err
		}
		if question {
			questions = append(questions, v1Question{session: id})
		}
	}
	// Among several bindings of a moment the first bound is the first served.
	slices.SortFunc(create, func(a, b *state.Session) int { return cmp.Compare(a.BindRev, b.BindRev) })
	for _, s := range create {
		if err := l.createV1(l.env.session([]byte(s.ID)), s); err != nil {
			return err
		}
	}
	if c.Phase == state.Draining && l.drainSeen != c.DrainSeq {
		l.drainSeen = c.DrainSeq
		l.rested.reset() // what was seen before binding was closed proves nothing
	}
	if l.empty(c, starting) {
		questions = append(questions, v1Question{})
	}
	if len(questions) > 0 && !l.asking {
		l.asking = true
		l.ask <- questions // holds one, and none is in it
	}
	if now.Sub(l.forgotAt) > time.Minute {
		l.forgotAt = now
		for _, s := range l.env.all() {
			s.forget(now)
		}
	}
	urgent := l.reported.IsZero() || c.Phase == state.PendingVerification && now.Sub(l.reported) >= v1AskAgain
	if urgent || now.Sub(l.reported) >= reportInterval || l.news.Swap(false) {
		l.reportV1(c.DrainAck, urgent)
	}
	return nil
}

// concernedV1 lists the sessions that the container has to do with, or should have.
func (l *v1Line) concernedV1(c *state.Container) []string {
	ids := slices.Clone(c.Slots)
	for _, s := range l.env.all() {
		ids = append(ids, s.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// alignV1 brings a session that is bound here in line with its record. create tells that it is
// to be created, question that the store is to be asked about it.
func (l *v1Line) alignV1(r *state.Session, now time.Time) (create, question bool, err error) {
	s := l.env.session([]byte(r.ID))
	if s == nil || s.bindRev != r.BindRev {
		s = l.adopt(r)
	}
	s.mu.Lock()
	s.keepAlive = r.KeepAlive
	st, absent := s.state, s.absent
	s.mu.Unlock()
	o := &s.order
	switch {
	case r.Phase == state.Ending:
		question, err = l.destroyV1(s, r.Reason, now)
		return false, question, err
	case st == v1Over:
		return false, false, nil // what became of it is on its way to the store
	case r.Phase == state.Ready && st == v1Starting && o.created && !s.isAgain():
		o.readied = true // somebody has seen its READY
		l.readied(s)
	case st == v1Starting && !o.created:
		return true, false, nil
	case st == v1Starting && s.isAgain():
		if now.Sub(o.createdAt) > startLimit {
			l.lost(s, state.Failed, "its container did not start it again", errorNotice(s.id, "the browser did not start"))
		}
	case st == v1Starting:
		// A CREATE whose answer went to a socket that is gone: the container's notes tell.
		if o.createdOn != l {
			o.unsure = true
		}
		return false, o.unsure && l.due(&o.askedAt, v1AskAgain, now), nil
	case absent:
		l.missing(s)
		return false, false, nil
	}
	return false, false, l.timesV1(s, r, now)
}

// startLimit is how long a session that is created again may take.
const startLimit = 30 * time.Second

// adopt makes a session known that is bound to the container. One that was bound before this
// link began may have been created by another owner, and is never created again.
func (l *v1Line) adopt(r *state.Session) *v1Session {
	if old := l.env.session([]byte(r.ID)); old != nil {
		l.env.drop(r.ID)
	}
	s := l.env.put(r.ID, r.BindRev, v1Starting)
	l.links.hold(r.ID, l.id)
	o := &s.order
	o.adopted = r.BindRev <= l.since
	o.created, o.unsure = o.adopted || r.Phase != state.Bound, true
	if r.Phase == state.Bound {
		return s
	}
	o.readied = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.connected = v1Serving, !r.FirstConnectAt.IsZero()
	if s.connected {
		s.graceUntil = time.Now().Add(l.links.cfg.LostGrace)
	}
	return s
}

func (l *v1Line) createV1(s *v1Session, r *state.Session) error {
	o := &s.order
	o.created, o.createdOn, o.createdAt, o.unsure = true, l, time.Now(), false
	l.rested.reset()
	order := wire.OrderV1{Type: wire.CreateSession, SessionID: r.ID, UserID: r.UserID, Options: json.RawMessage("{}")}
	if spec, err := state.ParseSpec(r.ID, r.Spec); err == nil && len(spec.BrowserSettings) > 0 &&
		!bytes.Equal(spec.BrowserSettings, []byte("null")) {
		order.Options = spec.BrowserSettings
	}
	return l.orderV1(order)
}

func (l *v1Line) orderV1(order wire.OrderV1) error {
	text, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", order.Type, err)
	}
	return l.env.order(l.conn, bytes.ToValidUTF8(text, []byte("\uFFFD")))
}

// missing deals with a serving session of which the container says that it does not hold it.
func (l *v1Line) missing(s *v1Session) {
	s.mu.Lock()
	connected := s.connected
	s.absent = false
	s.mu.Unlock()
	if !connected {
		s.order.created = false
		s.enter(v1Dormant)
		return
	}
	why := s.order.failure
	if why == "" {
		why = "its container does not hold it any more"
	}
	l.lost(s, state.BrowserCrashed, why)
}

// destroyV1 has the container let go of a session. The store is asked whether it has.
func (l *v1Line) destroyV1(s *v1Session, reason state.Reason, now time.Time) (question bool, err error) {
	o := &s.order
	if s.standing() != v1Over {
		s.enter(v1Over)
	}
	o.reason = reason
	if o.destroyedAt.IsZero() {
		if reason == "" {
			o.reason = state.Failed
		}
		code, text := closingV1(o.reason)
		s.end(code, text)
	}
	if o.destroyedAt.IsZero() || now.Sub(o.destroyedAt) >= v1DestroyAgain {
		o.destroyedAt = now
		if o.firstAt.IsZero() {
			o.firstAt = now
		}
		s.mu.Lock()
		s.absent = false
		s.mu.Unlock()
		if err := l.orderV1(wire.OrderV1{Type: wire.DestroySession, SessionID: s.id}); err != nil {
			return false, err
		}
		// Its notes may have been wiped: it is asked itself, too.
		if err := s.probe(); err != nil {
			return false, err
		}
	} else if l.due(&o.probedAt, v1AskAgain, now) {
		if err := s.probe(); err != nil {
			return false, err
		}
	}
	return !o.ended && l.due(&o.askedAt, v1AskAgain/4, now), nil
}

// clearV1 sees to a session that is not bound here, as far as the mirror knows: if the store
// says the same, the container must let go of it, and its slot becomes free once it has.
func (l *v1Line) clearV1(c *state.Container, id string, verdicts map[string]verdict, now time.Time) (question bool, err error) {
	s := l.env.session([]byte(id))
	_, slot := slices.BinarySearch(c.Slots, id)
	if s != nil && !slot && (s.order.ended || !s.order.created && s.bindRev != 0) {
		l.env.drop(id)
		l.links.unhold(id, l.id)
		return false, nil
	}
	if s == nil {
		s = l.env.put(id, 0, v1Over)
		l.links.hold(id, l.id)
	}
	o := &s.order
	if o.firstAt.IsZero() {
		if v, ok := verdicts[id]; !ok || v.bindRev != s.bindRev {
			if l.due(&o.judgedAt, judgeInterval, now) {
				l.rec.add(fact{kind: factJudge, session: id, bindRev: s.bindRev})
			}
			return false, nil
		}
		return l.destroyV1(s, verdicts[id].reason, now)
	}
	return l.destroyV1(s, o.reason, now)
}

// due tells whether it is time again, and notes that it was done.
func (l *v1Line) due(last *time.Time, every time.Duration, now time.Time) bool {
	if now.Sub(*last) < every {
		return false
	}
	*last = now
	return true
}

// settleReplies takes in what the store knows.
func (l *v1Line) settleReplies(replies []v1Reply) {
	for _, r := range replies {
		if r.err != nil {
			continue // asked again
		}
		if r.session == "" {
			l.settleDrain(r.count)
			continue
		}
		s := l.env.session([]byte(r.session))
		if s == nil {
			continue
		}
		o := &s.order
		switch st := s.standing(); {
		case st == v1Starting && o.unsure && r.has:
			l.readied(s)
		case st == v1Over && !o.ended && !o.firstAt.IsZero() && !r.has && l.believed(s):
			o.ended = true
			l.rec.add(fact{kind: factEnded, session: s.id, bindRev: s.bindRev, reason: o.reason})
		}
	}
}

// believed tells whether the container's notes are to be believed that say that a session is
// gone: it has said so itself, or had its time to contradict.
func (l *v1Line) believed(s *v1Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.links.cfg.Mirror.Trouble() == "" && (s.absent || time.Since(s.order.firstAt) >= v1BelieveStore)
}
