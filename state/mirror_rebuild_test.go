package state_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// hosting gives a container that is ready, and its owner.
func hosting(t *testing.T, store *state.Memory, id, owner string) (*state.Container, state.Authority) {
	t.Helper()
	c, err := store.Register(t.Context(), state.Registration{ID: id, Launch: id, BootID: "boot", Protocol: 2, MaxSessions: 4, Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	by := state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
	c, err = store.Report(t.Context(), by, state.Report{BootID: "boot", Addr: "10.0.0.1:8080"})
	if err != nil {
		t.Fatal(err)
	}
	return c, by
}

func must[T any](t *testing.T) func(T, error) T {
	return func(got T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
}

// Each change is forgotten by a failover whose new master has been written to since, by others
// who knew of nothing: its clock is ahead of all that the mirror has seen, so that only the
// record itself tells.
func TestMirrorMissesEachThingThatAFailoverForgets(t *testing.T) {
	type world struct {
		*state.Memory
		ctx    context.Context
		leader state.Authority
		owner  state.Authority // of c1
	}
	for name, forgotten := range map[string]struct {
		change func(w *world) error
		since  func(w *world) error // what others write into what is left; nil: nothing
		holds  func(w *world) bool
	}{
		"the end of a session": {
			change: func(w *world) error {
				_, err := w.End(w.ctx, w.leader, state.End{Session: "s1", Reason: state.Idle, Confirmed: true})
				return err
			},
			holds: func(w *world) bool {
				s, err := w.Session(w.ctx, "s1")
				c, _ := w.Container(w.ctx, "c1")
				return err == nil && s.Phase == state.Ended && s.Reason == state.Idle && len(c.Slots) == 0
			},
		},
		"the end of a session that was touched since": {
			change: func(w *world) error {
				_, err := w.End(w.ctx, w.leader, state.End{Session: "s1", Reason: state.Idle, Confirmed: true})
				return err
			},
			since: func(w *world) error {
				s, err := w.Session(w.ctx, "s1")
				if err != nil {
					return err
				}
				return w.Touch(w.ctx, w.owner, []state.Activity{{Session: "s1", BindRev: s.BindRev, Attached: 1}})
			},
			holds: func(w *world) bool {
				s, err := w.Session(w.ctx, "s1") // its container may hold it: it is told first
				return err == nil && s.Phase == state.Ending && s.Reason == state.Idle
			},
		},
		"a session, from its wish to its end, whose wish was taken for a new one": {
			change: func(w *world) error {
				if _, err := w.Admit(w.ctx, w.leader, state.Admission{ID: "s2", Spec: []byte(`{}`), Remaining: time.Hour}); err != nil {
					return err
				}
				_, err := w.End(w.ctx, w.leader, state.End{Session: "s2", Reason: state.Released})
				return err
			},
			since: func(w *world) error {
				_, err := w.Admit(w.ctx, w.leader, state.Admission{ID: "s2", Spec: []byte(`{}`), Remaining: time.Hour})
				return err
			},
			holds: func(w *world) bool {
				s, err := w.Session(w.ctx, "s2")
				return err == nil && s.Phase == state.Ended
			},
		},
		"a session, from its wish to its end": {
			change: func(w *world) error {
				if _, err := w.Admit(w.ctx, w.leader, state.Admission{ID: "s2", Spec: []byte(`{}`), Remaining: time.Hour}); err != nil {
					return err
				}
				_, err := w.End(w.ctx, w.leader, state.End{Session: "s2", Reason: state.Released})
				return err
			},
			holds: func(w *world) bool {
				s, err := w.Session(w.ctx, "s2")
				return err == nil && s.Phase == state.Ended
			},
		},
		"the intent to start a task": {
			change: func(w *world) error {
				_, err := w.CreateLaunch(w.ctx, w.leader, state.Launch{ID: "l1", Input: []byte(`{"subnet":1}`), Port: 8080})
				return err
			},
			holds: func(w *world) bool {
				l, err := w.Launch(w.ctx, "l1")
				return err == nil && string(l.Input) == `{"subnet":1}`
			},
		},
		"the task of a launch": {
			change: func(w *world) error {
				_, err := w.UpdateLaunch(w.ctx, w.leader, "l0", state.LaunchUpdate{Outcome: state.Started, TaskARN: "arn:1"})
				return err
			},
			holds: func(w *world) bool {
				l, err := w.Launch(w.ctx, "l0")
				return err == nil && l.TaskARN == "arn:1"
			},
		},
		"that a container is gone": {
			change: func(w *world) error {
				_, err := w.MarkGone(w.ctx, w.leader, "c1", "boot")
				return err
			},
			holds: func(w *world) bool {
				c, err := w.Container(w.ctx, "c1")
				return err == nil && c.Phase == state.Gone
			},
		},
		"that a container is stopping, and it has reported since": {
			change: func(w *world) error {
				c, err := w.Drain(w.ctx, w.leader, "c2", "boot")
				if err != nil {
					return err
				}
				by := state.Authority{Container: "c2", OwnerSeq: c.OwnerSeq}
				if _, err = w.Report(w.ctx, by, state.Report{BootID: "boot", DrainAck: c.DrainSeq}); err != nil {
					return err
				}
				_, err = w.BeginStop(w.ctx, w.leader, "c2", "boot")
				return err
			},
			since: func(w *world) error {
				c, err := w.Container(w.ctx, "c2")
				if err != nil {
					return err
				}
				_, err = w.Report(w.ctx, state.Authority{Container: "c2", OwnerSeq: c.OwnerSeq}, state.Report{BootID: "boot"})
				return err
			},
			holds: func(w *world) bool {
				c, err := w.Container(w.ctx, "c2")
				return err == nil && c.Phase == state.Stopping
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Second})
				w := &world{Memory: store, ctx: t.Context(), leader: by}
				_, w.owner = hosting(t, store, "c1", "r1")
				hosting(t, store, "c2", "r1")
				admit(t, store, by, "s1")
				s := must[*state.Session](t)(store.Bind(w.ctx, by, state.Binding{Session: "s1", Container: "c1", BootID: "boot"}))
				if _, _, err := store.Ready(w.ctx, w.owner, "s1", s.BindRev, false); err != nil {
					t.Fatal(err)
				}
				must[*state.Launch](t)(store.CreateLaunch(w.ctx, by, state.Launch{ID: "l0", Input: []byte(`{}`)}))
				synctest.Wait()
				pause := time.NewTimer(time.Millisecond)
				<-pause.C
				rollBack := store.Checkpoint()
				if err := forgotten.change(w); err != nil {
					t.Fatal(err)
				}
				relists := time.NewTimer(3 * time.Second)
				<-relists.C
				synctest.Wait()
				if !forgotten.holds(w) && forgotten.since == nil || m.Trouble() != "" {
					t.Fatalf("before the failover: %q", m.Trouble())
				}

				rollBack()
				if err := store.Restore(w.ctx, 0, state.Records{}); err != nil {
					t.Fatal(err)
				}
				if forgotten.holds(w) {
					t.Fatal("the failover forgot nothing")
				}
				if forgotten.since != nil {
					if err := forgotten.since(w); err != nil {
						t.Fatal(err)
					}
				}
				relists.Reset(3 * time.Second)
				<-relists.C
				synctest.Wait()
				if !forgotten.holds(w) {
					s, _ := store.Session(w.ctx, "s1")
					c, _ := store.Container(w.ctx, "c2")
					t.Errorf("it was not missed: s1 is %+v, c2 is %+v", s, c)
				}
			})
		})
	}
}

