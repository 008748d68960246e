package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
	"github.com/wallcrawler/wallcrawler/state/statetest"
)

func TestOnMiniredis(t *testing.T) {
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		server := miniredis.RunT(t)
		now := time.Now()
		server.SetTime(now)
		h := harness(t, redisstore.Options{Addrs: []string{server.Addr()}})
		h.Advance = func(d time.Duration) {
			now = now.Add(d)
			server.SetTime(now)
			server.FastForward(d)
		}
		return h
	})
}

func TestOnRedis(t *testing.T) {
	addr := startRedis(t)
	for name, flags := range map[string]string{"without notifications": "", "with notifications": "K$gxe"} {
		t.Run(name, func(t *testing.T) {
			statetest.Run(t, func(t *testing.T) statetest.Harness {
				admin := client(t, addr)
				must(t, admin.FlushAll(t.Context()).Err())
				must(t, admin.ConfigSet(t.Context(), "notify-keyspace-events", flags).Err())
				h := harness(t, redisstore.Options{Addrs: []string{addr}})
				h.Notified = flags != ""
				return h
			})
		})
	}
}

func TestNotificationsAreEnabledOnlyWhenAsked(t *testing.T) {
	addr := startRedis(t)
	admin := client(t, addr)
	const name = "notify-keyspace-events"
	flags := func() string { return admin.ConfigGet(t.Context(), name).Val()[name] }
	must(t, admin.ConfigSet(t.Context(), name, "Elg").Err())
	before := flags()
	open(t, redisstore.Options{Addrs: []string{addr}})
	if flags() != before {
		t.Fatalf("flags %q were changed to %q unasked", before, flags())
	}
	open(t, redisstore.Options{Addrs: []string{addr}, EnableKeyspaceEvents: true})
	for _, f := range "ElK$gxe" {
		if !strings.ContainsRune(flags(), f) {
			t.Errorf("flag %c is not in %q", f, flags())
		}
	}
}

func TestAnotherDeploymentIsRefused(t *testing.T) {
	server := miniredis.RunT(t)
	open(t, redisstore.Options{Addrs: []string{server.Addr()}, Deployment: "blue"})
	open(t, redisstore.Options{Addrs: []string{server.Addr()}, Deployment: "blue"})
	_, err := redisstore.Open(t.Context(), redisstore.Options{Addrs: []string{server.Addr()}, Deployment: "green"})
	if !errors.Is(err, state.ErrOtherDeployment) || !strings.Contains(err.Error(), "blue") {
		t.Fatalf("got %v", err)
	}
	for _, o := range []redisstore.Options{{}, {Addrs: []string{server.Addr()}, Deployment: "a}b"}} {
		if _, err := redisstore.Open(t.Context(), o); !errors.Is(err, state.ErrInvalid) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestAnAbsentRedisIsUnavailable(t *testing.T) {
	server := miniredis.RunT(t)
	s := open(t, redisstore.Options{Addrs: []string{server.Addr()}, Password: ""})
	addr := server.Addr()
	server.Close()
	began := time.Now()
	for name, err := range map[string]error{
		"Ping":       s.Ping(t.Context()),
		"Index":      second(s.Index(t.Context())),
		"Register":   second(s.Register(t.Context(), state.Registration{ID: "c", BootID: "b", MaxSessions: 1, Owner: "r"})),
		"Document":   second(s.Document(t.Context(), "d")),
		"SessionsOf": second(s.SessionsOf(t.Context(), []string{"a"})),
	} {
		if !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("finding out took %v", took)
	}
	_, err := redisstore.Open(t.Context(), redisstore.Options{Addrs: []string{addr}, Password: "sesame"})
	if !errors.Is(err, state.ErrUnavailable) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("got %v", err)
	}
}

// A Redis that stops answering must not hold a caller for longer than he is willing to wait.
func TestAStalledRedisIsLeftInTime(t *testing.T) {
	addr := startRedis(t)
	s := open(t, redisstore.Options{Addrs: []string{addr}})
	must(t, client(t, addr).Do(t.Context(), "CLIENT", "PAUSE", "5000", "ALL").Err())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := s.Index(ctx)
	if !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Watch outlives its connections: afterwards it says that something may have been missed.
func TestWatchComesBackAfterItsConnectionsWereCut(t *testing.T) {
	addr := startRedis(t, "--notify-keyspace-events", "K$gxe")
	s := open(t, redisstore.Options{Addrs: []string{addr}})
	admin := client(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	hints := make(chan state.Hint, 1000)
	told := make(chan bool, 100)
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, func(got []state.Hint) {
			for _, h := range got {
				hints <- h
			}
		}, func(notified bool) { told <- notified })
	}()
	all := state.Hint{Kind: state.KindAll}
	next(t, hints, all)
	next(t, told, true)
	for _, kind := range []string{"normal", "pubsub"} {
		must(t, admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes").Err())
		next(t, hints, all)
	}
	next(t, told, true) // and false in between
	// Each listener comes back in its own time; what is left before then is lost, and said so.
	repeat(t, hints, state.Hint{Kind: state.KindFleet, ID: "after"}, func() {
		must(t, s.Wake(t.Context(), state.Hint{Kind: state.KindFleet, ID: "after"}))
	})
	repeat(t, hints, state.Hint{Kind: state.KindDocument, ID: "after"}, func() {
		must(t, admin.Set(t.Context(), "session:after", "{}", time.Hour).Err())
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

// repeat does it again and again until want comes.
func repeat(t *testing.T, from <-chan state.Hint, want state.Hint, do func()) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-from:
			if got == want {
				return
			}
		case <-tick.C:
			do()
		case <-timeout:
			t.Fatalf("never heard %v", want)
		}
	}
}

// next waits until want comes.
func next[T comparable](t *testing.T, from <-chan T, want T) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-from:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("never heard %v", want)
		}
	}
}

