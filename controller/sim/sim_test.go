package sim_test

import (
	"os"
	"testing"

	"github.com/wallcrawler/wallcrawler/controller/sim"
)

// A short run of what make sim does for two minutes.
func TestWorlds(t *testing.T) {
	worlds := 8
	if testing.Short() {
		worlds = 2
	}
	total, failed := sim.Many(1, worlds, func() bool { return false }, sim.Options{Storms: 2})
	for _, r := range failed {
		t.Errorf("seed %d: %v", r.Seed, r.Broken)
		sim.Shrink(r, sim.Options{Storms: 2}, 50).Story(os.Stderr)
	}
	if total.Worlds != worlds || total.Faults == 0 || total.Binds == 0 || total.Stops == 0 {
		t.Errorf("%d worlds, %d faults, %d bindings, %d stops: too little happened", total.Worlds, total.Faults, total.Binds, total.Stops)
	}
}

func TestTheSameSeedIsTheSameStory(t *testing.T) {
	o := sim.Options{Storms: 2}
	for seed := range uint64(4) {
		a, b := sim.Run(seed, o), sim.Run(seed, o)
		if a.Trace != b.Trace || a.Tally.Steps != b.Tally.Steps {
			t.Errorf("seed %d: %d steps and %x, then %d steps and %x", seed, a.Tally.Steps, a.Trace, b.Tally.Steps, b.Trace)
		}
	}
	if a, b := sim.Run(1, o), sim.Run(2, o); a.Trace == b.Trace {
		t.Error("two seeds gave the same story")
	}
}

func TestTheCheckerObjectsToWorldsThatAreBad(t *testing.T) {
	for _, missed := range sim.SelfTest() {
		t.Error(missed)
	}
}

// Seeds that have shown a bug, and show it again if it comes back.
func TestSeedsThatFailedOnceHold(t *testing.T) {
	for seed, what := range map[uint64]string{
		113:   "a call that came late started the task of a launch that had been refused, and nobody stopped it",
		153:   "a session was released because its document ran out before the deadline that an old reading had given it",
		5003:  "a container registered late, between the last look at it and the stop of its task",
		30005: "a leader never read again a launch that the store had lost and been given back under the same revision",
		40024: "a container that was found gone counted among those that stay, and one too many was drained",
	} {
		if r := sim.Run(seed, sim.Options{}); r.Broken != nil {
			t.Errorf("seed %d, where once %s: %v", seed, what, r.Broken)
		}
	}
}
