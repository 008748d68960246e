package state

import (
	"context"
	"time"
)

const (
	// ReplicaTTL is how long a replica counts as alive after it has announced itself.
	ReplicaTTL = 15 * time.Second
	// ReplicaInterval is how often replicas announce themselves.
	ReplicaInterval = 5 * time.Second
	// ReplicaKept is how long the address of a replica that is not heard of any more is
	// remembered: containers may name it as their owner, and whoever wants to take them over
	// must be able to ask there.
	ReplicaKept = 24 * time.Hour
)

// Ownership moves the links of containers from one replica to another.
//
// A v1 container must never have two links: the newest takes every answer, and the end of
// either mutes it for good. Hence a claim wants more than a lease that has run out, which
// may only mean that the store was silent: the owner must have let go, or be unreachable for
// the claimant too. Register moves a link as well, at once, because there the container
// itself has said where it is.
type Ownership interface {
	// Claim makes t.Owner the owner of a container's link, with ownerSeq + 1 and a lease of
	// its own; the owner before it is fenced from then on. ErrConflict if ownerSeq is not the
	// expected one any more, if the owner's lease has not run out, if it has not let go and is
	// not known to be unreachable, or if the container is gone. ErrNotFound if there is no
	// such container. Of several that claim the same ownerSeq exactly one succeeds.
	Claim(ctx context.Context, t Takeover) (*Container, error)
}

// Takeover is a claim on the link of a container.
type Takeover struct {
	Container   string
	OwnerSeq    int64  // that the claimant has seen
	Owner       string // the claimant
	Unreachable bool   // the claimant has just found that the owner does not answer at its address
}

// Replica is one process of this service, as the others know it.
type Replica struct {
	ID      string
	Addr    string // host:port at which other replicas reach it
	Version string
	SeenAt  time.Time // the store's clock
}

// Live tells whether the replica has announced itself lately, by the store's clock.
func (r *Replica) Live(now time.Time) bool { return now.Sub(r.SeenAt) < ReplicaTTL }

// Replicas lets replicas know of one another.
type Replicas interface {
	// Announce says that the replica is there, at the store's time; SeenAt is not looked at.
	Announce(ctx context.Context, r Replica) error
	// Withdraw says that the replica stops, having let go of its links. Repeated, it changes
	// nothing.
	Withdraw(ctx context.Context, id string) error
	// Replicas lists those that have announced themselves within ReplicaKept and have not
	// withdrawn, in any order.
	Replicas(ctx context.Context) ([]Replica, error)
}
