package state

import "context"

// V1Notes reads what containers of the original dialect note of their sessions, in the hash
// container:{id}:sessions. They write it; it stays behind when they die.
type V1Notes interface {
	// V1Has tells whether the container has noted the session.
	V1Has(ctx context.Context, container, session string) (bool, error)
	// V1Count counts the sessions that the container has noted.
	V1Count(ctx context.Context, container string) (int, error)
	// V1Forget removes the notes of a container that is gone. Repeated, it changes nothing.
	V1Forget(ctx context.Context, container string) error
}
