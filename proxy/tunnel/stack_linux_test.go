package tunnel_test

import (
	"runtime"
	"testing"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// A direction's goroutine makes do with the stack that it begins with: a larger one would have to
// be copied to for each session, and kept for each busy one.
func TestTheStackOfADirectionDoesNotGrow(t *testing.T) {
	if raceEnabled {
		t.Skip("frames are larger with the race detector")
	}
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.StackInuse
	}
	k := tunnel.NewKeeper(tunnel.KeeperConfig{}) // parks nothing
	k.CountAtOnceForTest()
	const n = 200
	hi, there := frame(1, true, true, []byte("hi")), frame(1, true, false, []byte("there"))
	before, goroutines := inUse(), runtime.NumGoroutine()
	for range n {
		e := start(t, tunnel.Config{Keeper: k}, nil, nil)
		for range 3 {
			write(t, e.client, hi)
			expect(t, e.backend, hi)
			write(t, e.backend, there)
			expect(t, e.client, there)
		}
	}
	started := runtime.NumGoroutine() - goroutines
	each := (inUse() - before) / uint64(started)
	t.Logf("%d bytes for each of %d goroutines", each, started)
	if each > 3<<10 {
		t.Errorf("the stacks of %d goroutines have %d bytes each", started, each)
	}
}
