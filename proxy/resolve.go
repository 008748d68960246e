package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
)

// attempt is one try to reach a session in its container. It takes dialTimeout at most.
type attempt func(ctx context.Context, s *state.Session, c *state.Container) error

// reach waits until the session is ready and tries to reach it in its container. If the
// container does not know it, what we know may be old: it is read again, and tried once more.
func (r *Relay) reach(ctx context.Context, access Access, try attempt) error {
	id := access.SessionID
	ctx, cancel := r.untilDrain(ctx)
	defer cancel()
	s, err := r.resolve(ctx, access)
	if err != nil {
		return err
	}
	for again := false; ; again = true {
		c, err := r.containerOf(ctx, s)
		if err != nil {
			return err
		}
		err = try(ctx, s, c)
		if err == nil {
			return nil
		}
		if r.isDraining() {
			return refuseDraining()
		}
		if ctx.Err() != nil {
			return ctx.Err() // the client is gone: nobody reads the answer
		}
		var refused *tunnel.HandshakeError
		if !errors.As(err, &refused) || !unknownThere(refused.Status) {
			return r.unreached(s, err)
		}
		fresh, readErr := r.cfg.Store.Session(ctx, id)
		switch {
		case readErr != nil && !errors.Is(readErr, state.ErrNotFound):
			return r.unreached(s, err)
		case readErr != nil:
			return refuseUnknown(id)
		}
		r.cfg.Mirror.ApplySession(fresh)
		if err := refuseOver(fresh); err != nil {
			return err
		}
		if again || fresh.Phase != state.Ready {
			return r.unreached(fresh, err)
		}
		s = fresh
	}
}

// unknownThere tells whether a container's answer says that it has no such session, or
// another binding of it.
func unknownThere(status int) bool {
	return status == http.StatusNotFound || status == http.StatusConflict || status == http.StatusGone
}

// unreached is the refusal when a ready session's container does not answer as it should.
func (r *Relay) unreached(s *state.Session, err error) error {
	after := 2 * time.Second
	var refused *tunnel.HandshakeError
	if errors.As(err, &refused) && refused.RetryAfter > 0 {
		after = min(refused.RetryAfter, 5*time.Second)
	}
	r.log.Warn("container did not take a client", "session", s.ID, "container", s.Container, "error", err)
	return &state.Refusal{
		Err:        state.ErrNotReady,
		Message:    fmt.Sprintf("the browser of session %s does not answer", s.ID),
		Hint:       "try again; if its container is lost the session will end with a reason",
		RetryAfter: after,
	}
}

// resolve waits until the session is ready. The mirror is asked first, so that sessions which
// it knows are reached while the store is away.
func (r *Relay) resolve(ctx context.Context, access Access) (*state.Session, error) {
	id := access.SessionID
	if r.isDraining() {
		return nil, refuseDraining()
	}
	s, known := r.cfg.Mirror.Session(id)
	if !known {
		var err error
		if s, err = r.lookUp(ctx, id); err != nil {
			return nil, err
		}
	}
	if s != nil && s.Phase != state.Pending && s.Phase != state.Bound {
		return s, refuseOver(s)
	}
	begun := time.Now()
	hold, cancel := r.hold(ctx, access)
	defer cancel()
	latest, err := r.cfg.Mirror.Await(hold, id, func(s *state.Session) bool {
		return s != nil && s.Phase != state.Pending && s.Phase != state.Bound
	})
	r.metrics.holds.Observe(time.Since(begun).Seconds())
	switch {
	case r.isDraining():
		return nil, refuseDraining()
	case err != nil && latest == nil:
		return nil, r.refuseWaiting(s, id)
	case err != nil:
		return nil, r.refuseWaiting(latest, id)
	}
	return latest, refuseOver(latest)
}

// hold derives a context for waiting: until the client has waited for as long as it may, or is gone.
func (r *Relay) hold(ctx context.Context, access Access) (context.Context, context.CancelFunc) {
	hold, end := context.WithTimeout(ctx, r.cfg.Hold)
	if access.Watch == nil {
		return hold, end
	}
	watched, unwatch := access.Watch(hold)
	return watched, func() {
		unwatch()
		end()
	}
}

