package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Step is where a replica stands when a fault falls: the call that it is about to make.
type Step int

// The steps. Those from firstFleetStep on are calls to ECS.
const (
	stepNone Step = iota
	stepLease
	stepTakeOver
	stepIndex
	stepRecords
	stepDocumentList
	stepDocuments
	stepDesired
	stepNotes
	stepAdmit
	stepBind
	stepUnbind
	stepEnd
	stepAmend
	stepRestore
	stepProject
	stepWait
	stepIntent
	stepRecord
	stepForget
	stepDrain
	stepUndrain
	stepBeginStop
	stepLookBeforeStop
	stepMarkGone
	stepRegister
	stepReport
	stepReady
	stepRefuse
	stepOwnerEnds
	stepRelease
	stepClaim
	stepDisown
	stepGiveBack
	stepMarkWhole
	stepRunTask
	stepStopTask
	stepListTasks
	stepDescribe
	steps

	firstFleetStep = stepRunTask
)

var stepNames = [steps]string{
	stepLease: "lease", stepTakeOver: "take over", stepIndex: "index", stepRecords: "records", stepDocumentList: "list docs",
	stepDocuments: "documents", stepDesired: "desired", stepNotes: "notes", stepAdmit: "admit", stepBind: "bind", stepUnbind: "unbind",
	stepEnd: "end", stepAmend: "amend", stepRestore: "restore", stepProject: "project", stepWait: "wait", stepIntent: "intent",
	stepRecord: "record", stepForget: "forget", stepDrain: "drain", stepUndrain: "undrain", stepBeginStop: "begin stop",
	stepLookBeforeStop: "look", stepMarkGone: "mark gone", stepRegister: "register", stepReport: "report", stepReady: "ready",
	stepRefuse: "refuse", stepOwnerEnds: "owner ends", stepRelease: "release", stepClaim: "claim", stepDisown: "disown",
	stepGiveBack: "give back", stepMarkWhole: "mark whole",
	stepRunTask: "RunTask", stepStopTask: "StopTask", stepListTasks: "ListTasks", stepDescribe: "Describe",
}

// Kind is a kind of fault.
type Kind int

// The kinds.
const (
	noFault Kind = iota
	callFails
	answerLost
	callSlow
	pauseBefore
	pauseAfter
	killBefore
	killAfter
	gracefulStop
	partition
	outage
	hintsLost
	recordsUnread
	notificationsOff
	leaseTaken
	storeWiped
	storeRolledBack
	documentEvicted
	documentRewritten
	documentPoisoned
	documentShortened
	documentEdited
	poolChanged
	poolSpoilt
	ecsThrottled
	ecsDrought
	ecsBroken
	ecsAnswersLost
	ecsLags
	taskDiesAtStart
	taskStartsLate
	taskNeverRegisters
	taskNeverReached
	taskStopped
	taskInterrupted
	containerCrashes
	containerHangs
	containerReturns
	containerRefuses
	containerSlow
	containerLies
	linkBreaks
	browserCrashes
	kinds
)

var kindNames = [kinds]string{
	callFails: "the call fails", answerLost: "its answer is lost", callSlow: "the call is slow", pauseBefore: "the replica stands still before it",
	pauseAfter: "the replica stands still after it", killBefore: "the replica is killed before it", killAfter: "the replica is killed after it",
	gracefulStop: "the replica is told to stop", partition: "the replica loses the store", outage: "the store is silent", hintsLost: "hints are lost", recordsUnread: "the replica reads no records",
	notificationsOff: "documents are not notified", leaseTaken: "the lease is lost", storeWiped: "the store is wiped", storeRolledBack: "the store loses its last writes",
	documentEvicted: "a document is evicted", documentRewritten: "a document is rewritten as it was", documentPoisoned: "a document is spoilt",
	documentShortened: "a document's time is cut", documentEdited: "a document is edited", poolChanged: "the pool is to be otherwise", poolSpoilt: "pool:desired makes no sense",
	ecsThrottled: "ECS throttles", ecsDrought: "ECS has no capacity", ecsBroken: "ECS fails", ecsAnswersLost: "ECS's answers are lost", ecsLags: "ECS shows what was",
	taskDiesAtStart: "a task dies at start", taskStartsLate: "a task starts late", taskNeverRegisters: "a container never registers",
	taskNeverReached: "a container is never reached", taskStopped: "somebody stops a task", taskInterrupted: "Spot takes a task", containerCrashes: "a container crashes",
	containerHangs: "a container hangs", containerReturns: "a container comes back under its id", containerRefuses: "a container refuses",
	containerSlow: "a container is slow", containerLies: "a container lies", linkBreaks: "a link breaks", browserCrashes: "a browser crashes",
}

