package state

import "time"

// ContainerPhase is where a container stands.
//
//	pending_verification ──▶ ready ──▶ draining ──▶ stopping ──▶ gone
//	          │                ▲           │            ▲
//	          │                └───────────┘ un-drain   │
//	          └─────────────────────────────────────────┘ never reached
//
// A container that hangs goes from ready or draining to stopping, whatever it holds (GiveUp).
// Only what is stopping is ever StopTask'ed, and there is no way back from it.
type ContainerPhase string

// The phases, in order.
const (
	PendingVerification ContainerPhase = "pending_verification" // registered; its address is not proven
	ContainerReady      ContainerPhase = "ready"
	Draining            ContainerPhase = "draining" // takes no new sessions
	Stopping            ContainerPhase = "stopping" // empty and acknowledged, or given up; its task is being stopped
	Gone                ContainerPhase = "gone"
)

// ContainerPhases lists every phase.
func ContainerPhases() []ContainerPhase {
	return []ContainerPhase{PendingVerification, ContainerReady, Draining, Stopping, Gone}
}

// Container is one registered process that offers slots for browsers. Its id is its
// launch's; BootID tells one life of it from the next. Values handed out by a store or a
// Mirror are shared and must not be changed.
type Container struct {
	ID          string
	Launch      string // the launch that started it; empty for a container that we did not launch
	TaskARN     string
	Addr        string // host:port, from ECS; empty until verified
	Protocol    int    // 1: the original's; 2: ours
	BootID      string
	Former      []string // its lives before, the latest last: the last FormerLives of them
	MaxSessions int
	Phase       ContainerPhase
	Tenant      string // with dedicated tenancy: the one user it ever serves
	Served      string // whom it has served: "" nobody yet; "=user" that user alone; "*" several

	HungAt   time.Time // when it was given up although slots were taken (GiveUp); zero: it was not
	Closing  bool      // it asked for its drain itself: it is being stopped and never opens again
	DrainSeq int64     // raised by each order to drain
	DrainAck int64     // the highest order that the container has acknowledged with zero sessions

	Owner      string // the replica that holds its link
	OwnerSeq   int64  // raised by each change of owner
	OwnerUntil time.Time
	LetGo      bool // the owner has given the link up: nobody need ask whether it is alive

	Claimed Claim // what its registration said; only ever compared

	RegisteredAt time.Time
	SeenAt       time.Time // last report
	Health       Health
	Slots        []string // ids of the sessions that hold a slot, sorted

	Rev int64
}

// Claim is what a container said of itself when it registered. Nothing is dialled from it.
type Claim struct {
	IP      string `json:"ip"`
	Port    int    `json:"port"`
	TaskARN string `json:"taskArn"`
	Version string `json:"version,omitempty"`
}

// Health is the latest self-report of a container.
type Health struct {
	CPU      float64 `json:"cpu"`      // share of its CPU allowance in use, 0–1
	Memory   float64 `json:"memory"`   // share of its memory in use, 0–1
	Warm     int     `json:"warm"`     // browsers started and waiting
	Sessions int     `json:"sessions"` // sessions that it holds
}

// FormerLives is how many of a container's lives are remembered besides the present one.
const FormerLives = 8

// GivenUp tells whether the container was given up as hanging: what was bound to it is lost.
func (c *Container) GivenUp() bool { return !c.HungAt.IsZero() }

// Used is the number of slots taken.
func (c *Container) Used() int { return len(c.Slots) }

// Takes tells whether Bind gives the container to that user, by whom it is and whom it has served.
func (c *Container) Takes(user string, dedicated bool) bool {
	alone := c.Served == "" || c.Served == "="+user
	return (alone || !dedicated) && (c.Tenant == "" || c.Tenant == user)
}

// Free is the number of slots left.
func (c *Container) Free() int { return max(0, c.MaxSessions-len(c.Slots)) }
