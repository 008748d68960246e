// Package proxy stands between clients, containers and the store. Links keeps one control
// socket to each container that this replica owns, tells the container which sessions it is
// to hold, and records what it reports. Relay joins a client's WebSocket to the browser of
// its session, and depends on nothing once they are joined.
//
// It decides nothing about where sessions go or how many containers there are: that is the
// leader's. It checks no tokens: that is the caller's.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// Defaults of LinksConfig.
const (
	DefaultFirstConnect    = 5 * time.Minute
	DefaultDisconnectGrace = 10 * time.Second
	DefaultLostGrace       = 120 * time.Second
)

// sweepInterval heals what hints and pokes have missed.
const sweepInterval = 5 * time.Second

// Why links end.
var (
	errShutdown   = errors.New("this replica is stopping")
	errSuperseded = errors.New("the container has another owner or another life")
)

// LinkStore is what Links needs of the store.
type LinkStore interface {
	state.Sessions
	state.Containers
	Wake(ctx context.Context, hints ...state.Hint) error
}

// LinkMirror is what Links needs of the mirror.
type LinkMirror interface {
	Session(id string) (*state.Session, bool)
	Container(id string) (*state.Container, bool)
	Containers() []*state.Container
	Launch(id string) (*state.Launch, bool)
	ApplySession(s *state.Session)
	ApplyContainer(c *state.Container)
	Subscribe(see func([]state.Hint)) (cancel func())
	Now() time.Time
	Age() time.Duration
	Trouble() string
	Relist()
	Doubt(kind state.Kind, id string)
}

// Describer tells what ECS knows of tasks.
type Describer interface {
	Describe(ctx context.Context, arns ...string) ([]state.Task, error)
}

// LinksConfig is what Links is made of.
type LinksConfig struct {
	Replica string // this replica's id
	Store   LinkStore
	Mirror  LinkMirror
	Fleet   Describer
	// Secret gives the secret of links and session requests to one life of a container.
	Secret func(container, bootID string) string
	// PreviousSecrets gives those that it may still hold after the keys were changed; nil: none.
	PreviousSecrets func(container, bootID string) []string
	Dial            tunnel.DialFunc // nil: net.Dialer
	// Port is where containers listen that no launch of ours tells of. Zero: such a container
	// is never dialled.
	Port int

	FirstConnect    time.Duration // sessions of our own API only; zero: DefaultFirstConnect
	DisconnectGrace time.Duration // zero: DefaultDisconnectGrace
	LostGrace       time.Duration // zero: DefaultLostGrace
	Idle            time.Duration // zero: no such limit

	// Trusted tells the address of a container that we did not launch and that ECS is not asked
	// about. Nil: such a container is never dialled.
	Trusted func(c *state.Container) (addr string, err error)

	// Redial is how long a lost container may take to register again by itself before it is
	// dialled again; zero: 3 s.
	Redial time.Duration

	V1 V1Config

	// Project is given what each report says, to be shown to others (Projector.Project); nil:
	// it is shown to nobody. It must return at once.
	Project func(Projection)

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Links keeps the links of this replica.
type Links struct {
	// set once in NewLinks
	cfg     LinksConfig
	log     *slog.Logger
	metrics *linkMetrics
	fetch   *http.Transport
	kick    chan struct{} // holds one: there is something in dirty

	envMetrics *envelopeMetrics

	mu      sync.Mutex // guards the following
	links   map[string]*link
	holders map[string]string   // session id → container whose link has dealt with it
	dirty   map[string]struct{} // containers to look at
	sweep   bool                // look at all of them
	fenced  map[string]int64    // container → ownerSeq that is not ours any more
}

// NewLinks returns Links. Nothing happens before Run.
func NewLinks(cfg LinksConfig) *Links {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	defaultTo(&cfg.FirstConnect, DefaultFirstConnect)
	defaultTo(&cfg.DisconnectGrace, DefaultDisconnectGrace)
	defaultTo(&cfg.LostGrace, DefaultLostGrace)
	defaultTo(&cfg.Redial, 3*time.Second)
	cfg.V1.setDefaults()
	return &Links{
		cfg:     cfg,
		log:     cfg.Log,
		metrics: newLinkMetrics(cfg.Registerer),
		fetch:   newTransport(cfg.Dial),
		kick:    make(chan struct{}, 1),
		links:   map[string]*link{},
		holders: map[string]string{},
		dirty:   map[string]struct{}{},
		fenced:  map[string]int64{},

		envMetrics: newEnvelopeMetrics(cfg.Registerer),
	}
}

func defaultTo(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Run keeps the links until ctx ends. Then it gives every container up, so that another
// replica may take it at once, closes the links and returns when all are closed.
func (ls *Links) Run(ctx context.Context) error {
	cancel := ls.cfg.Mirror.Subscribe(ls.see)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	// Links outlive ctx for the moment that it takes to hand their containers over.
	base := context.WithoutCancel(ctx)
	ls.look("")
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			ls.stopAll()
			return ctx.Err()
		case <-ls.kick:
		case <-timer.C:
			ls.look("")
			timer.Reset(sweepInterval*4/5 + rand.N(sweepInterval*2/5))
		}
		for _, id := range ls.toLookAt() {
			if l := ls.settle(base, id); l != nil {
				running.Go(l.run)
			}
		}
	}
}

