package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestARegisteredContainerIsVerifiedDialledAndReady(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := newContainer(t, "cnt_1")
	w.launch(c)
	registered := w.register(c, "r1")
	head := <-c.links
	if got, want := head.Get(wire.OwnerSeqHeader), fmt.Sprint(registered.OwnerSeq); got != want {
		t.Errorf("owner sequence %q, want %q", got, want)
	}
	if got := head.Get(wire.ReplicaHeader); got != "r1" {
		t.Errorf("replica %q", got)
	}
	w.await("the container to be ready", func() bool { return w.container("cnt_1").Phase == state.ContainerReady })
	if got, want := w.container("cnt_1"), fmt.Sprintf("127.0.0.1:%d", c.port); got.Addr != want || got.TaskARN != "arn:task/cnt_1" {
		t.Errorf("recorded %s and %s, want %s", got.Addr, got.TaskARN, want)
	}
}

func TestAContainerIsNotDialledUnless(t *testing.T) {
	for name, spoil := range map[string]func(w *world, c *container, task *state.Task){
		"the task is its own":            func(_ *world, _ *container, task *state.Task) { task.ContainerID = "cnt_other" },
		"the task is of this deployment": func(w *world, _ *container, task *state.Task) { delete(w.fleet.tasks, task.ARN) },
		"the task lives":                 func(_ *world, _ *container, task *state.Task) { task.LastStatus = "STOPPED" },
		"the task is to live":            func(_ *world, _ *container, task *state.Task) { task.DesiredStatus = "STOPPED" },
		"the task has an address":        func(_ *world, _ *container, task *state.Task) { task.Addr = "" },
		"the addresses agree":            func(_ *world, _ *container, task *state.Task) { task.Addr = "10.1.2.3" },
		"the address is one":             func(_ *world, _ *container, task *state.Task) { task.Addr = "evil.example" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := newContainer(t, "cnt_1")
			w.launch(c)
			good := w.fleet.tasks["arn:task/cnt_1"]
			bad := good
			spoil(w, c, &bad)
			if _, there := w.fleet.tasks[good.ARN]; there {
				w.fleet.set(bad)
			}
			w.links("r1")
			w.register(c, "r1")
			w.await("several attempts", func() bool { return w.fleet.called() >= 3 })
			if n := c.dialled(); n != 0 {
				t.Fatalf("dialled %d times", n)
			}
			if p := w.container("cnt_1").Phase; p != state.PendingVerification {
				t.Errorf("the container is %s", p)
			}
			w.fleet.set(good) // ECS is eventually consistent
			w.await("the container to be ready", func() bool { return w.container("cnt_1").Phase == state.ContainerReady })
		})
	}
}

func TestABoundSessionIsCreatedAtOnceAndBecomesReady(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.admit("ses_1")
	begun := time.Now()
	s := w.bind("ses_1", c)
	o := c.expect(wire.CreateSession)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("took %v", took)
	}
	if o.SessionID != "ses_1" || o.BindRev != s.BindRev || o.UserID != "u" || o.N != 1 ||
		string(o.Options) != `{"viewport":{"width":7}}` {
		t.Errorf("got %+v", o)
	}
	l := o.Limits
	if l == nil || l.FirstConnect != 300_000 || l.DisconnectGrace != 10_000 || l.LostGrace != 120_000 ||
		l.Remaining < 3_500_000 || l.Remaining > 3_600_000 {
		t.Errorf("got limits %+v", l)
	}
	c.hold("ses_1", o.BindRev)
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: o.BindRev, Cold: true})
	if got := w.awaitPhase("ses_1", state.Ready); !got.Cold {
		t.Error("the browser's origin is not recorded")
	}
	c.quiet(w) // told once
}

func TestAnEndedSessionIsDestroyedAndItsSlotFreed(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	s := w.serving("ses_1", c)
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: state.Revoked}); err != nil {
		t.Fatal(err)
	}
	o := c.expect(wire.DestroySession)
	if o.SessionID != "ses_1" || o.BindRev != s.BindRev || o.Reason != "revoked" || o.CloseCode != 1008 {
		t.Errorf("got %+v", o)
	}
	c.release("ses_1")
	c.notify(wire.Notice{Type: wire.SessionEnded, SessionID: "ses_1", BindRev: s.BindRev, Reason: "released"})
	if got := w.awaitPhase("ses_1", state.Ended); got.Reason != state.Revoked {
		t.Errorf("ended as %s, want the first reason", got.Reason)
	}
	if slots := w.container("cnt_1").Slots; len(slots) != 0 {
		t.Errorf("slots %v", slots)
	}
	c.quiet(w)
}

