package state_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// mirrored runs a mirror of a store in memory, in the bubble's time.
func mirrored(t *testing.T, o state.MirrorOptions) (*state.Memory, *state.Mirror, state.Authority) {
	t.Helper()
	store := state.NewMemory(nil)
	epoch, _, err := store.AcquireLease(t.Context(), "r1", 0)
	if err != nil {
		t.Fatal(err)
	}
	m := state.NewMirror(store, o)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	synctest.Wait()
	return store, m, state.Authority{Epoch: epoch}
}

func admit(t *testing.T, store *state.Memory, by state.Authority, id string) *state.Session {
	t.Helper()
	s, err := store.Admit(t.Context(), by, state.Admission{ID: id, Spec: []byte(`{}`), UserID: "u", Remaining: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMirrorFollowsHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{})
		var mu sync.Mutex
		var seen []state.Hint
		cancel := m.Subscribe(func(h []state.Hint) { mu.Lock(); seen = append(seen, h...); mu.Unlock() })
		admit(t, store, by, "s1")
		synctest.Wait()
		if s, ok := m.Session("s1"); !ok || s.Phase != state.Pending {
			t.Fatalf("session in the mirror: %+v, %t", s, ok)
		}
		mu.Lock()
		if len(seen) == 0 || seen[0].Kind != state.KindSession || seen[0].ID != "s1" {
			t.Errorf("hints passed on: %v", seen)
		}
		seen = nil
		mu.Unlock()
		cancel()
		admit(t, store, by, "s2")
		synctest.Wait()
		if len(seen) != 0 {
			t.Errorf("hints after the subscription ended: %v", seen)
		}
		if got := m.Sessions(); len(got) != 2 || got[0].ID != "s1" || got[1].ID != "s2" {
			t.Errorf("sessions: %v", got)
		}
	})
}

func TestMirrorAwaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{})
		got := make(chan *state.Session, 1)
		go func() {
			s, err := m.Await(t.Context(), "s1", func(s *state.Session) bool { return s != nil && s.Phase == state.Ended })
			if err != nil {
				t.Error(err)
			}
			got <- s
		}()
		synctest.Wait()
		admit(t, store, by, "s1")
		synctest.Wait()
		select {
		case s := <-got:
			t.Fatalf("it came back with %+v", s)
		default:
		}
		if _, err := store.End(t.Context(), by, state.End{Session: "s1", Reason: state.Released}); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s.Reason != state.Released {
			t.Errorf("it came back with %+v", s)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if s, err := m.Await(ctx, "nobody", func(*state.Session) bool { return false }); s != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("awaiting in vain gave %v, %v", s, err)
		}
	})
}

func TestMirrorIgnoresOlderRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{})
		old := admit(t, store, by, "s1")
		if _, err := store.End(t.Context(), by, state.End{Session: "s1", Reason: state.Released}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.ApplySession(old)
		if s, _ := m.Session("s1"); s.Phase != state.Ended {
			t.Errorf("an older record replaced a newer one: %+v", s)
		}
	})
}

func TestMirrorHealsWhatHintsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Second})
		admit(t, store, by, "s1")
		synctest.Wait()
		// Records leave the index without a hint: an ended session after five minutes.
		if _, err := store.End(t.Context(), by, state.End{Session: "s1", Reason: state.Released}); err != nil {
			t.Fatal(err)
		}
		later := time.NewTimer(state.EndedListed + 5*time.Second)
		<-later.C
		synctest.Wait()
		if s, ok := m.Session("s1"); ok {
			t.Errorf("it is still mirrored: %+v", s)
		}
	})
}

