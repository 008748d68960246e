package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// Violation is a promise that was broken.
type Violation struct {
	Rule string // I1 …, C1 …
	Text string
	At   time.Duration
}

func (v *Violation) Error() string { return fmt.Sprintf("%s broken: %s", v.Rule, v.Text) }

// checker compares what is done with what is true. It trusts nothing that the controller, plan
// or the store says of itself.
type checker struct {
	w      *World
	broken *Violation

	losses    losses
	readyAt   map[string]readiness
	boundAt   map[string]time.Duration // when a session was bound last, by it and its container
	ended     map[string]time.Duration // sessions that are over, since when
	stops     map[string]time.Duration // containers past the point of no return, since when
	expired   map[string]time.Duration // launches that were given up, since when
	reigns    []reign                  // in the order of their epochs
	blindTo   time.Duration
	leaseLost time.Duration
	freeSince time.Duration            // since when a session waits beside a free slot; zero: none does
	overSince time.Duration            // since when there are more tasks than allowed; zero: there are not
	byLeader  map[string]bool          // containers that a leader drained
	left      map[string]time.Duration // containers that were ready, since when they are so no more; zero: they are
	scanned   time.Duration
	since     map[string]time.Duration // see lasting

	former    time.Time        // when the leader before has listed all documents, as this one was told
	sightings map[string]sight // of documents by this leader
}

// readiness is the one container, and its life, on which a session was ever ready.
type readiness struct {
	on string
	at time.Duration
}

// reign is an epoch that was higher than all before.
type reign struct {
	epoch int64
	at    time.Duration
}

// sight is what a leader has seen of a document.
type sight struct {
	epoch  int64         // under which lease
	found  time.Duration // when the last reading began that found it; zero: none
	missed time.Duration // when it was first asked for since and was not there; zero: it was not
}

func newChecker(w *World) *checker {
	return &checker{w: w, since: map[string]time.Duration{}, byLeader: map[string]bool{}, left: map[string]time.Duration{}, losses: losses{w: w}, readyAt: map[string]readiness{}, boundAt: map[string]time.Duration{}, ended: map[string]time.Duration{}, stops: map[string]time.Duration{}, expired: map[string]time.Duration{}, sightings: map[string]sight{}, leaseLost: -time.Hour}
}

func (k *checker) violate(rule, format string, args ...any) {
	if k.broken == nil {
		k.broken = &Violation{rule, fmt.Sprintf(format, args...), k.w.now}
		k.w.note("BROKEN %s: %s", rule, k.broken.Text)
	}
}

func (k *checker) blind(until time.Duration) { k.blindTo = max(k.blindTo, until) }

func (k *checker) leadersEnded(*replica) {}

func (k *checker) hangs() { k.w.tally.mark("a container hung") }

// step is what must hold after every step.
func (k *checker) step() {
	leaders := 0
	for _, r := range k.w.replicas {
		r.noteUnread()
		if r.up && r.stepper.Leading() {
			leaders++
		}
	}
	if leaders > 1 && k.w.now-k.leaseLost > state.LeaseTTL && !k.losses.lately(state.LeaseTTL) {
		k.violate("I18", "%d replicas hold themselves for the leader", leaders)
	}
	if k.w.now-k.scanned >= 5*time.Second {
		k.scanned = k.w.now
		k.scan()
	}
}

// granted sees a lease.
func (k *checker) granted(r *replica, epoch int64) {
	if epoch < k.w.epoch {
		if epoch != k.losses.epoch {
			k.violate("I5", "%s was given epoch %d after %d", r.id, epoch, k.w.epoch)
		}
		k.w.tally.mark("a store that went back offered an old epoch")
		return
	}
	if epoch > k.w.epoch {
		k.losses.epoch = 0
		k.w.note("%s leads", r.id)
		k.w.tally.Reigns++
		k.reigns = append(k.reigns, reign{epoch, k.w.now})
	}
	k.w.epoch = epoch
}

