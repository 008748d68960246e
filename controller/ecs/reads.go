package ecs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/budget"
)

// reads keeps ListTasks and DescribeTasks within the account's allowance. They wait beside the
// controller's loop: a view that comes later holds what destroys, and nothing else. (Launches
// and stops have an allowance of their own, which the controller keeps.)
type reads struct {
	mu     sync.Mutex // guards bucket
	bucket *budget.Bucket
}

func (r *reads) take() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return budget.Take(time.Now(), r.bucket)
}

// wait returns when a read may be made.
func (r *reads) wait(ctx context.Context) error {
	for {
		d := r.take()
		if d == 0 {
			return nil
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("waiting for the account's allowance of reads: %w", ctx.Err())
		}
	}
}

func (r *reads) throttled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bucket.Throttled(time.Now())
}

// read makes one call that changes nothing, within the allowance.
func read[In, Out any](ctx context.Context, f *Fleet, op string, do method[In, Out], in In) (Out, error) {
	if err := f.reads.wait(ctx); err != nil {
		var none Out
		return none, err
	}
	out, err := call(ctx, f, op, do, in)
	if throttled(err) {
		f.reads.throttled()
	}
	return out, err
}
