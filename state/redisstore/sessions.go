package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// batch bounds the sessions of one script, which stops everybody else while it runs.
const batch = 200

// Session reads one session.
func (s *Store) Session(ctx context.Context, id string) (*state.Session, error) {
	found, err := s.SessionsOf(ctx, []string{id})
	if err == nil && len(found) == 0 {
		err = state.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading session %s: %w", id, err)
	}
	return found[0], nil
}

// Admit makes a pending session of a document.
func (s *Store) Admit(ctx context.Context, by state.Authority, a state.Admission) (*state.Session, error) {
	if !state.ValidID(a.ID) {
		return nil, fmt.Errorf("admitting session %q: %w: not an id", a.ID, state.ErrInvalid)
	}
	return s.session(ctx, "admitting", call{
		script: "admit", by: by, session: a.ID,
		args: []any{string(a.Spec), string(a.Origin), a.UserID, flag(a.KeepAlive), a.Remaining.Milliseconds(),
			state.EndedKept.Milliseconds(), state.EndedMargin.Milliseconds()},
	})
}

// Bind gives a pending session a slot.
func (s *Store) Bind(ctx context.Context, by state.Authority, b state.Binding) (*state.Session, error) {
	return s.session(ctx, "binding", call{
		script: "bind", by: by, container: b.Container, session: b.Session, args: []any{b.BootID, flag(b.Dedicated)},
	})
}

// Unbind takes a bound session back before its first ready.
func (s *Store) Unbind(ctx context.Context, by state.Authority, u state.Unbinding) (*state.Session, error) {
	return s.session(ctx, "unbinding", call{
		script: "unbind", by: by, container: s.homes.guess(u.Session), session: u.Session, args: []any{u.BindRev, u.Why},
	})
}

// Ready tells that the browser is there.
func (s *Store) Ready(ctx context.Context, by state.Authority, id string, bindRev int64, cold bool) (_ *state.Session, first bool, err error) {
	got, more, err := s.sessionAnd(ctx, "readying", call{
		script: "ready", by: by, container: by.Container, session: id, args: []any{bindRev, flag(cold)},
	})
	return got, len(more) > 0, err
}

// Refuse records that the container cannot serve the session.
func (s *Store) Refuse(ctx context.Context, by state.Authority, id string, bindRev int64, why string) (*state.Session, error) {
	if why == "" {
		why = "refused"
	}
	return s.session(ctx, "refusing", call{
		script: "refuse", by: by, container: by.Container, session: id, args: []any{bindRev, why},
	})
}

// End starts or finishes an end.
func (s *Store) End(ctx context.Context, by state.Authority, e state.End) (*state.Session, error) {
	container := by.Container
	if container == "" {
		container = s.homes.guess(e.Session)
	}
	return s.session(ctx, "ending", call{
		script: "end", by: by, container: container, session: e.Session,
		args: []any{e.BindRev, string(e.Reason), e.Message, flag(e.Confirmed),
			flag(slices.Contains(state.Reasons(), e.Reason)),
			state.EndedKept.Milliseconds(), state.EndedMargin.Milliseconds(), state.EndedListed.Milliseconds()},
	})
}

// Release frees a slot that a session holds although it is bound elsewhere.
func (s *Store) Release(ctx context.Context, by state.Authority, container, id string) error {
	_, err := s.run(ctx, call{script: "release", by: by, container: container, session: id})
	if err != nil {
		return fmt.Errorf("releasing the slot of session %s in container %s: %w", id, container, err)
	}
	return nil
}

// Touch records what an owner's container reports of its clients.
func (s *Store) Touch(ctx context.Context, by state.Authority, activities []state.Activity) error {
	for part := range slices.Chunk(activities, batch) {
		c := call{script: "touch", by: by, container: by.Container, args: []any{state.TouchGrain.Milliseconds()}}
		for _, a := range part {
			grace := ""
			if a.GraceRunning || a.GraceLeft > 0 {
				grace = fmt.Sprint(a.GraceLeft.Milliseconds())
			}
			c.keys = append(c.keys, s.keys.session(a.Session))
			c.args = append(c.args, a.Session, a.BindRev, a.Attached, flag(a.Connected), a.IdleFor.Milliseconds(), grace)
		}
		if _, err := s.run(ctx, c); err != nil {
			return fmt.Errorf("recording activity in container %s: %w", by.Container, err)
		}
	}
	return nil
}

// Amend changes what a requester may change after admission.
func (s *Store) Amend(ctx context.Context, by state.Authority, a state.Amendment) (*state.Session, error) {
	return s.session(ctx, "amending", call{
		script: "amend", by: by, session: a.Session,
		args: []any{string(a.Spec), flag(a.KeepAlive), a.Remaining.Milliseconds()},
	})
}

// Wait adds to the time that pending sessions have waited under a held lease.
func (s *Store) Wait(ctx context.Context, by state.Authority, ids []string, more time.Duration) error {
	for part := range slices.Chunk(ids, batch) {
		c := call{script: "wait", by: by, args: []any{more.Milliseconds()}}
		for _, id := range part {
			c.keys = append(c.keys, s.keys.session(id))
			c.args = append(c.args, id)
		}
		if _, err := s.run(ctx, c); err != nil {
			return fmt.Errorf("counting the wait of %d sessions: %w", len(ids), err)
		}
	}
	return nil
}

// session runs a script that answers with a session, once more when that is in another
// container than we believed.
func (s *Store) session(ctx context.Context, verb string, c call) (*state.Session, error) {
	got, _, err := s.sessionAnd(ctx, verb, c)
	return got, err
}

// sessionAnd gives also what the script has answered beyond the session.
func (s *Store) sessionAnd(ctx context.Context, verb string, c call) (got *state.Session, more []any, err error) {
	reply, err := s.run(ctx, c)
	for tries := 0; errors.Is(err, errElsewhere) && tries < 3; tries++ {
		c.container = str(reply[0])
		reply, err = s.run(ctx, c)
	}
	if errors.Is(err, errElsewhere) {
		err = fmt.Errorf("%w: it moves about", state.ErrConflict)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s session %s: %w", verb, c.session, err)
	}
	if len(reply) > 0 {
		hash, _ := reply[0].([]any)
		got, more = decodeSession(c.session, hash), reply[1:]
	}
	if got == nil {
		return nil, nil, fmt.Errorf("%s session %s: script %s answered without a record", verb, c.session, c.script)
	}
	s.homes.learn(got)
	return got, more, nil
}