func TestABrowserThatEndsByItselfEndsItsSession(t *testing.T) {
	for said, want := range map[string]state.Reason{"disconnected": state.Disconnected, "nonsense": state.BrowserCrashed} {
		w := newWorld(t)
		w.links("r1")
		c := w.ready("cnt_1")
		s := w.serving("ses_1", c)
		c.release("ses_1")
		c.notify(wire.Notice{Type: wire.SessionEnded, SessionID: "ses_1", BindRev: s.BindRev, Reason: said})
		if got := w.awaitPhase("ses_1", state.Ended); got.Reason != want {
			t.Errorf("%s: ended as %s, want %s", said, got.Reason, want)
		}
	}
}

func TestASessionThatAReportLacksHasCrashed(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.serving("ses_1", c)
	w.serving("ses_2", c)
	c.release("ses_1")
	c.report()
	if got := w.awaitPhase("ses_1", state.Ended); got.Reason != state.BrowserCrashed {
		t.Errorf("ended as %s", got.Reason)
	}
	if got := w.session("ses_2"); got.Phase != state.Ready {
		t.Errorf("the other session is %s", got.Phase)
	}
}

func TestABoundSessionIsOnlyMissedOnceItsOrderWasObeyed(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.admit("ses_1")
	w.bind("ses_1", c)
	o := c.expect(wire.CreateSession)
	c.report(func(r *wire.Report) { r.Ack = o.N - 1; r.Warm = 9; r.DrainAck = -1 })
	w.await("the report to be recorded", func() bool { return w.container("cnt_1").Health.Warm == 9 })
	if got := w.session("ses_1"); got.Refused != "" {
		t.Fatalf("refused: %s", got.Refused)
	}
	c.report()
	w.await("the refusal", func() bool { return w.session("ses_1").Refused != "" })
}

func TestARefusalIsRecordedAndTheUnboundSessionNotDestroyedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.admit("ses_1")
	w.bind("ses_1", c)
	o := c.expect(wire.CreateSession)
	c.notify(wire.Notice{Type: wire.SessionError, SessionID: "ses_1", BindRev: o.BindRev, Error: "no browser"})
	w.await("the refusal", func() bool { return w.session("ses_1").Refused == "no browser" })
	if slots := w.container("cnt_1").Slots; len(slots) != 0 {
		t.Errorf("slots %v", slots)
	}
}

func TestAReadyUnderAnotherBindingIsDestroyed(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c, other := w.ready("cnt_1"), w.ready("cnt_2")
	w.admit("ses_1")
	s := w.bind("ses_1", c)
	o := c.expect(wire.CreateSession)
	if _, err := w.store.Unbind(t.Context(), w.leader, state.Unbinding{Session: "ses_1", BindRev: s.BindRev, Why: "late"}); err != nil {
		t.Fatal(err)
	}
	again := w.bind("ses_1", other)
	if got := other.expect(wire.CreateSession); got.BindRev != again.BindRev {
		t.Errorf("created under %d, want %d", got.BindRev, again.BindRev)
	}
	c.hold("ses_1", o.BindRev)
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: o.BindRev})
	if got := c.expect(wire.DestroySession); got.BindRev != o.BindRev || got.SessionID != "ses_1" {
		t.Errorf("got %+v", got)
	}
	c.release("ses_1")
	c.notify(wire.Notice{Type: wire.SessionEnded, SessionID: "ses_1", BindRev: o.BindRev})
	w.await("the slot to be free", func() bool { return len(w.container("cnt_1").Slots) == 0 })
	if got := w.session("ses_1"); got.Phase != state.Bound || got.Container != "cnt_2" {
		t.Errorf("the session is %s in %s", got.Phase, got.Container)
	}
}

func TestAnUnboundSessionIsDestroyedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.admit("ses_1")
	s := w.bind("ses_1", c)
	c.expect(wire.CreateSession)
	begun := time.Now()
	if _, err := w.store.Unbind(t.Context(), w.leader, state.Unbinding{Session: "ses_1", BindRev: s.BindRev, Why: "late"}); err != nil {
		t.Fatal(err)
	}
	if o := c.expect(wire.DestroySession); o.BindRev != s.BindRev {
		t.Errorf("got %+v", o)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("took %v: nothing but the sweep has found it", took)
	}
}