// wrote sees a write that was carried out.
func (k *checker) wrote(r *replica, at Step, by state.Authority) {
	if by.Epoch != 0 && by.Epoch != k.w.epoch && by.Epoch != k.losses.epoch {
		k.violate("C4", "%s wrote %s under epoch %d, after %d was given", r.id, stepNames[at], by.Epoch, k.w.epoch)
	}
}

func (k *checker) session(_ *replica, s *state.Session) {
	k.w.note("session %s is %s %s", s.ID, s.Phase, s.Reason)
	// What is over and was lost may be ended once more by a leader that has never heard of its
	// end, before those who have give it back: that comes to the same.
	again := s.Phase == state.Ending && k.losses.lost(k.ended[s.ID])
	if s.Phase != state.Ended && k.over(s.ID) && !again && !k.forgottenEnd(s.ID) {
		k.violate("state §2", "session %s had ended and is %s again", s.ID, s.Phase)
	}
	if s.Phase == state.Ended {
		k.ended[s.ID] = k.w.now
		if x := k.w.people.wishes[s.ID]; x != nil {
			x.ended = true
		}
	}
}

// over tells whether a session has ended.
func (k *checker) over(id string) bool { _, over := k.ended[id]; return over }

// forgottenEnd tells whether a session is over, and a lost store has taken that with it from
// everybody who reaches it: what was bound to its slot since stands beside it then, until its
// container says that it holds it no more.
func (k *checker) forgottenEnd(id string) bool {
	at, over := k.ended[id]
	return over && k.losses.excuse(at, func(m *state.Mirror) bool {
		s, known := m.Session(id)
		return known && s.Phase == state.Ended
	})
}

// letGoUnheard tells whether a container has let go of a session while the store did not know that it
// had it, having lost that, or in a time that was lost since, and nobody who reaches the store has heard
// of that: as forgottenEnd, of an end that was perhaps never written. Given back, the session stands
// beside those that have its place by then, until the container reports; the container itself
// holds no more than it can.
func (k *checker) letGoUnheard(c *state.Container, id string) bool {
	p := k.w.procs[c.ID]
	if p == nil || p.boot != c.BootID {
		return false
	}
	let, did := p.letGo[id]
	if s, err := k.w.store.Session(background, id); !did || err == nil && s.BoundTo(c.ID, c.BootID) && s.BindRev > let.bindRev {
		return false // it is bound there anew
	}
	return let.unknown && k.losses.between(let.since, let.at) || k.losses.excuse(let.at, func(m *state.Mirror) bool {
		s, known := m.Session(id)
		return known && !s.BoundTo(c.ID, c.BootID)
	})
}

func (k *checker) container(_ *replica, c *state.Container) {
	used := 0
	for _, id := range c.Slots {
		if !k.forgottenEnd(id) && !k.letGoUnheard(c, id) {
			used++
		}
	}
	if used > c.MaxSessions {
		k.violate("I3", "container %s holds %d sessions in %d slots", c.ID, used, c.MaxSessions)
	}
	switch at, wasReady := k.left[c.ID]; {
	case c.Phase == state.ContainerReady:
		k.left[c.ID] = 0
	case c.Phase == state.PendingVerification:
		delete(k.left, c.ID)
	case wasReady && at == 0:
		k.left[c.ID] = k.w.now
	}
	switch c.Phase {
	case state.Stopping, state.Gone:
		if _, already := k.stops[c.ID]; !already {
			k.stops[c.ID] = k.w.now
		}
	default:
		if at, stops := k.stops[c.ID]; stops && !k.losses.excuse(at, func(m *state.Mirror) bool {
			x, known := m.Container(c.ID)
			return known && (x.Phase == state.Stopping || x.Phase == state.Gone)
		}) {
			k.violate("I4", "container %s is %s after the point of no return", c.ID, c.Phase)
		}
	}
}

// launch sees what has become of one.
func (k *checker) launch(l *state.Launch) {
	if l.Outcome == state.Expired {
		k.expired[l.ID] = k.w.now
	}
}

