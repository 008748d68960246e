package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// In a drought (ECS has no room) launches are tried one by one, this long after the last
	// that failed; each that finds room doubles how many may be under way at once, until there
	// are plentyAgain, and the drought is over.
	droughtProbe = 30 * time.Second
	plentyAgain  = 32
	// No more than wasteLimit launches of a drought fail in any wasteWindow, whatever finds
	// room in between.
	wasteLimit  = 2
	wasteWindow = time.Minute

	// After breakAfter launches of one target that went wrong in a row, for another reason than
	// room, its circuit is open: one at a time, breakPause apart and then ever longer.
	breakAfter      = 3
	breakPause      = 30 * time.Second
	maxBreakPause   = 5 * time.Minute
	maxLaunchPause  = 30 * time.Second
	leastStarts     = 5   // starts seen, before the deadline follows them
	startTolerance  = 1.5 // times the slowest of thousand starts
	shortestStart   = 90 * time.Second
	longestStart    = 300 * time.Second
	startPercentile = 0.999
)

// Launching is what the launches so far say of the next ones.
type Launching struct {
	Drought  bool          // ECS had no room, and has not shown otherwise since
	Open     bool          // the circuit of the target
	Failures int           // in a row, for other reasons than room
	Deadline time.Duration // from a launch to its registration

	target   string
	message  string        // of the last failure
	parallel int           // calls that may be under way at once; negative: as many as wanted
	wait     time.Duration // until the next launch
	why      string        // of a wait, or of few
}

// readLaunches learns from the launches that are remembered. All of it follows from what the
// store keeps, so that the next leader goes on where this one ends.
func (m *planner) readLaunches() {
	m.plan.Launching = Launching{target: m.Target, parallel: -1, Deadline: m.learnDeadline()}
	m.StartDeadline = m.plan.Launching.Deadline
	m.readDrought()
	m.readFailures()
}

// ofTarget tells whether a launch says something about the next ones.
func (m *planner) ofTarget(l *state.Launch) bool {
	return l.Target == "" || m.Target == "" || l.Target == m.Target
}

// answered is when ECS gave its word on a launch.
func answered(l *state.Launch) time.Time {
	if l.AnsweredAt.IsZero() {
		return l.CreatedAt
	}
	return l.AnsweredAt
}

func byAnswer(a, b *state.Launch) int {
	return cmp.Or(answered(a).Compare(answered(b)), cmp.Compare(a.ID, b.ID))
}

func byCreation(a, b *state.Launch) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}

// learnDeadline gives the time that a start is allowed: half as much again as the slowest of
// thousand takes, within bounds. A start that was given up took at least as long as it was
// waited for, so that a deadline that is too short grows.
func (m *planner) learnDeadline() time.Duration {
	var took []time.Duration
	var givenUp time.Duration
	for _, l := range m.Launches {
		d := l.SettledAt.Sub(l.CreatedAt)
		switch {
		case l.SettledAt.IsZero() || d <= 0 || !m.ofTarget(l):
		case l.Outcome == state.Registered:
			took = append(took, d)
		case l.Cause == state.Late:
			givenUp = max(givenUp, d)
		}
	}
	least, most := min(shortestStart, m.StartDeadline), max(longestStart, m.StartDeadline)
	learnt := m.StartDeadline
	if len(took) >= leastStarts {
		slices.Sort(took)
		slowest := took[min(len(took)-1, int(startPercentile*float64(len(took))))]
		learnt = time.Duration(startTolerance * float64(slowest))
	}
	return max(least, min(most, max(learnt, time.Duration(startTolerance*float64(givenUp)))))
}

// readDrought finds out whether ECS has room, from its answers in their order.
func (m *planner) readDrought() {
	var answers []*state.Launch
	for _, l := range m.Launches {
		if m.ofTarget(l) && (l.TaskARN != "" || l.Cause == state.NoCapacity) {
			answers = append(answers, l)
		}
	}
	slices.SortFunc(answers, byAnswer)
	parallel := 0 // none: no drought
	var wasted []time.Time
	message := ""
	for _, l := range answers {
		switch {
		case l.Cause == state.NoCapacity:
			parallel, message = 1, l.Message
			wasted = append(wasted, answered(l))
		case parallel > 0:
			if parallel *= 2; parallel >= plentyAgain {
				parallel = 0
			}
		}
	}
	if parallel == 0 {
		return
	}
	x := &m.plan.Launching
	x.Drought = true
	x.why = "no room: " + message
	last := wasted[len(wasted)-1]
	if parallel == 1 && !last.Before(m.DesiredAt) {
		x.wait = last.Add(droughtProbe).Sub(m.Now)
	}
	recent := wasted[:0:0]
	for _, at := range wasted {
		if m.Now.Sub(at) < wasteWindow {
			recent = append(recent, at)
		}
	}
	x.parallel = min(parallel, wasteLimit-len(recent))
	if x.parallel <= 0 {
		x.wait = max(x.wait, recent[len(recent)-wasteLimit].Add(wasteWindow).Sub(m.Now))
	}
	if x.wait > 0 {
		x.parallel = 0
	}
}