func TestMirrorKeepsALaunchThatAHintFindsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Hour})
		rollBack := store.Checkpoint()
		l := must[*state.Launch](t)(store.CreateLaunch(t.Context(), by, state.Launch{ID: "l1", Input: []byte(`{}`)}))
		synctest.Wait()
		rollBack()
		// The hint at its next revision arrives when that, too, is forgotten.
		m.See(t.Context(), []state.Hint{{Kind: state.KindLaunch, ID: "l1", Rev: l.Rev + 1}}, false)
		synctest.Wait()
		if _, ok := m.Launch("l1"); !ok {
			t.Error("it is forgotten: a second task would be started in its place")
		}
		if _, err := store.Launch(t.Context(), "l1"); err != nil {
			t.Errorf("the store was not given it back: %v", err)
		}
	})
}

// unrestorable is a store that cannot be given anything back yet.
type unrestorable struct{ *state.Memory }

func (unrestorable) Restore(context.Context, int64, state.Records) error { return state.ErrUnavailable }

func TestMirrorTellsNothingOfAStoreThatWasNotGivenBackYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := state.NewMemory(nil)
		m := state.NewMirror(unrestorable{store}, state.MirrorOptions{})
		epoch, _, err := store.AcquireLease(t.Context(), "r1", 0)
		if err != nil {
			t.Fatal(err)
		}
		by := state.Authority{Epoch: epoch}
		admit(t, store, by, "s1")
		ix := must[state.Index](t)(store.Index(t.Context()))
		if err := store.MarkWhole(t.Context(), by, ix.Filling); err != nil {
			t.Fatal(err)
		}
		if err := m.Refresh(t.Context()); err != nil || !m.Filling().Whole {
			t.Fatalf("it is not whole at first: %+v, %v", m.Filling(), err)
		}
		store.Wipe()
		if err := m.Refresh(t.Context()); err == nil {
			t.Fatal("it was given back")
		}
		if f := m.Filling(); f != (state.Filling{}) || m.Trouble() == "" {
			t.Errorf("it tells %+v of the store, and of trouble %q", f, m.Trouble())
		}
	})
}

