package statetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// testContainerTransitions tries every move from every phase.
func testContainerTransitions(t *testing.T, w *world) {
	type result struct {
		phase state.ContainerPhase
		err   error
	}
	to := func(p state.ContainerPhase) result { return result{phase: p} }
	no := result{err: state.ErrConflict}
	register := func(c *state.Container, boot string) (*state.Container, error) {
		return w.store.Register(w.ctx, state.Registration{
			ID: c.ID, Launch: c.ID, BootID: boot, Protocol: 2, MaxSessions: 2, Owner: "replica-2",
		})
	}
	type act func(c *state.Container, owner state.Authority) (*state.Container, error)
	moves := []struct {
		name string
		do   act
		want [5]result // in the order of the phases
	}{
		{
			"drain by the leader",
			func(c *state.Container, _ state.Authority) (*state.Container, error) {
				return w.store.Drain(w.ctx, w.lead(), c.ID, boot)
			},
			[5]result{no, to(state.Draining), to(state.Draining), no, no},
		},
		{
			"drain by the owner",
			func(c *state.Container, owner state.Authority) (*state.Container, error) {
				return w.store.Drain(w.ctx, owner, c.ID, boot)
			},
			[5]result{no, to(state.Draining), to(state.Draining), no, no},
		},
		{
			"undrain",
			func(c *state.Container, _ state.Authority) (*state.Container, error) {
				return w.store.Undrain(w.ctx, w.lead(), c.ID, boot)
			},
			[5]result{no, to(state.ContainerReady), to(state.ContainerReady), no, no},
		},
		{
			"begin to stop",
			func(c *state.Container, _ state.Authority) (*state.Container, error) {
				return w.store.BeginStop(w.ctx, w.lead(), c.ID, boot)
			},
			[5]result{to(state.Stopping), no, to(state.Stopping), to(state.Stopping), no},
		},
		{
			"give up",
			func(c *state.Container, _ state.Authority) (*state.Container, error) {
				return w.store.GiveUp(w.ctx, w.lead(), state.GivingUp{Container: c.ID, BootID: boot, SeenAt: c.SeenAt, JudgedAt: time.Now()})
			},
			[5]result{no, to(state.Stopping), to(state.Stopping), no, no},
		},
		{
			"mark as gone",
			func(c *state.Container, _ state.Authority) (*state.Container, error) {
				return w.store.MarkGone(w.ctx, w.lead(), c.ID, boot)
			},
			[5]result{to(state.Gone), to(state.Gone), to(state.Gone), to(state.Gone), to(state.Gone)},
		},
		{
			"register again",
			func(c *state.Container, _ state.Authority) (*state.Container, error) { return register(c, boot) },
			[5]result{to(state.PendingVerification), to(state.ContainerReady), to(state.Draining), no, no},
		},
		{
			"register another life",
			func(c *state.Container, _ state.Authority) (*state.Container, error) { return register(c, otherBoot) },
			[5]result{
				to(state.PendingVerification), to(state.PendingVerification), to(state.PendingVerification), no, no,
			},
		},
		{
			"report with an address",
			func(_ *state.Container, owner state.Authority) (*state.Container, error) {
				return w.store.Report(w.ctx, owner, state.Report{BootID: boot, Addr: "10.0.0.1:8080"})
			},
			[5]result{to(state.ContainerReady), to(state.ContainerReady), to(state.Draining), to(state.Stopping), no},
		},
		{
			"report without an address",
			func(_ *state.Container, owner state.Authority) (*state.Container, error) {
				return w.store.Report(w.ctx, owner, state.Report{BootID: boot})
			},
			[5]result{
				to(state.PendingVerification), to(state.ContainerReady), to(state.Draining), to(state.Stopping), no,
			},
		},
	}
	for i, m := range moves {
		for at, from := range state.ContainerPhases() {
			t.Run(m.name+" from "+string(from), func(t *testing.T) {
				w := *w
				w.t = t
				id := fmt.Sprintf("c-%d-%d", i, at)
				before, owner := w.containerIn(from, id)
				got, err := m.do(before, owner)
				want := m.want[at]
				w.is(err, want.err)
				after := w.container(id)
				if err != nil {
					w.same(before.Rev, after.Rev)
					return
				}
				if got.Phase != want.phase || after.Phase != want.phase || got.Rev != after.Rev {
					t.Fatalf("got %s, stored %s, want %s", got.Phase, after.Phase, want.phase)
				}
			})
		}
	}
	w.hosting("again", 1)
	for n := range state.FormerLives + 2 {
		life := fmt.Sprintf("%s-%d", otherBoot, n)
		c, err := register(&state.Container{ID: "again"}, life)
		w.ok(err)
		if got := w.container("again"); c.BootID != life || len(c.Former) != min(n+1, state.FormerLives) || !slices.Equal(got.Former, c.Former) {
			t.Fatalf("in its life %s the container has left %v, stored %v", c.BootID, c.Former, got.Former)
		}
		_, err = register(c, c.Former[len(c.Former)-1])
		w.is(err, state.ErrConflict) // it was late on its way
		_, err = register(c, c.Former[0])
		w.is(err, state.ErrConflict)
	}
	w.hosting("lives", 1)
	for name, do := range map[string]func(id, boot string) (*state.Container, error){
		"Drain":     func(id, boot string) (*state.Container, error) { return w.store.Drain(w.ctx, w.lead(), id, boot) },
		"Undrain":   func(id, boot string) (*state.Container, error) { return w.store.Undrain(w.ctx, w.lead(), id, boot) },
		"BeginStop": func(id, boot string) (*state.Container, error) { return w.store.BeginStop(w.ctx, w.lead(), id, boot) },
		"MarkGone":  func(id, boot string) (*state.Container, error) { return w.store.MarkGone(w.ctx, w.lead(), id, boot) },
		"GiveUp": func(id, boot string) (*state.Container, error) {
			return w.store.GiveUp(w.ctx, w.lead(), state.GivingUp{Container: id, BootID: boot, SeenAt: time.Now().Add(time.Hour), JudgedAt: time.Now()})
		},
	} {
		t.Run(name+" of another life or of nobody", func(t *testing.T) {
			w := *w
			w.t = t
			_, err := do("lives", otherBoot)
			w.is(err, state.ErrConflict)
			_, err = do("nobody", boot)
			w.is(err, state.ErrNotFound)
		})
	}
}

