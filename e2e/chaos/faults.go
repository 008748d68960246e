//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// setting says what is played.
type setting struct {
	clustered bool
	chromium  string
	times     int
	only      *regexp.Regexp
}

// round is one fault at work.
type round struct {
	*world
	report *report
	row    row
	wanted int // containers, when all is quiet again
}

// fault is something that production does.
type fault struct {
	name   string
	where  string // "single", "cluster"; empty: both
	times  func(setting) int
	starts int // tasks that each time starts, all told
	// demand says that visitors leave sessions behind, whose creation or release they have asked
	// for in vain: as many containers may be started, besides, as there were sessions for.
	demand bool
	do     func(ctx context.Context, r *round) error
}

func once(setting) int { return 1 }

func several(s setting) int {
	if s.clustered {
		return halfOften(s)
	}
	return s.times
}

func halfOften(s setting) int { return (s.times + 1) / 2 }

// Ceilings are generous, since the machine may be busy: what was measured is in the table.
const (
	decideWithin = 60 * time.Second
	quietWithin  = 120 * time.Second
)

func faults() []fault {
	return []fault{
		{name: "leader killed as it records a launch", times: several, starts: 1, do: killAround(func(r *round, leader *replica) {
			r.after(rand.N(30*time.Millisecond), leader)
		})},
		{name: "leader killed before RunTask arrives", times: several, starts: 1, do: killAround(func(r *round, leader *replica) {
			r.cloud.Fail("RunTask", 1, ecslocal.Fault{Before: func() { r.kill(leader) }, Exception: "ServerException", Status: 500})
		})},
		{name: "leader killed while RunTask is carried out", times: several, starts: 1, do: killAround(func(r *round, leader *replica) {
			r.cloud.Fail("RunTask", 1, ecslocal.Fault{Before: func() { r.kill(leader) }})
		})},
		{name: "leader killed between RunTask and its answer", times: several, starts: 1, do: killAround(func(r *round, leader *replica) {
			r.cloud.Fail("RunTask", 1, ecslocal.Fault{After: func() { r.kill(leader) }})
		})},
		{name: "leader killed as it records the task", times: several, starts: 1, do: killAround(func(r *round, leader *replica) {
			r.cloud.Fail("RunTask", 1, ecslocal.Fault{After: func() { r.after(rand.N(5*time.Millisecond), leader) }})
		})},
		{name: "RunTask answers in vain, ECS shows tasks late, throttles", times: once, starts: 3, do: badDay},
		{name: "ECS has no room for 45 s", where: "single", times: once, starts: 1, do: drought},
		{name: "leader frozen beyond its lease, in RunTask", times: halfOften, starts: 1, do: freeze},
		{name: "leader ends (SIGTERM)", times: several, do: retire},
		{name: "other replica killed", times: halfOften, do: killOther},
		{name: "Redis killed, back with its data", where: "single", times: halfOften, demand: true, do: restartRedis},
		{name: "Redis frozen for 4 s", where: "single", times: once, demand: true, do: pauseRedis(4 * time.Second)},
		{name: "Redis frozen for 10 s", where: "single", times: once, demand: true, do: pauseRedis(10 * time.Second)},
		{name: "Redis out of reach for 10 s (blackhole)", where: "single", times: once, demand: true, do: cutRedis(blackhole, 10*time.Second)},
		{name: "Redis refuses for 5 s", where: "single", times: once, demand: true, do: cutRedis(refusing, 5*time.Second)},
		{name: "Redis loses everything (FLUSHALL)", times: halfOften, demand: true, do: flush},
		{name: "Redis killed, back empty", where: "single", times: halfOften, demand: true, do: emptyRedis},
		{name: "Redis master killed, its replica takes over", where: "cluster", times: halfOften, demand: true, do: failover},
		{name: "agent killed", times: once, starts: 1, do: killAgent},
		{name: "agent frozen for 25 s", times: once, do: freezeAgent},
		{name: "agent frozen for good", times: once, starts: 1, do: freezeAgentForGood},
		{name: "task that never registers", where: "single", times: once, starts: 2, do: muteTask},
	}
}