// readFailures counts the launches in a row that went wrong for another reason than room,
// since the last that registered, or since somebody wanted something else of the pool.
func (m *planner) readFailures() {
	since := m.DesiredAt
	for _, l := range m.Launches {
		if l.Outcome == state.Registered && m.ofTarget(l) && l.CreatedAt.After(since) {
			since = l.CreatedAt
		}
	}
	x := &m.plan.Launching
	var last *state.Launch
	for _, l := range m.Launches {
		failed := l.Outcome == state.Refused || l.Outcome == state.Expired
		if !failed || l.Cause == state.NoCapacity || l.Cause == state.Unanswered || !l.CreatedAt.After(since) || !m.ofTarget(l) {
			continue
		}
		x.Failures++
		if last == nil || byCreation(last, l) < 0 {
			last = l
		}
	}
	if last == nil {
		return
	}
	x.message = last.Message
	why := fmt.Sprintf("%d launches in a row went wrong, the last: %s", x.Failures, last.Message)
	pause, from := min(time.Second<<min(x.Failures-1, 10), maxLaunchPause), last.CreatedAt
	if x.Failures >= breakAfter {
		x.Open = true
		pause = min(breakPause<<min(x.Failures-breakAfter, 10), maxBreakPause)
		if last.SettledAt.After(from) {
			from = last.SettledAt
		}
		why = fmt.Sprintf("the circuit of %s is open: %s; it is tried at once after a change of the task definition or of pool:desired",
			cmp.Or(m.Target, "this pool"), why)
	}
	if wait := from.Add(pause).Sub(m.Now); wait > x.wait {
		x.wait, x.why = wait, why
	}
	x.why = cmp.Or(x.why, why)
}

// launch starts n containers, unless the pool is paused or the launches so far say that it
// would be in vain.
func (m *planner) launch(n int, s supply) {
	if n == 0 {
		return
	}
	x := m.plan.Launching
	switch {
	case m.Pool.Paused:
		m.hold(HoldLaunch, "", fmt.Sprintf("the pool is paused; %d containers are wanted", n))
		return
	case m.LaunchTrouble != "":
		m.hold(HoldLaunch, "", fmt.Sprintf("%s; %d containers are wanted", m.LaunchTrouble, n))
		return
	case x.wait > 0:
		m.hold(HoldLaunch, "", fmt.Sprintf("%s; %d containers are wanted, the next try is in %s", x.why, n, x.wait.Round(time.Second)))
		return
	}
	most := n
	if x.Drought {
		most = x.parallel - m.unanswered()
	}
	if x.Failures > 0 {
		most = min(most, 1)
	}
	if x.Open && m.underWay() > 0 {
		most = 0
	}
	if most = max(0, most); most < n {
		m.hold(HoldLaunch, "", fmt.Sprintf("%s; %d containers are wanted, %d tried", x.why, n, most))
		n = most
	}
	why := fmt.Sprintf("%d slots wanted, %d free, %d starting", s.unplaced+m.Pool.WarmSlots, s.free, s.coming)
	if s.containers+n <= m.Pool.Min {
		why = fmt.Sprintf("%d containers of at least %d", s.containers, m.Pool.Min)
	}
	for i := range n {
		m.do(Launch{Target{fmt.Sprintf("#%d", i+1), why}, m.Pool.MaxSessions})
	}
}

// unanswered counts the launches that ECS has not answered.
func (m *planner) unanswered() int {
	n := 0
	for _, l := range m.Launches {
		if l.Outcome == "" {
			n++
		}
	}
	return n
}

// underWay counts the launches whose containers have not registered, and may.
func (m *planner) underWay() int {
	n := 0
	for _, l := range m.Launches {
		if l.Open() && m.ofTarget(l) {
			n++
		}
	}
	return n
}

// run makes the calls of recorded launches, the oldest first, as many as the drought leaves.
// A launch that has its task already wastes nothing.
func (m *planner) run(launches []*state.Launch) {
	x := m.plan.Launching
	slices.SortFunc(launches, byCreation)
	called := 0
	for _, l := range launches {
		if x.Drought && m.taskOf(l) == nil {
			if called >= x.parallel {
				m.hold(HoldLaunch, l.ID, fmt.Sprintf("%s; it is recorded, its call waits", x.why))
				continue
			}
			called++
		}
		m.do(Run{Target{l.ID, fmt.Sprintf("recorded %s ago, no task yet", m.Now.Sub(l.CreatedAt).Round(time.Millisecond))}})
	}
}
