// Package statetest is the suite that every state.Store passes: the transitions of
// docs/state.md, each one allowed and each one refused. It must know no implementation.
package statetest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// Harness is one empty store and what a test needs beside it.
type Harness struct {
	Store state.Store

	// The foreign writer: somebody else who writes documents without telling us.
	Set    func(id, text string, ttl time.Duration) // zero ttl: none
	Delete func(id string)
	Spoil  func(id string) // puts something that is no string in a document's place

	Foreign Foreign // what others do beside documents

	Wipe     func()                // loses everything; nil: cannot
	Advance  func(d time.Duration) // moves the store's clock and its TTLs; nil: cannot
	Notified bool                  // the foreign writer's changes are hinted at
}

// Foreign is what others write and read beside documents.
type Foreign struct {
	Desire       func(text string, ttl time.Duration)                  // writes pool:desired; zero ttl: none
	Undesire     func()                                                // removes it
	SpoilDesired func()                                                // puts something that is no string in its place
	NoteV1       func(container, session string)                       // as a v1 container does
	Read         func(key string) (text string, remains time.Duration) // documents, pool:state, container:{id}:health; empty: none
}

// Run runs the suite. open gives an empty store each time and cleans up after the test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	parts := []struct {
		name string
		test func(t *testing.T, w *world)
	}{
		{"session transitions", testSessionTransitions},
		{"admission", testAdmission},
		{"binding", testBinding},
		{"concurrent binding", testConcurrentBinding},
		{"dedicated tenancy", testDedicated},
		{"unbinding and slots", testUnbinding},
		{"ready and refused", testReadyAndRefused},
		{"ends", testEnds},
		{"activity", testActivity},
		{"amending and waiting", testAmending},
		{"owner's authority", testOwnerFencing},
		{"leader's authority", testLeaderFencing},
		{"container transitions", testContainerTransitions},
		{"registration", testRegistration},
		{"registration of a launch that was given up", testRegistrationOfALaunchThatWasGivenUp},
		{"reports", testReports},
		{"giving up", testGivingUp},
		{"testimonies", testTestimonies},
		{"claims of links", testClaims},
		{"racing claims", testRacingClaims},
		{"replicas", testReplicas},
		{"dialect of the pool", testDialect},
		{"draining", testDraining},
		{"launches", testLaunches},
		{"lease", testLease},
		{"documents", testDocuments},
		{"document edits", testEdits},
		{"poisoned documents", testPoison},
		{"Lambdas' edits", testLambdas},
		{"desired pool", testPoolDesired},
		{"notes of the pool", testPoolNotes},
		{"shown to others", testShown},
		{"quiet annotations", testAnnotationsAreQuiet},
		{"notes of v1 containers", testV1Notes},
		{"events", testEvents},
		{"index", testIndex},
		{"hints", testHints},
		{"notifications", testNotifications},
		{"wiped", testWiped},
		{"restored", testRestored},
		{"restored over what came since", testRestoredOver},
		{"restored from two timelines", testRestoredForks},
		{"restored end", testRestoredEnd},
		{"restored where there is no room any more", testRestoredCrowded},
		{"restored over a container that has registered anew", testRestoredPlaces},
		{"restored without their container", testRestoredWithoutContainer},
		{"time", testTime},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			h := open(t)
			p.test(t, &world{t: t, Harness: h, ctx: t.Context(), store: h.Store})
		})
	}
}

// world is one test's store with the leader at work.
type world struct {
	Harness

	t      *testing.T
	ctx    context.Context
	store  state.Store
	leader state.Authority
}

const (
	patience  = 30 * time.Second // for what must come
	replica   = "replica-1"
	boot      = "boot-1"
	otherBoot = "boot-2"
)

