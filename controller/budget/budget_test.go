package budget_test

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/budget"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// made calls as often as the bucket lets it within d, from now on.
func made(b *budget.Bucket, now time.Time, d time.Duration) (n int, end time.Time) {
	end = now.Add(d)
	for at := now; !at.After(end); {
		wait := budget.Take(at, b)
		if wait == 0 {
			n++
			continue
		}
		at = at.Add(wait)
	}
	return n, end
}

func TestABucketKeepsItsRate(t *testing.T) {
	b := budget.NewBucket(budget.Rate{Burst: 20, PerSecond: 10}, start)
	n, now := made(b, start, 10*time.Second)
	if n < 108 || n > 110 { // a second's worth to begin with
		t.Errorf("%d calls in 10 s at 10/s", n)
	}
	// After a quiet minute a burst passes, and no more than that.
	now = now.Add(time.Minute)
	if n, _ := made(b, now, 0); n != 20 {
		t.Errorf("a burst of %d, want 20", n)
	}
}

func TestAThrottledBucketMakesWayAndComesBack(t *testing.T) {
	b := budget.NewBucket(budget.Rate{Burst: 20, PerSecond: 10}, start)
	b.Throttled(start)
	b.Throttled(start.Add(time.Millisecond)) // the same complaint
	if got := b.PerSecond(); got < 4.9 || got > 5.1 {
		t.Errorf("%v/s after a complaint, want half", got)
	}
	if wait := budget.Take(start.Add(time.Millisecond), b); wait == 0 {
		t.Error("a call right after a complaint")
	}
	now := start
	for range 100 {
		now = now.Add(time.Second)
		b.Throttled(now)
	}
	if got := b.PerSecond(); got <= 0 || got > 1 {
		t.Errorf("%v/s after a hundred complaints: want little, but never nothing", got)
	}
	b.Wait(now.Add(time.Minute))
	if got := b.PerSecond(); got != 10 {
		t.Errorf("%v/s after a minute without complaint, want all", got)
	}
}

func TestACallThatNeedsTwoBucketsTakesFromBothOrNone(t *testing.T) {
	rich, poor := budget.NewBucket(budget.Rate{Burst: 5, PerSecond: 5}, start), budget.NewBucket(budget.Rate{Burst: 1, PerSecond: 1}, start)
	if wait := budget.Take(start, rich, poor); wait != 0 {
		t.Fatalf("the first call waits %s", wait)
	}
	for range 10 {
		if wait := budget.Take(start, rich, poor); wait < 900*time.Millisecond || wait > 1100*time.Millisecond {
			t.Fatalf("a call waits %s, want about 1 s", wait)
		}
	}
	if n, _ := made(rich, start, 0); n != 4 {
		t.Errorf("%d left in the other bucket, want 4: what was refused took nothing", n)
	}
}
