package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/budget"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// callTimeout bounds one call, its retries included.
const callTimeout = 30 * time.Second

// calls runs the calls of one reign to ECS beside the loop, each action once at a time, and
// remembers which actions are to wait before they are tried again. All methods but call run on the
// loop's goroutine.
type calls struct {
	c       *Controller
	epoch   int64 // of the reign; never changed, since calls read it beside the loop
	results chan outcome
	running sync.WaitGroup
	slots   chan struct{}

	inFlight map[string]bool
	retries  map[string]retry

	// What the account allows: half of what AWS publishes. RunTask takes from both.
	modify, runTask *budget.Bucket
	waiting         map[plan.Kind]int // calls that the last plan asked for and the buckets did not give
	soonest         time.Duration     // when the first of them may be made; zero: none waits
}

type retry struct {
	failures int
	at       time.Time
}

func newCalls(c *Controller) *calls {
	return &calls{
		c:        c,
		epoch:    c.epoch,
		results:  make(chan outcome, c.cfg.machine.callers),
		slots:    make(chan struct{}, c.cfg.machine.callers),
		inFlight: map[string]bool{},
		retries:  map[string]retry{},
		modify:   budget.NewBucket(budget.Modify, c.now()),
		runTask:  budget.NewBucket(budget.RunTask, c.now()),
		waiting:  map[plan.Kind]int{},
	}
}

// reset forgets all failures: what is wanted has changed, so that what went wrong may go well.
func (k *calls) reset() { clear(k.retries) }

// begin starts a round.
func (k *calls) begin() {
	clear(k.waiting)
	k.soonest = 0
}

// bucketsOf gives what a call takes from.
func (k *calls) bucketsOf(a plan.Action) []*budget.Bucket {
	if a.Kind() == plan.KindRun {
		return []*budget.Bucket{k.modify, k.runTask}
	}
	return []*budget.Bucket{k.modify}
}

// afford takes what a call costs from the account's allowance, if that is there. A plan lists
// launches before stops, so that they are asked for first.
func (k *calls) afford(a plan.Action, now time.Time) bool {
	wait := budget.Take(now, k.bucketsOf(a)...)
	if wait == 0 {
		return true
	}
	k.waiting[a.Kind()]++
	if k.soonest == 0 || wait < k.soonest {
		k.soonest = wait
	}
	return false
}

// pause is how long the loop may pause without leaving a call waiting that could be made.
func (k *calls) pause(longest time.Duration) time.Duration {
	if k.soonest == 0 {
		return longest
	}
	return min(longest, k.soonest)
}

// throttled makes way after AWS has complained about a call.
func (k *calls) throttled(a plan.Action, now time.Time) {
	for _, b := range k.bucketsOf(a) {
		b.Throttled(now)
	}
}

// tell shows what waits, in metrics and to people.
func (k *calls) tell() {
	var held []Held
	for kind, call := range map[plan.Kind]string{plan.KindRun: "RunTask", plan.KindStopTask: "StopTask"} {
		n := k.waiting[kind]
		k.c.metrics.budgetWaiting.WithLabelValues(call).Set(float64(n))
		if n == 0 {
			continue
		}
		what := plan.HoldLaunch
		if kind == plan.KindStopTask {
			what = plan.HoldDestruction
		}
		held = append(held, Held{What: what, Why: fmt.Sprintf("%d calls of %s wait for the account's allowance", n, call)})
	}
	k.c.metrics.budgetRate.WithLabelValues("RunTask").Set(k.runTask.PerSecond())
	k.c.metrics.budgetRate.WithLabelValues("StopTask").Set(k.modify.PerSecond())
	slices.SortFunc(held, func(a, b Held) int { return strings.Compare(a.Why, b.Why) })
	k.c.held.Store(&held)
}

// due tells whether an action may be tried now.
func (k *calls) due(key string, now time.Time) bool {
	return !k.inFlight[key] && !now.Before(k.retries[key].at)
}

// succeeded forgets the failures of an action.
func (k *calls) succeeded(key string) {
	delete(k.inFlight, key)
	delete(k.retries, key)
}

// forgotten notes that an action was not carried out, which is nobody's failure.
func (k *calls) forgotten(key string) { delete(k.inFlight, key) }

// failed notes a failure and says how long the action waits: 50 ms, doubling, to maxBackoff.
func (k *calls) failed(key string) time.Duration {
	delete(k.inFlight, key)
	r := k.retries[key]
	pause := min(50*time.Millisecond<<min(r.failures, 10), maxBackoff)
	k.retries[key] = retry{r.failures + 1, k.c.now().Add(pause)}
	if len(k.retries) > 10_000 {
		clear(k.retries) // subjects that are long gone
	}
	return pause
}

