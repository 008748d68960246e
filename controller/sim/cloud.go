package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// cloud is ECS: tasks, and what it says of them.
type cloud struct {
	w     *World
	tasks map[string]*task // by ARN

	throttledUntil, droughtUntil, brokenUntil time.Duration
	lag                                       time.Duration // until listings show what has changed
	lagUntil                                  time.Duration
	loseAnswers                               int // of the next calls that change something
	startBadly                                []badStart
	refusals                                  []refusal // the latest
}

// refusal is a launch that found no room.
type refusal struct {
	launch string
	at     time.Duration // the first time
	epoch  int64         // the highest that was granted the last time
}

// badStart is a task that will not come up as it should.
type badStart int

const (
	startsWell badStart = iota
	diesAtStart
	startsLate
	neverRegisters
	neverReached
)

// task is one of ECS's, as it really is.
type task struct {
	state.Task
	launch     string
	recordedAt time.Duration // the launch
	input      string        // of the call that started it
	shownFrom  time.Duration // listings lack it before
	overShown  time.Duration // listings show it running until then, once it is over
	runs       bool
	process    *process
}

var errThrottled = fmt.Errorf("%w: Rate exceeded", state.ErrThrottled)

// fleetView is ECS as one replica reaches it.
type fleetView struct{ r *replica }

func (f *fleetView) Prepare(launch string, maxSessions int) (json.RawMessage, int, error) {
	return json.RawMessage(fmt.Sprintf(`{"launch":%q,"maxSessions":%d}`, launch, maxSessions)), 8080, nil
}

func (f *fleetView) Target() string { return "browser:1" }

// trouble is what ECS answers instead of doing anything, if it does.
func (e *cloud) trouble() error {
	switch {
	case e.w.now < e.throttledUntil:
		return errThrottled
	case e.w.now < e.brokenUntil:
		return errors.New("ServerException: 500")
	}
	return nil
}

// answer loses the answer of a call that went well, if one is to be lost.
func (e *cloud) answer() error {
	if e.loseAnswers > 0 {
		e.loseAnswers--
		return context.DeadlineExceeded
	}
	return nil
}

func (f *fleetView) Run(ctx context.Context, l *state.Launch) (got state.Task, err error) {
	e := f.r.w.ecs
	err = f.r.call(ctx, stepRunTask, func() error {
		if err := e.trouble(); err != nil {
			return err
		}
		got, err = e.run(f.r, l)
		if err != nil {
			return err
		}
		return e.answer()
	})
	return got, err
}

// run starts a task for a launch, or gives the one that was started for it before.
func (e *cloud) run(r *replica, l *state.Launch) (state.Task, error) {
	w := e.w
	var input struct {
		Launch      string
		MaxSessions int
	}
	if err := json.Unmarshal(l.Input, &input); err != nil {
		return state.Task{}, err
	}
	arn := "arn:" + l.ID
	if t, again := e.tasks[arn]; again {
		w.tally.mark("a repeated RunTask gave the same task")
		w.tally.Repeats++
		w.check.repeated(t, l)
		return e.shown(t), nil
	}
	if w.now < e.droughtUntil {
		if n := slices.IndexFunc(e.refusals, func(r refusal) bool { return r.launch == l.ID }); n >= 0 {
			e.refusals[n].epoch = w.epoch
		} else {
			e.refusals = append(e.refusals[max(0, len(e.refusals)-50):], refusal{l.ID, w.now, w.epoch})
		}
		w.check.refused(e.refusals)
		return state.Task{}, &state.LaunchRefused{Reason: "Capacity is unavailable at this time", Capacity: true}
	}
	t := &task{launch: l.ID, recordedAt: l.CreatedAt.Sub(epochZero), input: string(l.Input), runs: true, shownFrom: w.now + e.lagNow(), Task: state.Task{
		ARN: arn, ContainerID: input.Launch, LastStatus: "PROVISIONING", DesiredStatus: "RUNNING",
		Addr: "10.0.0.1", CreatedAt: w.clock(),
	}}
	e.tasks[arn] = t
	w.tally.Launches++
	w.note("task %s is started", arn)
	w.check.launched(r, t)
	bad := startsWell
	if len(e.startBadly) > 0 {
		bad, e.startBadly = e.startBadly[0], e.startBadly[1:]
	}
	delay := w.between(2*time.Second, 20*time.Second)
	switch bad {
	case diesAtStart:
		w.after(delay, func() { e.over(t, "TaskFailedToStart", "CannotPullContainerError") })
	case startsLate:
		delay = w.between(100*time.Second, 200*time.Second)
		fallthrough
	default:
		w.after(delay, func() { e.begin(t, input.MaxSessions, bad) })
	}
	return e.shown(t), nil
}