// Fault is one fault of a storm: it falls when some replica comes to its step.
type Fault struct {
	N    int           // its place in the list
	At   time.Duration // from when on
	Kind Kind
	Step Step
	Draw uint64 // decides what else it needs
}

func (f Fault) String() string {
	return fmt.Sprintf("%s, at %q", kindNames[f.Kind], stepNames[f.Step])
}

func (f Fault) span(a, b time.Duration) time.Duration {
	return a + time.Duration(f.Draw%uint64(b-a+1))
}

// storm is the weather of a world: storms and calms in turn, from a list made beforehand, so
// that leaving a fault out changes nothing of the others.
type storm struct {
	w      *World
	faults []Fault
	next   int
	armed  [steps][]Fault
	until  []time.Duration // ends of storm and calm, in turn
	period int

	outageUntil time.Duration
}

// makeFaults draws the faults of one storm.
func makeFaults(seed uint64, begin, length time.Duration, brisk bool, without func(Kind) bool) []Fault {
	rng := rand.New(rand.NewPCG(seed, 0xfa17))
	var faults []Fault
	gap := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}[rng.IntN(4)]
	if brisk {
		gap /= 2
	}
	for at := begin; at < begin+length; at += time.Duration(rng.Int64N(int64(2 * gap))) {
		f := Fault{At: at, Kind: Kind(1 + rng.IntN(int(kinds)-1)), Step: Step(1 + rng.IntN(int(steps)-1)), Draw: rng.Uint64() >> 1}
		if brisk {
			f.aim(rng, int(seed%uint64(kinds))+len(faults))
		}
		if without(f.Kind) {
			continue
		}
		faults = append(faults, f)
	}
	return faults
}

// seldom are the steps that a replica takes seldom: those few faults would fall on.
var seldom = []Step{
	stepUndrain, stepUndrain, stepUndrain, stepUndrain, stepGiveBack, stepMarkWhole, stepBeginStop, stepBeginStop, stepRefuse, stepStopTask, stepStopTask, stepDisown, stepLookBeforeStop, stepLookBeforeStop,
	stepClaim, stepClaim, stepRelease, stepAmend, stepDrain, stepUnbind, stepOwnerEnds, stepRestore, stepReady, stepForget, stepBind, stepMarkGone,
}

// aim has most faults fall on the steps that are seldom taken, and now and then brings such a
// step about: what a store has lost is given back, and who is told to stop lets go of links. Kinds
// come there in turn, so that few calls see many; turn is another for every world.
func (f *Fault) aim(rng *rand.Rand, turn int) {
	switch n := rng.IntN(96); {
	case n == 0:
		f.Kind, f.Step = []Kind{storeWiped, storeRolledBack}[rng.IntN(2)], stepIndex
	case n < 3:
		f.Kind, f.Step = gracefulStop, stepIndex
	case n < 7:
		f.Kind, f.Step = poolChanged, stepLease
	case n < 12:
		f.Kind, f.Step = []Kind{containerRefuses, linkBreaks, documentEdited, browserCrashes}[rng.IntN(4)], stepRecords
	case n < 80:
		f.Kind, f.Step = Kind(1+turn%(int(kinds)-1)), seldom[rng.IntN(len(seldom))]
	}
}

// together is how many faults may fall on one call of a brisk world.
const together = 6

// calm tells whether nothing bad happens now.
func (s *storm) calm() bool { return s.period%2 == 1 }

