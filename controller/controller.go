// Package controller keeps the world as plan wants it: it observes, plans and acts, on the one
// replica that leads. It decides nothing itself; plan decides, and the store refuses what has
// become stale.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// Store is what the controller needs of a store.
type Store interface {
	state.Documents
	state.Sessions
	state.Containers
	state.Launches
	state.Lease
	state.Pools
	state.Shown
	state.V1Notes
	state.Events
	state.Dialects
	state.Rebuilder
	state.Witnesses
	Replicas(ctx context.Context) ([]state.Replica, error)
}

// Config is what a Controller runs with. All fields but the durations, Log, Registerer and
// those that may be nil are required.
type Config struct {
	Replica string // this replica's id
	Store   Store
	Mirror  *state.Mirror
	Fleet   state.Fleet
	Policy  plan.Policy
	NewID   func() string // ids of launches, which become ids of containers; called concurrently

	// Refuses tells whether nothing listens at the address of a container any more: its machine
	// has said so. Nil: containers that are no tasks of ECS stay known while their record lives.
	Refuses func(ctx context.Context, addr string) bool

	// ReplicaGone tells whether a replica that is not heard any more is certainly dead: its machine
	// has said so. Nil: it may serve clients for a while.
	ReplicaGone func(ctx context.Context, r state.Replica) bool

	// ExposeTaskARN writes the ARN and the address of its task into each ready session's
	// document. Whoever reads them there may stop the task, with all that it serves.
	ExposeTaskARN bool

	Tick              time.Duration // longest pause between plans; 1 s
	TasksInterval     time.Duration // between whole listings of ECS, jittered; 10 s
	DocumentsInterval time.Duration // between whole listings of documents while edits are notified, jittered; 60 s
	Relist            time.Duration // the same while they are not; state.DefaultRelist

	Log        *slog.Logger
	Registerer prometheus.Registerer

	// Ended is told, while this replica leads, of each session that has ended; nil: nobody is.
	Ended func(s *state.Session)

	machine machine // what a Stepper puts in the process's place
}

const (
	// batch is how long a woken loop waits for more to come: a burst is planned once.
	batch = 2 * time.Millisecond
	// waitInterval is how often the time that sessions spend pending is added up.
	waitInterval = 5 * time.Second
)

// Controller is the reconcile loop of one replica.
type Controller struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	lead    leadership

	wake   chan struct{} // something that plan reads has changed; holds one
	vacant chan struct{} // nobody leads, or is to; holds one

	hintMu    sync.Mutex // guards the fields below
	documents map[string]struct{}
	tasks     map[string]struct{}
	relist    bool // documents are to be listed
	desired   bool // pool:desired is to be read

	began      time.Time // when the reign did; monotonic, owned by the goroutine of lead
	toldUnread bool      // that nothing could be read in this reign; owned by the goroutine of lead
	epoch      int64     // of the reign, and of all that it writes; owned by the goroutine of lead
	world      *world    // owned by the goroutine of lead
	pool       *pool     // owned by the goroutine of lead
	calls      *calls

	unsure  unsure
	held    atomic.Pointer[[]Held]               // what the last round left waiting for the account's allowance
	refused atomic.Pointer[map[string]time.Time] // plan.Snapshot.RefusedSince of the last round
}

// New returns a controller. Run starts it.
func New(cfg Config) *Controller {
	if cfg.Tick <= 0 {
		cfg.Tick = time.Second
	}
	if cfg.TasksInterval <= 0 {
		cfg.TasksInterval = 10 * time.Second
	}
	if cfg.DocumentsInterval <= 0 {
		cfg.DocumentsInterval = time.Minute
	}
	if cfg.Relist <= 0 {
		cfg.Relist = state.DefaultRelist
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.machine.now == nil {
		cfg.machine = process
	}
	return &Controller{
		cfg:       cfg,
		lead:      leadership{now: cfg.machine.now},
		log:       cfg.Log,
		metrics:   newMetrics(cfg.Registerer),
		wake:      make(chan struct{}, 1),
		vacant:    make(chan struct{}, 1),
		documents: map[string]struct{}{},
		tasks:     map[string]struct{}{},
	}
}

// Leading tells whether this replica leads now.
func (c *Controller) Leading() bool { return c.lead.held() }

// Run campaigns for the lead and reconciles while it holds it, until ctx ends. It gives the
// lead up before it returns, and returns after every call that it made has come back.
func (c *Controller) Run(ctx context.Context) error {
	cancel := c.cfg.Mirror.Subscribe(c.note)
	defer cancel()

	var campaign sync.WaitGroup
	campaign.Go(func() { c.campaign(ctx) })
	defer campaign.Wait()

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.lead.won():
			if epoch, lost, held := c.lead.term(); held { // else it was lost again before anybody looked
				c.reign(ctx, epoch, lost)
			}
		}
	}
	return ctx.Err()
}

