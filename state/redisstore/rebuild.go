package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// restorers is how many records are written back at once.
const restorers = 64

// Restore writes back what a replica remembers.
func (s *Store) Restore(ctx context.Context, seen int64, r state.Records) error {
	if err := s.restore(ctx, seen, r); err != nil {
		return fmt.Errorf("restoring %d sessions, %d containers and %d launches: %w",
			len(r.Sessions), len(r.Containers), len(r.Launches), err)
	}
	return nil
}

func (s *Store) restore(ctx context.Context, seen int64, r state.Records) error {
	k := &s.keys
	reply, err := s.eval(ctx, "restore_begin", []string{k.seq, k.pool, k.incarnation}, max(seen, s.seen.Load()), rand.Text())
	if err != nil {
		return err
	}
	if len(reply) != 2 {
		return errors.New("script restore_begin gave a short answer")
	}
	s.see(integer(reply[0]))
	now := moment(str(reply[1]))
	// Containers first: a session takes its slot there.
	calls := make([]call, 0, len(r.Containers)+len(r.Launches))
	for _, c := range r.Containers {
		calls = append(calls, s.restoreContainer(c))
	}
	for _, l := range r.Launches {
		text, err := encodeLaunch(l)
		if err != nil {
			return fmt.Errorf("launch %s: %w", l.ID, err)
		}
		calls = append(calls, call{
			script: "restore_launch", container: l.ID, keys: []string{k.launch(l.ID), k.launches}, args: []any{l.Rev, text},
		})
	}
	dropped := map[string][]string{} // by container: sessions that have a slot, and none by the record given
	err = s.runAll(ctx, calls, func(c call, ids []string) { dropped[c.container] = ids })
	if err != nil {
		return err
	}
	crowds := map[string][]string{} // sessions that are too many for their container
	crowded := func(c call, ids []string) { crowds[c.container] = ids }
	for _, sessions := range r.SessionsInTurn() {
		calls = calls[:0]
		for _, x := range sessions {
			if kept, listed := x.RestoredFor(now); kept >= 0 {
				calls = append(calls, s.restoreSession(x, kept, listed))
			}
		}
		if err := s.runAll(ctx, calls, crowded); err != nil {
			return err
		}
	}
	if err := s.restorePlaces(ctx, dropped, true, crowded); err != nil {
		return err
	}
	if err := s.restorePlaces(ctx, crowds, false, func(call, []string) {}); err != nil {
		return err
	}
	if _, err := s.eval(ctx, "restore_end", []string{k.pool}, r.Knew); err != nil {
		return err
	}
	return s.Wake(ctx, state.Hint{Kind: state.KindAll})
}

// restorePlaces sees to the slots of sessions, by container. crowded is shown those of a container that
// has too many; dropped says that the record of theirs that was given back has no such slots.
func (s *Store) restorePlaces(ctx context.Context, places map[string][]string, dropped bool, crowded func(call, []string)) error {
	for container, sessions := range places {
		slices.Sort(sessions)
		// One after the other: who gives way makes room for the next.
		for _, id := range sessions {
			c := call{script: "restore_place", container: container, session: id, args: []any{state.CrowdedOut, flag(dropped)}}
			if err := s.runAll(ctx, []call{c}, crowded); err != nil {
				return err
			}
		}
	}
	return nil
}

