package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// writers is how many writes to the store run at once; they wait for its round trips, not
	// for a core.
	writers = 128
	// maxBackoff bounds the pause before an action that went wrong is tried again.
	maxBackoff = 5 * time.Second
)

// act carries a plan out. Writes to the store are done when it returns; calls to ECS go on
// beside the loop. An action that went wrong is left out of the next plans for a while; one
// that was refused as stale is simply planned anew.
func (c *Controller) act(ctx context.Context, p plan.Plan) {
	var (
		group sync.WaitGroup
		slots = make(chan struct{}, writers)
		write = c.cfg.machine.write
		mu    sync.Mutex // guards done
		done  []outcome
	)
	now, epoch := c.now(), c.epoch
	c.calls.begin()
	defer c.calls.tell()
	for _, a := range p.Actions {
		if !c.calls.due(key(a), now) {
			continue
		}
		switch a.(type) {
		case plan.Run, plan.StopTask:
			// In the plan's order: launches before stops.
			if c.calls.afford(a, now) {
				c.calls.start(ctx, a)
			}
			continue
		}
		slots <- struct{}{}
		write(&group, func() {
			defer func() { <-slots }()
			err := c.write(ctx, epoch, a)
			mu.Lock()
			done = append(done, outcome{a, err})
			mu.Unlock()
		})
	}
	group.Wait()
	for _, o := range done {
		c.settle(o)
	}
}

// key names an action across plans.
func key(a plan.Action) string { return string(a.Kind()) + " " + a.Subject() }

// outcome is how an action went.
type outcome struct {
	action plan.Action
	err    error
}

// settle notes how an action went. It runs on the loop's goroutine.
func (c *Controller) settle(o outcome) {
	kind := string(o.action.Kind())
	log := c.log.With("action", kind, "subject", o.action.Subject())
	if errors.Is(o.err, state.ErrThrottled) {
		c.calls.throttled(o.action, c.now())
	}
	stale := errors.Is(o.err, state.ErrConflict) || errors.Is(o.err, state.ErrNotFound) ||
		errors.Is(o.err, state.ErrFull) || errors.Is(o.err, state.ErrExists)
	switch {
	case o.err == nil:
		c.calls.succeeded(key(o.action))
		c.metrics.actions.WithLabelValues(kind, actionDone).Inc()
		log.Info("action done", "because", o.action.Because())
		if e, tell := told(o.action); tell {
			c.tell(e)
		}
		c.after(o.action)
	case errors.Is(o.err, context.Canceled), errors.Is(o.err, errNotLeading):
		c.calls.forgotten(key(o.action)) // the lead may have come back before anybody noticed
	case errors.Is(o.err, state.ErrFenced):
		c.metrics.actions.WithLabelValues(kind, actionFenced).Inc()
		c.lead.fenced(c.epoch)
	case errors.Is(o.err, state.ErrRolledBack):
		c.metrics.actions.WithLabelValues(kind, actionStale).Inc()
		log.Warn("action refused: the store has lost data", "error", o.err)
		c.calls.failed(key(o.action))
		c.cfg.Mirror.Relist()
	case stale:
		// An outcome, not a failure: this view is behind. It is read anew at once.
		c.metrics.actions.WithLabelValues(kind, actionStale).Inc()
		log.Debug("action was stale", "error", o.err)
		c.calls.failed(key(o.action))
		c.cfg.Mirror.Relist()
	default:
		c.metrics.actions.WithLabelValues(kind, actionFailed).Inc()
		pause := c.calls.failed(key(o.action))
		log.Warn("action went wrong", "error", o.err, "retryIn", pause)
	}
}

// after notes in the world what an action has changed there.
func (c *Controller) after(a plan.Action) {
	switch a := a.(type) {
	case plan.StopTask:
		c.world.stopped(a.ID)
	case plan.Bind:
		if s, ok := c.cfg.Mirror.Session(a.ID); ok && !s.SeenAt.IsZero() {
			c.metrics.queueWait.Observe(s.BoundAt.Sub(s.SeenAt).Seconds())
		}
	case plan.Amend, plan.Project, plan.Restore:
		// The document has changed, by us: read it anew.
		c.note([]state.Hint{{Kind: state.KindDocument, ID: a.Subject()}})
	}
}

var errNotLeading = errors.New("this replica does not lead any more, or under another epoch")