// see takes hints from the mirror. It must return at once.
func (ls *Links) see(hints []state.Hint) {
	for _, h := range hints {
		switch h.Kind {
		case state.KindContainer:
			ls.look(h.ID)
			ls.poke(h.ID)
		case state.KindLaunch:
			ls.poke(h.ID) // its container bears the same id, and may wait for the task's ARN
		case state.KindSession:
			ls.mu.Lock()
			holder := ls.holders[h.ID]
			ls.mu.Unlock()
			if s, ok := ls.cfg.Mirror.Session(h.ID); ok && s.Container != "" && s.Container != holder {
				ls.poke(s.Container)
			}
			if holder != "" {
				ls.poke(holder)
			}
		case state.KindDocument, state.KindFleet, state.KindPool, state.KindLease: // nothing that a link acts on
		case state.KindAll:
			ls.look("")
		}
	}
}

// look has the container looked at; empty: all of them.
func (ls *Links) look(id string) {
	ls.mu.Lock()
	if id == "" {
		ls.sweep = true
	} else {
		ls.dirty[id] = struct{}{}
	}
	ls.mu.Unlock()
	select {
	case ls.kick <- struct{}{}:
	default:
	}
}

// poke has the container's link compare what is with what should be.
func (ls *Links) poke(container string) {
	ls.mu.Lock()
	l := ls.links[container]
	ls.mu.Unlock()
	if l != nil {
		l.wake()
	}
}

// toLookAt gives the containers to look at.
func (ls *Links) toLookAt() []string {
	ls.mu.Lock()
	dirty, sweep := ls.dirty, ls.sweep
	ls.dirty, ls.sweep = map[string]struct{}{}, false
	if sweep {
		for id := range ls.links {
			dirty[id] = struct{}{}
		}
	}
	ls.mu.Unlock()
	if sweep {
		for _, c := range ls.cfg.Mirror.Containers() {
			dirty[c.ID] = struct{}{}
		}
	}
	ids := make([]string, 0, len(dirty))
	for id := range dirty {
		ids = append(ids, id)
	}
	return ids
}

// settle compares the link that is there with the one that should be. It returns a link to run.
func (ls *Links) settle(base context.Context, id string) *link {
	c, ok := ls.cfg.Mirror.Container(id)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ours := ok && c.Owner == ls.cfg.Replica && c.Phase != state.Gone && ls.speaks(c.Protocol)
	if !ok || ls.fenced[id] < c.OwnerSeq {
		delete(ls.fenced, id)
	}
	if l := ls.links[id]; l != nil {
		if !ours || l.seq != c.OwnerSeq || l.bootID != c.BootID {
			l.stop(errSuperseded) // its end has the container looked at again
		}
		return nil
	}
	if _, fenced := ls.fenced[id]; !ours || fenced {
		return nil
	}
	l := newLink(base, ls, c)
	ls.links[id] = l
	return l
}

// speaks tells whether links speak that protocol.
func (ls *Links) speaks(protocol int) bool {
	return protocol == wire.Protocol || protocol == wire.ProtocolV1 && ls.cfg.V1.Slots != nil
}

// envelopesOf gives the clients' side of a v1 container's link, if this replica has it.
func (ls *Links) envelopesOf(container string) *envelopes {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.links[container]; l != nil {
		return l.env
	}
	return nil
}

// gone is called by a link at its end.
func (ls *Links) gone(l *link, why error) {
	ls.mu.Lock()
	delete(ls.links, l.id)
	for session, container := range ls.holders {
		if container == l.id {
			delete(ls.holders, session)
		}
	}
	if errors.Is(why, state.ErrFenced) {
		ls.fenced[l.id] = l.seq
	}
	ls.mu.Unlock()
	ls.look(l.id)
}

// hold notes that changes of the session concern the container's link.
func (ls *Links) hold(session, container string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.holders[session] = container
}

// unhold takes that back, unless another link has it by now.
func (ls *Links) unhold(session, container string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.holders[session] == container {
		delete(ls.holders, session)
	}
}

func (ls *Links) stopAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.links {
		l.stop(errShutdown)
	}
}

// limits says how long the session may last, and under what conditions.
func (ls *Links) limits(s *state.Session) *wire.Limits {
	l := &wire.Limits{
		KeepAlive:       s.KeepAlive,
		Remaining:       max(1, s.Deadline.Sub(ls.cfg.Mirror.Now()).Milliseconds()),
		DisconnectGrace: ls.cfg.DisconnectGrace.Milliseconds(),
		LostGrace:       ls.cfg.LostGrace.Milliseconds(),
		Idle:            ls.cfg.Idle.Milliseconds(),
	}
	if s.Origin == state.OriginAPI {
		l.FirstConnect = ls.cfg.FirstConnect.Milliseconds()
	}
	return l
}
