package tunnel_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// What is waited for comes within about a millisecond, and is never more than there is to come.
func TestLittleOfALargeFrameIsHeldUp(t *testing.T) {
	const k = 1 << 10
	for name, test := range map[string]struct {
		left   uint64
		wait   time.Duration
		pieces []int
		want   uint64
	}{
		"nothing is known":        {5000 * k, time.Millisecond, nil, 1},
		"all of it was there":     {5000 * k, time.Millisecond, []int{1000 * k}, 1},
		"one wait":                {5000 * k, time.Millisecond, []int{1000 * k, 1000 * k}, 1},
		"a gigabyte per second":   {5000 * k, 100 * time.Microsecond, []int{k, 128 * k, 128 * k, 128 * k}, 512 * k},
		"a gigabit per second":    {5000 * k, time.Millisecond, []int{k, 128 * k, 128 * k, 128 * k}, 128 * k},
		"ten megabits per second": {5000 * k, 10 * time.Millisecond, []int{1000 * k, 12 * k, 12 * k}, 1},
		"near its end":            {100 * k, 100 * time.Microsecond, []int{k, 128 * k, 128 * k}, 100 * k},
		"at its end":              {10 * k, 100 * time.Microsecond, []int{k, 128 * k, 128 * k}, 1},
	} {
		if got := tunnel.LowWaterForTest(test.left, test.wait, test.pieces...); got != test.want {
			t.Errorf("%s: it waits for %d bytes, not %d", name, got, test.want)
		}
	}
}

// However fast frames were, a small one that follows is not waited upon, and what has come of
// one whose sender pauses is passed on.
func TestNothingIsHeldUpForLong(t *testing.T) {
	e := start(t, tunnel.Config{Keeper: keep(t, hasty)}, nil, nil)
	large, small := frame(2, true, false, make([]byte, 8<<20)), frame(1, true, false, []byte("hi"))
	got := make([]byte, len(large))
	for i := range 20 {
		pause := len(large) - 300_000
		go func() { _, _ = e.backend.Write(large[:pause]) }() // read to its end
		if _, err := io.ReadFull(e.client, got[:pause]); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		write(t, e.backend, large[pause:])
		if _, err := io.ReadFull(e.client, got[pause:]); err != nil || !bytes.Equal(got, large) {
			t.Fatalf("round %d: the large frame did not come whole: %v", i, err)
		}
		write(t, e.backend, small)
		expect(t, e.client, small)
	}
	_, _ = e.client.Close(), e.backend.Close()
	if r := e.wait(t); r.ToClient.Messages != 40 {
		t.Errorf("%d messages were counted", r.ToClient.Messages)
	}
}
