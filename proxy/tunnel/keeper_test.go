package tunnel_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// keep runs a keeper for as long as the test lasts.
func keep(t *testing.T, cfg tunnel.KeeperConfig) *tunnel.Keeper {
	t.Helper()
	k := tunnel.NewKeeper(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	until(t, "the keeper looks after tunnels", k.ReadyForTest)
	return k
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); <-time.After(time.Millisecond) { // others need the processor
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// hasty parks whatever stands still for a moment, and does nothing else.
var hasty = tunnel.KeeperConfig{Tick: time.Millisecond, Ping: time.Hour, Stall: time.Hour}

// TestParked runs the tests of a tunnel's behaviour with a keeper that takes every direction
// its goroutine as often as it can.
func TestParked(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"half close":        TestHalfCloseIsPassedOnAndTheAnswerStillArrives,
		"vanished client":   TestAVanishedClientIsToldToTheBackend,
		"vanished backend":  TestAVanishedBackendIsToldToTheClient,
		"amid a frame":      TestABackendThatVanishesAmidAFrameOnlyEndsTheStream,
		"never ends":        TestAPeerThatNeverEndsIsNotWaitedForForever,
		"takes nothing":     TestABackendThatTakesNothingAnyMoreIsToldToTheClient,
		"cut anyhow":        TestBytesArriveUnchangedHoweverTheyAreCut,
		"early bytes":       TestEarlyBytesComeFirst,
		"close":             TestCloseTellsBothSidesBetweenFrames,
		"close amid":        TestCloseAmidAFrameOnlyEndsTheStream,
		"close, fragments":  TestCloseBetweenFragmentsIsAllowed,
		"malformed":         TestNothingIsPutInAfterMalformedFrames,
		"close, slow":       TestCloseIsNotStoppedByASlowReader,
		"slow":              TestSlowReaderStopsItsSender,
		"fifty megabytes":   TestFiftyMegabytesBothWays,
		"not TCP":           TestConnectionsThatAreNotTCPWorkToo,
		"panic":             TestAPanicEndsThatTunnelAlone,
		"panic, blocked":    TestAPanicEndsABlockedTunnel,
		"nothing is behind": TestNothingIsLeftBehind,
		"no allocations":    TestNothingIsAllocatedPerMessage,
	} {
		t.Run(name, test)
	}
}

// keeperOf gives tests below TestParked a hasty keeper, for whom each tunnel is a chatty one, and
// others none.
func keeperOf(t *testing.T) *tunnel.Keeper {
	if !strings.HasPrefix(t.Name(), "TestParked/") {
		return nil
	}
	k := keep(t, hasty)
	k.CountAtOnceForTest()
	return k
}

func TestIdleTunnelsHaveNoGoroutines(t *testing.T) {
	if !tunnel.ParksForTest {
		t.Skip("nothing is parked here")
	}
	k := keep(t, hasty)
	before := runtime.NumGoroutine()
	var all []*ends
	for range 20 {
		all = append(all, start(t, tunnel.Config{Keeper: k}, nil, nil))
	}
	hi, there := frame(1, true, true, []byte("hi")), frame(1, true, false, []byte("there"))
	for range 3 {
		for _, e := range all {
			write(t, e.client, hi)
			expect(t, e.backend, hi)
			write(t, e.backend, there)
			expect(t, e.client, there)
		}
		// What is left is who waits for each result.
		until(t, "all directions are parked", func() bool { return runtime.NumGoroutine() <= before+len(all) })
	}
	for _, e := range all {
		e.tunnel.Close(1000, "released")
		expectRest(t, e.client, closeFrame(1000, "released", false))
		_, _ = e.client.Close(), e.backend.Close()
		if r := e.wait(t); r.ToBackend.Messages != 3 || r.ToClient.Messages != 3 {
			t.Errorf("counted %+v", r.Stats)
		}
	}
}

// A ping wakes a direction, and its pong the other: both are parked again, however often.
func TestPingedTunnelsAreParkedAgain(t *testing.T) {
	if !tunnel.ParksForTest {
		t.Skip("nothing is parked here")
	}
	k := keep(t, tunnel.KeeperConfig{Tick: time.Millisecond, Ping: 100 * time.Millisecond, Stall: time.Hour})
	before := runtime.NumGoroutine()
	e := start(t, tunnel.Config{Keeper: k}, nil, nil)
	ping, pong := frame(9, true, false, nil), frame(10, true, true, nil)
	for range 6 {
		expect(t, e.client, ping)
		write(t, e.client, pong)
		expect(t, e.backend, pong)
		until(t, "both directions are parked", func() bool { return runtime.NumGoroutine() <= before+1 })
	}
	e.tunnel.Close(1000, "")
	_, _ = e.client.Close(), e.backend.Close()
	e.wait(t)
}

func TestASilentClientIsPinged(t *testing.T) {
	k := keep(t, tunnel.KeeperConfig{Tick: time.Millisecond, Ping: 10 * time.Millisecond, Stall: time.Hour})
	e := start(t, tunnel.Config{Keeper: k}, nil, nil)
	ping, pong := frame(9, true, false, nil), frame(10, true, true, nil)
	expect(t, e.client, ping, ping)
	write(t, e.client, pong)
	expect(t, e.backend, pong) // pongs pass; who has not asked ignores them
	until(t, "the pong is counted", func() bool { return e.tunnel.Stats().ToBackend.Bytes == uint64(len(pong)) })
	if s := e.tunnel.Stats(); !s.LastActivity.Equal(s.Opened) || s.ToClient.Bytes != 0 {
		t.Errorf("keeping the connection alive is no activity, and a ping of ours was not relayed: %+v", s)
	}
	hi := frame(1, true, false, []byte("hi"))
	write(t, e.backend, hi)
	head := readPast(t, e.client, 9) // pings may have come before it, none in it
	expect(t, e.client, hi[len(head):])
	e.tunnel.Close(1000, "")
	_, _ = e.client.Close(), e.backend.Close()
	e.wait(t)
}

func TestNoPingIsPutIntoAFrame(t *testing.T) {
	k := keep(t, tunnel.KeeperConfig{Tick: time.Millisecond, Ping: 5 * time.Millisecond, Stall: time.Hour})
	e := start(t, tunnel.Config{Keeper: k}, nil, nil)
	expect(t, e.client, frame(9, true, false, nil))
	whole := frame(2, true, false, make([]byte, 100))
	write(t, e.backend, whole[:50])
	head := readPast(t, e.client, 9)
	expect(t, e.client, whole[len(head):50])
	pings := k.LooksForTest() + 50
	until(t, "pings would have been due", func() bool { return k.LooksForTest() > pings })
	write(t, e.backend, whole[50:])
	expect(t, e.client, whole[50:])
	e.tunnel.Close(0, "")
	_, _ = e.client.Close(), e.backend.Close()
	e.wait(t)
}

func TestAClientThatTakesNothingIsClosed(t *testing.T) {
	k := keep(t, tunnel.KeeperConfig{Tick: time.Millisecond, Ping: time.Hour, Stall: 50 * time.Millisecond})
	e := start(t, tunnel.Config{Keeper: k}, nil, nil)
	flood := frame(2, true, false, make([]byte, 1<<20))
	for {
		if _, err := e.backend.Write(flood); err != nil {
			break // it was cut
		}
	}
	if r := e.wait(t); !r.Stalled || r.First != tunnel.Neither {
		t.Errorf("ended with %+v", r)
	}
}

func TestABusyClientIsLeftAlone(t *testing.T) {
	k := keep(t, tunnel.KeeperConfig{Tick: time.Millisecond, Ping: time.Hour, Stall: 10 * time.Second})
	e := start(t, tunnel.Config{Keeper: k}, nil, nil)
	data := frame(2, true, false, make([]byte, 4<<20))
	go func() { _, _ = e.backend.Write(data) }()
	expect(t, e.client, data)
	e.tunnel.Close(0, "")
	_, _ = e.client.Close(), e.backend.Close()
	if r := e.wait(t); r.Stalled {
		t.Error("a client that reads was taken for a stalled one")
	}
}