// note files hints under what they say to look at again. It runs on the mirror's goroutine.
// A replica that does not lead files none, because a reign begins with whole listings; it asks
// for the lead as soon as that is free.
func (c *Controller) note(hints []state.Hint) {
	if !c.lead.held() {
		if slices.ContainsFunc(hints, func(h state.Hint) bool { return h.Kind == state.KindLease }) {
			c.rouseCampaign()
		}
		return
	}
	c.hintMu.Lock()
	for _, h := range hints {
		switch h.Kind {
		case state.KindDocument:
			c.documents[h.ID] = struct{}{}
		case state.KindFleet:
			c.tasks[h.ID] = struct{}{}
		case state.KindPool:
			c.desired = true
		case state.KindAll:
			c.relist = true
			c.desired = true
		case state.KindSession, state.KindContainer, state.KindLaunch, state.KindLease:
		}
	}
	c.hintMu.Unlock()
	c.rouse()
}

func (c *Controller) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// hinted takes what was filed since it was last asked.
func (c *Controller) hinted() (documents, tasks []string, relist bool) {
	c.hintMu.Lock()
	defer c.hintMu.Unlock()
	documents, tasks = slices.Sorted(maps.Keys(c.documents)), slices.Sorted(maps.Keys(c.tasks))
	relist = c.relist
	clear(c.documents)
	clear(c.tasks)
	c.relist = false
	return documents, tasks, relist
}

// desireHinted tells whether pool:desired was hinted at since it was last asked.
func (c *Controller) desireHinted() bool {
	c.hintMu.Lock()
	defer c.hintMu.Unlock()
	hinted := c.desired
	c.desired = false
	return hinted
}