// write carries out one action on the store that was planned in the reign of that epoch. Authority
// is asked for last, right before the write.
func (c *Controller) write(ctx context.Context, epoch int64, a plan.Action) error {
	by, leading := c.lead.authority(epoch)
	if !leading {
		return errNotLeading
	}
	var (
		store  = c.cfg.Store
		mirror = c.cfg.Mirror
		err    error
	)
	switch a := a.(type) {
	case plan.MarkWhole:
		if err = store.MarkWhole(ctx, by, a.Filling); err == nil {
			mirror.ApplyWhole(a.Filling)
		}
	case plan.Admit:
		return c.admit(ctx, by, a)
	case plan.Bind:
		var s *state.Session
		s, err = store.Bind(ctx, by, state.Binding{Session: a.ID, Container: a.Container, BootID: a.BootID, Dedicated: a.Dedicated})
		mirror.ApplySession(s)
	case plan.Unbind:
		var s *state.Session
		s, err = store.Unbind(ctx, by, state.Unbinding{Session: a.ID, BindRev: a.BindRev, Why: a.Why})
		mirror.ApplySession(s)
	case plan.End:
		var s *state.Session
		s, err = store.End(ctx, by, state.End{Session: a.ID, BindRev: a.BindRev, Reason: a.Reason, Message: a.Why, Confirmed: a.Confirmed})
		mirror.ApplySession(s)
	case plan.Amend:
		var s *state.Session
		s, err = store.Amend(ctx, by, state.Amendment{Session: a.ID, Spec: a.Spec, KeepAlive: a.KeepAlive, Remaining: a.Remaining})
		mirror.ApplySession(s)
	case plan.Restore:
		if err = store.CreateDocument(ctx, a.ID, a.Text, a.Remaining); errors.Is(err, state.ErrExists) {
			err = nil // it is there after all
		}
	case plan.Project:
		err = c.project(ctx, a)
	case plan.Launch:
		return c.recordLaunch(ctx, by, a)
	case plan.ResolveLaunch:
		var l *state.Launch
		l, err = store.UpdateLaunch(ctx, by, a.ID, state.LaunchUpdate{Outcome: a.Outcome, Message: a.Why, Cause: a.Cause, SettledAt: a.SettledAt})
		mirror.ApplyLaunch(l)
	case plan.ForgetLaunch:
		if err = store.ForgetLaunch(ctx, by, a.ID); err == nil {
			mirror.DropLaunch(a.ID)
		}
	case plan.Undrain:
		var r *state.Container
		r, err = store.Undrain(ctx, by, a.ID, a.BootID)
		mirror.ApplyContainer(r)
	case plan.Drain:
		var r *state.Container
		r, err = store.Drain(ctx, by, a.ID, a.BootID)
		mirror.ApplyContainer(r)
	case plan.BeginStop:
		var r *state.Container
		r, err = store.BeginStop(ctx, by, a.ID, a.BootID)
		mirror.ApplyContainer(r)
	case plan.GiveUp:
		var r *state.Container
		r, err = store.GiveUp(ctx, by, state.GivingUp{Container: a.ID, BootID: a.BootID, SeenAt: a.SeenAt, JudgedAt: a.Now})
		mirror.ApplyContainer(r)
	case plan.MarkGone:
		var r *state.Container
		r, err = store.MarkGone(ctx, by, a.ID, a.BootID)
		mirror.ApplyContainer(r)
	default:
		return fmt.Errorf("no way to carry out a %s", a.Kind())
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", a.Kind(), a.Subject(), err)
	}
	return nil
}

// admit makes a session of a document. An id that was used before stays ended: its document
// is told so.
func (c *Controller) admit(ctx context.Context, by state.Authority, a plan.Admit) error {
	spec := a.Document.Spec
	origin := state.OriginForeign
	if spec.Origin == state.OriginAPI {
		origin = state.OriginAPI
	}
	s, err := c.cfg.Store.Admit(ctx, by, state.Admission{
		ID:        a.ID,
		Spec:      a.Document.Text,
		Origin:    origin,
		UserID:    spec.UserID,
		KeepAlive: spec.KeepAlive,
		Remaining: a.Remaining,
	})
	if err == nil {
		c.cfg.Mirror.ApplySession(s)
		return nil
	}
	err = fmt.Errorf("admitting session %s: %w", a.ID, err)
	if !errors.Is(err, state.ErrExists) {
		return err
	}
	s, readErr := c.cfg.Store.Session(ctx, a.ID)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if s.Phase != state.Ended {
		c.cfg.Mirror.ApplySession(s)
		return err
	}
	return c.project(ctx, plan.Project{Target: a.Target, Status: string(state.Ended), Reason: s.Reason})
}

// isUnknown finds out whether the store has a session that the mirror has not: one that ended
// long ago gives its reason; any other makes the plan stale.
func (c *Controller) isUnknown(ctx context.Context, a *plan.Project) error {
	s, err := c.cfg.Store.Session(ctx, a.ID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil
	case err != nil:
		return err
	case s.Phase != state.Ended:
		c.cfg.Mirror.ApplySession(s)
		return fmt.Errorf("%w: session %s is %s", state.ErrConflict, a.ID, s.Phase)
	}
	a.Reason = s.Reason
	return nil
}

