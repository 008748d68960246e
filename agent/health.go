package agent

import (
	"math"
	"sync"
	"time"
)

const (
	healthInterval = time.Second // samples closer together say nothing
	// healthMemory is how far the average looks back: a burst of a second or two is what
	// starting browsers looks like, and no reason to shun a container.
	healthMemory = 15 * time.Second
)

// usage is one look at the counters.
type usage struct {
	cpu    time.Duration // used since some fixed time
	cpus   float64       // the allowance; 0: unknown
	memory float64       // share in use, 0–1
}

// health tells what share of its allowance the container uses: of its control group's limits
// where it has some, else of the whole machine.
type health struct {
	mu          sync.Mutex // guards the following
	at          time.Time
	last        usage
	cpu, memory float64
}

// sample gives the shares of CPU and memory in use, 0–1.
func (h *health) sample(now time.Time) (cpu, memory float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	elapsed := now.Sub(h.at)
	if elapsed < healthInterval {
		return h.cpu, h.memory
	}
	u := readUsage()
	h.memory = clamp(u.memory)
	if !h.at.IsZero() && u.cpus > 0 {
		used := clamp(float64(u.cpu-h.last.cpu) / float64(elapsed) / u.cpus)
		h.cpu += (1 - math.Exp(-float64(elapsed)/float64(healthMemory))) * (used - h.cpu)
	}
	h.at, h.last = now, u
	return h.cpu, h.memory
}

func clamp(x float64) float64 { return max(0, min(1, x)) }