func (k *checker) bound(r *replica, s *state.Session) {
	k.w.tally.Binds++
	k.boundAgain(s)
	k.boundAt[s.ID+" "+s.Container] = k.w.now
	c, err := k.w.store.Container(background, s.Container)
	if err != nil {
		k.violate("I2", "session %s is bound to container %s, which there is not", s.ID, s.Container)
		return
	}
	k.container(nil, c)
	if c.Phase != state.ContainerReady {
		k.violate("I4", "session %s is bound to container %s, which is %s", s.ID, c.ID, c.Phase)
	}
	if !hasSlot(c, s.ID) {
		k.violate("I3", "session %s is bound to container %s without a slot", s.ID, c.ID)
	}
	if silent := k.w.clock().Sub(c.SeenAt); silent > k.mayBeSilent(r) {
		k.violate("I14", "session %s is bound to container %s, which is silent for %s", s.ID, s.Container, silent)
	}
}

// mayBeSilent is for how long a container may have been silent to which a replica binds. 15 s make it
// suspect. Not counted are the rest of the leader's lease, 5 s, and a slow call, 20 s; nor the time in
// which the replica could read nothing, if that was over only just now. Who is blind still is not
// excused by that: it knows how old what it sees is.
func (k *checker) mayBeSilent(r *replica) time.Duration {
	const suspect, late = 15 * time.Second, 25 * time.Second
	longest := suspect + late
	r.noteUnread()
	for _, gap := range r.unread {
		if k.w.now-gap.until <= suspect+late {
			longest = max(longest, suspect+k.w.now-gap.from)
		}
	}
	return longest
}

// readied sees that a session is ready: on one container, ever. A replica whose memory is older
// than what was lost gives back the binding before the one that was ready; if nobody else is left
// who knows better, the session is where that says.
func (k *checker) readied(s *state.Session) {
	on := s.Container + " " + s.BootID
	before, again := k.readyAt[s.ID]
	if again && before.on != on && !k.forgottenReady(s.ID, before) {
		k.violate("I2", "session %s was ready on %s and is ready on %s", s.ID, before.on, on)
	}
	if !again || before.on != on {
		k.readyAt[s.ID] = readiness{on, k.w.now}
	}
}

// forgottenReady tells whether a session was ready, and a lost store has taken that with it from
// everybody who reaches it.
func (k *checker) forgottenReady(id string, before readiness) bool {
	return k.losses.excuse(before.at, func(m *state.Mirror) bool {
		s, known := m.Session(id)
		return known && !s.ReadyAt.IsZero()
	})
}

// boundAgain sees a binding of a session that was ready before: nobody may know.
func (k *checker) boundAgain(s *state.Session) {
	before, again := k.readyAt[s.ID]
	if !again {
		return
	}
	if !k.forgottenReady(s.ID, before) {
		k.violate("I2", "session %s was ready on %s and is bound to %s", s.ID, before.on, s.Container)
	}
	delete(k.readyAt, s.ID)
}

// held sees a session in a container.
func (k *checker) held(p *process, session string) {
	known := 0
	for id, b := range p.held {
		// One of the first version refuses nothing, and does not say what it holds.
		bound, sure := k.boundAt[id+" "+p.id]
		if k.w.protocol == 1 && id != session && sure && k.losses.excuse(bound, func(m *state.Mirror) bool {
			s, mirrored := m.Session(id)
			return mirrored && s.BindRev >= b.bindRev
		}) {
			continue
		}
		known++
	}
	if known > p.slots {
		k.violate("I3", "container %s was given %d sessions for %d slots", p.id, len(p.held), p.slots)
	}
}

// busy tells whether a container really serves somebody.
func (k *checker) busy(p *process) (string, bool) {
	if p == nil || !p.alive || p.lies {
		return "", false
	}
	for _, id := range sortedKeys(p.held) {
		b := p.held[id]
		if b.serving && b.goneAt == 0 {
			if x := k.w.people.wishes[id]; x != nil && x.overAt == 0 && !x.unheard && !x.ended {
				return id, true
			}
		}
	}
	return "", false
}

// dark tells whether nobody could have heard of a container lately.
func (k *checker) dark(p *process) bool {
	return p.hungUntil > 0 && k.w.now < p.hungUntil+30*time.Second
}