// reign reconciles until the lead is lost or given up, or ctx ends.
func (c *Controller) reign(ctx context.Context, epoch int64, lost <-chan struct{}) {
	ctx, stop := context.WithCancel(ctx)
	c.begin(epoch)
	defer func() {
		stop()
		c.calls.wait()
		c.world.wait()
		c.metrics.leader.Set(0)
		c.held.Store(nil)
		c.refused.Store(nil)
	}()

	if !c.catchUp(ctx, lost) {
		return
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	waits := time.NewTicker(waitInterval)
	defer waits.Stop()
	desires := time.NewTicker(desiredInterval)
	defer desires.Stop()
	for c.lead.holds(epoch) {
		select {
		case <-ctx.Done():
			return
		case <-lost:
			// Perhaps it is won again already, even under the same epoch: that is the next reign.
			c.log.Warn("leadership lost")
			return
		case <-waits.C:
			c.countWaits(ctx)
			continue
		case <-desires.C:
			if !c.pool.read || !c.lookAtDesired(ctx) {
				continue
			}
		case r := <-c.world.listings:
			c.world.merge(r)
		case r := <-c.calls.results:
			c.settle(r)
		case <-tick.C:
		case <-c.wake:
			if !pause(ctx, batch) {
				return
			}
		}
		if c.givesUp() {
			return
		}
		// Planning that takes long leaves as much time to everybody else.
		if busy := c.reconcile(ctx); busy > 2*batch && !pause(ctx, min(busy, c.cfg.Tick)) {
			return
		}
		tick.Reset(c.calls.pause(c.cfg.Tick))
	}
	c.log.Warn("leadership lost")
}

// begin starts a reign with nothing but what the store holds. It asks for that to be read.
func (c *Controller) begin(epoch int64) {
	c.began, c.toldUnread = c.now(), false
	c.cfg.Mirror.Relist()
	c.world = newWorld(c.cfg)
	// An epoch is the store's clock in ms when it was given, as long as that has not gone back.
	counted := ends{since: time.UnixMilli(epoch)}
	if c.pool != nil && c.epoch == epoch {
		counted = c.pool.ends // the same lease, that was taken for lost
	}
	c.pool, c.epoch = &pool{ends: counted}, epoch
	c.calls = newCalls(c) // of this epoch
	c.hinted()            // what another reign left
	c.pool.note(state.Event{Kind: state.KindPool, Reason: state.EventLeading,
		Message: fmt.Sprintf("replica %s leads, epoch %d", c.cfg.Replica, epoch)})
	c.metrics.leader.Set(1)
	c.log.Info("leadership gained", "epoch", epoch)
}

// caughtUp tells whether this replica's view holds all that the leaders before have written. Until
// then nothing is planned: one that was cut off, and took the lead on its return, would launch
// beside the launches that it has not heard of.
func (c *Controller) caughtUp() bool { return c.cfg.Mirror.ListedSince(c.began) }

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// reconcile is one round: observe, plan, act. It returns the time that it kept a core busy.
func (c *Controller) reconcile(ctx context.Context) time.Duration {
	start := c.now()
	documents, tasks, relist := c.hinted()
	if err := c.observe(ctx, documents, tasks, relist); err != nil {
		c.refile(documents, tasks, relist)
		if ctx.Err() == nil {
			c.metrics.rounds.WithLabelValues("unobserved").Inc()
			c.log.Warn("world not observed", "error", err)
		}
		return 0
	}
	planning := c.now()
	snapshot := c.world.snapshot()
	c.refused.Store(&snapshot.RefusedSince)
	snapshot.LaunchTrouble = c.pool.dialect.trouble(snapshot.Now)
	snapshot.DesiredAt = c.pool.desiredAt
	policy := c.policy(c.pool)
	p := plan.Make(snapshot, policy)
	c.metrics.planned(snapshot, p)
	busy := c.now().Sub(planning)
	c.tellEnds(c.pool.ends.fresh(snapshot.Now, snapshot.Sessions))
	c.tellHolds(p.Holds)
	c.act(ctx, p)
	c.keepHouse(ctx, snapshot, policy.Pool)
	c.metrics.rounds.WithLabelValues("done").Inc()
	c.metrics.reconcile.Observe(c.now().Sub(start).Seconds())
	return busy
}

// observe looks at what was hinted at and at what is due. Before the first plan it takes over
// from the leader before: a plan without that knowledge could launch what is paused, or bring
// back what was ended.
func (c *Controller) observe(ctx context.Context, documents, tasks []string, relist bool) error {
	if err := c.seed(ctx, c.world, c.pool); err != nil {
		return err
	}
	if !c.pool.read {
		if _, err := c.readDesired(ctx, c.pool); err != nil {
			return err
		}
	}
	if !c.pool.dialect.read {
		if err := c.readDialect(ctx); err != nil {
			return err
		}
	}
	if c.desireHinted() {
		c.lookAtDesired(ctx)
	}
	return c.world.observe(ctx, documents, tasks, relist)
}

// refile files hints again that nobody could look at.
func (c *Controller) refile(documents, tasks []string, relist bool) {
	c.hintMu.Lock()
	defer c.hintMu.Unlock()
	for _, id := range documents {
		c.documents[id] = struct{}{}
	}
	for _, arn := range tasks {
		c.tasks[arn] = struct{}{}
	}
	c.relist = c.relist || relist
}

// countWaits adds to the time that sessions have been waiting for a slot while somebody was
// there to give them one: an outage of ours fails nobody.
func (c *Controller) countWaits(ctx context.Context) {
	by, ok := c.lead.authority(c.epoch)
	if !ok {
		return
	}
	var ids []string
	for _, s := range c.cfg.Mirror.Sessions() {
		if s.Phase == state.Pending {
			ids = append(ids, s.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	if err := c.cfg.Store.Wait(ctx, by, ids, waitInterval); err != nil && ctx.Err() == nil {
		c.failed("adding up waits", err)
	}
}

// failed notes an error of the store that no action carries.
func (c *Controller) failed(doing string, err error) {
	if errors.Is(err, state.ErrFenced) {
		c.lead.fenced(c.epoch)
		return
	}
	c.log.Warn("store call failed, and will be made again", "doing", doing, "error", err)
}
