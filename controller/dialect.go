package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// dialectInterval is how often the pool's dialect is read: containers are refused by whichever
// replica they ask.
const dialectInterval = time.Second

// dialect is what a leader knows of the pool's.
type dialect struct {
	read   bool
	readAt time.Time // monotonic
	state.PoolDialect
}

// trouble says why launching is of no use; empty: it is.
func (d *dialect) trouble(now time.Time) string {
	if !d.HoldsLaunches(now) {
		return ""
	}
	return d.Why()
}

// readDialect reads what registrations have made of the pool's dialect, and tells of containers
// that were refused.
func (c *Controller) readDialect(ctx context.Context) error {
	now, err := c.cfg.Store.PoolDialect(ctx)
	if err != nil {
		return err
	}
	d := &c.pool.dialect
	if d.read && now.RefusedAt.After(d.RefusedAt) {
		c.log.Warn("containers refused", "because", now.Why(), "times", now.Refused)
		c.pool.note(state.Event{
			Kind: state.KindPool, Reason: state.EventRefused,
			Message: fmt.Sprintf("%s: check the task definition and POOL_PROTOCOL", now.Why()),
		})
	}
	*d = dialect{read: true, readAt: c.now(), PoolDialect: now}
	return nil
}

// settleDialect keeps the dialect up to date, and lets the next container decide anew once
// the pool is empty.
func (c *Controller) settleDialect(ctx context.Context, s plan.Snapshot) error {
	d := &c.pool.dialect
	if d.read && c.now().Sub(d.readAt) < dialectInterval {
		return nil
	}
	if err := c.readDialect(ctx); err != nil {
		return err
	}
	now := d.PoolDialect
	if now.Protocol == 0 || slices.ContainsFunc(s.Containers, func(c *state.Container) bool { return c.Phase != state.Gone }) {
		return nil
	}
	by, ok := c.lead.authority(c.epoch)
	if !ok {
		return nil
	}
	err := c.cfg.Store.ForgetDialect(ctx, by)
	switch {
	case errors.Is(err, state.ErrConflict):
		return nil // one has registered meanwhile
	case err != nil:
		return err
	}
	d.PoolDialect = state.PoolDialect{}
	c.log.Info("dialect forgotten: the pool is empty", "protocol", now.Protocol)
	return nil
}
