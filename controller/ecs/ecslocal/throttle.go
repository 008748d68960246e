package ecslocal

import "time"

// bucket is a token bucket of calls or of launches.
type bucket struct {
	tokens float64
	at     time.Time
}

// rate is what ECS publishes of a bucket.
type rate struct{ burst, refill float64 } // calls, calls per second

// The buckets, per account and region. RunTask takes from three of them.
const (
	bucketModify  = "cluster-modify" // RunTask, StopTask
	bucketRead    = "cluster-read"   // ListTasks, DescribeTasks
	bucketRunTask = "run-task"       // RunTask on Fargate, by calls
)

// published are the rates of ECS's and of Fargate's service quotas. Fargate's limit of launched
// tasks (100 at once, 20 a second) is the same as that of calls while each starts one task.
func published(name string) rate {
	switch name {
	case bucketModify:
		return rate{100, 40}
	case bucketRunTask:
		return rate{20, 20}
	default:
		return rate{100, 20}
	}
}

// bucketsOf names the buckets that a call of the operation takes from.
func bucketsOf(op string) []string {
	switch op {
	case "RunTask":
		return []string{bucketModify, bucketRunTask}
	case "StopTask":
		return []string{bucketModify}
	default:
		return []string{bucketRead}
	}
}

// take tells whether every bucket of the operation had a token, and takes them if so. Call
// with f.mu held.
func (f *faults) take(op string, factor float64, now time.Time) bool {
	names := bucketsOf(op)
	for _, name := range names {
		r := published(name)
		burst := max(1, r.burst*factor)
		b := f.buckets[name]
		if b == nil {
			b = &bucket{tokens: burst, at: now}
			f.buckets[name] = b
		}
		b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()*r.refill*factor)
		b.at = now
		if b.tokens < 1 {
			return false
		}
	}
	for _, name := range names {
		f.buckets[name].tokens--
	}
	return true
}