func testRegistrationOfALaunchThatWasGivenUp(t *testing.T, w *world) {
	for _, id := range []string{"late", "early"} {
		_, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: id, Input: []byte(`{"name":"\"outcome\":\"expired\""}`)})
		w.ok(err)
	}
	giveUp := func(id string) error {
		_, err := w.store.UpdateLaunch(w.ctx, w.lead(), id, state.LaunchUpdate{Outcome: state.Expired, Cause: state.Late})
		return err
	}
	register := func(id, boot string) error {
		_, err := w.store.Register(w.ctx, state.Registration{ID: id, Launch: id, BootID: boot, Protocol: 2, MaxSessions: 1, Owner: "r"})
		return err
	}
	w.ok(giveUp("late"))
	w.is(register("late", boot), state.ErrConflict)
	w.ok(giveUp("late"))
	_, err := w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "refused", Input: []byte(`{}`)})
	w.ok(err)
	_, err = w.store.UpdateLaunch(w.ctx, w.lead(), "refused", state.LaunchUpdate{Outcome: state.Refused, Cause: state.NoCapacity})
	w.ok(err)
	after := func(id string) error {
		_, err := w.store.UpdateLaunch(w.ctx, w.lead(), id, state.LaunchUpdate{Outcome: state.Expired, Message: "its task came up after all"})
		return err
	}
	w.ok(register("refused", boot))
	w.is(after("refused"), state.ErrConflict)
	// Whoever has not heard that it was refused does not take its cause from it.
	_, err = w.store.CreateLaunch(w.ctx, w.lead(), state.Launch{ID: "drought", Input: []byte(`{}`)})
	w.ok(err)
	_, err = w.store.UpdateLaunch(w.ctx, w.lead(), "drought", state.LaunchUpdate{Outcome: state.Refused, Cause: state.NoCapacity})
	w.ok(err)
	w.is(giveUp("drought"), state.ErrConflict)
	w.ok(after("drought"))
	if l, err := w.store.Launch(w.ctx, "drought"); err != nil || l.Outcome != state.Expired || l.Cause != state.NoCapacity {
		t.Fatalf("a launch that was refused and given up after all is %+v, %v", l, err)
	}
	// Who was here before that is here, and its launch has succeeded.
	w.ok(register("early", boot))
	w.is(giveUp("early"), state.ErrConflict)
	l, err := w.store.Launch(w.ctx, "early")
	w.ok(err)
	if !l.Open() {
		t.Fatalf("a launch whose container is there is %s", l.Outcome)
	}
	w.ok(register("early", otherBoot))
	_, err = w.store.BeginStop(w.ctx, w.lead(), "early", otherBoot)
	w.ok(err)
	w.ok(giveUp("early"))
}