// stopping sees the point of no return.
func (k *checker) stopping(c *state.Container) {
	p := k.w.procs[c.ID]
	if session, busy := k.busy(p); busy && p.boot == c.BootID && !k.dark(p) {
		k.violate("I1", "container %s is past the point of no return while it serves session %s", c.ID, session)
	}
}

// stopped sees StopTask. One of the first version whose registration nobody can know of is stopped as
// one that never registered, once its launch is given up.
func (k *checker) stopped(t *task) {
	k.w.note("task %s is stopped", t.ARN)
	_, expired := k.expired[t.launch]
	if session, busy := k.busy(t.process); busy && !k.dark(t.process) && !(expired && k.forgotten(t)) {
		k.w.tally.Killed++
		k.violate("I1", "task %s is stopped while it serves session %s", t.ARN, session)
	}
	c, err := k.w.store.Container(background, t.ContainerID)
	if err == nil && c.Phase != state.Stopping && c.Phase != state.Gone {
		// The call may be on its way when the store loses the mark that it rests on.
		at, marked := k.stops[c.ID]
		if !marked {
			at, marked = k.expired[t.launch]
		}
		if marked && k.losses.underWay(at) {
			return
		}
		k.violate("I8", "task %s is stopped while its container is %s", t.ARN, c.Phase)
	}
	if err == nil {
		k.settledBeforeStop(c)
	}
}

// forgotten tells whether nobody can know of a task any more, and nobody had a moment ago: while a
// store is being rebuilt nothing may rest on that.
func (k *checker) forgotten(t *task) bool {
	_, err := k.w.store.Container(background, t.ContainerID)
	return err != nil && k.losses.orphan(t) && !k.losses.lately(settling)
}

// gone sees that a container is held for lost.
func (k *checker) gone(c *state.Container) {
	p := k.w.procs[c.ID]
	if session, busy := k.busy(p); busy && p.boot == c.BootID && p.task.runs && !k.dark(p) {
		k.violate("I8", "container %s is held for gone while it serves session %s", c.ID, session)
	}
}

// drained sees that a container is closed by the leader, by a plan that is carried out since then and
// rests on a view in which some containers were ready. Who closes itself while that goes on (Spot takes
// its task, say), or so shortly before that a view which is good for destroying may lack it (I8), counts
// among those that stay: it was there when that was decided, and two that close at once are no mistake of either.
func (k *checker) drained(c *state.Container, by state.Authority, since time.Duration, believed map[string]bool) {
	const fresh = 15 * time.Second // plan's MaxStoreAge
	if by.Epoch == 0 {
		return
	}
	k.w.note("container %s is drained", c.ID)
	k.w.tally.Drains++
	k.byLeader[c.ID] = true
	staying, leaving := 0, 0
	for _, other := range k.containers() {
		if at := k.left[other.ID]; (at > since || at > since-fresh && believed[other.ID]) && !k.byLeader[other.ID] {
			staying++
			continue
		}
		switch other.Phase {
		case state.ContainerReady:
			staying++
		case state.Draining, state.Stopping:
			if k.byLeader[other.ID] {
				leaving++
			}
		case state.PendingVerification:
		case state.Gone:
		}
	}
	if most := max(1, len(k.containers())/10) + 1; leaving > most && !k.w.policy.Pool.Dedicated {
		k.violate("I12", "%d containers leave at once, %d stay", leaving, staying)
	}
	if retired := k.w.policy.Pool.Dedicated && c.Tenant != ""; staying < k.w.policy.Pool.Min && !retired {
		k.violate("I12", "container %s is drained, which leaves %d of at least %d", c.ID, staying, k.w.policy.Pool.Min)
	}
}

func (k *checker) containers() []*state.Container {
	_, containers := k.w.store.Records()
	return containers
}

func (k *checker) sessions() []*state.Session {
	sessions, _ := k.w.store.Records()
	return sessions
}

// launched sees a task start.
func (k *checker) launched(r *replica, t *task) {
	if _, err := k.w.store.Launch(background, t.launch); err != nil && !recorded(r, t.launch) {
		k.violate("I6", "task %s is started without a recorded launch", t.ARN)
	}
}