// start makes a call beside the loop.
func (k *calls) start(ctx context.Context, a plan.Action) {
	k.inFlight[key(a)] = true
	k.c.cfg.machine.beside(&k.running, func() {
		o := outcome{action: a, err: ctx.Err()}
		if o.err != nil {
			return // the reign is over, and nobody waits for results any more
		}
		select {
		case k.slots <- struct{}{}:
			o.err = k.call(ctx, a)
			<-k.slots
		case <-ctx.Done():
			o.err = ctx.Err()
		}
		select {
		case k.results <- o:
		case <-ctx.Done():
		}
	})
}

// wait returns when every call has come back.
func (k *calls) wait() { k.running.Wait() }

func (k *calls) call(ctx context.Context, a plan.Action) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !k.c.lead.holds(k.epoch) {
		return errNotLeading
	}
	switch a := a.(type) {
	case plan.Run:
		return k.c.runTask(ctx, k.epoch, a.ID)
	case plan.StopTask:
		if err := k.c.mayStop(ctx, a.ID); err != nil {
			return err
		}
		if !k.c.lead.holds(k.epoch) {
			return errNotLeading
		}
		if err := k.c.cfg.Fleet.Stop(ctx, a.ID, "wallcrawler: "+a.Why); err != nil {
			return fmt.Errorf("stopping task %s: %w", a.ID, err)
		}
		return nil
	default:
		return fmt.Errorf("no call for a %s", a.Kind())
	}
}

// mayStop asks the store, right before a task is stopped, whether its container has come to
// life since that was planned: it may have registered while its launch was being given up. Later
// it cannot (see state.Containers.Register).
func (c *Controller) mayStop(ctx context.Context, arn string) error {
	id := ""
	for _, r := range c.cfg.Mirror.Containers() {
		if r.TaskARN == arn {
			id = r.ID
		}
	}
	for _, l := range c.cfg.Mirror.Launches() {
		if l.TaskARN == arn {
			id = l.ID
		}
	}
	if id == "" {
		return nil
	}
	r, err := c.cfg.Store.Container(ctx, id)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("looking at container %s before its task is stopped: %w", id, err)
	case r.GivenUp() && c.serves(r):
		return fmt.Errorf("the container of task %s holds sessions that are not settled: %w", arn, state.ErrConflict)
	case r.Phase == state.Stopping || r.Phase == state.Gone:
		return nil
	default:
		return fmt.Errorf("the container of task %s is %s: %w", arn, r.Phase, state.ErrConflict)
	}
}

// serves tells whether a session still counts as held by a container. None can be added to one
// that is stopping, so that a mirror which is behind errs on the safe side.
func (c *Controller) serves(r *state.Container) bool {
	return slices.ContainsFunc(c.cfg.Mirror.Sessions(), func(s *state.Session) bool { return s.BoundTo(r.ID, r.BootID) })
}

// runTask makes the call of a recorded launch and records what came of it, in the reign of that epoch.
func (c *Controller) runTask(ctx context.Context, epoch int64, id string) error {
	l, ok := c.cfg.Mirror.Launch(id)
	if !ok {
		return fmt.Errorf("launch %s: %w", id, state.ErrNotFound)
	}
	task, err := c.cfg.Fleet.Run(ctx, l)
	update := state.LaunchUpdate{Tries: l.Tries + 1, AnsweredAt: c.cfg.Mirror.Now()}
	var refused *state.LaunchRefused
	switch {
	case err == nil:
		update.TaskARN, update.Outcome = task.ARN, state.Started
	case errors.As(err, &refused):
		update.Outcome, update.Message, update.Cause, update.SettledAt = state.Refused, refused.Reason, state.Rejected, update.AnsweredAt
		if refused.Capacity {
			update.Cause = state.NoCapacity
		}
	default:
		return fmt.Errorf("starting a task for launch %s: %w", id, err)
	}
	by, leading := c.lead.authority(epoch)
	if !leading {
		return errNotLeading // the next leader repeats the call and gets the same task
	}
	l, err = c.cfg.Store.UpdateLaunch(ctx, by, id, update)
	if err != nil {
		return fmt.Errorf("recording the task of launch %s: %w", id, err)
	}
	c.cfg.Mirror.ApplyLaunch(l)
	if refused != nil {
		c.log.Warn("launch refused", "launch", id, "because", refused.Reason, "capacity", refused.Capacity)
	}
	return nil
}
