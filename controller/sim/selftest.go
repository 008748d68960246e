package sim

import (
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// SelfTest shows the checker worlds that were made bad by hand, one promise broken in each, and
// lists those that it did not object to, or objected to for another reason.
func SelfTest() []string {
	var missed []string
	for _, bad := range []struct {
		rule, name string
		make       func(w *World)
	}{
		{"I1", "a task is stopped while it serves a session", func(w *World) { w.check.stopped(w.busyTask()) }},
		{"I1", "a task is stopped while it serves a session, and somebody remembers its container, which the store has lost", func(w *World) {
			r, t := w.replicas[0], w.busyTask()
			w.protocol, t.process.registeredAt = 1, 1
			w.check.expired["c"] = w.now
			w.now += time.Second
			w.check.losses.strike(0, 0, w.store.Wipe)
			w.now += time.Minute
			r.mirror.ApplyContainer(&state.Container{ID: "c", BootID: "b", Phase: state.ContainerReady, Rev: 1})
			r.listed = w.now
			w.check.stopped(t)
		}},
		{"I1", "a task is stopped while it serves a session, nobody knows of it, and its launch was not given up", func(w *World) {
			t := w.busyTask()
			w.protocol, t.process.registeredAt = 1, 1
			w.now += time.Second
			w.check.losses.strike(0, 0, w.store.Wipe)
			w.now += time.Minute
			w.check.stopped(t)
		}},
		{"I1", "a busy container passes the point of no return", func(w *World) {
			t := w.busyTask()
			w.check.stopping(&state.Container{ID: t.ContainerID, BootID: t.process.boot, Phase: state.Stopping})
		}},
		{"I1", "the task of a container that was given up is stopped beside a session that had ended long before the store lost data", func(w *World) {
			c := w.boundTo("c", "s")
			c.Phase, c.HungAt = state.Stopping, w.clock()
			w.check.ended["s"], w.check.stops["c"] = w.now, w.now
			w.now += time.Minute
			w.check.losses.strike(w.now-time.Second, 0, func() {})
			w.check.settledBeforeStop(c)
		}},
		{"I1", "the task of a container is stopped that was given up since the store has lost the end of its session", func(w *World) {
			c := w.boundTo("c", "s")
			c.Phase, c.HungAt = state.Stopping, w.clock()
			w.check.ended["s"] = w.now
			w.check.losses.strike(w.now, 0, func() {})
			w.now += time.Second
			w.check.stops["c"] = w.now
			w.check.settledBeforeStop(c)
		}},
		{"I6", "a launch is called again with another input", func(w *World) {
			w.check.repeated(&task{input: "{}"}, &state.Launch{ID: "l", Input: []byte("{ }")})
		}},
		{"I8", "a container is held for gone while it serves a session", func(w *World) {
			t := w.busyTask()
			w.check.gone(&state.Container{ID: t.ContainerID, BootID: t.process.boot, Phase: state.Gone})
		}},
		{"I8", "a task is stopped whose container has registered, and what had given its launch up was not lost", func(w *World) {
			w.check.expired["c"] = w.now
			w.now += time.Minute
			w.check.losses.strike(w.now, 0, func() {})
			_, _ = w.store.Register(background, state.Registration{ID: "c", BootID: "b", Protocol: 2, MaxSessions: 1, Owner: "r"})
			w.check.stopped(&task{launch: "c", Task: state.Task{ARN: "arn:c", ContainerID: "c"}})
		}},
		{"I8", "a container is given up that has hung again and again, and reported in between", func(w *World) {
			t := w.busyTask()
			t.process.hungUntil = 2 * time.Minute
			w.now = time.Minute
			w.check.givenUp(&state.Container{ID: t.ContainerID, BootID: t.process.boot, Phase: state.Stopping, SeenAt: w.clock().Add(-30 * time.Second)})
		}},
		{"I3", "one session more than slots", func(w *World) {
			w.check.container(nil, &state.Container{ID: "c", MaxSessions: 1, Slots: []string{"a", "b"}})
		}},
		{"I3", "one session more than slots after a loss, and the container let go of one of them when the store knew that it had it", func(w *World) {
			w.check.losses.strike(w.now, 0, func() {})
			w.now += time.Minute
			c := w.boundTo("c", "a")
			p := &process{w: w, id: "c", boot: "b", alive: true, held: map[string]*browser{"a": {session: "a"}}, letGo: map[string]letting{}}
			w.procs["c"] = p
			p.drop("a")
			c.Slots = append(c.Slots, "b")
			w.check.container(nil, c)
		}},
		{"I4", "a container comes back from the point of no return", func(w *World) {
			w.check.container(nil, &state.Container{ID: "c", MaxSessions: 1, Phase: state.Stopping})
			w.check.container(nil, &state.Container{ID: "c", MaxSessions: 1, Phase: state.ContainerReady})
		}},
		{"I4", "a container comes back after a loss, and somebody remembers that it was to stop, who has read the store since", func(w *World) {
			r, c := w.replicas[0], &state.Container{ID: "c", MaxSessions: 1, Phase: state.Stopping, Rev: 1}
			w.check.container(r, c)
			w.check.losses.strike(0, 0, w.store.Wipe)
			w.now += time.Minute
			r.mirror.ApplyContainer(c)
			r.listed, r.keptUntil = w.now-time.Second, w.now
			w.check.container(r, &state.Container{ID: "c", MaxSessions: 1, Phase: state.ContainerReady})
		}},
		{"I2", "a session is ready on two containers", func(w *World) {
			w.check.readied(&state.Session{ID: "s", Container: "c", BootID: "b"})
			w.check.readied(&state.Session{ID: "s", Container: "d", BootID: "b"})
		}},
		{"I2", "a session is ready on two containers after a loss, and somebody remembers the first", func(w *World) {
			s := &state.Session{ID: "s", Phase: state.Ready, Container: "c", BootID: "b", ReadyAt: w.clock(), Rev: 1}
			w.check.readied(s)
			w.check.losses.strike(0, 0, w.store.Wipe)
			w.now += time.Minute
			w.replicas[0].mirror.ApplySession(s)
			w.check.readied(&state.Session{ID: "s", Container: "d", BootID: "b"})
		}},
		{"C4", "a write under an epoch that has passed", func(w *World) {
			w.epoch = 7
			w.check.wrote(w.replicas[0], stepBind, state.Authority{Epoch: 6})
		}},
		{"I5", "an epoch goes back", func(w *World) {
			w.check.granted(w.replicas[0], 7)
			w.check.granted(w.replicas[0], 6)
		}},
		{"state §2", "an ended session lives again", func(w *World) {
			w.check.session(nil, &state.Session{ID: "s", Phase: state.Ended})
			w.check.session(nil, &state.Session{ID: "s", Phase: state.Pending})
		}},
		{"C6", "a session is released that nobody released", func(w *World) {
			w.people.wishes["s"] = &wish{id: "s", deadline: time.Hour}
			w.check.ending(&state.Session{ID: "s", Phase: state.Ready}, &state.Session{ID: "s", Reason: state.Released}, state.Authority{Epoch: 1})
		}},
		{"C6", "a session is released whose document is there", func(w *World) {
			w.people.wishes["s"] = &wish{id: "s", deadline: time.Hour}
			w.store.SetDocument("s", `{"status":"ready"}`, time.Hour)
			w.check.ending(&state.Session{ID: "s", Phase: state.Ready}, &state.Session{ID: "s", Reason: state.Released}, state.Authority{Epoch: 1})
		}},
		{"C6", "a session is released whose document went under somebody's eyes", func(w *World) {
			w.now = time.Hour
			w.people.wishes["s"] = &wish{id: "s", deadline: 2 * time.Hour}
			w.check.former = epochZero.Add(time.Minute)
			w.check.sightings["s"] = sight{epoch: w.epoch, found: 50 * time.Minute, missed: 51 * time.Minute}
			w.check.ending(&state.Session{ID: "s", Phase: state.Ready}, &state.Session{ID: "s", Reason: state.Released}, state.Authority{Epoch: 1})
		}},
		{"C6", "a session is called lost that is served", func(w *World) {
			t := w.busyTask()
			before := &state.Session{ID: "s", Phase: state.Ready, Container: t.ContainerID, BootID: t.process.boot}
			w.check.ending(before, &state.Session{ID: "s", Reason: state.ContainerLost}, state.Authority{Epoch: 1})
		}},
		{"C6", "a session is ended before its deadline", func(w *World) {
			before := &state.Session{ID: "s", Phase: state.Ready, Deadline: w.clock().Add(time.Minute)}
			w.check.ending(before, &state.Session{ID: "s", Reason: state.DeadlinePassed}, state.Authority{Epoch: 1})
		}},
		{"C6", "a container ends a session that nobody has told it lives on", func(w *World) {
			p := w.busyTask().process
			w.people.wishes["s"].deadline = time.Hour
			p.held["s"].until, p.hungSince, p.hungUntil = time.Minute, 90*time.Second, 2*time.Minute
			p.endInTime(p.held["s"])
			w.run(w.now + 3*time.Minute)
		}},
		{"I16", "a session is given up after one attempt", func(w *World) {
			w.check.ending(&state.Session{ID: "s", Phase: state.Bound, Attempts: 1}, &state.Session{ID: "s", Reason: state.Failed}, state.Authority{Epoch: 1})
		}},
		{"I14", "a session is bound to a silent container", func(w *World) {
			w.boundAfter(3*time.Minute, "c", "s")
			s, _ := w.store.Session(background, "s")
			w.check.bound(w.replicas[0], s)
		}},
		{"I14", "a session is bound to a container that is silent for a minute, and nothing has kept the leader from reading", func(w *World) {
			w.boundAfter(time.Minute, "c", "s")
			s, _ := w.store.Session(background, "s")
			w.check.bound(w.replicas[0], s)
		}},
		{"I12", "a container is drained that keeps up the minimum", func(w *World) {
			w.policy.Pool.Min, w.policy.Pool.Dedicated = 1, false
			r := w.replicas[0]
			c, _ := w.store.Register(background, state.Registration{ID: "c", BootID: "b", Protocol: 2, MaxSessions: 1, Owner: r.id})
			_, _ = w.store.Report(background, state.Authority{Container: "c", OwnerSeq: c.OwnerSeq}, state.Report{BootID: "b", Addr: "10.0.0.1:1"})
			epoch, _, _ := w.store.AcquireLease(background, r.id, 0)
			by := state.Authority{Epoch: epoch}
			c, _ = w.store.Drain(background, by, "c", "b")
			w.check.container(r, c)
			w.check.drained(c, by, w.now, nil)
		}},
		{"I12", "a container is drained by a view in which one is ready that has closed itself long ago", func(w *World) {
			w.policy.Pool.Min, w.policy.Pool.Dedicated = 1, false
			r := w.replicas[0]
			for _, id := range []string{"c", "d"} {
				c, _ := w.store.Register(background, state.Registration{ID: id, BootID: "b", Protocol: 2, MaxSessions: 1, Owner: r.id})
				owner := state.Authority{Container: id, OwnerSeq: c.OwnerSeq}
				c, _ = w.store.Report(background, owner, state.Report{BootID: "b", Addr: "10.0.0.1:1"})
				w.check.container(r, c)
				if w.now += time.Second; id == "c" {
					c, _ = w.store.Drain(background, owner, id, "b")
					w.check.container(r, c)
				}
			}
			w.now += 20 * time.Second
			epoch, _, _ := w.store.AcquireLease(background, r.id, 0)
			by := state.Authority{Epoch: epoch}
			d, _ := w.store.Drain(background, by, "d", "b")
			w.check.container(r, d)
			w.check.drained(d, by, w.now, map[string]bool{"c": true, "d": true})
		}},
		{"I2", "a session is ended as one that nobody holds, and is held", func(w *World) {
			t := w.busyTask()
			before := &state.Session{ID: "s", Phase: state.Ready, Container: t.ContainerID, BootID: t.process.boot}
			w.check.confirmed(before, &state.Session{ID: "s", Phase: state.Ended}, state.Authority{Epoch: 1})
		}},
		{"I16", "a session is given up before it has waited", func(w *World) {
			w.check.failed(&state.Session{ID: "s", Phase: state.Pending, SeenAt: w.clock().Add(-time.Minute), Waited: time.Hour})
		}},
		{"C7", "a session outlives its deadline", func(w *World) {
			late := &state.Session{ID: "s", Phase: state.Ready, Deadline: w.clock()}
			for range 3 {
				w.now += 40 * time.Second
				w.check.sessionGoesOn(late, nil)
			}
		}},
		{"C2", "a task runs on behind the point of no return", func(w *World) {
			t := w.busyTask()
			w.ecs.tasks[t.ARN] = t
			for range 3 {
				w.now += 70 * time.Second
				w.check.containerGoesOn(&state.Container{ID: t.ContainerID, Phase: state.Stopping})
			}
		}},
		{"I11", "launches are refused again and again, after a loss that somebody has not forgotten them in", func(w *World) {
			w.check.refused(w.remembered())
		}},
		{"I11", "the same, and somebody leads since the loss", func(w *World) {
			all := w.remembered()
			w.check.granted(w.replicas[0], w.epoch+1)
			w.check.refused(all)
		}},
		{"C7", "nothing comes of a wish", func(w *World) {
			x := &wish{id: "s", at: w.now, deadline: 5 * time.Minute, text: `{"sessionId":"s","status":"pending"}`}
			w.store.SetDocument("s", x.text, x.deadline)
			w.now += 30 * time.Second
			w.check.fulfilled(x)
		}},
		{"C7", "nothing is started for the minimum, long after a launch from the storm was given up", func(w *World) {
			w.policy.Pool.Min, w.policy.Pool.Dedicated = 1, false
			epoch, _, _ := w.store.AcquireLease(background, "r", 0)
			by := state.Authority{Epoch: epoch}
			_, _ = w.store.CreateLaunch(background, by, state.Launch{ID: "l", Input: []byte("{}")})
			w.storm.until, w.storm.period = []time.Duration{time.Second, time.Hour}, 1
			w.now = time.Minute
			_, _ = w.store.UpdateLaunch(background, by, "l", state.LaunchUpdate{Outcome: state.Expired, Cause: state.Late, SettledAt: w.clock()})
			w.now += time.Minute
			w.check.minimum()
		}},
		{"C7", "nobody finds the store whole", func(w *World) {
			w.storm.until, w.storm.period = []time.Duration{time.Second, time.Hour}, 1
			w.now = 4 * time.Minute
			w.check.lingering()
		}},
		{"C7", "nobody leads", func(w *World) { w.check.settled() }},
	} {
		w := newWorld(1, Options{Storms: 1, Without: func(Kind) bool { return true }})
		bad.make(w)
		switch v := w.check.broken; {
		case v == nil:
			missed = append(missed, bad.name+": no objection")
		case v.Rule != bad.rule:
			missed = append(missed, fmt.Sprintf("%s: %v, not %s", bad.name, v, bad.rule))
		}
		w.end()
	}
	return missed
}

// busyTask is a task whose container serves session s.
func (w *World) busyTask() *task {
	t := &task{launch: "c", runs: true, Task: state.Task{ARN: "arn:c", ContainerID: "c", LastStatus: "RUNNING", DesiredStatus: "RUNNING"}}
	p := &process{w: w, task: t, id: "c", boot: "b", slots: 1, alive: true, held: map[string]*browser{"s": {session: "s", serving: true}}, letGo: map[string]letting{}}
	t.process, w.procs["c"] = p, p
	w.people.wishes["s"] = &wish{id: "s"}
	return t
}

// remembered are too many refusals, which the store has lost and a replica remembers.
func (w *World) remembered() (all []refusal) {
	w.check.losses.strike(0, 0, w.store.Wipe)
	w.now += 25 * time.Second
	for n := range w.policy.Pool.Max + 3 {
		id := fmt.Sprintf("l%d", n)
		w.replicas[0].mirror.ApplyLaunch(&state.Launch{ID: id, Outcome: state.Refused, Cause: state.NoCapacity, Rev: int64(n + 1)})
		all = append(all, refusal{launch: id, epoch: w.epoch})
	}
	return all
}

// boundTo has a session bound to a container, and gives that.
func (w *World) boundTo(container, session string) *state.Container {
	return w.boundAfter(0, container, session)
}

// boundAfter has a session bound to a container that is silent for so long, and gives that.
func (w *World) boundAfter(silence time.Duration, container, session string) *state.Container {
	r := w.replicas[0]
	c, _ := w.store.Register(background, state.Registration{ID: container, BootID: "b", Protocol: 2, MaxSessions: 1, Owner: r.id})
	_, _ = w.store.Report(background, state.Authority{Container: container, OwnerSeq: c.OwnerSeq}, state.Report{BootID: "b", Addr: "10.0.0.1:1"})
	epoch, _, _ := w.store.AcquireLease(background, r.id, 0)
	by := state.Authority{Epoch: epoch}
	_, _ = w.store.Admit(background, by, state.Admission{ID: session, Remaining: time.Hour})
	w.now += silence
	_, _ = w.store.Bind(background, by, state.Binding{Session: session, Container: container, BootID: "b"})
	c, _ = w.store.Container(background, container)
	return c
}