// lookUp asks the store about a session that the mirror does not know. A nil session without
// an error is one that the leader has yet to see.
func (r *Relay) lookUp(ctx context.Context, id string) (*state.Session, error) {
	s, err := r.cfg.Store.Session(ctx, id)
	if err == nil {
		if s.Phase != state.Ended {
			r.cfg.Mirror.ApplySession(s)
		}
		return s, nil
	}
	if !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	doc, err := r.cfg.Store.Document(ctx, id)
	if err != nil {
		return nil, err
	}
	if doc.Missing || doc.Err != nil || doc.Spec.Final() {
		return nil, refuseUnknown(id)
	}
	return nil, nil //nolint:nilnil // said above
}

// containerOf gives the container that holds a ready session.
func (r *Relay) containerOf(ctx context.Context, s *state.Session) (*state.Container, error) {
	c, ok := r.cfg.Mirror.Container(s.Container)
	if !ok || c.BootID != s.BootID || c.Addr == "" {
		fresh, err := r.cfg.Store.Container(ctx, s.Container)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
		c = fresh
	}
	if c == nil || c.BootID != s.BootID || c.Addr == "" || c.Phase == state.Gone {
		return nil, r.unreached(s, errors.New("its container is gone"))
	}
	return c, nil
}

// refuseOver is the refusal of a session that has ended or is about to; nil for others.
func refuseOver(s *state.Session) error {
	if s.Phase != state.Ending && s.Phase != state.Ended {
		return nil
	}
	message := fmt.Sprintf("session %s has ended: %s", s.ID, s.Reason)
	if s.Message != "" {
		message += " (" + s.Message + ")"
	}
	return &state.Refusal{Err: state.ErrEnded, Message: message, Hint: "create a new session", Reason: s.Reason}
}

func refuseUnknown(id string) error {
	return &state.Refusal{
		Err:     state.ErrNotFound,
		Message: fmt.Sprintf("there is no session %s", id),
		Hint:    "create a session and use its connectUrl",
	}
}

func refuseDraining() error {
	return &state.Refusal{
		Err:        state.ErrDraining,
		Message:    "this replica is stopping",
		Hint:       "connect again: another one serves you",
		RetryAfter: time.Second,
	}
}

// refuseWaiting is the refusal of a session that did not become ready within the hold. s may
// be nil.
func (r *Relay) refuseWaiting(s *state.Session, id string) error {
	refusal := &state.Refusal{
		Err:        state.ErrNotReady,
		Hint:       "connect again: your place is kept",
		RetryAfter: 2 * time.Second,
	}
	if s == nil || s.Phase == state.Bound {
		refusal.Message = fmt.Sprintf("session %s is starting its browser", id)
		if s == nil {
			refusal.Message = fmt.Sprintf("session %s has not been admitted yet", id)
		}
		return refusal
	}
	ahead := 0
	for _, other := range r.cfg.Mirror.Sessions() {
		if other.Phase == state.Pending && other.ID != id &&
			(other.SeenAt.Before(s.SeenAt) || other.SeenAt.Equal(s.SeenAt) && other.ID < id) {
			ahead++
		}
	}
	refusal.Message = fmt.Sprintf("session %s waits for capacity at place %d in the queue", id, ahead+1)
	refusal.RetryAfter = min(2*time.Second+time.Duration(ahead)*100*time.Millisecond, 5*time.Second).Truncate(time.Second)
	if s.Message != "" {
		refusal.Message += " (" + strings.TrimSpace(s.Message) + ")"
	}
	return refusal
}

// The reasons of a refusal, for metrics.
const (
	reasonNotFound    = "not_found"
	reasonEnded       = "ended"
	reasonNotReady    = "not_ready"
	reasonDraining    = "draining"
	reasonInvalid     = "invalid"
	reasonUnavailable = "unavailable"
	reasonFull        = "full"
)

func refusalReasons() []string {
	return []string{reasonNotFound, reasonEnded, reasonNotReady, reasonDraining, reasonInvalid, reasonUnavailable, reasonFull}
}

func refusalReason(r *state.Refusal) string {
	switch {
	case errors.Is(r, state.ErrNotFound):
		return reasonNotFound
	case errors.Is(r, state.ErrEnded):
		return reasonEnded
	case errors.Is(r, state.ErrNotReady):
		return reasonNotReady
	case errors.Is(r, state.ErrDraining):
		return reasonDraining
	case errors.Is(r, state.ErrInvalid):
		return reasonInvalid
	case errors.Is(r, state.ErrFull):
		return reasonFull
	}
	return reasonUnavailable
}