// fall gives the fault that falls on a call, if one does, having done what is not the call's.
func (s *storm) fall(r *replica, at Step) Fault {
	for s.next < len(s.faults) && s.faults[s.next].At <= s.w.now {
		f := s.faults[s.next]
		s.armed[f.Step] = append(s.armed[f.Step], f)
		s.next++
	}
	if len(s.armed[at]) == 0 || s.calm() {
		return Fault{}
	}
	most := 1
	if s.w.brisk {
		most = together
	}
	for range most {
		if len(s.armed[at]) == 0 {
			break
		}
		f := s.armed[at][0]
		s.armed[at] = s.armed[at][1:]
		if !s.strike(r, f) {
			if s.w.brisk {
				continue
			}
			break
		}
		s.w.tally.Matrix[f.Kind][f.Step]++
		s.w.tally.Faults++
		s.w.note("FAULT %d at %s of %s: %s", f.N, stepNames[at], r.id, kindNames[f.Kind])
		if f.Kind.ofCall() {
			return f
		}
	}
	return Fault{}
}

// ofCall tells whether a fault is one of the call on which it falls: a call has one at most.
func (k Kind) ofCall() bool {
	switch k {
	case callFails, answerLost, callSlow, pauseBefore, pauseAfter, killBefore, killAfter:
		return true
	default:
		return false
	}
}

// strike does what a fault does to the world, and tells whether there was anything to do it to.
func (s *storm) strike(r *replica, f Fault) bool {
	w := s.w
	rng := rand.New(rand.NewPCG(f.Draw, uint64(f.N)))
	later := func(a, b time.Duration) time.Duration { return w.now + f.span(a, b) }
	someProcess := func() *process {
		var alive []*process
		for _, id := range sortedKeys(w.procs) {
			if p := w.procs[id]; p.alive {
				alive = append(alive, p)
			}
		}
		if len(alive) == 0 {
			return nil
		}
		return alive[rng.IntN(len(alive))]
	}
	someWish := func() *wish {
		if len(w.people.open) == 0 {
			return nil
		}
		return w.people.wishes[w.people.open[rng.IntN(len(w.people.open))]]
	}
	if f.Kind.ofCall() {
		return true
	}
	switch f.Kind {
	case gracefulStop:
		w.after(0, func() {
			if r.up {
				r.stopGracefully(f.span(time.Second, 10*time.Second))
			}
		})
	case partition:
		r.cutUntil = later(time.Second, 40*time.Second)
	case outage:
		s.outageUntil = later(time.Second, 20*time.Second)
		w.check.blind(s.outageUntil)
	case hintsLost:
		r.deafUntil = later(time.Second, 30*time.Second)
	case recordsUnread:
		r.blindUntil = later(5*time.Second, 40*time.Second)
	case notificationsOff:
		w.store.NotifyDocuments(false)
		w.after(f.span(time.Second, time.Minute), func() { w.store.NotifyDocuments(true) })
	case leaseTaken:
		w.check.leaseLost = w.now
		w.store.LoseLease()
	case storeWiped:
		w.check.losses.strike(0, 0, w.store.Wipe)
		w.saved = nil
	case storeRolledBack:
		if w.saved == nil {
			return false
		}
		w.check.losses.strike(w.savedAt, w.savedIn, w.saved)
		w.saved = nil
	case documentEvicted, documentRewritten, documentPoisoned, documentShortened, documentEdited:
		return s.tried(func() bool { x := someWish(); return x != nil && s.document(x, f) })
	case poolChanged:
		w.store.SetPoolDesired(fmt.Sprintf(`{"warm":%d}`, rng.IntN(4)), f.span(10*time.Second, 2*time.Minute))
	case poolSpoilt:
		w.store.SetPoolDesired(`{"min":"many"}`, f.span(10*time.Second, time.Minute))
	case ecsThrottled:
		w.ecs.throttledUntil = later(time.Second, 40*time.Second)
	case ecsDrought:
		w.ecs.droughtUntil = later(10*time.Second, 4*time.Minute)
	case ecsBroken:
		w.ecs.brokenUntil = later(time.Second, 80*time.Second)
	case ecsAnswersLost:
		w.ecs.loseAnswers += 1 + rng.IntN(3)
	case ecsLags:
		w.ecs.lag, w.ecs.lagUntil = f.span(time.Second, 40*time.Second), w.now+time.Minute
	case taskDiesAtStart, taskStartsLate, taskNeverRegisters, taskNeverReached:
		bad := map[Kind]badStart{taskDiesAtStart: diesAtStart, taskStartsLate: startsLate, taskNeverRegisters: neverRegisters, taskNeverReached: neverReached}
		w.ecs.startBadly = append(w.ecs.startBadly, bad[f.Kind])
	default:
		return s.tried(func() bool { p := someProcess(); return p != nil && s.container(p, f) })
	}
	return true
}

