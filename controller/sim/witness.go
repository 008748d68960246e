package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// witness is what a replica knows of containers beside their reports: the part of the relay that
// asks silent ones, and sees what its clients have of them.
type witness struct {
	began   time.Duration
	heard   map[string]time.Duration // by container: when something of it last reached a client here
	unheard map[string]time.Duration // by container and life: since when it has answered nothing
}

// witnessLater has a life of a replica speak of silent containers, as often as the real one
// does. No fault falls on that but those that last.
func (r *replica) witnessLater(life int) {
	r.witness = witness{began: r.w.now, heard: map[string]time.Duration{}, unheard: map[string]time.Duration{}}
	var again func()
	again = func() {
		if r.life != life {
			return
		}
		if r.up && r.pausedUntil <= r.w.now {
			r.testify()
		}
		r.w.after(state.WitnessInterval, again)
	}
	r.w.after(time.Millisecond, again)
}

func (r *replica) name() string { return fmt.Sprintf("%s-%d", r.id, r.life) }

// gone tells whether a replica is dead, as its machine would.
func (w *World) gone(_ context.Context, of state.Replica) bool {
	for _, r := range w.replicas {
		if r.up && r.name() == of.ID {
			return false
		}
	}
	return true
}

// testify is one round of a witness.
func (r *replica) testify() {
	w := r.w
	for _, id := range sortedKeys(w.procs) {
		if p := w.procs[id]; p.answers() && r.serves(p) {
			r.witness.heard[id] = w.now
		}
	}
	var given []state.Testimony
	still := map[string]time.Duration{}
	for _, c := range r.mirror.Containers() {
		if c.Phase != state.ContainerReady && c.Phase != state.Draining || r.mirror.Now().Sub(c.SeenAt) <= state.OwnerLease {
			continue
		}
		t := state.Testimony{Container: c.ID, BootID: c.BootID, Replica: r.name(), Quiet: w.now - max(r.witness.began, r.witness.heard[c.ID])}
		if p := w.procs[c.ID]; p == nil || !p.answers() {
			since, known := r.witness.unheard[c.ID+" "+c.BootID]
			if !known {
				since = w.now
			}
			still[c.ID+" "+c.BootID] = since
			t.Silent = max(time.Millisecond, w.now-since)
		}
		given = append(given, t)
	}
	r.witness.unheard = still
	if w.now < r.cutUntil || w.now < w.storm.outageUntil {
		return
	}
	_ = w.store.Announce(background, state.Replica{ID: r.name(), Addr: r.id + ":8080"}) // as long as it can
	_ = w.store.Testify(background, given)
}

// answers tells whether anybody would get an answer at a process's address.
func (p *process) answers() bool { return p.alive && p.task.runs && !p.hung() }

// serves tells whether a client of one of a process's sessions is connected through the replica.
func (r *replica) serves(p *process) bool {
	for _, id := range sortedKeys(p.held) {
		sum := fnv.New32a()
		_, _ = sum.Write([]byte(id))
		if p.held[id].serving && r.w.replicas[int(sum.Sum32()%uint32(len(r.w.replicas)))] == r { //nolint:gosec // a handful
			return true
		}
	}
	return false
}

const (
	// hungLeast is for how long a container must have hung when it is given up: what follows its
	// last report, less what that is behind; and wokeMost how long it may have gone on since,
	// before anybody can have heard of it.
	hungLeast = 45 * time.Second
	wokeMost  = 15 * time.Second
)

// givenUp sees that a container is given up as hanging.
func (k *checker) givenUp(c *state.Container) {
	k.w.note("container %s is given up", c.ID)
	k.w.tally.mark("a hung container was given up")
	p := k.w.procs[c.ID]
	if p != nil && p.alive && p.task.runs && p.boot == c.BootID {
		// It may have reported between two times that it hung, which count as one.
		since, until := max(p.hungSince, c.SeenAt.Sub(epochZero)), min(p.hungUntil, k.w.now)
		if until-since < hungLeast || k.w.now-until > wokeMost {
			k.violate("I8", "container %s is given up, and has hung for %s until %s ago", c.ID, until-since, k.w.now-until)
		}
	}
	fleet, lately := 0, 0
	for _, other := range k.containers() {
		switch other.Phase {
		case state.ContainerReady, state.Draining:
			fleet++
		case state.PendingVerification, state.Stopping, state.Gone:
		}
		if other.GivenUp() && k.w.clock().Sub(other.HungAt) < 5*time.Minute {
			lately++
		}
	}
	if lately > max(1, (fleet+1)/10) {
		k.violate("I12", "%d containers of %d were given up within five minutes", lately, fleet)
	}
}

// settledBeforeStop asks whether what a container held was over before its task was stopped. The call
// may be on its way when the store loses an end.
func (k *checker) settledBeforeStop(c *state.Container) {
	for _, s := range k.sessions() {
		ended, over := k.ended[s.ID]
		stops, decided := k.stops[c.ID]
		if c.GivenUp() && s.BoundTo(c.ID, c.BootID) && !(over && decided && k.losses.overtook(ended, stops)) {
			k.violate("I1", "the task of container %s is stopped while session %s is %s there", c.ID, s.ID, s.Phase)
		}
	}
}