// A control record of the wrong type stops nobody else's.
func TestABrokenControlRecordIsPassedOver(t *testing.T) {
	server := miniredis.RunT(t)
	s := open(t, redisstore.Options{Addrs: []string{server.Addr()}})
	epoch, _, err := s.AcquireLease(t.Context(), "r", 0)
	must(t, err)
	by := state.Authority{Epoch: epoch}
	for _, id := range []string{"good", "bad"} {
		_, err := s.Admit(t.Context(), by, state.Admission{ID: id, Remaining: time.Hour})
		must(t, err)
		_, err = s.CreateLaunch(t.Context(), by, state.Launch{ID: id, Input: []byte(`{}`)})
		must(t, err)
	}
	admin := client(t, server.Addr())
	must(t, admin.Set(t.Context(), "wallcrawler:{default}:session:bad", "text", 0).Err())
	must(t, admin.Set(t.Context(), "wallcrawler:{default}:launch:bad", "{", 0).Err())
	sessions, err := s.SessionsOf(t.Context(), []string{"bad", "good"})
	if err != nil || len(sessions) != 1 {
		t.Errorf("got %v, %v", sessions, err)
	}
	launches, err := s.LaunchesOf(t.Context(), []string{"bad", "good"})
	if err != nil || len(launches) != 1 {
		t.Errorf("got %v, %v", launches, err)
	}
}

// harness opens the store at o with a foreign writer beside it.
func harness(t *testing.T, o redisstore.Options) statetest.Harness {
	t.Helper()
	foreign := foreigner(t, o)
	ctx := context.WithoutCancel(t.Context())
	return statetest.Harness{
		Store: open(t, o),
		Set: func(id, text string, ttl time.Duration) {
			must(t, foreign.Set(ctx, "session:"+id, text, ttl).Err())
		},
		Delete: func(id string) { must(t, foreign.Del(ctx, "session:"+id).Err()) },
		Spoil: func(id string) {
			must(t, foreign.Del(ctx, "session:"+id).Err())
			must(t, foreign.HSet(ctx, "session:"+id, "a", "1").Err())
		},
		Foreign: statetest.Foreign{
			Desire:   func(text string, ttl time.Duration) { must(t, foreign.Set(ctx, "pool:desired", text, ttl).Err()) },
			Undesire: func() { must(t, foreign.Del(ctx, "pool:desired").Err()) },
			SpoilDesired: func() {
				must(t, foreign.Del(ctx, "pool:desired").Err())
				must(t, foreign.HSet(ctx, "pool:desired", "a", "1").Err())
			},
			NoteV1: func(container, session string) {
				must(t, foreign.HSet(ctx, "container:"+container+":sessions", session, `{"userId":"u","createdAt":1}`).Err())
			},
			Read: func(key string) (string, time.Duration) {
				text, err := foreign.Get(ctx, key).Result()
				if errors.Is(err, redis.Nil) {
					return "", 0
				}
				must(t, err)
				ttl, err := foreign.PTTL(ctx, key).Result()
				must(t, err)
				return text, max(0, ttl)
			},
		},
		Wipe: func() {
			if c, ok := foreign.(*redis.ClusterClient); ok {
				must(t, c.ForEachMaster(ctx, func(ctx context.Context, m *redis.Client) error { return m.FlushAll(ctx).Err() }))
				return
			}
			must(t, foreign.FlushAll(ctx).Err())
		},
	}
}

func foreigner(t *testing.T, o redisstore.Options) redis.UniversalClient {
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: o.Addrs, IsClusterMode: o.IsClusterMode, DisableIdentity: true, Protocol: 2})
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func open(t *testing.T, o redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func client(t *testing.T, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true, Protocol: 2})
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

// startRedis runs a redis-server of its own for the test and gives its address.
func startRedis(t *testing.T, args ...string) string {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("WALLCRAWLER_SKIP_REDIS") == "1" {
			t.Skip("redis-server is not installed")
		}
		t.Fatal("redis-server is not installed: install it (Debian: apt-get install redis-server), " +
			"or set WALLCRAWLER_SKIP_REDIS=1 to leave these tests out")
	}
	var trouble string
	for range 5 { // somebody else may take the port first
		port := freePort(t)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		cmd := exec.Command(binary, append([]string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
		}, args...)...)
		must(t, cmd.Start())
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		if answers(t, addr, exited) {
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = <-exited
			})
			return addr
		}
		_ = cmd.Process.Kill()
		trouble = fmt.Sprintf("redis-server on %s did not answer", addr)
	}
	t.Fatal(trouble)
	return ""
}

// answers waits until the server does, or has exited.
func answers(t *testing.T, addr string, exited chan error) bool {
	c := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true, Protocol: 2, MaxRetries: -1})
	defer func() { _ = c.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for c.Ping(t.Context()).Err() != nil {
		select {
		case err := <-exited:
			exited <- err
			return false
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}

// freePort finds a port below those that the system gives to outgoing connections, of which these
// tests make many: one of them might take it before the server does.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
