package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// PeerPath begins the path that answers 204 at the replica whose id follows, and 404 at any
// other: an address may have passed on to another process.
const PeerPath = "/internal/replicas/"

// Defaults of OwnersConfig.
const (
	// DefaultSettle is how long after the store has come back owners may renew their leases
	// before anybody claims what is theirs.
	DefaultSettle = 10 * time.Second
	// DefaultAgentPatience is how long a container that can may take to register again by
	// itself, once its owner's lease has run out.
	DefaultAgentPatience = 15 * time.Second
	// DefaultProbeTimeout bounds one question to an owner.
	DefaultProbeTimeout = 2 * time.Second
	// DefaultReclaim is how long a container is left alone after an attempt that did not
	// succeed.
	DefaultReclaim = 5 * time.Second
	// DefaultMaxViewAge is above the age of any view of the store in peace, and short enough
	// that no lease runs out unnoticed.
	DefaultMaxViewAge = 8 * time.Second
)

const (
	claimTick = time.Second
	// locateInterval is how often the store is asked, at most, for replicas that nobody knows.
	locateInterval = 250 * time.Millisecond
	probeTries     = 2
	// claimSpread is over how long replicas spread their claims, so that the containers of
	// one that stopped do not all go to the quickest.
	claimSpread  = 300 * time.Millisecond
	storeTimeout = 2 * time.Second
)

// OwnerStore is what Owners need of the store.
type OwnerStore interface {
	state.Ownership
	state.Replicas
	Container(ctx context.Context, id string) (*state.Container, error)
}

// OwnerMirror is what Owners need of the mirror.
type OwnerMirror interface {
	Containers() []*state.Container
	ApplyContainer(c *state.Container)
	Subscribe(see func([]state.Hint)) (cancel func())
	Now() time.Time
	Age() time.Duration
	Trouble() string
}

// OwnersConfig is what Owners are made of.
type OwnersConfig struct {
	Replica string // this replica's id
	Addr    string // host:port at which others reach it
	Version string
	Store   OwnerStore
	Mirror  OwnerMirror
	// Dial opens connections to containers, DialPeer to replicas; nil: net.Dialer.
	Dial, DialPeer tunnel.DialFunc

	Announce      time.Duration // how often; zero: state.ReplicaInterval
	Settle        time.Duration // zero: DefaultSettle
	AgentPatience time.Duration // zero: DefaultAgentPatience
	ProbeTimeout  time.Duration // zero: DefaultProbeTimeout
	Reclaim       time.Duration // zero: DefaultReclaim
	MaxViewAge    time.Duration // of the mirror; above it the store counts as lost. Zero: DefaultMaxViewAge

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Owners tells the other replicas where this one is, knows where they are, and takes over the
// containers of those that are no more.
//
// A container is claimed if its owner has let go; or if the owner's lease has run out, and
// the owner does not answer at its address, and the container does answer at its own (so
// that a replica which is cut off itself takes nothing), and this replica's view of the store
// has been good for a while: after an outage of the store every lease has run out, and the
// owners, whose links are as they were, come first. The store lets one claimant win.
//
// An owner that was stopped and wakes up finds itself fenced at its next write, and closes
// its link. A v1 container goes mute by that; who holds the newer link must notice and dial
// again.
type Owners struct {
	// set once in NewOwners
	cfg     OwnersConfig
	log     *slog.Logger
	client  *http.Client
	claims  *prometheus.CounterVec
	kick    chan struct{} // holds one
	retired atomic.Bool

	asking  sync.Mutex // held by who asks the store where a replica is
	askedAt time.Time  // guarded by asking

	mu   sync.Mutex               // guards the following
	book map[string]state.Replica // who is where
	busy map[string]struct{}      // containers that a claim is under way for
	wait map[string]time.Time     // containers that are left alone until then

	// owned by Run
	goodSince time.Time // of the view of the store; zero: it is not good
	outages   int       // after a good view
	trouble   string    // as last seen
}

// How an attempt to take a container over ends.
const (
	claimWon    = "won"
	claimLost   = "lost"  // another replica was quicker, or the owner has come back
	claimAlive  = "alive" // the owner answers
	claimCutOff = "cut_off"
	claimFailed = "failed"
)

// NewOwners returns Owners. Nothing happens before Run.
func NewOwners(cfg OwnersConfig) *Owners {
	direct := (&net.Dialer{Timeout: dialTimeout}).DialContext
	if cfg.Dial == nil {
		cfg.Dial = direct
	}
	if cfg.DialPeer == nil {
		cfg.DialPeer = direct
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	defaultTo(&cfg.Announce, state.ReplicaInterval)
	defaultTo(&cfg.Settle, DefaultSettle)
	defaultTo(&cfg.AgentPatience, DefaultAgentPatience)
	defaultTo(&cfg.ProbeTimeout, DefaultProbeTimeout)
	defaultTo(&cfg.Reclaim, DefaultReclaim)
	defaultTo(&cfg.MaxViewAge, DefaultMaxViewAge)
	o := &Owners{
		cfg:  cfg,
		log:  cfg.Log,
		kick: make(chan struct{}, 1),
		book: map[string]state.Replica{},
		busy: map[string]struct{}{},
		wait: map[string]time.Time{},
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_link_claims_total",
			Help: "Attempts to take a container over from another replica, by result.",
		}, []string{"result"}),
		client: &http.Client{
			Transport: &http.Transport{DialContext: cfg.DialPeer, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
	}
	for _, result := range []string{claimWon, claimLost, claimAlive, claimCutOff, claimFailed} {
		o.claims.WithLabelValues(result)
	}
	register(cfg.Registerer, o.claims)
	return o
}

// Locate tells where another replica is. One that is not known yet, since it has only just
// started, is looked for in the store: by one at a time, and seldom, however many ask.
func (o *Owners) Locate(ctx context.Context, replica string) (addr string, known bool) {
	if addr, known = o.Addr(replica); known {
		return addr, true
	}
	o.asking.Lock()
	defer o.asking.Unlock()
	if addr, known = o.Addr(replica); known || time.Since(o.askedAt) < locateInterval {
		return addr, known
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := o.refresh(ctx); err != nil {
		o.log.Debug("replicas not listed", "error", err)
	}
	o.askedAt = time.Now()
	return o.Addr(replica)
}

// Addr tells where another replica is, as far as it has ever said.
func (o *Owners) Addr(replica string) (addr string, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, ok := o.book[replica]
	return r.Addr, ok && r.Addr != ""
}

// Retire makes no more claims, because this replica stops. It goes on being announced.
func (o *Owners) Retire() { o.retired.Store(true) }

// Run announces this replica and claims containers until ctx ends. Then it withdraws, so it
// should end after Links have let go of theirs.
func (o *Owners) Run(ctx context.Context) error {
	cancel := o.cfg.Mirror.Subscribe(func(hints []state.Hint) {
		for _, h := range hints {
			if h.Kind == state.KindContainer {
				select {
				case o.kick <- struct{}{}:
				default:
				}
				return
			}
		}
	})
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { o.announce(ctx) })
	tick := time.NewTicker(claimTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.kick:
		case <-tick.C:
		}
		o.watch()
		for _, c := range o.orphans() {
			running.Go(func() {
				defer o.done(c.ID)
				o.takeOver(ctx, c)
			})
		}
	}
}

// announce keeps this replica known, and the book of the others up to date.
func (o *Owners) announce(ctx context.Context) {
	told := false
	for ctx.Err() == nil {
		err := o.exchange(ctx)
		if err != nil && ctx.Err() == nil && !told {
			o.log.Warn("replica not announced: trying again", "error", err)
		}
		told = err != nil
		sleep(ctx, o.cfg.Announce*9/10+rand.N(o.cfg.Announce/10+1))
	}
	farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := o.cfg.Store.Withdraw(farewell, o.cfg.Replica); err != nil {
		o.log.Warn("replica not withdrawn: others ask at its address before they take over", "error", err)
	}
}

func (o *Owners) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := o.cfg.Store.Announce(ctx, state.Replica{ID: o.cfg.Replica, Addr: o.cfg.Addr, Version: o.cfg.Version})
	if err != nil {
		return err
	}
	return o.refresh(ctx)
}

