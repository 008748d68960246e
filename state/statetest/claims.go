package statetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// testClaims tries to take a link over from an owner in every state.
func testClaims(t *testing.T, w *world) {
	claim := func(id string, seq int64, unreachable bool) (*state.Container, error) {
		return w.store.Claim(w.ctx, state.Takeover{Container: id, OwnerSeq: seq, Owner: "replica-2", Unreachable: unreachable})
	}
	owner := w.hosting("lives", 2)
	before := w.container("lives")
	for _, unreachable := range []bool{false, true} {
		_, err := claim("lives", owner.OwnerSeq, unreachable)
		w.is(err, state.ErrConflict) // its lease has not run out
	}
	w.same(before.Rev, w.container("lives").Rev)

	// An owner that has let go need not be asked.
	s := w.sessionIn(state.Ready, "s1", "lives", owner)
	w.ok(w.store.Disown(w.ctx, owner))
	if c := w.container("lives"); !c.LetGo {
		t.Fatalf("disowned, it is %+v", c)
	}
	_, err := claim("lives", owner.OwnerSeq+1, true)
	w.is(err, state.ErrConflict) // an owner that is not the one
	_, err = w.store.Claim(w.ctx, state.Takeover{Container: "lives", OwnerSeq: owner.OwnerSeq})
	w.is(err, state.ErrInvalid) // nobody claims
	_, err = claim("nobody", 1, true)
	w.is(err, state.ErrNotFound)
	c, err := claim("lives", owner.OwnerSeq, false)
	w.ok(err)
	if c.Owner != "replica-2" || c.OwnerSeq != owner.OwnerSeq+1 || c.LetGo || c.Phase != state.ContainerReady ||
		c.BootID != boot || c.Addr != "10.0.0.1:8080" || c.Used() != 1 || !c.OwnerUntil.After(c.SeenAt) {
		t.Fatalf("claimed, it is %+v", c)
	}
	// The owner before it is fenced, in whatever it writes.
	_, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.is(err, state.ErrFenced)
	w.is(w.store.Disown(w.ctx, owner), state.ErrFenced)
	_, err = w.store.End(w.ctx, owner, state.End{Session: "s1", BindRev: s.BindRev, Reason: state.BrowserCrashed, Confirmed: true})
	w.is(err, state.ErrFenced)
	_, err = w.store.Drain(w.ctx, owner, "lives", boot)
	w.is(err, state.ErrFenced)
	if got := w.session("s1"); got.Phase != state.Ready {
		t.Fatalf("the session is %s", got.Phase)
	}
	next := state.Authority{Container: "lives", OwnerSeq: c.OwnerSeq}
	_, err = w.store.Report(w.ctx, next, state.Report{BootID: boot})
	w.ok(err)
	_, err = claim("lives", next.OwnerSeq, true)
	w.is(err, state.ErrConflict)

	// One that has let go and reports again has not.
	w.ok(w.store.Disown(w.ctx, next))
	c, err = w.store.Report(w.ctx, next, state.Report{BootID: boot})
	w.ok(err)
	if c.LetGo {
		t.Fatal("it reports and has let go")
	}
	// A registration moves the link at once, whoever holds it.
	c, err = w.store.Register(w.ctx, state.Registration{ID: "lives", Launch: "lives", BootID: boot, Protocol: 2, MaxSessions: 2, Owner: "replica-3"})
	w.ok(err)
	if c.Owner != "replica-3" || c.OwnerSeq != next.OwnerSeq+1 {
		t.Fatalf("registered elsewhere, it is %+v", c)
	}
	w.is(drop(w.store.Report(w.ctx, next, state.Report{BootID: boot})), state.ErrFenced)

	for i, phase := range state.ContainerPhases() {
		id := fmt.Sprintf("p-%d", i)
		c, owner := w.containerIn(phase, id)
		if err := w.store.Disown(w.ctx, owner); err != nil {
			t.Fatal(err)
		}
		got, err := claim(id, owner.OwnerSeq, false)
		if phase == state.Gone {
			w.is(err, state.ErrConflict)
			continue
		}
		w.ok(err)
		if got.Phase != c.Phase || got.DrainSeq != c.DrainSeq || got.DrainAck != c.DrainAck || got.Closing != c.Closing {
			t.Fatalf("a claim made %+v of %+v", got, c)
		}
	}

	if w.Advance == nil {
		return
	}
	owner = w.hosting("silent", 1)
	w.Advance(state.OwnerLease - time.Second)
	_, err = claim("silent", owner.OwnerSeq, true)
	w.is(err, state.ErrConflict)
	w.Advance(2 * time.Second)
	_, err = claim("silent", owner.OwnerSeq, false)
	w.is(err, state.ErrConflict) // it may live, and the store may have been away
	c, err = w.store.Report(w.ctx, owner, state.Report{BootID: boot})
	w.ok(err) // nobody has claimed it: it is still the owner
	_, err = claim("silent", c.OwnerSeq, true)
	w.is(err, state.ErrConflict)
	w.Advance(state.OwnerLease + time.Second)
	c, err = claim("silent", owner.OwnerSeq, true)
	w.ok(err)
	if c.Owner != "replica-2" || c.OwnerSeq != owner.OwnerSeq+1 {
		t.Fatalf("claimed, it is %+v", c)
	}
}