// play builds a world and does all that to it.
func play(ctx context.Context, g *stage.Stage, s setting, out *report) error {
	var chosen []fault
	for _, f := range faults() {
		where := "single"
		if s.clustered {
			where = "cluster"
		}
		if s.only.MatchString(f.name) && (f.where == "" || f.where == where) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	w, err := build(ctx, g, s)
	if err != nil {
		return fmt.Errorf("building the world: %w", err)
	}
	defer w.close()
	out.begin(s)
	for _, f := range chosen {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := f.times(s)
		r := &round{world: w, report: out, wanted: minContainers, row: row{fault: f.name, expects: n * f.starts}}
		if n > 1 {
			r.row.times = fmt.Sprintf(" (%d times)", n)
		}
		r.row.err = r.play(ctx, f, n)
		out.add(r.row)
		if r.row.err != nil && ctx.Err() == nil {
			// What comes next is to begin with a whole world.
			w.close()
			if w, err = build(ctx, g, s); err != nil {
				return fmt.Errorf("building the world anew: %w", err)
			}
		}
	}
	return nil
}

// play does one fault n times and looks at what is left.
func (r *round) play(ctx context.Context, f fault, n int) error {
	before, begun := r.crowd.snapshot(), time.Now()
	had, err := r.started(ctx)
	if err != nil {
		return err
	}
	for range n {
		if err := f.do(ctx, r); err != nil {
			return r.explain(err)
		}
		if err := r.revive(ctx); err != nil {
			return r.explain(err)
		}
		if err := r.want(ctx, r.wanted); err != nil {
			return err
		}
		if err := r.until(ctx, quietWithin, "ECS and the registry agree", func() error { return r.compare(ctx, r.wanted) }); err != nil {
			return r.explain(err)
		}
		// Everybody goes on, also those who were cut.
		mark := r.crowd.snapshot()
		err := r.until(ctx, quietWithin, "every client goes on", func() error { return r.goesOn(mark) })
		if err != nil {
			return r.explain(err)
		}
	}
	has, err := r.started(ctx)
	if err != nil {
		return err
	}
	r.row.started = has - had
	if f.demand {
		all, err := r.presences(ctx)
		if err != nil {
			return err
		}
		r.row.peak = peak(all, begun)
	}
	return errors.Join(r.judge(before, time.Since(begun)), r.row.countTasks())
}

func (r *round) explain(err error) error {
	err = fmt.Errorf("%w\n%s", err, r.describe())
	if last := r.lastError(); last != nil {
		return fmt.Errorf("%w (last complaint: %w)", err, last)
	}
	return err
}

// countTasks is nil when as many tasks were started as were wanted, and as sessions there were
// for.
func (x *row) countTasks() error {
	if x.started < x.expects || x.started > x.expects+extra(x.peak) {
		return fmt.Errorf("%d tasks were started for %d that were wanted; there were %d sessions at once, which justifies %d more",
			x.started, x.expects, x.peak, extra(x.peak))
	}
	return nil
}

// goesOn is nil when each client has some more answers.
func (r *round) goesOn(before snapshot) error {
	for i, s := range r.crowd.snapshot().clients {
		c := r.crowd.clients[i]
		if s.lost != nil && !c.isExcused() {
			return nil // judged at the end
		}
		if s.lost == nil && s.answers < before.clients[i].answers+3 {
			return fmt.Errorf("session %s has had %d answers since", c.session, s.answers-before.clients[i].answers)
		}
	}
	if v := r.crowd.visits.Load(); v < before.visits+1 {
		return errors.New("no visitor has been served since")
	}
	return nil
}

// judge counts what came of the traffic: too little of it shows nothing.
func (r *round) judge(before snapshot, took time.Duration) error {
	now := r.crowd.snapshot()
	var errs []error
	clients := 0
	for i, s := range now.clients {
		r.row.answers += s.answers - before.clients[i].answers
		r.row.cuts += s.cuts - before.clients[i].cuts
		switch {
		case s.lost == nil:
			clients++
		case before.clients[i].lost == nil && !r.crowd.clients[i].isExcused():
			errs = append(errs, s.lost)
		}
	}
	r.row.visits = int(now.visits - before.visits)
	// A tenth of what these clients ask when nothing is wrong, and one visit in ten seconds.
	if least := clients * int(took/askEvery) / 10; r.row.answers < least {
		errs = append(errs, fmt.Errorf("too little traffic to show anything: %d answers, at least %d are wanted", r.row.answers, least))
	}
	if least := max(1, int(took/(10*time.Second))/2); r.row.visits < least {
		errs = append(errs, fmt.Errorf("too little traffic to show anything: %d visits, at least %d are wanted", r.row.visits, least))
	}
	return errors.Join(errs...)
}

func (c *client) isExcused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.excused
}

// kill ends a replica as the kernel does.
func (w *world) kill(r *replica) {
	w.mu.Lock()
	r.stopped = true
	w.mu.Unlock()
	_ = r.signal(syscall.SIGKILL)
}

// after kills it a little later.
func (w *world) after(d time.Duration, r *replica) {
	time.AfterFunc(d, func() { w.kill(r) })
}