func TestAFencedOwnerLeavesQuietly(t *testing.T) {
	w := newWorld(t)
	stop := w.links("r1")
	c := w.ready("cnt_1")
	s := w.serving("ses_1", c)
	w.register(c, "r2") // the agent has registered elsewhere
	_ = stop
	w.await("the link to be closed", func() bool {
		c.notify(wire.Notice{Type: wire.SessionEnded, SessionID: "ses_1", BindRev: s.BindRev})
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.conn.WriteJSON(wire.Notice{Type: "NOTHING"}) != nil
	})
	if n := c.dialled(); n != 1 {
		t.Errorf("dialled %d times", n)
	}
	if got := w.container("cnt_1"); got.Owner != "r2" {
		t.Errorf("owned by %s", got.Owner)
	}
}

func TestTheLinkOutlivesASilentStoreAndCatchesUp(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.admit("ses_1")
	w.bind("ses_1", c)
	o := c.expect(wire.CreateSession)
	w.store.FailWith(errors.New("gone"))
	c.hold("ses_1", o.BindRev)
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: o.BindRev})
	c.report()
	w.await("the mirror to notice", func() bool { return w.mirror.Age() > 200*time.Millisecond })
	w.store.FailWith(nil)
	w.awaitPhase("ses_1", state.Ready)
	if n := c.dialled(); n != 1 {
		t.Errorf("dialled %d times", n)
	}
}

// fencing looks at the owner before anything else, as a store may, and counts its refusals.
type fencing struct {
	*state.Memory
	refused atomic.Int32
}

func (f *fencing) Report(ctx context.Context, by state.Authority, report state.Report) (*state.Container, error) {
	c, err := f.Memory.Report(ctx, by, report)
	if errors.Is(err, state.ErrNotFound) {
		f.refused.Add(1)
		return nil, state.ErrFenced
	}
	return c, err
}

func TestAStoreThatForgetsEverythingCutsNoLink(t *testing.T) {
	w := newWorld(t)
	store := &fencing{Memory: w.store}
	w.links("r1", func(cfg *proxy.LinksConfig) { cfg.Store = store })
	c := w.ready("cnt_1")
	s := w.serving("ses_1", c)
	w.store.Wipe()
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: s.BindRev})
	c.report(func(r *wire.Report) { r.DrainAck = 7 })
	w.await("the store to be given back what it has forgotten", func() bool {
		s, err := w.store.Session(t.Context(), "ses_1")
		return err == nil && s.Phase == state.Ready
	})
	w.await("a report to be written again", func() bool {
		r, err := w.store.Container(t.Context(), "cnt_1")
		return err == nil && len(r.Slots) == 1 && r.SeenAt.After(s.ReadyAt)
	})
	select {
	case o := <-c.orders:
		t.Errorf("got order %+v, want none", o)
	default:
	}
	if err := testutil.GatherAndCompare(w.reg, strings.NewReader(`
# HELP wallcrawler_links Containers that this replica owns, by the state of their link.
# TYPE wallcrawler_links gauge
wallcrawler_links{state="dialling"} 0
wallcrawler_links{state="lost"} 0
wallcrawler_links{state="open"} 1
wallcrawler_links{state="verifying"} 0
`), "wallcrawler_links"); err != nil {
		t.Error(err)
	}
}

func TestALostLinkWakesTheLeaderAndIsDialledAgainWithoutASecondCreate(t *testing.T) {
	w := newWorld(t)
	hints := make(chan state.Hint, 100)
	w.background(func(ctx context.Context) error {
		return w.store.Watch(ctx, func(hs []state.Hint) {
			for _, h := range hs {
				if h.Kind == state.KindFleet {
					hints <- h
				}
			}
		}, nil)
	})
	w.links("r1")
	c := w.ready("cnt_1")
	w.serving("ses_1", c)
	w.admit("ses_2")
	two := w.bind("ses_2", c)
	c.expect(wire.CreateSession)
	c.hold("ses_2", two.BindRev) // ready, but the notice is lost with the link
	<-c.links
	c.drop()
	if h := <-hints; h.ID != "arn:task/cnt_1" {
		t.Errorf("woken for %+v", h)
	}
	<-c.links
	w.awaitPhase("ses_2", state.Ready)
	seen := map[string]bool{}
	for range 2 { // the new line cannot know which limits the container has
		seen[c.expect(wire.UpdateSession).SessionID] = true
	}
	if !seen["ses_1"] || !seen["ses_2"] {
		t.Errorf("updated %v", seen)
	}
	c.quiet(w)
}

func TestWhatAContainerHoldsWithoutABindingIsDestroyed(t *testing.T) {
	w := newWorld(t)
	w.admit("ses_1")
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: state.Released}); err != nil {
		t.Fatal(err)
	}
	w.links("r1")
	c := newContainer(t, "cnt_1")
	c.hold("ses_1", 5)
	w.launch(c)
	w.register(c, "r1")
	if o := c.expect(wire.DestroySession); o.SessionID != "ses_1" || o.BindRev != 5 || o.Reason != "released" {
		t.Errorf("got %+v", o)
	}
}

