package ecslocal

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// A Fault is what befalls one call. Before, Wait and After go with any other; of the rest, the
// first that is set counts.
type Fault struct {
	// Exception is the API's name for the error that the call gets: ThrottlingException …
	// Nothing is done.
	Exception string `json:"exception,omitempty"`
	Message   string `json:"message,omitempty"` // of the exception
	Status    int    `json:"status,omitempty"`  // of the answer; default 400 with an Exception. Alone (500, 503): no exception, no JSON

	// FailureReason makes RunTask start nothing and answer 200 with failures[].
	FailureReason string `json:"failureReason,omitempty"`
	FailureDetail string `json:"failureDetail,omitempty"`

	// Hang carries the call out and then withholds the answer for that long, or until the
	// caller gives up: the call has succeeded and its caller does not know.
	Hang Duration `json:"hang,omitempty"`
	// Cut carries the call out and cuts the connection instead of an answer.
	Cut bool `json:"cut,omitempty"`

	Wait Duration `json:"wait,omitempty"` // before anything is done

	// Before and After are called when the call has arrived, and when it has been carried out
	// and is about to be answered.
	Before, After func() `json:"-"`
}

// refuses tells whether the fault takes the place of the call.
func (f *Fault) refuses() bool { return f.Exception != "" || f.Status != 0 }

// refuse answers in the place of the call.
func (f *Fault) refuse(w http.ResponseWriter) {
	if f.Exception != "" {
		answer(w, nil, &exception{Type: f.Exception, Message: f.Message, status: f.Status})
		return
	}
	http.Error(w, http.StatusText(f.Status), f.Status)
}

// Conditions are what the endpoint does to calls and tasks in general, as ECS does on a bad
// day. The zero value is a good day. Shares are from 0 to 1. What is left to chance is drawn
// from Seed and from the how-many-th call of its operation, or task, it is: the same calls in
// the same order meet the same.
type Conditions struct {
	Seed uint64 `json:"seed,omitempty"`

	// Throttle keeps ECS's published rates (see buckets), times this: 1 are the published
	// ones, 0.1 a tenth of them. 0 keeps none.
	Throttle float64 `json:"throttle,omitempty"`

	// Unseen is how long at most a new task is neither listed nor described nor to be stopped.
	// RunTask's own answer, also to a repeated clientToken, knows it.
	Unseen Duration `json:"unseen,omitempty"`
	// Stale is how long at most lists and descriptions of a task that is to stop, or has
	// stopped, go on to show it as it was before.
	Stale Duration `json:"stale,omitempty"`

	Slow        Duration `json:"slow,omitempty"`        // a call waits up to that long before it is carried out
	Errors      float64  `json:"errors,omitempty"`      // share of calls that fail with a ServerException, not carried out
	FailedPages float64  `json:"failedPages,omitempty"` // share of ListTasks calls beyond a list's first page that fail
	LostAnswers float64  `json:"lostAnswers,omitempty"` // share of RunTask and StopTask calls that are carried out and then cut

	NoRoom   float64 `json:"noRoom,omitempty"`   // share of tasks that RunTask has no room for; of a Count above 1, only some may fail
	Droughts []Place `json:"droughts,omitempty"` // where there is no room at all

	DieStarting float64 `json:"dieStarting,omitempty"` // share of tasks that end with TaskFailedToStart before they run
	Interrupted float64 `json:"interrupted,omitempty"` // share of tasks that get a Spot interruption within InterruptedIn
	// InterruptedIn is the longest time from RUNNING to an interruption; default one minute.
	InterruptedIn Duration `json:"interruptedIn,omitempty"`
}

// Place is where a task may run. An empty field means any.
type Place struct {
	Subnet   string `json:"subnet,omitempty"`
	Provider string `json:"provider,omitempty"` // a capacity provider, or a launch type
}

func (p Place) covers(subnet, provider string) bool {
	return (p.Subnet == "" || p.Subnet == subnet) && (p.Provider == "" || p.Provider == provider)
}

