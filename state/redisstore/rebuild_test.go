package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

// TestAWipedRedisIsFilledAgain loses 1,000 containers with 3,000 sessions under two replicas.
func TestAWipedRedisIsFilledAgain(t *testing.T) {
	const containers, sessions = 1000, 3000
	addr := startRedis(t)
	admin := client(t, addr)
	writer := open(t, redisstore.Options{Addrs: []string{addr}})
	other := open(t, redisstore.Options{Addrs: []string{addr}})
	epoch, _, err := writer.AcquireLease(t.Context(), "r1", 0)
	must(t, err)
	by := state.Authority{Epoch: epoch}
	beside(t, containers, func(i int) error {
		id := fmt.Sprintf("c%d", i)
		c, err := writer.Register(t.Context(), state.Registration{ID: id, Launch: id, BootID: "boot", Protocol: 2, MaxSessions: 8, Owner: "r1"})
		if err != nil {
			return err
		}
		owner := state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
		return second(writer.Report(t.Context(), owner, state.Report{BootID: "boot", Addr: "10.0.0.1:8080", TaskARN: "arn:" + id}))
	})
	beside(t, sessions, func(i int) error {
		id := fmt.Sprintf("s%d", i)
		_, err := writer.Admit(t.Context(), by, state.Admission{ID: id, Spec: []byte(`{}`), UserID: "u", Remaining: time.Hour})
		if err != nil && !errors.Is(err, state.ErrExists) {
			return err
		}
		return second(writer.Bind(t.Context(), by, state.Binding{Session: id, Container: fmt.Sprintf("c%d", i%containers), BootID: "boot"}))
	})
	before, err := writer.Index(t.Context())
	must(t, err)

	mirrors := []*state.Mirror{state.NewMirror(writer, state.MirrorOptions{}), state.NewMirror(other, state.MirrorOptions{})}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	for _, m := range mirrors {
		running.Go(func() { _ = m.Run(ctx) })
		await(t, "a mirror knows everything", func() bool { return len(m.Sessions()) == sessions && len(m.Containers()) == containers })
	}
	must(t, admin.FlushAll(t.Context()).Err())
	began := time.Now()
	mirrors[0].Relist()
	await(t, "everything is back", func() bool {
		ix, err := writer.Index(t.Context())
		return err == nil && maps.Equal(ix.Sessions, before.Sessions) && maps.Equal(ix.Containers, before.Containers)
	})
	t.Logf("%d containers and %d sessions were back after %s", containers, sessions, time.Since(began))
	for i, m := range mirrors {
		await(t, "every replica knows that something may be missing", func() bool { return m.Trouble() != "" && !m.Filling().LostAt.IsZero() })
		if n := len(m.Sessions()); n != sessions {
			t.Errorf("mirror %d has %d sessions left", i, n)
		}
	}
	c, err := writer.Container(t.Context(), "c7")
	must(t, err)
	if len(c.Slots) != sessions/containers || c.Phase != state.ContainerReady {
		t.Errorf("a container came back as %+v", c)
	}
}

// beside runs do n times, many at once.
func beside(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			err := do(i)
			for range 20 {
				if !errors.Is(err, state.ErrUnavailable) {
					break
				}
				err = do(i) // a busy machine
			}
			if err != nil && !errors.Is(err, state.ErrExists) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// An index that was evicted while its records stayed is filled from whoever knows of them:
// else they would be missed at each look, and nothing be decided any more.
func TestARecordThatTheIndexLacksIsListedAgain(t *testing.T) {
	addr := startRedis(t)
	admin := client(t, addr)
	s := open(t, redisstore.Options{Addrs: []string{addr}})
	epoch, _, err := s.AcquireLease(t.Context(), "r1", 0)
	must(t, err)
	c, err := s.Register(t.Context(), state.Registration{ID: "c1", Launch: "c1", BootID: "boot", Protocol: 2, MaxSessions: 8, Owner: "r1"})
	must(t, err)
	x, err := s.Admit(t.Context(), state.Authority{Epoch: epoch}, state.Admission{ID: "s1", Spec: []byte(`{}`), Remaining: time.Hour})
	must(t, err)
	before, err := s.Index(t.Context())
	must(t, err)
	keys, _, err := admin.ScanType(t.Context(), 0, "*", 1000, "zset").Result()
	must(t, err)
	if len(keys) < 2 {
		t.Fatalf("the indexes are %v", keys)
	}
	must(t, admin.Del(t.Context(), keys...).Err())
	must(t, s.Restore(t.Context(), before.Seq, state.Records{Sessions: []*state.Session{x}, Containers: []*state.Container{c}}))
	after, err := s.Index(t.Context())
	must(t, err)
	if !maps.Equal(after.Sessions, before.Sessions) || !maps.Equal(after.Containers, before.Containers) {
		t.Errorf("listed are %v and %v, want %v and %v", after.Sessions, after.Containers, before.Sessions, before.Containers)
	}
}