// repeated sees the call of a launch that has its task. ECS gives that one again for the same
// call only.
func (k *checker) repeated(t *task, l *state.Launch) {
	if t.input != string(l.Input) {
		k.w.tally.Duplicates++
		k.violate("I6", "launch %s is called again with another input", l.ID)
	}
}

// recorded tells whether a replica knows of a launch that was recorded: the store may have lost it
// since, and be given it back.
func recorded(r *replica, launch string) bool {
	_, known := r.mirror.Launch(launch)
	return known
}

// refused sees a launch refused for want of capacity.
func (k *checker) refused(refusals []refusal) {
	recent := 0
	for _, r := range refusals {
		forgotten := k.losses.excuse(r.at, func(m *state.Mirror) bool {
			l, known := m.Launch(r.launch)
			return known && l.Cause == state.NoCapacity
		})
		if k.w.now-r.at < time.Minute && !forgotten && !k.unwritten(r) {
			recent++
		}
	}
	k.w.tally.mark("a launch was refused for want of capacity")
	// The first wave is on its way before ECS has said anything; from then on 2 may be wasted in a
	// minute.
	if recent > k.w.policy.Pool.Max+2 {
		k.violate("I11", "%d launches were refused within a minute", recent)
	}
}

// unwritten tells whether a leader ended before it had written down what ECS had said of a launch:
// the record is there and says nothing of it, and the next reign began within the time that a call
// may take. A record that is not there was lost, which excuses nobody who remembers it.
func (k *checker) unwritten(r refusal) bool {
	const callTimeout = 30 * time.Second // controller's
	l, err := k.w.store.Launch(background, r.launch)
	if err != nil || l.Cause == state.NoCapacity {
		return false
	}
	next := slices.IndexFunc(k.reigns, func(x reign) bool { return x.epoch > r.epoch })
	return next >= 0 && k.reigns[next].at-r.at <= callTimeout
}

// takenOver sees what a leader is told of the one before.
func (k *checker) takenOver(r *replica, notes state.PoolNotes) {
	if r.stepper.Leading() {
		k.former = notes.ListedAt
	}
}

// documentRead sees a document as a leader does.
func (k *checker) documentRead(r *replica, d *state.Document, began time.Duration) {
	if !r.stepper.Leading() {
		return
	}
	x := k.sightings[d.ID]
	if x.epoch != k.w.epoch {
		x = sight{epoch: k.w.epoch}
	}
	switch {
	case !d.Missing:
		x.found, x.missed = began, 0
	case x.missed == 0:
		x.missed = k.w.now
	}
	k.sightings[d.ID] = x
}

// watched tells whether a document that is gone went under the leader's eyes: somebody had seen
// it so shortly before it was missed that no final wish can have come and gone meanwhile.
func (k *checker) watched(s *state.Session) bool {
	const (
		remembered = 240 * time.Second // state §2
		acting     = time.Minute       // from the store's word to the leader's knowing it: a pause and a slow call
	)
	x := k.sightings[s.ID]
	if x.epoch != k.w.epoch {
		x = sight{}
	}
	if x.found == 0 && k.former.IsZero() {
		return true // nobody can say that it was not
	}
	found := max(x.found, k.former.Sub(epochZero), s.SeenAt.Sub(epochZero))
	return k.w.now-found <= remembered || x.missed != 0 && x.missed-found <= remembered-acting
}

func (k *checker) restored(string) { k.w.tally.mark("a lost document was written again") }

