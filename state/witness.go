package state

import (
	"context"
	"time"
)

const (
	// WitnessInterval is how often each replica asks the containers that are silent, and says
	// what came of it.
	WitnessInterval = 5 * time.Second
	// TestimonyKept is for how long a testimony is remembered.
	TestimonyKept = time.Minute
)

// Testimony is what one replica knows of a container that does not report: whether it answers
// at its address, and whether it still serves the clients that are connected through that
// replica. Nobody is taken for dead without the word of every replica.
type Testimony struct {
	Container string
	BootID    string // the life of it that is meant
	Replica   string
	// Silent is for how long it has answered none of that replica's questions; zero if it has
	// answered the last one.
	Silent time.Duration
	// Quiet is since when nothing of it has reached a client through that replica; at most the
	// time for which the replica has run.
	Quiet time.Duration
	At    time.Time // when it was given, by the store's clock; set by Testify
}

// Witnesses keeps the latest testimonies of silent containers.
type Witnesses interface {
	// Testify records what a replica knows now, in place of what it said before.
	Testify(ctx context.Context, given []Testimony) error
	// Testimonies gives what was said of these containers within about TestimonyKept, in any order.
	Testimonies(ctx context.Context, containers []string) ([]Testimony, error)
}