// tried does something to somebody drawn by lot. In a brisk world others are tried, if there is
// nothing to do to the first.
func (s *storm) tried(do func() bool) bool {
	tries := 1
	if s.w.brisk {
		tries = 20
	}
	for range tries {
		if do() {
			return true
		}
	}
	return false
}

// document is what happens to the document of a wish.
func (s *storm) document(x *wish, f Fault) bool {
	w := s.w
	if x.overAt != 0 {
		return false
	}
	switch f.Kind {
	case documentEvicted:
		x.evictedAt = w.now
		w.store.DeleteDocument(x.id)
	case documentRewritten:
		w.people.rewrite(x)
	case documentPoisoned:
		text := []string{`{"sessionId":`, `[]`, `{"status":7}`}[f.Draw%3]
		doc, err := w.store.Document(background, x.id)
		if err != nil || doc.Missing {
			return false
		}
		w.store.SetDocument(x.id, text, max(time.Second, x.deadline-w.now))
	case documentShortened:
		doc, err := w.store.Document(background, x.id)
		if err != nil || doc.Missing || doc.Err != nil {
			return false
		}
		x.deadline = min(x.deadline, w.now+f.span(time.Second, time.Minute))
		x.evictedAt = max(1, w.now) // it will be gone before what was wished for is
		w.store.SetDocument(x.id, string(doc.Text), max(time.Second, x.deadline-w.now))
	case documentEdited:
		doc, err := w.store.Document(background, x.id)
		if err != nil || doc.Missing || doc.Err != nil {
			return false
		}
		left := f.span(30*time.Second, 4*time.Minute)
		x.text = fmt.Sprintf(`{"sessionId":%q,"userId":%q,"status":%q,"timeout":%d,"keepAlive":true}`, x.id, x.user, doc.Spec.Status, left.Milliseconds())
		x.deadline = max(x.deadline, w.now+left)
		w.store.SetDocument(x.id, x.text, left)
		x.evictedAt = max(1, w.now)
	default:
	}
	return true
}

// container is what happens to a container.
func (s *storm) container(p *process, f Fault) bool {
	w := s.w
	switch f.Kind {
	case taskStopped:
		w.ecs.terminate(p.task, "UserInitiated", "by hand", 2*time.Second)
	case taskInterrupted:
		w.ecs.terminate(p.task, "SpotInterruption", "", f.span(20*time.Second, 2*time.Minute))
	case containerCrashes:
		w.ecs.over(p.task, "EssentialContainerExited", "exit 1")
	case containerHangs:
		// Of one that hangs again before anybody can have heard of it, it is all one.
		if !p.hung() && (p.hungUntil == 0 || w.now-p.hungUntil > wokeMost) {
			p.hungSince = w.now
		}
		p.hungUntil = w.now + f.span(5*time.Second, 4*time.Minute)
		w.check.hangs()
	case containerReturns:
		if w.protocol == 1 {
			return false
		}
		p.reboot()
	case containerRefuses:
		p.refuses += 1 + int(f.Draw%2)
	case containerSlow:
		p.slow++
	case containerLies:
		p.lies = true
	case linkBreaks:
		if p.link == nil {
			return false
		}
		p.link.broken()
	case browserCrashes:
		for _, id := range sortedKeys(p.held) {
			if p.held[id].serving {
				p.crash(id)
				return true
			}
		}
		return false
	default:
	}
	return true
}