func testRegistration(t *testing.T, w *world) {
	claim := state.Claim{IP: "10.0.0.9", Port: 81, TaskARN: "local", Version: "1.2"}
	r := state.Registration{
		ID: "c1", Launch: "l1", BootID: boot, Protocol: 2, MaxSessions: 3, Claimed: claim, Owner: "replica-1",
	}
	c, err := w.store.Register(w.ctx, r)
	w.ok(err)
	if c.Phase != state.PendingVerification || c.Addr != "" || c.Claimed != claim || c.Launch != "l1" || c.Protocol != 2 ||
		c.MaxSessions != 3 || c.Owner != "replica-1" || c.OwnerSeq != 1 || c.RegisteredAt.IsZero() ||
		!near(c.OwnerUntil, c.SeenAt.Add(state.OwnerLease)) {
		t.Fatalf("got %+v", c)
	}
	owner := state.Authority{Container: "c1", OwnerSeq: 1}
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot, Addr: "10.0.0.9:81", TaskARN: "arn:1"})
	w.ok(err)
	w.admit("s1", "u")
	s := w.bind("s1", "c1")

	// The same life elsewhere: only the link moves.
	r.Owner = "replica-2"
	c, err = w.store.Register(w.ctx, r)
	w.ok(err)
	if c.Phase != state.ContainerReady || c.Addr != "10.0.0.9:81" || c.Owner != "replica-2" || c.OwnerSeq != 2 || c.Used() != 1 {
		t.Fatalf("got %+v", c)
	}
	// Another life: it starts over, and holds nothing of the old one.
	r.BootID = otherBoot
	c, err = w.store.Register(w.ctx, r)
	w.ok(err)
	if c.Phase != state.PendingVerification || c.Addr != "" || c.BootID != otherBoot || c.OwnerSeq != 3 || c.Used() != 0 || c.DrainAck != 0 {
		t.Fatalf("got %+v", c)
	}
	if got := w.session("s1"); !got.BoundTo("c1", boot) {
		t.Fatalf("the session has moved: %+v", got)
	}
	owner.OwnerSeq = 3
	_, _, err = w.store.Ready(w.ctx, owner, "s1", s.BindRev, false)
	w.is(err, state.ErrConflict) // it is bound to the old life
	_, err = w.store.End(w.ctx, w.lead(), state.End{Session: "s1", Reason: state.ContainerLost, Confirmed: true})
	w.ok(err)

	for _, bad := range []state.Registration{
		{},
		{ID: "c 2", BootID: boot, MaxSessions: 1, Owner: "r"},
		{ID: "c2", MaxSessions: 1, Owner: "r"},
		{ID: "c2", BootID: boot, Owner: "r"},
		{ID: "c2", BootID: boot, MaxSessions: 1},
	} {
		_, err := w.store.Register(w.ctx, bad)
		w.is(err, state.ErrInvalid)
	}
	_, err = w.store.Container(w.ctx, "c2")
	w.is(err, state.ErrNotFound)
}