// check says what is wrong with the conditions.
func (c *Conditions) check() error {
	var errs []error
	for name, share := range map[string]float64{"errors": c.Errors, "failedPages": c.FailedPages, "lostAnswers": c.LostAnswers,
		"noRoom": c.NoRoom, "dieStarting": c.DieStarting, "interrupted": c.Interrupted} {
		if !(share >= 0 && share <= 1) {
			errs = append(errs, fmt.Errorf("%s is %v: want a share from 0 to 1", name, share))
		}
	}
	for name, d := range map[string]Duration{"unseen": c.Unseen, "stale": c.Stale, "slow": c.Slow, "interruptedIn": c.InterruptedIn} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: want no less than 0", name, time.Duration(d)))
		}
	}
	if !(c.Throttle >= 0) {
		errs = append(errs, fmt.Errorf("throttle is %v: want a factor of the published rates, or 0", c.Throttle))
	}
	return errors.Join(errs...)
}

// draw gives a number from 0 to below 1 for the n-th of what.
func (c *Conditions) draw(what string, n uint64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(what)) // never fails
	return rand.New(rand.NewPCG(c.Seed, h.Sum64()^n*0x9e3779b97f4a7c15)).Float64()
}

// within gives a time up to limit for the n-th of what.
func (c *Conditions) within(limit Duration, what string, n uint64) time.Duration {
	return time.Duration(c.draw(what, n) * float64(limit))
}

// lacks tells whether there is no room for a task there.
func (c *Conditions) lacks(subnet, provider string, n uint64) bool {
	for _, p := range c.Droughts {
		if p.covers(subnet, provider) {
			return true
		}
	}
	return c.draw("room", n) < c.NoRoom
}

// noRoom is what Fargate says then.
func noRoom() failure {
	return failure{Reason: "Capacity is unavailable at this time. Please try again later or in a different availability zone"}
}

// fault is what these conditions let befall the n-th call of the operation.
func (c *Conditions) fault(op string, n uint64) Fault {
	f := Fault{Wait: Duration(c.within(c.Slow, op+" wait", n))}
	switch {
	case c.draw(op+" error", n) < c.Errors:
		f.Exception, f.Message, f.Status = "ServerException", "Service Unavailable. Please try again later.", http.StatusInternalServerError
	case (op == "RunTask" || op == "StopTask") && c.draw(op+" cut", n) < c.LostAnswers:
		f.Cut = true
	}
	return f
}

// faults decides what befalls the calls, and counts them.
type faults struct {
	mu         sync.Mutex // guards the fields below
	queue      map[string][]Fault
	calls      map[string]int
	conditions Conditions
	steps      []Step // of a script, those still to come
	began      time.Time
	buckets    map[string]*bucket
}

// next gives the fault of this call of the operation, ordered ones first, and the conditions
// under which it is carried out; the zero Fault is none.
func (f *faults) next(op string, now time.Time) (Fault, Conditions) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.play(now)
	f.calls[op]++
	if queue := f.queue[op]; len(queue) > 0 {
		f.queue[op] = queue[1:]
		return queue[0], f.conditions
	}
	if c := f.conditions.Throttle; c > 0 && !f.take(op, c, now) {
		return Fault{Exception: "ThrottlingException", Message: "Rate exceeded"}, f.conditions
	}
	return f.conditions.fault(op, uint64(f.calls[op])), f.conditions
}

// now gives the conditions in force.
func (f *faults) now(at time.Time) Conditions {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.play(at)
	return f.conditions
}

// Fail lets the next n calls of the operation (RunTask, ListTasks …) meet the fault, after
// those that were ordered before.
func (s *Server) Fail(op string, n int, fault Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.order(op, n, fault)
}

func (f *faults) order(op string, n int, fault Fault) {
	for range n {
		f.queue[op] = append(f.queue[op], fault)
	}
}

// SetConditions changes the conditions, and ends a script that is being played.
func (s *Server) SetConditions(c Conditions) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("changing the conditions of the local ECS endpoint: %w", err)
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.conditions, s.faults.steps = c, nil
	clear(s.faults.buckets)
	return nil
}

// Calls gives how many calls of the operation have arrived, faulty ones included.
func (s *Server) Calls(op string) int {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return s.faults.calls[op]
}

// counts gives the calls of every operation.
func (f *faults) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.calls)
}

// Stop ends a task as ECS itself does on occasion, with a stop code of its own:
// SpotInterruption, TerminationNotice, ServiceSchedulerInitiated … It tells whether there was
// such a task to stop.
func (s *Server) Stop(taskARN, code, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.find(taskARN)
	if t == nil || t.desired == stopped {
		return false
	}
	t.requestStop(code, reason)
	return true
}