// parted is a store under two replicas, one of which has not been able to read it for long.
type parted struct {
	*state.Memory
	t           *testing.T
	near, apart *state.Mirror
	log         bytes.Buffer // of the one that was apart
}

// part lets s1 end, c1 go and s2 begin while one replica is cut off for that long.
func part(t *testing.T, away time.Duration) *parted {
	t.Helper()
	p := &parted{Memory: state.NewMemory(nil), t: t}
	p.near = state.NewMirror(p, state.MirrorOptions{})
	p.apart = state.NewMirror(p, state.MirrorOptions{Log: slog.New(slog.NewTextHandler(&p.log, nil))})
	_, owner := hosting(t, p.Memory, "c1", "r1")
	hosting(t, p.Memory, "c2", "r1")
	admit(t, p.Memory, p.leader(), "s1")
	s := must[*state.Session](t)(p.Bind(t.Context(), p.leader(), state.Binding{Session: "s1", Container: "c1", BootID: "boot"}))
	if _, _, err := p.Ready(t.Context(), owner, "s1", s.BindRev, false); err != nil {
		t.Fatal(err)
	}
	p.whole()
	p.read(p.near)
	p.read(p.apart)
	pass(time.Second)
	must[*state.Session](t)(p.End(t.Context(), p.leader(), state.End{Session: "s1", Reason: state.Idle, Confirmed: true}))
	must[*state.Container](t)(p.MarkGone(t.Context(), p.leader(), "c1", "boot"))
	admit(t, p.Memory, p.leader(), "s2")
	for until := time.Now().Add(away); time.Now().Before(until); pass(time.Second) {
		p.read(p.near)
	}
	return p
}

func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

func (p *parted) leader() state.Authority {
	p.t.Helper()
	epoch, _, err := p.AcquireLease(p.t.Context(), "r1", 0)
	if err != nil {
		p.t.Fatal(err)
	}
	return state.Authority{Epoch: epoch}
}