func (e *cloud) lagNow() time.Duration {
	if e.w.now < e.lagUntil {
		return e.lag
	}
	return 0
}

func (e *cloud) begin(t *task, slots int, bad badStart) {
	if !t.runs || t.DesiredStatus == "STOPPED" {
		e.over(t, t.StopCode, t.StoppedReason)
		return
	}
	t.LastStatus, t.StartedAt = "RUNNING", e.w.clock()
	e.w.newProcess(t, slots, bad)
}

// over ends a task and the process in it.
func (e *cloud) over(t *task, code, why string) {
	if !t.runs {
		return
	}
	e.w.note("task %s is over: %s", t.ARN, cmp.Or(code, "EssentialContainerExited"))
	t.runs = false
	t.LastStatus, t.DesiredStatus, t.StoppedAt = "STOPPED", "STOPPED", e.w.clock()
	t.StopCode, t.StoppedReason = cmp.Or(code, "EssentialContainerExited"), why
	t.overShown = e.w.now + e.lagNow()
	if t.process != nil {
		t.process.die()
	}
	e.w.after(30*time.Minute, func() { delete(e.tasks, t.ARN) })
}

// shown is a task as ECS shows it now.
func (e *cloud) shown(t *task) state.Task {
	s := t.Task
	if !t.runs && e.w.now < t.overShown {
		s.LastStatus, s.DesiredStatus, s.StopCode, s.StoppedReason = "RUNNING", "RUNNING", "", ""
		e.w.tally.mark("a task that was over was still shown as running")
	}
	return s
}

func (f *fleetView) Stop(ctx context.Context, arn, reason string) error {
	e := f.r.w.ecs
	return f.r.call(ctx, stepStopTask, func() error {
		if err := e.trouble(); err != nil {
			return err
		}
		e.stop(arn, state.StopCodeUser, reason)
		return e.answer()
	})
}

// stop stops a task by a call of ours.
func (e *cloud) stop(arn, code, reason string) {
	t, known := e.tasks[arn]
	if !known || !t.runs || t.DesiredStatus == "STOPPED" {
		return
	}
	e.w.check.stopped(t)
	e.w.tally.Stops++
	e.terminate(t, code, reason, e.w.between(500*time.Millisecond, 3*time.Second))
}

// terminate sends SIGTERM, and SIGKILL later.
func (e *cloud) terminate(t *task, code, reason string, grace time.Duration) {
	t.DesiredStatus, t.StopCode, t.StoppedReason = "STOPPED", code, reason
	if t.process != nil {
		t.process.sigterm()
	}
	e.w.after(grace, func() { e.over(t, code, reason) })
}

func (f *fleetView) List(ctx context.Context, known ...string) (all []state.Task, err error) {
	e := f.r.w.ecs
	err = f.r.call(ctx, stepListTasks, func() error {
		if err := e.trouble(); err != nil {
			return err
		}
		for _, arn := range sortedKeys(e.tasks) {
			t := e.tasks[arn]
			if e.w.now < t.shownFrom {
				e.w.tally.mark("a listing lacked a new task")
				continue
			}
			if s := e.shown(t); !s.Stopped() || slices.Contains(known, arn) {
				all = append(all, s)
			}
		}
		return nil
	})
	return all, err
}

func (f *fleetView) Describe(ctx context.Context, arns ...string) (all []state.Task, err error) {
	e := f.r.w.ecs
	err = f.r.call(ctx, stepDescribe, func() error {
		if err := e.trouble(); err != nil {
			return err
		}
		for _, arn := range arns {
			if t, known := e.tasks[arn]; known && e.w.now >= t.shownFrom {
				all = append(all, e.shown(t))
			}
		}
		return nil
	})
	return all, err
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