// refresh reads where the replicas are. One that is not listed any more is forgotten: it has
// withdrawn, or nothing was heard of it for long. A list without this replica is that of a
// store which has lost its memory, and makes nobody forgotten.
func (o *Owners) refresh(ctx context.Context) error {
	all, err := o.cfg.Store.Replicas(ctx)
	if err != nil {
		return err
	}
	book := make(map[string]state.Replica, len(all))
	for _, r := range all {
		book[r.ID] = r
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, whole := book[o.cfg.Replica]; !whole {
		for id, r := range o.book {
			if _, listed := book[id]; !listed {
				book[id] = r
			}
		}
	}
	o.book = book
	return nil
}

// watch notes since when the view of the store has been good.
func (o *Owners) watch() {
	trouble := o.cfg.Mirror.Trouble()
	if o.cfg.Mirror.Age() > o.cfg.MaxViewAge || trouble != o.trouble {
		o.trouble = trouble
		if !o.goodSince.IsZero() {
			o.outages++
			o.log.Warn("store lost sight of: no container is claimed until owners have had time to report")
		}
		o.goodSince = time.Time{}
		return
	}
	if o.goodSince.IsZero() {
		o.goodSince = time.Now()
	}
}

// orphans gives the containers to try to take over now, and notes that this is under way.
func (o *Owners) orphans() []*state.Container {
	if o.goodSince.IsZero() || o.retired.Load() {
		return nil
	}
	settled := time.Since(o.goodSince) >= o.cfg.Settle
	now, wall := o.cfg.Mirror.Now(), time.Now()
	var found []*state.Container
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.cfg.Mirror.Containers() {
		over := c.OwnerUntil
		if c.Protocol == wire.Protocol {
			over = over.Add(o.cfg.AgentPatience)
		}
		_, busy := o.busy[c.ID]
		switch {
		case c.Phase == state.Gone, c.Owner == o.cfg.Replica, busy, now.Before(over), wall.Before(o.wait[c.ID]):
			continue
		// What was let go before the store was ever out of sight has no owner to wait for.
		case !settled && (!c.LetGo || o.outages > 0):
			continue
		}
		delete(o.wait, c.ID)
		o.busy[c.ID] = struct{}{}
		found = append(found, c)
	}
	return found
}

func (o *Owners) done(container string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, container)
}