func (p *parted) read(m *state.Mirror) {
	p.t.Helper()
	for range 2 { // a loss asks for another look
		if err := m.Refresh(p.t.Context()); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *parted) whole() {
	p.t.Helper()
	ix := must[state.Index](p.t)(p.Index(p.t.Context()))
	if err := p.MarkWhole(p.t.Context(), p.leader(), ix.Filling); err != nil {
		p.t.Fatal(err)
	}
}

// has tells which of the sessions and containers the store has, and in what phase.
func (p *parted) has() string {
	var all []string
	for _, id := range []string{"s1", "s2"} {
		if s, err := p.Session(p.t.Context(), id); err == nil {
			all = append(all, id+" "+string(s.Phase))
		}
	}
	for _, id := range []string{"c1", "c2"} {
		if c, err := p.Container(p.t.Context(), id); err == nil {
			all = append(all, id+" "+string(c.Phase))
		}
	}
	return strings.Join(all, ", ")
}

func TestAMirrorWithAnOldMemoryYieldsToOthers(t *testing.T) {
	for name, run := range map[string]func(p *parted){
		"that have given back theirs": func(p *parted) {
			p.read(p.near)
			p.whole()
			p.read(p.apart)
			if f := p.apart.Filling(); !f.Whole || p.apart.Trouble() != "" {
				p.t.Errorf("a rebuild that is over begins anew: %q, %+v", p.apart.Trouble(), f)
			}
		},
		"that have yet to find the loss": func(p *parted) {
			p.read(p.apart)
			if p.apart.Trouble() == "" {
				p.t.Error("it has not noticed")
			}
			pass(5 * time.Second)
			p.read(p.apart)
			p.read(p.near)
			pass(5 * time.Second)
			p.read(p.apart)
		},
		"although a hint was read first": func(p *parted) {
			p.read(p.near)
			c := must[*state.Container](p.t)(p.Container(p.t.Context(), "c2"))
			p.apart.See(p.t.Context(), []state.Hint{{Kind: state.KindContainer, ID: "c2", Rev: c.Rev + 1}}, false)
			p.read(p.apart)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := part(t, 12*time.Minute)
				p.Wipe()
				run(p)
				if got, want := p.has(), "s2 pending, c2 ready"; got != want {
					t.Errorf("the store has %s, want %s", got, want)
				}
				if len(p.apart.Sessions()) != 1 || len(p.apart.Containers()) != 1 {
					t.Errorf("it goes on with %v and %v", p.apart.Sessions(), p.apart.Containers())
				}
			})
		})
	}
}

func TestAMirrorWithAnOldMemoryGivesItBackWhenNobodyElseDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := part(t, 12*time.Minute)
		p.Wipe()
		p.read(p.apart)
		if got := p.has(); got != "" {
			t.Errorf("it was given back at once: %s", got)
		}
		pass(10 * time.Second)
		p.read(p.apart)
		if got, want := p.has(), "s1 ready, c1 ready, c2 ready"; got != want {
			t.Errorf("the store has %s, want %s", got, want)
		}
	})
}

func TestAMirrorWithAnOldViewDropsWhatIsOver(t *testing.T) {
	for away, told := range map[time.Duration]string{6 * time.Minute: "", 12 * time.Minute: "containers=1 launches=0 record=c1"} {
		synctest.Test(t, func(t *testing.T) {
			p := part(t, away)
			p.read(p.apart)
			if p.apart.Trouble() != "" {
				t.Errorf("after %s it finds a loss: %s", away, p.apart.Trouble())
			}
			if _, still := p.apart.Session("s1"); still {
				t.Errorf("after %s it has s1 still", away)
			}
			log := p.log.String()
			if strings.Contains(log, "records are dropped") != (told != "") || !strings.Contains(log, told) {
				t.Errorf("after %s it tells: %s", away, log)
			}
		})
	}
}

func TestAMirrorWithAnOldViewMissesASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := state.NewMemory(nil)
		p := &parted{Memory: store, t: t}
		p.apart = state.NewMirror(store, state.MirrorOptions{})
		rollBack := store.Checkpoint()
		admit(t, store, p.leader(), "s1")
		p.read(p.apart)
		pass(20 * time.Minute)
		rollBack() // the store was away for all that time, say, and somebody has come who knows of nothing
		if err := store.Restore(t.Context(), 0, state.Records{}); err != nil {
			t.Fatal(err)
		}
		p.read(p.apart)
		pass(10 * time.Second)
		p.read(p.apart)
		if got := p.has(); got != "s1 pending" {
			t.Errorf("the store has %q", got)
		}
	})
}