// testRacingClaims has several replicas claim one container: exactly one gets it.
func testRacingClaims(t *testing.T, w *world) {
	for round := range 5 {
		id := fmt.Sprintf("c%d", round)
		owner := w.hosting(id, 1)
		w.ok(w.store.Disown(w.ctx, owner))
		const claimants = 8
		var wait sync.WaitGroup
		errs := make([]error, claimants)
		for i := range claimants {
			wait.Go(func() {
				_, errs[i] = w.store.Claim(w.ctx, state.Takeover{
					Container: id, OwnerSeq: owner.OwnerSeq, Owner: fmt.Sprintf("claimant-%d", i), Unreachable: true,
				})
			})
		}
		wait.Wait()
		won := -1
		for i, err := range errs {
			switch {
			case err == nil && won >= 0:
				t.Fatalf("claimants %d and %d have both won", won, i)
			case err == nil:
				won = i
			default:
				w.is(err, state.ErrConflict)
			}
		}
		c := w.container(id)
		if won < 0 || c.Owner != fmt.Sprintf("claimant-%d", won) || c.OwnerSeq != owner.OwnerSeq+1 {
			t.Fatalf("claimant %d won, and the record says %+v", won, c)
		}
	}
}

func testReplicas(t *testing.T, w *world) {
	list := func() map[string]state.Replica {
		t.Helper()
		all, err := w.store.Replicas(w.ctx)
		w.ok(err)
		by := map[string]state.Replica{}
		for _, r := range all {
			by[r.ID] = r
		}
		if len(by) != len(all) {
			t.Fatalf("listed twice: %+v", all)
		}
		return by
	}
	now := func() time.Time {
		ix, err := w.store.Index(w.ctx)
		w.ok(err)
		return ix.Time
	}
	if all := list(); len(all) != 0 {
		t.Fatalf("an empty store knows %v", all)
	}
	w.ok(w.store.Announce(w.ctx, state.Replica{ID: "r1", Addr: "10.0.0.1:8080", Version: "v1.2 (abc)"}))
	w.ok(w.store.Announce(w.ctx, state.Replica{ID: "r2", Addr: "[fd00::2]:8080"}))
	w.ok(w.store.Announce(w.ctx, state.Replica{ID: "r2", Addr: "[fd00::3]:8080"}))
	all := list()
	r1, r2 := all["r1"], all["r2"]
	if len(all) != 2 || r1.Addr != "10.0.0.1:8080" || r1.Version != "v1.2 (abc)" || r2.Addr != "[fd00::3]:8080" ||
		!near(r1.SeenAt, now()) || !r1.Live(now()) {
		t.Fatalf("listed %+v", all)
	}
	w.ok(w.store.Withdraw(w.ctx, "r1"))
	w.ok(w.store.Withdraw(w.ctx, "r1"))
	if all := list(); len(all) != 1 || all["r2"].ID != "r2" {
		t.Fatalf("after r1 has withdrawn, listed %+v", all)
	}
	w.is(w.store.Announce(w.ctx, state.Replica{ID: "not an id", Addr: "a:1"}), state.ErrInvalid)
	if w.Advance == nil {
		return
	}
	w.Advance(state.ReplicaTTL + time.Second)
	r2 = list()["r2"]
	if r2.Addr != "[fd00::3]:8080" || r2.Live(now()) {
		t.Fatalf("silent for a while, r2 is %+v", r2)
	}
	w.Advance(state.ReplicaKept)
	w.ok(w.store.Announce(w.ctx, state.Replica{ID: "r3", Addr: "10.0.0.3:8080"}))
	if all := list(); len(all) != 1 || all["r3"].ID != "r3" {
		t.Fatalf("after a day, listed %+v", all)
	}
}