// exposed gives the fields that tell a requester of the task behind a session, as the original
// names them; nothing unless that was asked for. The loop waits for its writers: the world
// stands still meanwhile.
func (c *Controller) exposed(id string) []exposedField {
	s, ok := c.cfg.Mirror.Session(id)
	if !c.cfg.ExposeTaskARN || !ok {
		return nil
	}
	container, ok := c.cfg.Mirror.Container(s.Container)
	if !ok || container.TaskARN == "" {
		return nil
	}
	fields := []exposedField{{"", "taskArn", container.TaskARN}, {"containerInfo", "taskArn", container.TaskARN}}
	if definition := c.world.tasks[container.TaskARN].Definition; definition != "" {
		fields = append(fields, exposedField{"containerInfo", "taskDefinition", definition})
	}
	if host, _, err := net.SplitHostPort(container.Addr); err == nil {
		fields = append(fields, exposedField{"", "privateIp", host})
	}
	return fields
}

// exposedField is a field of a document, in the object that outer names.
type exposedField struct{ outer, name, value string }

func (f exposedField) set(text []byte) ([]byte, error) {
	if f.outer == "" {
		return state.SetField(text, f.name, f.value)
	}
	return state.SetIn(text, f.outer, f.name, f.value)
}

// project shows a phase in the requester's document, never over its final word.
func (c *Controller) project(ctx context.Context, a plan.Project) error {
	if a.Unknown {
		if err := c.isUnknown(ctx, &a); err != nil {
			return err
		}
	}
	var fields []exposedField
	if a.Status == string(state.Ready) {
		fields = c.exposed(a.ID)
	}
	err := c.cfg.Store.EditDocument(ctx, a.ID, 0, func(text []byte) ([]byte, error) {
		spec, err := state.ParseSpec(a.ID, text)
		if err != nil || spec.Final() || spec.Status == a.Status {
			return nil, nil //nolint:nilerr // not ours to mend: the plan holds it as a poisoned document
		}
		for _, f := range fields {
			if text, err = f.set(text); err != nil {
				return nil, err
			}
		}
		if a.Reason != "" {
			if text, err = state.SetField(text, "endReason", a.Reason); err != nil {
				return nil, err
			}
		}
		return state.SetField(text, "status", a.Status)
	})
	if errors.Is(err, state.ErrNotFound) {
		return nil // nothing is there to show it in
	}
	return err
}

// recordLaunch stores the intent to start a container. The next plan makes the call.
func (c *Controller) recordLaunch(ctx context.Context, by state.Authority, a plan.Launch) error {
	id := c.unsure.take(c.now())
	if id == "" {
		id = c.cfg.NewID()
	}
	input, port, err := c.cfg.Fleet.Prepare(id, a.MaxSessions)
	if err != nil {
		return fmt.Errorf("preparing a launch: %w", err)
	}
	l, err := c.cfg.Store.CreateLaunch(ctx, by, state.Launch{ID: id, Input: json.RawMessage(input), Port: port, Target: c.cfg.Fleet.Target()})
	if errors.Is(err, state.ErrExists) {
		l, err = c.cfg.Store.Launch(ctx, id) // recorded when the answer was lost; the mirror may not have read it yet
	}
	if errors.Is(err, state.ErrUnavailable) {
		c.unsure.put(id, c.now())
	}
	if err != nil {
		return fmt.Errorf("recording launch %s: %w", id, err)
	}
	c.cfg.Mirror.ApplyLaunch(l)
	return nil
}

// unsureFor is how long an intent whose answer was lost is asked for again. By then every mirror
// shows it if it is there, and it cannot have been forgotten (state.LaunchKept).
const unsureFor = time.Minute

// unsure are intents of which the store has not said whether it has them. The next intent is one
// of these again, under its id: a new one beside it would be a container too many. Writers share
// it.
type unsure struct {
	mu      sync.Mutex
	intents []doubtful
}

// doubtful is an intent, and when it became so.
type doubtful struct {
	id string
	at time.Time
}

func (u *unsure) put(id string, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.intents = append(u.intents, doubtful{id, now})
}

// take gives one of them, which is then none any more; empty: there is none.
func (u *unsure) take(now time.Time) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.intents = slices.DeleteFunc(u.intents, func(d doubtful) bool { return now.Sub(d.at) >= unsureFor })
	if len(u.intents) == 0 {
		return ""
	}
	id := u.intents[0].id
	u.intents = u.intents[1:]
	return id
}