// ending asks whether there was a reason to end a session.
func (k *checker) ending(before, after *state.Session, by state.Authority) {
	if before == nil || before.Phase == state.Ending || before.Phase == state.Ended {
		return
	}
	k.w.tally.Ends++
	k.confirmed(before, after, by)
	x := k.w.people.wishes[after.ID]
	p := k.w.procs[before.Container]
	serves := false // and somebody can know of it
	if p != nil && p.alive && p.boot == before.BootID && !k.dark(p) && p.task.runs && !k.forgotten(p.task) && !k.wokeTooLate(before) {
		b := p.held[after.ID]
		serves = b != nil && b.goneAt == 0 && b.serving
	}
	switch after.Reason {
	case state.Released:
		// A document that is gone counts as a wish if nobody had watched it, and its own time
		// is the requester's.
		if x == nil || x.overAt != 0 || x.unheard || k.w.now >= x.deadline-time.Second {
			break
		}
		switch d, err := k.w.store.Document(background, after.ID); {
		case err == nil && !d.Missing:
			k.violate("C6", "session %s is ended as released, and its document says %q", after.ID, d.Spec.Status)
		case k.watched(before):
			k.violate("C6", "session %s is ended as released, and nobody wanted that", after.ID)
		}
	case state.DeadlinePassed:
		if k.w.clock().Before(before.Deadline.Add(-time.Second)) {
			k.violate("C6", "session %s is ended before its deadline", after.ID)
		}
	case state.BrowserCrashed, state.ContainerLost, state.StoppedExternally:
		if serves {
			k.violate("C6", "session %s is ended as %s while container %s serves it", after.ID, after.Reason, before.Container)
		}
		k.w.tally.Lost++
	case state.Failed:
		k.failed(before)
		if before.Phase == state.Pending && before.Waited <= 5*time.Minute {
			k.violate("I16", "session %s is ended as failed after a wait of %s", after.ID, before.Waited)
		}
		if before.Phase == state.Bound && before.Attempts < 3 {
			k.violate("I16", "session %s is ended as failed after %d attempts", after.ID, before.Attempts)
		}
		if before.Phase == state.Ready {
			k.violate("C6", "session %s is ended as failed although it was ready", after.ID)
		}
	default:
		k.violate("C6", "session %s is ended as %q", after.ID, after.Reason)
	}
	_ = by
	k.w.tally.mark("a session ended: " + string(after.Reason))
}

// endedItself sees that a container ends a session because its time is up, by what it was told last. It
// was to be told more unless the store has lost data meanwhile, somebody wants the session over, or
// it has hung since before that time and only just goes on.
func (k *checker) endedItself(p *process, b *browser) {
	if p.hungSince < b.until && k.w.now-p.hungUntil < wokeMost {
		return
	}
	x := k.w.people.wishes[b.session]
	if x == nil || x.overAt != 0 || x.unheard || x.ended || k.w.now >= x.deadline || k.losses.lately(k.w.now-x.at) {
		return
	}
	k.violate("C6", "container %s ends session %s %s before its deadline, which it was told was %s ago", p.id, b.session, x.deadline-k.w.now, k.w.now-b.until)
}

// scan is what must hold for long, whatever the weather.
func (k *checker) scan() {
	w := k.w
	running := 0
	for _, t := range w.ecs.tasks {
		if t.runs && t.DesiredStatus == "RUNNING" && !k.losses.orphan(t) {
			running++
		}
	}
	switch {
	case running <= w.policy.Pool.Max:
		k.overSince = 0
	case k.overSince == 0:
		k.overSince = w.now
	case w.now-k.overSince > 5*time.Minute: // as long as the longest session, which is not cut short
		k.violate("C1", "%d tasks run for %s, the maximum is %d", running, w.now-k.overSince, w.policy.Pool.Max)
	}
	k.lingering()
	if !w.storm.calm() || w.now < w.storm.until[w.storm.period]-3*time.Minute {
		k.freeSince = 0
		return
	}
	if session, container := k.beside(); session == "" {
		k.freeSince = 0
	} else if k.freeSince == 0 {
		k.freeSince = w.now
	} else if w.now-k.freeSince > 20*time.Second {
		k.violate("I3", "session %s waits for %s beside the free slot of container %s", session, w.now-k.freeSince, container)
	}
}