// takeOver tries to claim one container.
func (o *Owners) takeOver(ctx context.Context, c *state.Container) {
	sleep(ctx, rand.N(claimSpread))
	result, err := o.claim(ctx, c.ID)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		o.log.Warn("container not taken over: trying again", "container", c.ID, "owner", c.Owner, "error", err)
	}
	if result == "" {
		return
	}
	o.claims.WithLabelValues(result).Inc()
	if result != claimWon {
		o.mu.Lock()
		o.wait[c.ID] = time.Now().Add(o.cfg.Reclaim)
		o.mu.Unlock()
	}
}

// claim looks again, asks who is to be asked, and claims. An empty result says that there was
// nothing to claim.
func (o *Owners) claim(ctx context.Context, id string) (result string, err error) {
	c, err := o.read(ctx, id)
	if err != nil {
		return claimFailed, err
	}
	if c.Phase == state.Gone || c.Owner == o.cfg.Replica || c.OwnerUntil.After(o.cfg.Mirror.Now()) {
		return "", nil
	}
	begun := time.Now()
	if !c.LetGo {
		if o.alive(ctx, c) {
			return claimAlive, nil
		}
		if !o.reaches(ctx, c.Addr) {
			o.log.Info("container left alone: neither it nor its owner answers", "container", id, "owner", c.Owner)
			return claimCutOff, nil
		}
	}
	// What was found out must be fresh when the store is told, also after a pause of this
	// process: the owner may have come back.
	if ctx.Err() != nil || o.retired.Load() || time.Since(begun) > (probeTries+1)*o.cfg.ProbeTimeout+time.Second {
		return "", nil
	}
	call, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	got, err := o.cfg.Store.Claim(call, state.Takeover{
		Container: id, OwnerSeq: c.OwnerSeq, Owner: o.cfg.Replica, Unreachable: !c.LetGo,
	})
	switch {
	case errors.Is(err, state.ErrConflict), errors.Is(err, state.ErrNotFound):
		return claimLost, nil
	case err != nil:
		return claimFailed, err
	}
	o.log.Info("container taken over", "container", id, "previousOwner", c.Owner, "letGo", c.LetGo, "ownerSeq", got.OwnerSeq)
	o.cfg.Mirror.ApplyContainer(got)
	return claimWon, nil
}

// read reads a container as it is in the store now.
func (o *Owners) read(ctx context.Context, id string) (*state.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c, err := o.cfg.Store.Container(ctx, id)
	if err != nil {
		return nil, err
	}
	o.cfg.Mirror.ApplyContainer(c)
	return c, nil
}

// alive tells whether the container's owner must be taken for alive.
func (o *Owners) alive(ctx context.Context, c *state.Container) bool {
	if c.Owner == "" {
		return false
	}
	addr, known := o.Addr(c.Owner)
	if !known {
		listing, cancel := context.WithTimeout(ctx, storeTimeout)
		err := o.refresh(listing)
		cancel()
		if err != nil {
			return true
		}
		addr, known = o.Addr(c.Owner)
	}
	if !known {
		// Nobody knows where to ask: it has withdrawn, or was never announced. Two leases
		// without a word have to do.
		return o.cfg.Mirror.Now().Before(c.OwnerUntil.Add(state.OwnerLease))
	}
	for range probeTries {
		if o.probe(ctx, addr, c.Owner) {
			return true
		}
	}
	return false
}

// probe asks at addr whether the replica is there. Anything but silence, a refused connection
// or a plain "not here" counts as a yes.
func (o *Owners) probe(ctx context.Context, addr, replica string) bool {
	status, err := o.ask(ctx, addr, replica)
	return err == nil && status != http.StatusNotFound
}

// ask gives the status of the answer at addr to whether the replica is there.
func (o *Owners) ask(ctx context.Context, addr, replica string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.ProbeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+PeerPath+replica, nil)
	if err != nil {
		return 0, fmt.Errorf("asking for replica %s at %s: %w", replica, addr, err)
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking for replica %s at %s: %w", replica, addr, err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// Gone tells whether a replica is certainly no more: its address refuses connections, or
// another process answers there. Silence is no proof.
func (o *Owners) Gone(ctx context.Context, r state.Replica) bool {
	if r.Addr == "" {
		return false
	}
	status, err := o.ask(ctx, r.Addr, r.ID)
	return status == http.StatusNotFound || errors.Is(err, syscall.ECONNREFUSED)
}

// reaches tells whether a container takes connections from here. One without a verified
// address has never had a link.
func (o *Owners) reaches(ctx context.Context, addr string) bool {
	if addr == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.ProbeTimeout)
	defer cancel()
	conn, err := o.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