func testReports(t *testing.T, w *world) {
	_, owner := w.registered("c1", 2)
	health := state.Health{CPU: 0.25, Memory: 0.5, Warm: 1, Sessions: 2}
	c, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot, Addr: "10.0.0.1:80", TaskARN: "arn:1", Health: health})
	w.ok(err)
	if c.Addr != "10.0.0.1:80" || c.TaskARN != "arn:1" || c.Health != health || !near(c.OwnerUntil, c.SeenAt.Add(state.OwnerLease)) {
		t.Fatalf("got %+v", c)
	}
	c, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.ok(err)
	if c.Addr != "10.0.0.1:80" || c.TaskARN != "arn:1" || c.Health != (state.Health{}) {
		t.Fatalf("got %+v", c)
	}
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: otherBoot})
	w.is(err, state.ErrConflict)
	_, err = w.store.Report(w.ctx, state.Authority{Container: "nobody", OwnerSeq: 1}, state.Report{BootID: boot})
	w.is(err, state.ErrNotFound)

	w.ok(w.store.Disown(w.ctx, owner))
	c = w.container("c1")
	if c.OwnerUntil.After(c.SeenAt.Add(state.OwnerLease - time.Second)) {
		t.Fatalf("the owner's lease lasts until %v", c.OwnerUntil)
	}
	w.ok(w.store.Disown(w.ctx, owner))
	w.is(w.store.Disown(w.ctx, state.Authority{Container: "nobody", OwnerSeq: 1}), state.ErrNotFound)
	found, err := w.store.ContainersOf(w.ctx, []string{"nobody", "c1"})
	w.ok(err)
	if len(found) != 1 || found[0].ID != "c1" {
		t.Fatalf("found %v", found)
	}
}

func testDraining(t *testing.T, w *world) {
	owner := w.hosting("c1", 2)
	report := func(ack int64) *state.Container {
		c, err := w.store.Report(w.ctx, owner, state.Report{BootID: boot, DrainAck: ack})
		w.ok(err)
		return c
	}
	stop := func() error { return drop(w.store.BeginStop(w.ctx, w.lead(), "c1", boot)) }
	w.admit("s1", "u")
	w.admit("s2", "u")
	s := w.bind("s1", "c1")
	if c := report(5); c.DrainAck != 0 {
		t.Fatalf("an order that was never given is acknowledged: %d", c.DrainAck)
	}
	c, err := w.store.Drain(w.ctx, w.lead(), "c1", boot)
	w.ok(err)
	if c.DrainSeq != 1 {
		t.Fatalf("order %d, want 1", c.DrainSeq)
	}
	again, err := w.store.Drain(w.ctx, w.lead(), "c1", boot)
	w.ok(err)
	w.same(c.Rev, again.Rev)
	_, err = w.store.Bind(w.ctx, w.lead(), state.Binding{Session: "s2", Container: "c1", BootID: boot})
	w.is(err, state.ErrConflict)
	w.is(stop(), state.ErrConflict) // not acknowledged, not empty
	report(1)
	w.is(stop(), state.ErrConflict) // not empty
	_, err = w.store.End(w.ctx, owner, state.End{Session: "s1", BindRev: s.BindRev, Reason: state.Released, Confirmed: true})
	w.ok(err)

	// Asked for by the container itself, a drain cannot be taken back.
	other := w.hosting("c2", 1)
	closing, err := w.store.Drain(w.ctx, other, "c2", boot)
	w.ok(err)
	if !closing.Closing || closing.Phase != state.Draining {
		t.Fatalf("its own drain left %+v", closing)
	}
	_, err = w.store.Undrain(w.ctx, w.lead(), "c2", boot)
	w.is(err, state.ErrConflict)
	if again.Closing {
		t.Fatal("a container that was ordered to drain is closing by itself")
	}

	// Undrained and drained anew, the old acknowledgement is worth nothing.
	_, err = w.store.Undrain(w.ctx, w.lead(), "c1", boot)
	w.ok(err)
	w.bind("s2", "c1")
	c, err = w.store.Drain(w.ctx, owner, "c1", boot)
	w.ok(err)
	if c.DrainSeq != 2 || c.DrainAck != 1 {
		t.Fatalf("order %d, acknowledged %d", c.DrainSeq, c.DrainAck)
	}
	_, err = w.store.End(w.ctx, w.lead(), state.End{Session: "s2", Reason: state.Released, Confirmed: true})
	w.ok(err)
	w.is(stop(), state.ErrConflict)
	report(2)
	if c := report(1); c.DrainAck != 2 {
		t.Fatalf("the acknowledgement went back to %d", c.DrainAck)
	}
	w.ok(stop())
	w.ok(stop())
	_, err = w.store.Undrain(w.ctx, w.lead(), "c1", boot)
	w.is(err, state.ErrConflict) // no way back
}