// decided returns the time from since to the next decision of whoever leads then: a session
// that is created afterwards gets its browser.
func (r *round) decided(ctx context.Context, since time.Time) (time.Duration, error) {
	var at time.Time
	err := r.until(ctx, decideWithin, "somebody decides again", func() error {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		api := r.anyAPI()
		s, err := api.Create(bounded)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, api.Release(context.WithoutCancel(ctx), s.ID)) }()
		return r.until(ctx, decideWithin, "its session is bound", func() error {
			var now stage.Session
			err := r.anyAPI().Do(ctx, http.MethodGet, "/v1/sessions/"+s.ID, nil, &now)
			if err == nil && now.Phase != "bound" && now.Phase != "ready" {
				err = fmt.Errorf("session %s is %s", s.ID, now.Phase)
			}
			at = time.Now()
			return err
		})
	})
	return at.Sub(since), err
}

// killAround has the leader start a task and kills it at a point that arm chooses.
func killAround(arm func(r *round, leader *replica)) func(context.Context, *round) error {
	return func(ctx context.Context, r *round) error {
		leader, err := r.awaitLeader(ctx)
		if err != nil {
			return err
		}
		arm(r, leader)
		if err := r.want(ctx, minContainers+1); err != nil {
			return err
		}
		select {
		case <-leader.Done:
		case <-time.After(30 * time.Second):
			return errors.New("the leader was not killed: it made no call of RunTask")
		}
		took, err := r.decided(ctx, time.Now())
		if err != nil {
			return err
		}
		r.row.promise, r.row.took = "next decision after", append(r.row.took, took)
		r.report.kills = append(r.report.kills, took)
		return r.until(ctx, quietWithin, "its task is there, once", func() error { return r.compare(ctx, minContainers+1) })
	}
}

func badDay(ctx context.Context, r *round) error {
	err := r.cloud.SetConditions(ecslocal.Conditions{Seed: rand.Uint64(), Throttle: 0.2, LostAnswers: 0.5, Errors: 0.1,
		Unseen: ecslocal.Duration(5 * time.Second), Stale: ecslocal.Duration(3 * time.Second), Slow: ecslocal.Duration(300 * time.Millisecond)})
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := r.want(ctx, minContainers+3); err != nil {
		return err
	}
	// Asking here takes from the same rates: not too often.
	err = r.until(ctx, quietWithin, "three more tasks are there, once each", func() error {
		if err := stage.Pause(ctx, time.Second); err != nil {
			return err
		}
		return r.compare(ctx, minContainers+3)
	})
	r.row.promise, r.row.took = "all are there after", append(r.row.took, time.Since(begun))
	return errors.Join(err, r.cloud.SetConditions(ecslocal.Conditions{}))
}

// drought lets ECS have no room: few calls find that out, and the task is there when it has.
func drought(ctx context.Context, r *round) error {
	const lasts, most = 45 * time.Second, 2
	if err := r.cloud.SetConditions(ecslocal.Conditions{Droughts: []ecslocal.Place{{}}}); err != nil {
		return err
	}
	before := r.cloud.Calls("RunTask")
	err := r.want(ctx, minContainers+1)
	if err == nil {
		err = stage.Pause(ctx, lasts)
	}
	wasted := r.cloud.Calls("RunTask") - before
	if err := errors.Join(err, r.cloud.SetConditions(ecslocal.Conditions{})); err != nil {
		return err
	}
	if wasted == 0 || wasted > most {
		return fmt.Errorf("%d calls of RunTask in %s without room: some are wanted, and at most %d", wasted, lasts, most)
	}
	since := time.Now()
	err = r.until(ctx, quietWithin, "its task is there", func() error { return r.compare(ctx, minContainers+1) })
	r.row.promise, r.row.took = fmt.Sprintf("%d calls in vain; the task is there, once there is room, after", wasted), append(r.row.took, time.Since(since))
	return err
}

// freeze stops the leader in the middle of RunTask until another has taken over, and lets it
// go on: it finds that it does not lead any more.
func freeze(ctx context.Context, r *round) error {
	leader, err := r.awaitLeader(ctx)
	if err != nil {
		return err
	}
	frozen := make(chan struct{})
	r.cloud.Fail("RunTask", 1, ecslocal.Fault{After: func() {
		_ = leader.signal(syscall.SIGSTOP)
		close(frozen)
	}})
	if err := r.want(ctx, minContainers+1); err != nil {
		return err
	}
	select {
	case <-frozen:
	case <-time.After(30 * time.Second):
		return errors.New("the leader made no call of RunTask")
	}
	since := time.Now()
	r.mu.Lock()
	leader.stopped = true // nobody is sent there
	r.mu.Unlock()
	took, err := r.decided(ctx, since)
	_ = leader.signal(syscall.SIGCONT)
	r.mu.Lock()
	leader.stopped = false
	r.mu.Unlock()
	if err != nil {
		return err
	}
	r.row.promise, r.row.took = "next decision after", append(r.row.took, took)
	return r.until(ctx, quietWithin, "its task is there, once", func() error { return r.compare(ctx, minContainers+1) })
}

