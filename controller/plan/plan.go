// Package plan decides. Make compares what is desired (documents, sessions), what is observed
// (containers' reports, tasks) and what is under way (launches), and says what to do next.
//
// It is pure: the same snapshot, in any order, gives the same plan. It has no clock, draws no
// ids, logs nothing, counts nothing and calls nobody. Every action may be repeated and is
// carried out conditionally; one that has become stale is refused by the store and planned
// anew.
package plan

import (
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// Snapshot is everything that a plan is made from. Make changes none of it.
type Snapshot struct {
	Now time.Time // the store's clock

	Sessions   []*state.Session
	Containers []*state.Container
	Launches   []*state.Launch

	// Documents are the requesters' documents as last read, by id. One that was never read is
	// not in it; one that is gone from the store is there with Missing set.
	Documents map[string]*state.Document
	// Edited says of which sessions the document says something else than at admission, in what
	// a requester may change (see Edited).
	Edited map[string]bool
	// DocumentsAt is when all documents were listed before the present view of them. Zero
	// before the first time.
	DocumentsAt time.Time
	// Found says, by id, when the reading began that has last found a document, as it is in
	// Documents; Unseen of documents that are missing for how long nobody had seen them when
	// that was noticed.
	Found  map[string]time.Time
	Unseen map[string]time.Duration

	// Tasks are ECS's, running ones and those that containers and launches name.
	Tasks []state.Task
	// TasksAt is when ECS was last listed completely; zero before the first time.
	TasksAt time.Time
	// AbsentSince says, by task ARN, which complete listing was the first to lack a task that
	// a container or a launch names. Absence is proof only after a while: ECS is eventually
	// consistent.
	AbsentSince map[string]time.Time
	// EmptySince says, by container id, since when this leader has seen it without sessions.
	EmptySince map[string]time.Time

	// RefusedSince says, by container id, since when the address of a silent container that is no
	// task of ECS has refused connections.
	RefusedSince map[string]time.Time

	// Replicas are those of this service, dead ones included that were heard lately; and
	// Testimonies is what they know of silent containers. Both empty before they were read.
	Replicas    []state.Replica
	Testimonies []state.Testimony

	// StoreAge is how old the view of the store is; StoreTrouble how it lost data that may still
	// be missing, if it did.
	StoreAge     time.Duration
	StoreTrouble string
	// StoreGap is when the store was last out of reach: nobody could report then.
	StoreGap state.Gap
	// Target is what the next launch would start and where (see state.Fleet); empty: unknown.
	Target string
	// DesiredAt is when what is wanted of the pool last changed: failures before it are not
	// held against what comes after. Zero: unknown.
	DesiredAt time.Time
	// Filling is how the store came by what it holds, and TasksSince when the first complete
	// listing of ECS ended that began after the store has last lost data, or after this leader
	// began; zero: none yet.
	Filling    state.Filling
	TasksSince time.Time
	// LaunchTrouble says why nothing that is launched could serve; empty: it could.
	LaunchTrouble string
}

// Policy is how the pool is to be run. The zero value of a time means its default.
type Policy struct {
	Pool state.Pool

	BindDeadline  time.Duration // from bound to ready; 30 s
	WaitLimit     time.Duration // pending under a held lease; 5 min
	MaxAttempts   int           // bindings tried; 3
	SuspectAfter  time.Duration // without a report; 15 s
	HungAfter     time.Duration // silent in every way for this long, a container whose task runs is given up; 60 s, negative: never
	MaxLoad       float64       // memory above which nothing is bound, CPU above which only what has waited is; 0.9
	StartDeadline time.Duration // from a launch to its registration, until it is learnt; 120 s
	ScaleDownHold time.Duration // a container stays empty this long before it is drained; 120 s
	AbsentAfter   time.Duration // a task unlisted this long is gone; 60 s
	MaxStoreAge   time.Duration // an older view of the store holds what destroys; 15 s
	MaxTasksAge   time.Duration // an older view of ECS holds what destroys; 60 s
	ListingsApart time.Duration // between two listings of ECS that show a store rebuilt; 10 s
	AdoptWithin   time.Duration // a running task that nobody reports holds up a rebuild this long; 60 s
	RestoreWithin time.Duration // a document that nobody had seen this long when it was missed may have been a wish to end; 240 s
}

// The defaults of a Policy, and its fixed limits.
const (
	defaultBindDeadline  = 30 * time.Second
	defaultWaitLimit     = 5 * time.Minute
	defaultMaxAttempts   = 3
	defaultSuspectAfter  = 15 * time.Second // three reports missed
	defaultHungAfter     = 60 * time.Second
	defaultMaxLoad       = 0.9
	defaultStartDeadline = 120 * time.Second
	defaultScaleDownHold = 120 * time.Second
	defaultAbsentAfter   = 60 * time.Second
	defaultMaxStoreAge   = 15 * time.Second
	defaultMaxTasksAge   = 60 * time.Second
	defaultAdoptWithin   = 60 * time.Second
	defaultRestoreWithin = 240 * time.Second // below the 300 s that a Lambda's "terminated" lives

	// DefaultListingsApart is Policy.ListingsApart's.
	DefaultListingsApart = 10 * time.Second

	launchMemory = state.LaunchKept // failed launches are remembered this long, for what they tell of the next
)

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func (p Policy) withDefaults() Policy {
	p.BindDeadline = or(p.BindDeadline, defaultBindDeadline)
	p.WaitLimit = or(p.WaitLimit, defaultWaitLimit)
	p.MaxAttempts = or(p.MaxAttempts, defaultMaxAttempts)
	p.SuspectAfter = or(p.SuspectAfter, defaultSuspectAfter)
	p.HungAfter = or(p.HungAfter, defaultHungAfter)
	p.MaxLoad = or(p.MaxLoad, defaultMaxLoad)
	p.StartDeadline = or(p.StartDeadline, defaultStartDeadline)
	p.ScaleDownHold = or(p.ScaleDownHold, defaultScaleDownHold)
	p.AbsentAfter = or(p.AbsentAfter, defaultAbsentAfter)
	p.MaxStoreAge = or(p.MaxStoreAge, defaultMaxStoreAge)
	p.MaxTasksAge = or(p.MaxTasksAge, defaultMaxTasksAge)
	p.ListingsApart = or(p.ListingsApart, DefaultListingsApart)
	p.AdoptWithin = or(p.AdoptWithin, defaultAdoptWithin)
	p.RestoreWithin = or(p.RestoreWithin, defaultRestoreWithin)
	p.Pool.MaxSessions = max(1, p.Pool.MaxSessions)
	p.Pool.Max = max(p.Pool.Max, p.Pool.Min)
	return p
}

// Plan is what to do now, and what is not done and why.
type Plan struct {
	Actions   []Action
	Holds     []Hold
	Demand    Demand
	Launching Launching
}

// Hold is something that would be done, or is wrong, and waits.
type Hold struct {
	What HoldKind
	ID   string // the object; empty for everything
	Why  string
}

// HoldKind names what is held: a closed set.
type HoldKind string

// The kinds of holds.
const (
	HoldDestruction HoldKind = "destruction" // drains, stops and losses wait for a whole, fresh view
	HoldBinding     HoldKind = "binding"
	HoldLaunch      HoldKind = "launch"
	HoldDocument    HoldKind = "document"  // a document that is no session's
	HoldSession     HoldKind = "session"   // a session that waits for room
	HoldContainer   HoldKind = "container" // a container that is silent, and what is lacking for it to be given up
	HoldTask        HoldKind = "task"      // a task that nothing is known of
)

// HoldKinds lists every kind.
func HoldKinds() []HoldKind {
	return []HoldKind{HoldDestruction, HoldBinding, HoldLaunch, HoldDocument, HoldSession, HoldContainer, HoldTask}
}

// planner carries one Make.
type planner struct {
	Snapshot
	Policy
	plan Plan

	containers map[string]*state.Container
	tasks      map[string]*state.Task // by ARN
	sessions   map[string]*state.Session

	taskByContainer map[string]*state.Task
	launchARN       map[string]string // of launches whose task is known, by id
	hosts           map[life]bool     // to which sessions are bound

	ended     map[string]bool // sessions that this plan ends
	undrained map[string]bool // containers that this plan opens again
	room      []*candidate    // containers with room, as this plan fills them
	destroy   bool            // destructive actions are allowed
	expected  int             // containers that should report
	heard     int             // of those, the ones that do
	heldDoubt *string         // see mayBeHeld
}

// Make decides what to do now.
func Make(s Snapshot, p Policy) Plan {
	m := newPlanner(s, p)
	m.readLaunches()
	m.checkStore()
	m.checkView()
	m.readDocuments()
	if m.StoreTrouble != "" {
		// Rebuilding: nothing is bound, ended or stopped until the view is whole again.
		m.tellOrphans()
		return m.finish()
	}
	m.superviseSessions()
	m.superviseContainers()
	m.superviseSilent()
	m.superviseLaunches()
	unplaced := m.bind()
	m.scale(unplaced)
	m.retire()
	m.tellOrphans()
	return m.finish()
}

// life is one life of a container.
type life struct{ container, boot string }

func newPlanner(s Snapshot, p Policy) *planner {
	m := &planner{
		Snapshot:   s,
		Policy:     p.withDefaults(),
		containers: make(map[string]*state.Container, len(s.Containers)),
		tasks:      make(map[string]*state.Task, len(s.Tasks)),
		sessions:   make(map[string]*state.Session, len(s.Sessions)),
		ended:      map[string]bool{},
		undrained:  map[string]bool{},

		taskByContainer: make(map[string]*state.Task, len(s.Tasks)),
		launchARN:       make(map[string]string, len(s.Launches)),
		hosts:           map[life]bool{},
	}
	for _, c := range s.Containers {
		m.containers[c.ID] = c
	}
	for i := range s.Tasks {
		t := &s.Tasks[i]
		m.tasks[t.ARN] = t
		if t.ContainerID != "" {
			m.taskByContainer[t.ContainerID] = t
		}
	}
	for _, l := range s.Launches {
		if l.TaskARN != "" {
			m.launchARN[l.ID] = l.TaskARN
		}
	}
	for _, x := range s.Sessions {
		m.sessions[x.ID] = x
		if x.HoldsSlot() {
			m.hosts[life{x.Container, x.BootID}] = true
		}
	}
	return m
}

func (m *planner) do(a Action) { m.plan.Actions = append(m.plan.Actions, a) }

func (m *planner) hold(what HoldKind, id, why string) {
	m.plan.Holds = append(m.plan.Holds, Hold{What: what, ID: id, Why: why})
}

// past tells whether more than d has gone by since t; never for the zero time.
func (m *planner) past(t time.Time, d time.Duration) bool {
	return !t.IsZero() && m.Now.Sub(t) > d
}
