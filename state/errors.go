package state

import (
	"errors"
	"time"
)

// The outcomes that a store, a fleet or the relay answer with. Wrap them; test with errors.Is.
var (
	// ErrNotFound: no record of that id.
	ErrNotFound = errors.New("not found")
	// ErrExists: the id is taken already.
	ErrExists = errors.New("already exists")
	// ErrConflict: the record was not in the state that the write asked for. An outcome, not
	// a failure: look again and decide anew.
	ErrConflict = errors.New("conflict")
	// ErrFull: the container has no free slot.
	ErrFull = errors.New("container is full")
	// ErrFenced: the authority behind the write (leader's epoch, owner's sequence) has passed on.
	ErrFenced = errors.New("authority has passed on")
	// ErrRolledBack: the store is older than what this process has seen of it.
	ErrRolledBack = errors.New("store was rolled back")
	// ErrEnded: the session has ended.
	ErrEnded = errors.New("session has ended")
	// ErrNotReady: the session has no browser yet.
	ErrNotReady = errors.New("session is not ready")
	// ErrUnavailable: the store cannot be reached.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrThrottled: AWS asks for fewer calls.
	ErrThrottled = errors.New("throttled")
	// ErrDraining: this process takes no new work.
	ErrDraining = errors.New("draining")
	// ErrUnauthorized: the credential is missing or wrong.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrForbidden: the credential is good, but not for this.
	ErrForbidden = errors.New("forbidden")
	// ErrInvalid: the input is malformed.
	ErrInvalid = errors.New("invalid")
	// ErrOtherDeployment: the store belongs to another deployment.
	ErrOtherDeployment = errors.New("store belongs to another deployment")
)

// A Refusal is an error meant for the person or program at the other end: what happened, to
// what, and what to do next. It wraps one of the sentinels above, which picks the HTTP status.
type Refusal struct {
	Err        error         // one of the sentinels
	Message    string        // what happened, to what
	Hint       string        // what to do next; may be empty
	Reason     Reason        // with ErrEnded: why the session ended
	RetryAfter time.Duration // zero: do not say
}

// Error gives the message and the hint.
func (r *Refusal) Error() string {
	if r.Hint == "" {
		return r.Message
	}
	return r.Message + ": " + r.Hint
}

// Unwrap gives the sentinel.
func (r *Refusal) Unwrap() error { return r.Err }