func TestMirrorTellsItsAgeAndTheStoresClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fresh := state.NewMirror(state.NewMemory(nil), state.MirrorOptions{})
		if fresh.Age() < time.Hour {
			t.Errorf("a mirror that never read is %s old", fresh.Age())
		}
		store, m, _ := mirrored(t, state.MirrorOptions{Relist: time.Second})
		store.FailWith(errors.New("connection refused"))
		outage := time.NewTimer(time.Minute)
		<-outage.C
		if age := m.Age(); age < 58*time.Second || age > 62*time.Second {
			t.Errorf("after a minute without the store it is %s old", age)
		}
		if off := time.Until(m.Now()).Abs(); off > 10*time.Millisecond {
			t.Errorf("its clock is %s off after a minute without the store", off)
		}
		store.FailWith(nil)
		after := time.NewTimer(3 * time.Second)
		<-after.C
		if m.Age() > 2*time.Second {
			t.Errorf("after the outage it is %s old", m.Age())
		}
		if d := m.Gap().Until.Sub(m.Gap().From); d < 58*time.Second || d > 63*time.Second {
			t.Errorf("it remembers an outage of %s, it was a minute", d)
		}
	})
}

// lateStore takes a while until it reads its index, and its clock with it.
type lateStore struct {
	*state.Memory
	late *atomic.Int64 // ns
}

func (s lateStore) Index(ctx context.Context) (state.Index, error) {
	if late := time.Duration(s.late.Load()); late > 0 {
		select {
		case <-ctx.Done():
			return state.Index{}, ctx.Err()
		case <-time.After(late):
		}
	}
	return s.Memory.Index(ctx)
}

// What came late was read late, or long ago: nobody can tell, and a clock that is ahead ends
// sessions before their time.
func TestASlowAnswerSetsNoClockAhead(t *testing.T) {
	for name, first := range map[string]bool{"the first one": true, "a later one": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late := &atomic.Int64{}
				m := state.NewMirror(lateStore{state.NewMemory(nil), late}, state.MirrorOptions{Relist: time.Second})
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				if first {
					late.Store(int64(4 * time.Second))
				}
				wg.Go(func() { _ = m.Run(ctx) })
				defer func() { cancel(); wg.Wait() }()
				for range 40 {
					pause := time.NewTimer(500 * time.Millisecond)
					<-pause.C
					late.Store(int64(4 * time.Second))
					if off := time.Until(m.Now()); m.Synced() && off > 10*time.Millisecond {
						t.Fatalf("its clock is %s ahead", off)
					}
				}
				if !m.Synced() {
					t.Fatal("it has read nothing")
				}
			})
		})
	}
}

func TestMirrorNoticesThatTheStoreWasWiped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Second})
		admit(t, store, by, "s1")
		synctest.Wait()
		store.Wipe()
		after := time.NewTimer(3 * time.Second)
		<-after.C
		if m.Trouble() == "" {
			t.Error("it has not noticed")
		}
		if _, ok := m.Session("s1"); !ok {
			t.Error("it forgot a session because the store did")
		}
		if s, err := store.Session(t.Context(), "s1"); err != nil || s.Phase != state.Pending {
			t.Errorf("the store was not given it back: %+v, %v", s, err)
		}
		epoch, _, err := store.AcquireLease(t.Context(), "r1", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.MarkWhole(t.Context(), state.Authority{Epoch: epoch}, m.Filling()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.Trouble() != "" || !m.Filling().Whole {
			t.Errorf("after it was marked whole: %q, %+v", m.Trouble(), m.Filling())
		}
	})
}

// broken is a source whose index names a session that cannot be read.
type broken struct {
	*state.Memory
	asked atomic.Int64
}

func (b *broken) Index(ctx context.Context) (state.Index, error) {
	i, err := b.Memory.Index(ctx)
	i.Sessions = map[string]int64{"broken": 7}
	return i, err
}

func (b *broken) SessionsOf(ctx context.Context, ids []string) ([]*state.Session, error) {
	b.asked.Add(1)
	return b.Memory.SessionsOf(ctx, ids)
}

func TestMirrorAsksOnceForARecordThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broken{Memory: state.NewMemory(nil)}
		m := state.NewMirror(b, state.MirrorOptions{Relist: time.Second})
		var woken atomic.Int64
		defer m.Subscribe(func([]state.Hint) { woken.Add(1) })()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		defer func() { cancel(); wg.Wait() }()
		relists := time.NewTimer(20 * time.Second)
		<-relists.C
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if n := woken.Load(); n > 2 {
			t.Errorf("woke its subscribers %d times", n)
		}
	})
}

func TestMirrorForgetsALaunchThatWasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Hour})
		if _, err := store.CreateLaunch(t.Context(), by, state.Launch{ID: "l1", Input: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, ok := m.Launch("l1"); !ok {
			t.Fatal("the launch is not mirrored")
		}
		kept := time.NewTimer(state.LaunchKept)
		<-kept.C
		epoch, _, err := store.AcquireLease(t.Context(), "r1", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.ForgetLaunch(t.Context(), state.Authority{Epoch: epoch}, "l1"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, ok := m.Launch("l1"); ok || m.Trouble() != "" {
			t.Errorf("the launch is still mirrored: %t; trouble: %q", ok, m.Trouble())
		}
	})
}

func TestMirrorGivesBackWhatAFailoverForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Second})
		admit(t, store, by, "s1")
		rollBack := store.Checkpoint()
		admit(t, store, by, "s2")
		if _, err := store.End(t.Context(), by, state.End{Session: "s1", Reason: state.Released}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		rollBack()
		if _, err := store.Session(t.Context(), "s2"); !errors.Is(err, state.ErrNotFound) {
			t.Fatalf("the failover forgot nothing: %v", err)
		}
		after := time.NewTimer(3 * time.Second)
		<-after.C
		if s, err := store.Session(t.Context(), "s2"); err != nil || s.Phase != state.Pending {
			t.Errorf("s2: %+v, %v", s, err)
		}
		if s, err := store.Session(t.Context(), "s1"); err != nil || s.Phase != state.Ended {
			t.Errorf("s1: %+v, %v", s, err)
		}
		if m.Trouble() == "" {
			t.Error("nobody knows that something may be missing")
		}
	})
}

func TestMirrorLooksForARecordThatTheStoreDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m, by := mirrored(t, state.MirrorOptions{Relist: time.Hour})
		admit(t, store, by, "s1")
		synctest.Wait()
		m.Doubt(state.KindSession, "s1")
		m.Doubt(state.KindSession, "s2")
		synctest.Wait()
		if m.Trouble() != "" {
			t.Errorf("a doubt without reason makes trouble: %s", m.Trouble())
		}
	})
}

// A process may have seen of its own writes what its mirror has not.
func TestMirrorGivesBackWhatOnlyItsProcessHasSeen(t *testing.T) {
	store := state.NewMemory(nil)
	epoch, _, err := store.AcquireLease(t.Context(), "r", 0)
	if err != nil {
		t.Fatal(err)
	}
	by := state.Authority{Epoch: epoch}
	admit(t, store, by, "s1")
	m := state.NewMirror(store, state.MirrorOptions{})
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	rollBack := store.Checkpoint()
	admit(t, store, by, "s2")
	rollBack()
	again := state.Admission{ID: "s3", Spec: []byte(`{}`), UserID: "u", Remaining: time.Hour}
	if _, err := store.Admit(t.Context(), by, again); !errors.Is(err, state.ErrRolledBack) {
		t.Fatalf("a write after the failover: %v", err)
	}
	for range 2 {
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Admit(t.Context(), by, again); err != nil {
		t.Errorf("a write after the mirror looked: %v", err)
	}
}

// forgetful is a store that loses its launches between its index and their reading.
type forgetful struct {
	*state.Memory
	lost bool
}

func (f *forgetful) LaunchesOf(ctx context.Context, ids []string) ([]*state.Launch, error) {
	if f.lost {
		return nil, nil
	}
	return f.Memory.LaunchesOf(ctx, ids)
}

func TestMirrorReadsAgainWhatAStoreWasGivenBack(t *testing.T) {
	store := &forgetful{Memory: state.NewMemory(nil), lost: true}
	epoch, _, err := store.AcquireLease(t.Context(), "r", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateLaunch(t.Context(), state.Authority{Epoch: epoch}, state.Launch{ID: "l1"}); err != nil {
		t.Fatal(err)
	}
	m := state.NewMirror(store, state.MirrorOptions{})
	refresh := func() {
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	store.lost = false
	if err := store.Restore(t.Context(), 0, state.Records{}); err != nil {
		t.Fatal(err)
	}
	refresh()
	if _, known := m.Launch("l1"); !known {
		t.Error("a launch that is there again under the same revision was not read again")
	}
}