// beside finds a session that waits although there is room for it.
func (k *checker) beside() (session, container string) {
	now := k.w.clock()
	containers := k.containers()
	for _, s := range k.sessions() {
		if s.Phase != state.Pending || now.Sub(s.SeenAt) < 20*time.Second || !now.Before(s.Deadline) {
			continue
		}
		for _, c := range containers {
			if k.w.policy.Pool.Dedicated && c.Tenant != s.UserID && (c.Tenant != "" || c.Used() > 0) {
				continue
			}
			if c.Phase == state.ContainerReady && c.Free() > 0 && !s.Excludes(c.ID) && now.Sub(c.SeenAt) < 10*time.Second {
				return s.ID, c.ID
			}
		}
	}
	return "", ""
}

// settled is what must hold once the weather has been calm for long: desired is actual.
func (k *checker) settled() {
	w := k.w
	leads := false
	for _, r := range w.replicas {
		leads = leads || r.up && r.stepper.Leading()
	}
	if !leads {
		k.violate("C7", "nobody leads")
	}
	known := map[string]*state.Container{}
	for _, c := range k.containers() {
		known[c.ID] = c
		if c.Phase == state.Gone {
			continue
		}
		p := w.procs[c.ID]
		for _, id := range c.Slots {
			s, err := w.store.Session(background, id)
			if err == nil && s.BoundTo(c.ID, c.BootID) || p != nil && p.alive && p.held[id] != nil {
				continue
			}
			k.violate("C7", "a slot of container %s is taken by session %s, which is not there", c.ID, id)
		}
	}
	k.minimum()
	for _, arn := range sortedKeys(w.ecs.tasks) {
		t := w.ecs.tasks[arn]
		if !t.runs || w.clock().Sub(t.CreatedAt) < 7*time.Minute {
			continue
		}
		c := known[t.ContainerID]
		if (c == nil || c.Phase == state.Gone || c.Phase == state.PendingVerification) && !k.losses.orphan(t) {
			k.violate("C2", "task %s runs and is nobody's (its container: %s)", t.ARN, told(c, t.process))
		}
	}
	for _, id := range sortedKeys(w.procs) {
		p := w.procs[id]
		if !p.alive || k.losses.orphan(p.task) {
			continue
		}
		for _, session := range sortedKeys(p.held) {
			s, err := w.store.Session(background, session)
			if err == nil && s.BoundTo(p.id, p.boot) || p.held[session].goneAt != 0 {
				continue
			}
			k.violate("I2", "container %s holds session %s, which is not its own", p.id, session)
		}
	}
	for _, id := range w.people.open {
		k.fulfilled(w.people.wishes[id])
	}
}

// told is what is known of a container, and what it is.
func told(c *state.Container, p *process) string {
	switch {
	case p == nil:
		return "never came up"
	case c == nil:
		return fmt.Sprintf("registered at %s, not known", p.registeredAt)
	default:
		return fmt.Sprintf("registered at %s, is %s", p.registeredAt, c.Phase)
	}
}

// fulfilled asks whether a requester has what was wished for.
func (k *checker) fulfilled(x *wish) {
	w := k.w
	s, err := w.store.Session(background, x.id)
	live := err == nil && s.Live()
	if live && s.Phase == state.Ready && x.overAt == 0 && w.clock().Sub(s.ReadyAt) > time.Minute {
		if doc, e := w.store.Document(background, x.id); e == nil && !doc.Missing && doc.Err == nil && doc.Spec.Status != string(state.Ready) {
			k.violate("C7", "session %s is ready, and its document says %q", s.ID, doc.Spec.Status)
		}
	}
	switch {
	case x.overAt != 0 && w.now-x.overAt > time.Minute && live:
		k.violate("C7", "session %s is %s a minute after its requester wanted it over", x.id, s.Phase)
	case x.overAt == 0 && x.evictedAt == 0 && x.lostAt == 0 && !k.over(x.id) && x.deadline-w.now > 10*time.Second && !live:
		if doc, e := w.store.Document(background, x.id); e == nil && !doc.Missing && doc.Err == nil && doc.Spec.Status == state.StatusPending && doc.TTL < x.deadline-w.now+2*time.Second && w.now-x.at > 20*time.Second {
			k.violate("C7", "session %s is wished for, and nothing has come of it (%v)", x.id, err)
		}
	}
}
