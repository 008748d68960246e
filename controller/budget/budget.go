// Package budget keeps calls below what their receiver allows: token buckets that make way when
// they are told to.
package budget

import "time"

// Rate is what a bucket allows.
type Rate struct {
	Burst     float64 // calls at once
	PerSecond float64 // calls in the long run
}

// The rates of ECS's API, per account and Region: half of what AWS publishes, because others
// call there too.
var (
	Modify  = Rate{Burst: 50, PerSecond: 20} // RunTask and StopTask together; published: 100, 40/s
	RunTask = Rate{Burst: 10, PerSecond: 10} // published for Fargate: 20 calls/s; its 100 tasks at once, 20/s, lie above
	Read    = Rate{Burst: 50, PerSecond: 10} // ListTasks and DescribeTasks together; published: 100, 20/s
)

const (
	leastShare    = 1.0 / 16         // of its rate a bucket keeps, however often it is throttled
	recoverIn     = 30 * time.Second // from nothing to the whole rate, while nobody complains
	oneComplaint  = time.Second      // complaints closer together are about the same calls
	initialTokens = 1.0              // seconds' worth: whoever called before may have spent the burst
)

// Bucket is a token bucket whose rate halves when the receiver complains and comes back bit by
// bit. It has no clock: calls tell the time, which never goes back. It is not safe for
// concurrent use.
type Bucket struct {
	rate   Rate
	share  float64 // of the rate that is used now
	tokens float64
	at     time.Time

	complainedAt time.Time
}

// NewBucket returns a bucket that has a second's worth of calls.
func NewBucket(r Rate, now time.Time) *Bucket {
	return &Bucket{rate: r, share: 1, tokens: min(r.Burst, r.PerSecond*initialTokens), at: now}
}

// refill takes in the time since it was last asked.
func (b *Bucket) refill(now time.Time) {
	d := now.Sub(b.at)
	if d <= 0 {
		return
	}
	b.at = now
	b.tokens = min(max(1, b.rate.Burst*b.share), b.tokens+d.Seconds()*b.rate.PerSecond*b.share)
	b.share = min(1, b.share+d.Seconds()/recoverIn.Seconds())
}

// Wait says how long until a call may be made; zero: now.
func (b *Bucket) Wait(now time.Time) time.Duration {
	b.refill(now)
	if b.tokens >= 1 {
		return 0
	}
	// Rounded up, so that whoever waits that long has its token.
	return time.Duration((1-b.tokens)/(b.rate.PerSecond*b.share)*float64(time.Second)) + time.Nanosecond
}

// Take takes a call from every bucket, or none from any; it says how long until it would.
func Take(now time.Time, buckets ...*Bucket) time.Duration {
	var wait time.Duration
	for _, b := range buckets {
		wait = max(wait, b.Wait(now))
	}
	if wait == 0 {
		for _, b := range buckets {
			b.tokens--
		}
	}
	return wait
}

// Throttled halves the rate and empties the bucket: the receiver has said that it was too much.
func (b *Bucket) Throttled(now time.Time) {
	b.refill(now)
	b.tokens = min(b.tokens, 0)
	if !b.complainedAt.IsZero() && now.Sub(b.complainedAt) < oneComplaint {
		return
	}
	b.complainedAt = now
	b.share = max(leastShare, b.share/2)
}

// PerSecond is the rate that is kept now.
func (b *Bucket) PerSecond() float64 { return b.rate.PerSecond * b.share }
