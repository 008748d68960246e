package plan

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// Action is one thing to do. Kinds are a closed set, so that they can label metrics.
type Action interface {
	// Kind names what is done.
	Kind() Kind
	// Subject is the id of what it is done to.
	Subject() string
	// Because says why, for a person.
	Because() string
}

// Kind names an action.
type Kind string

// The kinds of actions, in the order in which a plan lists them: launches before stops, so
// that capacity never waits for a clean-up.
const (
	KindMarkWhole     Kind = "mark_whole"
	KindAdmit         Kind = "admit"
	KindEnd           Kind = "end"
	KindUnbind        Kind = "unbind"
	KindBind          Kind = "bind"
	KindAmend         Kind = "amend"
	KindRestore       Kind = "restore"
	KindProject       Kind = "project"
	KindResolveLaunch Kind = "resolve_launch"
	KindUndrain       Kind = "undrain"
	KindLaunch        Kind = "launch"
	KindRun           Kind = "run"
	KindDrain         Kind = "drain"
	KindBeginStop     Kind = "begin_stop"
	KindGiveUp        Kind = "give_up"
	KindStopTask      Kind = "stop_task"
	KindMarkGone      Kind = "mark_gone"
	KindForgetLaunch  Kind = "forget_launch"
)

// Kinds lists every kind, in order.
func Kinds() []Kind {
	return []Kind{KindMarkWhole, KindAdmit, KindEnd, KindUnbind, KindBind, KindAmend, KindRestore, KindProject,
		KindResolveLaunch, KindUndrain, KindLaunch, KindRun, KindDrain, KindBeginStop, KindGiveUp,
		KindStopTask, KindMarkGone, KindForgetLaunch}
}

// AboutSession tells whether the subject of such an action is a session, or its document.
func (k Kind) AboutSession() bool {
	switch k {
	case KindAdmit, KindEnd, KindUnbind, KindBind, KindAmend, KindRestore, KindProject:
		return true
	default:
		return false
	}
}

// Target is what an action is done to, and why.
type Target struct {
	ID  string // of a session, container, launch, or the ARN of a task
	Why string // for a person
}

// Subject implements Action.
func (t Target) Subject() string { return t.ID }

// Because implements Action.
func (t Target) Because() string { return t.Why }

type (
	// Admit makes a session of a document.
	Admit struct {
		Target
		Document  *state.Document
		Remaining time.Duration // until its deadline
	}
	// End begins or confirms the end of a session.
	End struct {
		Target
		BindRev   int64
		Reason    state.Reason
		Confirmed bool
	}
	// Unbind takes a session back that its container did not make ready.
	Unbind struct {
		Target
		BindRev int64
	}
	// Bind gives a pending session a slot.
	Bind struct {
		Target
		Container string
		BootID    string
		Dedicated bool
	}
	// Amend takes over what a requester changed.
	Amend struct {
		Target
		Spec      json.RawMessage
		KeepAlive bool
		Remaining time.Duration
	}
	// Restore writes a document again that the store lost.
	Restore struct {
		Target
		Text      []byte
		Remaining time.Duration
	}
	// Project shows a session's phase in its document.
	Project struct {
		Target
		Status string
		Reason state.Reason // of an end
		// Unknown says that no session of that id is known: the store is asked for one first.
		Unknown bool
	}
	// ResolveLaunch records how a launch went.
	ResolveLaunch struct {
		Target
		Outcome   state.Outcome
		Cause     state.Cause // of a failure
		SettledAt time.Time
	}
	// Undrain opens a draining container again.
	Undrain struct {
		Target
		BootID string
	}
	// Launch starts a container: a new launch is recorded, and run by the next plan. It has no
	// id yet; ID is an ordinal that tells the launches of one plan apart.
	Launch struct {
		Target
		MaxSessions int
	}
	// Run makes the call of a recorded launch, again if need be.
	Run struct{ Target }
	// Drain closes a container to new sessions.
	Drain struct {
		Target
		BootID string
	}
	// BeginStop is the point of no return of an empty, acknowledged container.
	BeginStop struct {
		Target
		BootID string
	}
	// GiveUp is the point of no return of a container that hangs, whatever it holds.
	GiveUp struct {
		Target
		BootID string
		SeenAt time.Time // it must not have been heard since
		Now    time.Time // when it was found to hang
	}
	// StopTask stops a task.
	StopTask struct{ Target }
	// MarkGone records that a container is no more.
	MarkGone struct {
		Target
		BootID string
	}
	// MarkWhole says that nothing is missing from the store any more.
	MarkWhole struct {
		Target
		Filling state.Filling
	}
	// ForgetLaunch removes a launch that is of no more use.
	ForgetLaunch struct{ Target }
)

// Kind implements Action.
func (MarkWhole) Kind() Kind { return KindMarkWhole }

// Kind implements Action.
func (Admit) Kind() Kind { return KindAdmit }

// Kind implements Action.
func (End) Kind() Kind { return KindEnd }

// Kind implements Action.
func (Unbind) Kind() Kind { return KindUnbind }

// Kind implements Action.
func (Bind) Kind() Kind { return KindBind }

// Kind implements Action.
func (Amend) Kind() Kind { return KindAmend }

// Kind implements Action.
func (Restore) Kind() Kind { return KindRestore }

// Kind implements Action.
func (Project) Kind() Kind { return KindProject }

// Kind implements Action.
func (ResolveLaunch) Kind() Kind { return KindResolveLaunch }

// Kind implements Action.
func (Undrain) Kind() Kind { return KindUndrain }

// Kind implements Action.
func (Launch) Kind() Kind { return KindLaunch }

// Kind implements Action.
func (Run) Kind() Kind { return KindRun }

// Kind implements Action.
func (Drain) Kind() Kind { return KindDrain }

// Kind implements Action.
func (BeginStop) Kind() Kind { return KindBeginStop }

// Kind implements Action.
func (GiveUp) Kind() Kind { return KindGiveUp }

// Kind implements Action.
func (StopTask) Kind() Kind { return KindStopTask }

// Kind implements Action.
func (MarkGone) Kind() Kind { return KindMarkGone }

// Kind implements Action.
func (ForgetLaunch) Kind() Kind { return KindForgetLaunch }

// finish puts the plan into its one order: by kind, binds in the order of the queue, the
// rest by subject.
func (m *planner) finish() Plan {
	rank := map[Kind]int{}
	for i, k := range Kinds() {
		rank[k] = i
	}
	slices.SortStableFunc(m.plan.Actions, func(a, b Action) int {
		if c := cmp.Compare(rank[a.Kind()], rank[b.Kind()]); c != 0 {
			return c
		}
		if a.Kind() == KindBind {
			return 0 // made in the order of the queue
		}
		return cmp.Compare(a.Subject(), b.Subject())
	})
	slices.SortFunc(m.plan.Holds, func(a, b Hold) int {
		return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Why, b.Why))
	})
	return m.plan
}