func testDialect(t *testing.T, w *world) {
	register := func(id string, protocol int, d state.Dialect) error {
		_, err := w.store.Register(w.ctx, state.Registration{
			ID: id, Launch: id, BootID: boot, Protocol: protocol, MaxSessions: 1, Owner: replica, Dialect: d,
		})
		return err
	}
	is := func(protocol, refused int) state.PoolDialect {
		t.Helper()
		d, err := w.store.PoolDialect(w.ctx)
		w.ok(err)
		if d.Protocol != protocol || d.Refused != refused || d.RefusedAt.IsZero() != (refused == 0) {
			t.Fatalf("the dialect is %+v, want %d with %d refused", d, protocol, refused)
		}
		return d
	}
	is(0, 0)
	w.is(register("x", 1, "v3"), state.ErrInvalid)
	w.ok(register("any", 2, "")) // without a dialect nothing is settled
	is(0, 0)

	// The first container decides, until the pool is empty.
	w.ok(register("c1", 1, state.DialectAuto))
	is(1, 0)
	w.is(register("c2", 2, state.DialectAuto), state.ErrDialect)
	_, err := w.store.Container(w.ctx, "c2")
	w.is(err, state.ErrNotFound)
	if d := is(1, 1); d.HoldsLaunches(d.RefusedAt) {
		t.Fatal("one refusal holds launches")
	}
	w.is(register("c3", 2, state.DialectAuto), state.ErrDialect)
	if d := is(1, 2); !d.HoldsLaunches(d.RefusedAt) || d.HoldsLaunches(d.RefusedAt.Add(time.Hour)) || d.Why() == "" {
		t.Fatal("two refusals in a row hold launches for a while")
	}
	w.ok(register("c4", 1, state.DialectAuto))
	is(1, 0)
	// What is there already keeps its link, whatever is configured now.
	w.ok(register("any", 2, state.DialectV1))
	is(1, 0)

	w.is(w.store.ForgetDialect(w.ctx, w.lead()), state.ErrConflict)
	for _, id := range []string{"any", "c1", "c4"} {
		w.is(w.store.ForgetDialect(w.ctx, w.lead()), state.ErrConflict)
		_, err := w.store.MarkGone(w.ctx, w.lead(), id, boot)
		w.ok(err)
	}
	w.is(w.store.ForgetDialect(w.ctx, state.Authority{Epoch: w.lead().Epoch - 1}), state.ErrFenced)
	is(1, 0)
	w.ok(w.store.ForgetDialect(w.ctx, w.lead()))
	is(0, 0)
	w.ok(register("c5", 2, state.DialectAuto))
	is(2, 0)

	// A configured one needs nobody to decide.
	w.is(register("c6", 2, state.DialectV1), state.ErrDialect)
	is(2, 1)
	w.ok(register("c7", 1, state.DialectV1))
	is(1, 0)
	w.is(register("c8", 1, state.DialectV2), state.ErrDialect)
}