func TestASlotWithoutItsSessionIsFreedOnceTheContainerSaysSo(t *testing.T) {
	w := newWorld(t)
	stop := w.links("r1")
	c := w.ready("cnt_1")
	stop()
	w.admit("ses_1")
	s := w.bind("ses_1", c)
	if _, err := w.store.Unbind(t.Context(), w.leader, state.Unbinding{Session: "ses_1", BindRev: s.BindRev, Why: "late"}); err != nil {
		t.Fatal(err)
	}
	// First, or the order might be of a link that the registration ends.
	w.register(c, "r1")
	w.links("r1", func(cfg *proxy.LinksConfig) { cfg.Registerer = nil })
	o := c.expect(wire.DestroySession)
	if got := w.container("cnt_1").Slots; len(got) != 1 {
		t.Fatalf("slots %v before the container has said so", got)
	}
	c.notify(wire.Notice{Type: wire.SessionEnded, SessionID: "ses_1", BindRev: o.BindRev})
	w.await("the slot to be free", func() bool { return len(w.container("cnt_1").Slots) == 0 })
}

func TestADrainIsOrderedAcknowledgedAndTakenBack(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	if _, err := w.store.Drain(t.Context(), w.leader, "cnt_1", c.bootID); err != nil {
		t.Fatal(err)
	}
	o := c.expect(wire.Drain)
	c.mu.Lock()
	c.draining, c.drainAck = true, o.DrainSeq
	c.mu.Unlock()
	c.report()
	w.await("the acknowledgement", func() bool { return w.container("cnt_1").DrainAck == o.DrainSeq })
	if _, err := w.store.Undrain(t.Context(), w.leader, "cnt_1", c.bootID); err != nil {
		t.Fatal(err)
	}
	back := c.expect(wire.Undrain)
	c.mu.Lock()
	c.draining = false
	c.mu.Unlock()
	c.report()
	c.quiet(w)
	if back.DrainSeq != o.DrainSeq {
		t.Errorf("un-drained %d, want %d", back.DrainSeq, o.DrainSeq)
	}
	if got := w.container("cnt_1").Phase; got != state.ContainerReady {
		t.Errorf("the container is %s", got)
	}
}

func TestAContainerThatWasToldToStopFromElsewhereDrains(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	c.report()
	w.await("the drain", func() bool { return w.container("cnt_1").Phase == state.Draining })
	if o := c.expect(wire.Drain); o.DrainSeq != 1 {
		t.Errorf("got %+v", o)
	}
}

func TestAnAmendedSessionIsUpdated(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	w.serving("ses_1", c)
	if _, err := w.store.Amend(t.Context(), w.leader, state.Amendment{Session: "ses_1", KeepAlive: true, Remaining: time.Minute}); err != nil {
		t.Fatal(err)
	}
	o := c.expect(wire.UpdateSession)
	if !o.Limits.KeepAlive || o.Limits.Remaining > 60_000 || o.Limits.Remaining < 50_000 {
		t.Errorf("got %+v", o.Limits)
	}
}

func TestClientsOfASessionAreRecorded(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	s := w.serving("ses_1", c)
	say := func(attached int, grace int64) {
		c.report(func(r *wire.Report) {
			r.Sessions = []wire.SessionReport{{SessionID: "ses_1", BindRev: s.BindRev, Phase: wire.Serving, Attached: attached, Connected: true, GraceLeft: grace}}
		})
	}
	say(2, -1)
	w.await("the clients", func() bool { got := w.session("ses_1"); return got.Attached == 2 && !got.FirstConnectAt.IsZero() })
	say(0, 10_000)
	w.await("the grace", func() bool { got := w.session("ses_1"); return got.Attached == 0 && !got.GraceUntil.IsZero() })
	say(1, -1)
	w.await("the return", func() bool { got := w.session("ses_1"); return got.Attached == 1 && got.GraceUntil.IsZero() })
}

func TestAStoppingReplicaHandsItsContainersOver(t *testing.T) {
	w := newWorld(t)
	stop := w.links("r1")
	c := w.ready("cnt_1")
	w.serving("ses_1", c)
	stop()
	if got := w.container("cnt_1"); got.OwnerUntil.After(time.Now()) {
		t.Errorf("owned until %v", got.OwnerUntil)
	}
	if got := w.session("ses_1"); got.Phase != state.Ready {
		t.Errorf("the session is %s", got.Phase)
	}
}