// runAll makes calls beside each other and gives the first error. It shows which ids a script has
// answered, if any, to one caller at a time.
func (s *Store) runAll(ctx context.Context, calls []call, seen func(call, []string)) error {
	var (
		group sync.WaitGroup
		mu    sync.Mutex // guards seen
		once  sync.Once
		first error
	)
	slots := make(chan struct{}, restorers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range calls {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			reply, err := s.run(ctx, c)
			for errors.Is(err, errNotSent) && ctx.Err() == nil {
				reply, err = s.run(ctx, c) // it carries no authority that could have run out
			}
			if wrongType(err) {
				// Somebody has put something else in a record's place. It is in quarantine, and one
				// record is no reason to keep back the others.
				s.log.Warn("a record cannot be given back", "error", err)
				return
			}
			if err != nil {
				once.Do(func() { first = err; cancel() })
				return
			}
			if named := ids(reply); len(named) > 0 {
				mu.Lock()
				seen(c, named)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return first
}

// ids gives the list that a script has answered with; none if it has not.
func ids(reply []any) []string {
	if len(reply) == 0 {
		return nil
	}
	list, _ := reply[0].([]any)
	all := make([]string, 0, len(list))
	for _, id := range list {
		all = append(all, str(id))
	}
	return all
}

func (s *Store) restoreContainer(c *state.Container) call {
	args := []any{c.Rev, string(c.Phase), c.Protocol, c.OwnerSeq, c.DrainSeq, c.Served, c.Tenant,
		state.GoneKept.Milliseconds(), c.Owner, c.BootID, flag(c.Closing), len(c.Slots)}
	for _, id := range c.Slots {
		args = append(args, id)
	}
	return call{
		script: "restore_container", container: c.ID, keys: []string{s.keys.pool}, args: append(args, encodeContainer(c)...),
	}
}

func (s *Store) restoreSession(x *state.Session, kept, listed time.Duration) call {
	args := []any{x.Rev, string(x.Phase), x.BootID, x.Refused, kept.Milliseconds(), listed.Milliseconds(),
		string(x.Reason), x.Message, x.UserID, state.CrowdedOut}
	return call{script: "restore_session", container: x.Container, session: x.ID, args: append(args, encodeSession(x)...)}
}

// MarkWhole says that nothing is missing any more.
func (s *Store) MarkWhole(ctx context.Context, by state.Authority, f state.Filling) error {
	_, err := s.run(ctx, call{
		script: "mark_whole", by: by, keys: []string{s.keys.pool, s.keys.incarnation},
		args: []any{f.Incarnation, stamped(f.LostAt)},
	})
	if err != nil {
		return fmt.Errorf("marking the store whole: %w", err)
	}
	return nil
}

// encodeSession gives the fields of a session's hash but its revision, as decodeSession reads
// them.
func encodeSession(x *state.Session) []any {
	return []any{
		"spec", string(x.Spec), "origin", string(x.Origin), "userId", x.UserID,
		"phase", string(x.Phase), "reason", string(x.Reason), "message", x.Message,
		"container", x.Container, "bootId", x.BootID, "bindRev", x.BindRev, "attempts", x.Attempts,
		"excluded", strings.Join(x.Excluded, " "), "refused", x.Refused, "cold", flag(x.Cold),
		"keepAlive", flag(x.KeepAlive), "attached", x.Attached, "firstConnectAt", stamped(x.FirstConnectAt),
		"lastActivity", stamped(x.LastActivity), "graceUntil", stamped(x.GraceUntil),
		"waited", x.Waited.Milliseconds(), "deadline", stamped(x.Deadline), "seenAt", stamped(x.SeenAt),
		"boundAt", stamped(x.BoundAt), "readyAt", stamped(x.ReadyAt), "endedAt", stamped(x.EndedAt),
	}
}

// encodeContainer gives the fields of a container's hash but its revision, as decodeContainer
// reads them.
func encodeContainer(c *state.Container) []any {
	claimed, _ := json.Marshal(c.Claimed) // of strings and numbers: it cannot fail
	health, err := json.Marshal(c.Health)
	if err != nil {
		health = nil // a load that is no number
	}
	return []any{
		"launch", c.Launch, "taskArn", c.TaskARN, "addr", c.Addr, "protocol", c.Protocol, "bootId", c.BootID,
		"former", strings.Join(c.Former, " "), "maxSessions", c.MaxSessions, "phase", string(c.Phase), "tenant", c.Tenant, "served", c.Served,
		"hungAt", stamped(c.HungAt), "closing", flag(c.Closing), "drainSeq", c.DrainSeq, "drainAck", c.DrainAck,
		"owner", c.Owner, "ownerSeq", c.OwnerSeq, "ownerUntil", stamped(c.OwnerUntil), "letGo", flag(c.LetGo),
		"claimed", string(claimed), "registeredAt", stamped(c.RegisteredAt), "seenAt", stamped(c.SeenAt),
		"health", string(health),
	}
}

// stamped writes a time as scripts do; the zero time is empty.
func stamped(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprint(t.UnixMilli())
}