func retire(ctx context.Context, r *round) error {
	leader, err := r.awaitLeader(ctx)
	if err != nil {
		return err
	}
	since := time.Now()
	r.mu.Lock()
	leader.stopped = true
	r.mu.Unlock()
	if err := leader.signal(syscall.SIGTERM); err != nil {
		return err
	}
	took, err := r.decided(ctx, since)
	if err != nil {
		return err
	}
	r.row.promise, r.row.took = "next decision after", append(r.row.took, took)
	r.report.graceful = append(r.report.graceful, took)
	select {
	case <-leader.Done:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the replica did not end")
	}
}

func killOther(ctx context.Context, r *round) error {
	leader, err := r.awaitLeader(ctx)
	if err != nil {
		return err
	}
	for _, other := range r.alive() {
		if other != leader {
			since := time.Now()
			r.kill(other)
			<-other.Done
			took, err := r.decided(ctx, since)
			r.row.promise, r.row.took = "next decision after", append(r.row.took, took)
			return err
		}
	}
	return errors.New("there is no other replica")
}

// recovered notes how long after a fault's end decisions are made again.
func (r *round) recovered(ctx context.Context, since time.Time) error {
	took, err := r.decided(ctx, since)
	r.row.promise, r.row.took = "next decision after its end", append(r.row.took, took)
	return err
}

func restartRedis(ctx context.Context, r *round) error {
	n := r.nodes[0]
	if err := syscall.Kill(n.Pid(), syscall.SIGKILL); err != nil {
		return err
	}
	<-n.Done
	if err := stage.Pause(ctx, 2*time.Second); err != nil {
		return err
	}
	if err := r.bootNode(ctx, n); err != nil {
		return err
	}
	return r.recovered(ctx, time.Now())
}

// flush wipes Redis under everybody. The clients notice nothing, and nobody starts or ends a
// task for it.
func flush(ctx context.Context, r *round) error {
	for _, n := range r.nodes {
		// Replicas of a cluster refuse; they follow their masters.
		if err := n.client.FlushAll(ctx).Err(); err != nil && r.link != nil {
			return err
		}
	}
	return r.recovered(ctx, time.Now())
}

func emptyRedis(ctx context.Context, r *round) error {
	n := r.nodes[0]
	if err := syscall.Kill(n.Pid(), syscall.SIGKILL); err != nil {
		return err
	}
	<-n.Done
	if err := n.forget(); err != nil {
		return err
	}
	if err := r.bootNode(ctx, n); err != nil {
		return err
	}
	return r.recovered(ctx, time.Now())
}

func pauseRedis(d time.Duration) func(context.Context, *round) error {
	return func(ctx context.Context, r *round) error {
		pid := r.nodes[0].Pid()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		err := stage.Pause(ctx, d)
		return errors.Join(err, syscall.Kill(pid, syscall.SIGCONT), r.recovered(ctx, time.Now()))
	}
}

func cutRedis(how weather, d time.Duration) func(context.Context, *round) error {
	return func(ctx context.Context, r *round) error {
		r.link.set(how)
		err := stage.Pause(ctx, d)
		r.link.set(fair)
		return errors.Join(err, r.recovered(ctx, time.Now()))
	}
}

func failover(ctx context.Context, r *round) error {
	n, err := r.master(ctx)
	if err != nil {
		return err
	}
	if err := syscall.Kill(n.Pid(), syscall.SIGKILL); err != nil {
		return err
	}
	<-n.Done
	took, err := r.decided(ctx, time.Now())
	r.row.promise, r.row.took = "next decision after", append(r.row.took, took)
	if err != nil {
		return err
	}
	if err := r.bootNode(ctx, n); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if err := r.until(ctx, 60*time.Second, "the cluster is whole again", func() error { return n.whole(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// muteTask starts a task whose container never registers: it is given up after the start
// deadline, stopped, and another is started in its place.
func muteTask(ctx context.Context, r *round) error {
	if err := r.silence(true); err != nil {
		return err
	}
	since := time.Now()
	if err := r.want(ctx, minContainers+1); err != nil {
		return err
	}
	err := r.until(ctx, quietWithin, "its task runs", func() error {
		running, _, err := r.tasks(ctx)
		if err == nil && len(running) <= minContainers {
			err = stage.ErrNotYet
		}
		return err
	})
	if err == nil {
		err = stage.Pause(ctx, time.Second) // its process looks for the file as it starts
	}
	if err := errors.Join(err, r.silence(false)); err != nil {
		return err
	}
	err = r.until(ctx, quietWithin+startDeadline, "it is gone and another is there", func() error { return r.compare(ctx, minContainers+1) })
	r.row.promise = fmt.Sprintf("gone and replaced (start deadline %s) after", startDeadline)
	r.row.took = append(r.row.took, time.Since(since))
	return err
}
