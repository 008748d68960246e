package sim

import (
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// calmSince is for how long the weather has been calm; zero in a storm.
func (k *checker) calmSince() time.Duration {
	if s := k.w.storm; s.calm() {
		return k.w.now - s.until[s.period-1]
	}
	return 0
}

// lasting tells for how long something has held in calm weather, as far as it was looked at.
func (k *checker) lasting(what string, holds bool) time.Duration {
	if !holds {
		delete(k.since, what)
		return 0
	}
	if _, known := k.since[what]; !known {
		k.since[what] = k.w.now
	}
	return k.w.now - k.since[what]
}

// lingering is what must go on in calm weather: nothing waits, ends or stops for ever. A storm
// and a loss of data begin all waits anew, and so does a store that is not whole yet: each new leader takes up
// to a minute to find out.
func (k *checker) lingering() {
	index, err := k.w.store.Index(background)
	whole := err == nil && index.Whole
	if k.calmSince() == 0 || k.losses.lately(5*time.Minute) || !whole {
		if !whole && k.calmSince() > 3*time.Minute && !k.losses.lately(5*time.Minute) {
			k.violate("C7", "the store is not whole after a calm of %s", k.calmSince())
		}
		clear(k.since)
		if k.calmSince() > 0 && !k.losses.lately(5*time.Minute) {
			k.orders()
		}
		return
	}
	k.orders()
	containers := map[string]*state.Container{}
	for _, c := range k.containers() {
		containers[c.ID] = c
		k.containerGoesOn(c)
	}
	open, wrong := k.launches(containers)
	for _, s := range k.sessions() {
		k.sessionGoesOn(s, containers[s.Container])
		if open == 0 && !wrong {
			k.startsFor(s, containers)
		}
	}
}

// containerGoesOn asks whether a container that is to end does.
func (k *checker) containerGoesOn(c *state.Container) {
	const patience = 2 * time.Minute
	t := k.taskOf(c)
	runs := t != nil && t.runs
	if d := k.lasting("task "+c.ID, runs && c.Phase == state.Stopping && t.DesiredStatus != "STOPPED"); d > patience {
		k.violate("C2", "the task of container %s runs for %s, and is past the point of no return", c.ID, d)
	}
	if d := k.lasting("drained "+c.ID, runs && c.Phase == state.Draining && c.Used() == 0); d > patience {
		k.violate("C7", "container %s is empty and draining for %s", c.ID, d)
	}
	// A start is waited for for five minutes at most, and an absence is believed after one.
	if d := k.lasting("over "+c.ID, !runs && c.Phase != state.Gone); d > 7*time.Minute {
		k.violate("C7", "container %s is %s, and its task is over for %s", c.ID, c.Phase, d)
	}
}

func (k *checker) taskOf(c *state.Container) *task {
	for _, arn := range sortedKeys(k.w.ecs.tasks) {
		if t := k.w.ecs.tasks[arn]; t.ContainerID == c.ID {
			return t
		}
	}
	return nil
}

// longestPause is how long the circuit of launches is open at most, and longestStart how long a task
// may take to start that is tried then.
const (
	longestPause = 5 * time.Minute
	longestStart = 200 * time.Second
)

// minimum asks whether as many containers are ready as are to be at least. A launch from the storm may
// have been given up so late in the calm that the next, which waits for that, need not have come to
// anything yet (a start is waited for for five minutes). Then as many are to be under way, or the
// next is not to be begun yet.
func (k *checker) minimum() {
	least := k.w.policy.Pool.Min
	ready, coming := 0, 0
	containers := map[string]*state.Container{}
	for _, c := range k.containers() {
		containers[c.ID] = c
		switch c.Phase {
		case state.ContainerReady:
			ready++
		case state.PendingVerification:
			coming++
		case state.Draining, state.Stopping, state.Gone:
		}
	}
	if ready >= least || k.w.policy.Pool.Dedicated {
		return
	}
	open, _ := k.launches(containers)
	coming += open
	if index, err := k.w.store.Index(background); err == nil {
		all, err := k.w.store.LaunchesOf(background, sortedKeys(index.Launches))
		if err == nil && k.stormWentOn(all) && (ready+coming >= least || k.paused(all, coming)) {
			return
		}
	}
	k.violate("C7", "%d containers are ready and %d are coming, the minimum is %d", ready, coming, least)
}

// stormWentOn tells whether a launch from the storm was given up that late.
func (k *checker) stormWentOn(all []*state.Launch) bool {
	now := k.w.clock()
	return slices.ContainsFunc(all, func(l *state.Launch) bool {
		return !l.Open() && l.Outcome != state.Registered && l.CreatedAt.Before(now.Add(-k.calmSince())) &&
			now.Sub(l.SettledAt) < longestPause+longestStart
	})
}

// paused tells whether the next launch waits rightly for those that have gone wrong in a row: after
// the third the circuit is open, and one is tried at a time, with ever longer pauses between them.
func (k *checker) paused(all []*state.Launch, coming int) bool {
	const round = 10 * time.Second // until a leader has seen that a pause is over, and acts
	var good, last time.Time
	for _, l := range all {
		if l.Outcome == state.Registered && l.CreatedAt.After(good) {
			good = l.CreatedAt
		}
	}
	failures := 0
	for _, l := range all {
		if l.SettledAt.After(last) {
			last = l.SettledAt
		}
		if !l.Open() && l.Outcome != state.Registered && l.Cause != state.NoCapacity && l.Cause != state.Unanswered && l.CreatedAt.After(good) {
			failures++
		}
	}
	pause := time.Duration(0)
	switch {
	case failures >= 3 && coming > 0:
		return true
	case failures >= 3:
		pause = min(30*time.Second<<min(failures-3, 10), longestPause)
	case failures > 0:
		pause = time.Second << (failures - 1)
	}
	return k.w.clock().Sub(last) < pause+round
}

// launches looks at the launches of which no container came yet: it asks whether one is waited for
// for ever. It counts them, and tells whether any has gone wrong lately, so that the next wait.
func (k *checker) launches(containers map[string]*state.Container) (open int, wrong bool) {
	index, err := k.w.store.Index(background)
	if err != nil {
		return 0, true
	}
	all, err := k.w.store.LaunchesOf(background, sortedKeys(index.Launches))
	if err != nil {
		return 0, true
	}
	now := k.w.clock()
	for _, l := range all {
		wrong = wrong || !l.Open() && l.Outcome != state.Registered && now.Sub(l.SettledAt) < longestPause+time.Minute
		if containers[l.ID] != nil || !l.Open() {
			continue
		}
		open++
		if age := now.Sub(l.CreatedAt); age > 6*time.Minute && k.calmSince() > time.Minute {
			k.violate("C7", "launch %s is open for %s, and no container came of it", l.ID, age)
		}
	}
	return open, wrong
}

// sessionGoesOn asks whether what is to become of a session does.
func (k *checker) sessionGoesOn(s *state.Session, c *state.Container) {
	const patience = time.Minute
	if d := k.lasting("late "+s.ID, s.Phase != state.Ended && k.w.clock().After(s.Deadline)); d > patience {
		k.violate("C7", "session %s is %s for %s after its deadline", s.ID, s.Phase, d)
	}
	widowed := s.HoldsSlot() && (c == nil || c.Phase == state.Gone || c.BootID != s.BootID)
	if d := k.lasting("widowed "+s.ID, widowed); d > patience {
		k.violate("C7", "session %s is %s for %s on container %s, which is gone or lives another life", s.ID, s.Phase, d, s.Container)
	}
	_, linked := k.linked(s)
	if d := k.lasting("ending "+s.ID, linked && s.Phase == state.Ending); d > patience {
		k.violate("C7", "session %s is ending for %s", s.ID, d)
	}
}

// linked tells whether a session's container is there to be told things, and was for a while.
func (k *checker) linked(s *state.Session) (*process, bool) {
	p := k.w.procs[s.Container]
	return p, p != nil && p.alive && !p.hung() && p.link != nil && p.boot == s.BootID && k.calmSince() > time.Minute
}

// orders asks whether containers are told of what is bound to them, which waits for no leader.
func (k *checker) orders() {
	for _, s := range k.sessions() {
		p, linked := k.linked(s)
		if waits := k.w.clock().Sub(s.BoundAt); linked && s.Phase == state.Bound && s.Refused == "" && p.held[s.ID] == nil && waits > 3*time.Second {
			k.violate("C8", "session %s is bound for %s, and container %s has not been told", s.ID, waits, s.Container)
		}
	}
}

// startsFor asks whether a container is started for a session that waits, unless there are as many
// as there may be, one is coming, or what went wrong before has the next one wait.
func (k *checker) startsFor(s *state.Session, containers map[string]*state.Container) {
	there := 0
	for _, c := range containers {
		switch c.Phase {
		case state.PendingVerification:
			return
		case state.Gone:
		default:
			there++
		}
	}
	waits := k.lasting("waiting "+s.ID, s.Phase == state.Pending && k.calmSince() > time.Minute && k.w.clock().Before(s.Deadline) && there < k.w.policy.Pool.Max)
	if waits > 20*time.Second {
		k.violate("C7", "session %s waits for %s, nothing is started, and there are %d containers of at most %d", s.ID, waits, there, k.w.policy.Pool.Max)
	}
}

// intended sees a launch recorded: with what there is already, it keeps to the maximum.
func (k *checker) intended() {
	containers, there := map[string]*state.Container{}, 0
	for _, c := range k.containers() {
		containers[c.ID] = c
		if c.Phase != state.Gone {
			there++
		}
	}
	open, _ := k.launches(containers)
	if there += open; there > k.w.policy.Pool.Max && !k.losses.lately(5*time.Minute) {
		k.violate("C1", "a launch is recorded beside %d containers and launches, the maximum is %d", there-1, k.w.policy.Pool.Max)
	}
}

// confirmed asks whether the leader ends a session as one that no container holds rightly.
func (k *checker) confirmed(before, after *state.Session, by state.Authority) {
	if by.Epoch == 0 || after.Phase != state.Ended || before.Phase == state.Pending || before.Refused != "" || k.losses.lately(5*time.Minute) {
		return
	}
	p := k.w.procs[before.Container]
	if p == nil || !p.alive || p.boot != before.BootID || !p.task.runs || k.dark(p) || k.wokeTooLate(before) {
		return
	}
	if b := p.held[after.ID]; b != nil && b.goneAt == 0 {
		k.violate("I2", "session %s is ended as one that nobody holds, and container %s holds it", after.ID, p.id)
	}
}

// wokeTooLate tells whether a session is in a container that was given up as one that hangs (givenUp has
// judged that) and goes on again: there is no way back, and its sessions end.
func (k *checker) wokeTooLate(s *state.Session) bool {
	c, err := k.w.store.Container(background, s.Container)
	return err == nil && c.BootID == s.BootID && c.GivenUp()
}

// failed asks whether a session was given up rightly: for want of room it waits for five
// minutes, and in calm weather no container fails it.
func (k *checker) failed(before *state.Session) {
	waited := k.w.clock().Sub(before.SeenAt)
	if k.losses.lately(10 * time.Minute) {
		return
	}
	if before.Phase == state.Pending && waited < 5*time.Minute-time.Second {
		k.violate("I16", "session %s is ended as failed %s after it was admitted", before.ID, waited)
	}
	if before.Phase == state.Bound && waited < k.calmSince()-time.Minute {
		k.violate("C7", "session %s is ended as failed in calm weather", before.ID)
	}
}