// lead gives the leader's authority, taking the lease first.
func (w *world) lead() state.Authority {
	w.t.Helper()
	if w.leader.Epoch == 0 {
		epoch, _, err := w.store.AcquireLease(w.ctx, replica, 0)
		w.ok(err)
		w.leader = state.Authority{Epoch: epoch}
	}
	return w.leader
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// is demands this outcome; nil means success.
func (w *world) is(err, want error) {
	w.t.Helper()
	if want == nil {
		w.ok(err)
		return
	}
	if !errors.Is(err, want) {
		w.t.Fatalf("got error %v, want %v", err, want)
	}
}

func (w *world) admit(id, user string) *state.Session {
	w.t.Helper()
	s, err := w.store.Admit(w.ctx, w.lead(), state.Admission{
		ID: id, Spec: json.RawMessage(`{"sessionId":"` + id + `"}`), Origin: state.OriginAPI, UserID: user,
		Remaining: time.Hour,
	})
	w.ok(err)
	return s
}

// registered gives a container that is pending_verification, and its owner.
func (w *world) registered(id string, slots int) (*state.Container, state.Authority) {
	w.t.Helper()
	c, err := w.store.Register(w.ctx, state.Registration{
		ID: id, Launch: id, BootID: boot, Protocol: 2, MaxSessions: slots, Owner: replica,
		Claimed: state.Claim{IP: "10.0.0.1", Port: 8080, TaskARN: "local"},
	})
	w.ok(err)
	return c, state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
}

// hosting gives the owner of a container that is ready.
func (w *world) hosting(id string, slots int) state.Authority {
	w.t.Helper()
	_, owner := w.registered(id, slots)
	c, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot, Addr: "10.0.0.1:8080"})
	w.ok(err)
	if c.Phase != state.ContainerReady {
		w.t.Fatalf("the container is %s after its address was verified", c.Phase)
	}
	return owner
}

func (w *world) bind(id, container string) *state.Session {
	w.t.Helper()
	s, err := w.store.Bind(w.ctx, w.lead(), state.Binding{Session: id, Container: container, BootID: boot})
	w.ok(err)
	return s
}

func (w *world) session(id string) *state.Session {
	w.t.Helper()
	s, err := w.store.Session(w.ctx, id)
	w.ok(err)
	return s
}

func (w *world) container(id string) *state.Container {
	w.t.Helper()
	c, err := w.store.Container(w.ctx, id)
	w.ok(err)
	return c
}

// sessionIn brings a new session into that phase in that container.
func (w *world) sessionIn(phase state.Phase, id, container string, owner state.Authority) *state.Session {
	w.t.Helper()
	s := w.admit(id, "u")
	if phase == state.Pending {
		return s
	}
	s = w.bind(id, container)
	if phase == state.Bound {
		return s
	}
	s, _, err := w.store.Ready(w.ctx, owner, id, s.BindRev, false)
	w.ok(err)
	if phase == state.Ready {
		return s
	}
	s, err = w.store.End(w.ctx, w.lead(), state.End{Session: id, Reason: state.Idle, Message: "first", Confirmed: phase == state.Ended})
	w.ok(err)
	return s
}

// containerIn brings a new container into that phase.
func (w *world) containerIn(phase state.ContainerPhase, id string) (*state.Container, state.Authority) {
	w.t.Helper()
	if phase == state.PendingVerification {
		return w.registered(id, 2)
	}
	owner := w.hosting(id, 2)
	var err error
	c := w.container(id)
	if phase == state.Gone {
		c, err = w.store.MarkGone(w.ctx, w.lead(), id, boot)
		w.ok(err)
	}
	if phase == state.Draining || phase == state.Stopping {
		c, err = w.store.Drain(w.ctx, w.lead(), id, boot)
		w.ok(err)
		c, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot, DrainAck: c.DrainSeq})
		w.ok(err)
	}
	if phase == state.Stopping {
		c, err = w.store.BeginStop(w.ctx, w.lead(), id, boot)
		w.ok(err)
	}
	if c.Phase != phase {
		w.t.Fatalf("the container is %s, want %s", c.Phase, phase)
	}
	return c, owner
}

// same demands that a refused write has changed nothing.
func (w *world) same(before, after int64) {
	w.t.Helper()
	if before != after {
		w.t.Fatalf("the record moved from revision %d to %d", before, after)
	}
}

// near tells whether two times of the store differ by little.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < 2*time.Second }
