package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"golang.org/x/sync/errgroup"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/emf"
	"github.com/wallcrawler/wallcrawler/api/traces"
	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/controller/ecs"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

// options are what one replica of the service runs with, after configuration was read and
// checked.
type options struct {
	replica    string
	version    string
	listener   net.Listener
	publicURL  *url.URL
	redis      redisstore.Options
	fleet      ecs.Config // Client, Token, Log and Registerer are filled in
	ecsClient  ecs.ClientOptions
	pool       state.Pool
	policy     plan.Policy // Pool is filled in
	relist     time.Duration
	tasksEvery time.Duration // zero: the controller's default

	containerCIDRs []netip.Prefix // where containers may be dialled; empty: anywhere but loopback and link-local

	secrets *secretSpecs

	replicaAddr   string // host:port at which other replicas reach this one; empty: not at all
	dialect       string // auto, v1 or v2
	operators     []string
	exposeTaskARN bool

	firstConnect, disconnectGrace, lostGrace, idle, hold time.Duration
	unreadyFor, drainTimeout                             time.Duration

	memory         memoryLimit // its source empty: not looked at
	capacity       capacity
	clientsPerUser int
	keep           tunnel.KeeperConfig
	certificate    *certificate // nil: there is no TLS
	secureListener net.Listener // with certificate
	registerOn     net.Listener // where containers register besides listener; nil: nowhere
	containerTLS   *tls.Config  // nil: containers are spoken to in the clear

	traces traces.Config // its Endpoint empty: none

	emfOut   io.Writer // where metrics for CloudWatch are printed; nil: nowhere
	emfEvery time.Duration

	log *slog.Logger
}

// service is one replica: everything behind one listener.
type service struct {
	o          options
	log        *slog.Logger
	store      *redisstore.Store
	mirror     *state.Mirror
	controller *controller.Controller
	links      *proxy.Links
	relay      *proxy.Relay
	server     *api.Server
	tokens     api.Tokens
	keepers    []keeper
	owners     *proxy.Owners
	projector  *proxy.Projector
	witness    *proxy.Witness
	emf        *emf.Printer   // nil: none
	traces     *traces.Tracer // nil: none
}

// lastTraces is how long the end may take to send the last traces.
const lastTraces = 3 * time.Second

// storeRetry is how often an unreachable store is tried at the start.
const storeRetry = time.Second

// openStore waits for the store: a service that starts before its Redis says so and goes on
// trying, instead of dying in a loop. Meanwhile it answers on the listener that it is alive.
func openStore(ctx context.Context, o redisstore.Options, l net.Listener, log *slog.Logger) (store *redisstore.Store, err error) {
	var room *waitingRoom
	defer func() {
		if room != nil {
			err = errors.Join(err, room.leave())
		}
	}()
	for {
		store, err := redisstore.Open(ctx, o)
		if err == nil {
			if room != nil {
				log.Info("store reached")
			}
			return store, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !errors.Is(err, state.ErrUnavailable) {
			return nil, err
		}
		if tcp, ok := l.(*net.TCPListener); ok && room == nil {
			log.Warn("store unreachable, waiting for it: check REDIS_ENDPOINT", "error", err)
			room = openWaitingRoom(tcp)
		}
		t := time.NewTimer(storeRetry)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// newService wires a replica. It waits for the store.
func newService(ctx context.Context, o options) (*service, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(o.version))
	if o.memory.source != "" {
		registry.MustRegister(o.memory.collector())
	}

	known, err := o.secrets.open(ctx, registry, o.log)
	if err != nil {
		return nil, err
	}
	client, err := ecs.NewClient(ctx, o.ecsClient)
	if err != nil {
		return nil, fmt.Errorf("making the ECS client: %w", err)
	}
	o.fleet.Client, o.fleet.Token, o.fleet.Log, o.fleet.Registerer = client, known.containers.Token, o.log, registry
	if err := o.fleet.Validate(); err != nil {
		return nil, err
	}
	fleet := ecs.New(o.fleet)

	var tracer *traces.Tracer
	if o.traces.Endpoint != "" {
		o.traces.Deployment, o.traces.Replica, o.traces.Version = o.redis.Deployment, o.replica, o.version
		if tracer, err = traces.New(ctx, o.traces); err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
		}
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.log.Warn("traces were not delivered, and are dropped", "error", err) }))
	}

	o.redis.Log, o.redis.Metrics = o.log, registry
	redis.SetLogger(redisLog{o.log}) // the library's own would write to stderr, past every format
	store, err := openStore(ctx, o.redis, o.listener, o.log)
	if err != nil {
		return nil, err
	}
	s := &service{o: o, log: o.log, store: store, tokens: known.tokens, keepers: known.keepers, traces: tracer}
	s.mirror = state.NewMirror(store, state.MirrorOptions{Relist: o.relist, Log: o.log})
	o.policy.Pool = o.pool
	dial := proxy.NewDialer(o.containerCIDRs)
	s.owners = newOwners(o, store, s.mirror, registry)
	s.controller = controller.New(controller.Config{
		ReplicaGone: s.owners.Gone,
		Refuses:     proxy.Refuses(dial),
		Replica:     o.replica, Store: store, Mirror: s.mirror, Fleet: fleet, Policy: o.policy,
		NewID:  func() string { return "cnt_" + rand.Text() },
		Relist: o.relist, TasksInterval: o.tasksEvery, ExposeTaskARN: o.exposeTaskARN, Log: o.log, Registerer: registry,
		Ended: tracer.Ended,
	})
	if o.containerTLS != nil {
		dial = proxy.NewTLSDialer(dial, o.containerTLS)
	}
	var trusted func(c *state.Container) (string, error)
	var shared api.SharedToken
	if known.shared != nil {
		shared = known.shared
		trusted = func(c *state.Container) (string, error) {
			addr, err := c.Claimed.Within(o.containerCIDRs)
			return addr.String(), err
		}
	}
	s.projector = proxy.NewProjector(proxy.ProjectorConfig{Store: store, Mirror: s.mirror, Log: o.log, Registerer: registry})
	s.links = proxy.NewLinks(proxy.LinksConfig{
		Project: s.projector.Project,
		Replica: o.replica, Store: store, Mirror: s.mirror, Fleet: fleet,
		Secret: known.containers.LinkSecret, PreviousSecrets: known.containers.PreviousLinkSecrets, Dial: dial, Trusted: trusted,
		Port:         o.fleet.ContainerPort,
		V1:           proxy.V1Config{Slots: store},
		FirstConnect: o.firstConnect, DisconnectGrace: o.disconnectGrace, LostGrace: o.lostGrace, Idle: o.idle,
		Log: o.log, Registerer: registry,
	})
	s.relay = proxy.NewRelay(proxy.RelayConfig{
		Store: store, Mirror: s.mirror, Secret: known.containers.LinkSecret, PreviousSecrets: known.containers.PreviousLinkSecrets,
		Dial: dial, Hold: o.hold, Links: s.links, Peers: newPeers(o, s.owners, known.containers, registry),
		PoolProtocol: fixedProtocol(state.Dialect(o.dialect)),
		MaxClients:   o.capacity.clients, MaxClientsPerUser: o.clientsPerUser, Keep: o.keep,
		Log: o.log, Registerer: registry, Ended: tracer.Connected,
	})
	s.witness = proxy.NewWitness(proxy.WitnessConfig{
		Replica: o.replica, Store: store, Mirror: s.mirror, Relay: s.relay, Log: o.log, Registerer: registry,
	})
	s.server, err = api.New(api.Config{
		Store: store, Mirror: s.mirror, Tokens: known.tokens, Keys: known.keys, ContainerKeys: known.containers,
		SharedToken: shared, ContainerNetworks: o.containerCIDRs,
		MaxFiles:  o.capacity.files,
		Operators: o.operators,
		Tickets:   known.containers, Dialect: state.Dialect(o.dialect), DefaultMaxSessions: o.pool.MaxSessions,
		Relay: relayDoor{s.relay}, Replica: o.replica, Version: o.version, PublicURL: o.publicURL,
		Log: o.log, Registerer: registry, Gatherer: registry, Created: tracer.Created,
		Tasks: func(ctx context.Context) (any, error) { return listTasks(ctx, fleet) },
		Plan: func(ctx context.Context, mayKnow func(user string) bool) (any, error) {
			return s.controller.ExplainTo(ctx, mayKnow)
		},
	})
	if err != nil {
		_ = store.Close()
		return nil, err
	}
	if o.emfOut != nil {
		s.emf = emf.New(emf.Config{
			Gatherer: registry, Out: o.emfOut, Deployment: o.redis.Deployment, Replica: o.replica, Every: o.emfEvery, Log: o.log,
		})
	}
	return s, nil
}

// run serves until ctx ends, then stops in order: not ready → load balancers notice → nothing
// is accepted → the lead and the links are given up, for other replicas to take → joined
// clients may go on to a limit → the store is closed.
func (s *service) run(ctx context.Context) error {
	defer func() { _ = s.store.Close() }()
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx while draining
	defer end()
	leading, resign := context.WithCancel(life)
	linking, unlink := context.WithCancel(life)
	serving, shut := context.WithCancel(life)
	defer func() { resign(); unlink(); shut() }()

	var group errgroup.Group
	start := func(name string, ctx context.Context, run func(context.Context) error) {
		group.Go(func() error {
			err := run(ctx)
			if ctx.Err() == nil {
				end()
				return fmt.Errorf("%s stopped: %w", name, err)
			}
			return nil
		})
	}
	for _, k := range s.keepers {
		start(k.name, life, k.run)
	}
	if s.emf != nil {
		start("metrics for CloudWatch", life, s.emf.Run)
	}
	start("mirror", life, s.mirror.Run)
	start("links", linking, s.links.Run)
	start("owners", linking, s.owners.Run)
	start("projector", linking, s.projector.Run)
	start("relay", life, s.relay.Run)
	start("witness", life, s.witness.Run)
	start("controller", leading, s.controller.Run)
	start("server", serving, func(ctx context.Context) error { return s.server.Serve(ctx, s.o.listener) })
	if l := s.o.secureListener; l != nil {
		start("TLS server", serving, func(ctx context.Context) error { return s.server.Serve(ctx, l) })
	}

	if l := s.o.registerOn; l != nil {
		start("registration server", serving, func(ctx context.Context) error { return s.server.ServeRegistration(ctx, l) })
	}

	select {
	case <-ctx.Done():
	case <-life.Done(): // a part has died
		return group.Wait()
	}
	s.log.Info("stopping", "clients", s.relay.Count(), "timeout", s.o.drainTimeout)
	s.server.SetDraining()
	s.owners.Retire()
	resign()
	wait(life, s.o.unreadyFor)
	shut()
	s.relay.Drain(life, s.o.drainTimeout)
	unlink() // the containers' agents then register with another replica
	end()
	err := group.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTraces)
	defer cancel()
	if lost := s.traces.Shutdown(last); lost != nil {
		s.log.Warn("the last traces were not delivered", "error", lost)
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// redisLog passes what the Redis library says of its connections to our log. Each call's
// error comes back to its caller besides.
type redisLog struct{ log *slog.Logger }

// Printf implements the library's logger.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis library", "says", fmt.Sprintf(format, v...))
}

// relayDoor lets clients that the API has let in through to the relay.
type relayDoor struct{ relay *proxy.Relay }

// ServeSession implements api.Relay.
func (d relayDoor) ServeSession(w http.ResponseWriter, r *http.Request, a api.SessionAccess, rest string) error {
	return d.relay.Serve(w, r, proxy.Access{
		SessionID: a.SessionID, UserID: a.UserID, Token: a.Token.Reveal(), PublicURL: a.Base, Watch: a.Watch, Gone: a.Gone, Tunnelled: a.Tunnelled,
	}, "/"+rest)
}

// Count implements api.Relay.
func (d relayDoor) Count() int { return d.relay.Count() }

// Connections implements api.Relay.
func (d relayDoor) Connections(session string) []state.Connection {
	return d.relay.Connections(session)
}

// taskView is a task as operators see it.
type taskView struct {
	ARN           string     `json:"arn"`
	ContainerID   string     `json:"containerId"`
	LastStatus    string     `json:"lastStatus"`
	DesiredStatus string     `json:"desiredStatus"`
	StopCode      string     `json:"stopCode,omitempty"`
	StoppedReason string     `json:"stoppedReason,omitempty"`
	Addr          string     `json:"addr,omitempty"`
	CreatedAt     time.Time  `json:"createdAt"`
	StartedAt     *time.Time `json:"startedAt,omitempty"`
}

func listTasks(ctx context.Context, fleet state.Fleet) ([]taskView, error) {
	tasks, err := fleet.List(ctx)
	if err != nil {
		return nil, &state.Refusal{Err: state.ErrUnavailable, Message: "ECS could not be listed: " + err.Error(),
			Hint: "check the cluster's name, the region and this service's permissions", RetryAfter: 5 * time.Second}
	}
	views := make([]taskView, 0, len(tasks))
	for _, t := range tasks {
		v := taskView{ARN: t.ARN, ContainerID: t.ContainerID, LastStatus: t.LastStatus, DesiredStatus: t.DesiredStatus,
			StopCode: t.StopCode, StoppedReason: t.StoppedReason, Addr: t.Addr, CreatedAt: t.CreatedAt}
		if !t.StartedAt.IsZero() {
			v.StartedAt = &t.StartedAt
		}
		views = append(views, v)
	}
	return views, nil
}

func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "wallcrawler_build_info", Help: "1, labelled with the version.",
		ConstLabels: prometheus.Labels{"version": version}})
	g.Set(1)
	return g
}

// replicaName is a name for this process that no other has.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil || !state.ValidID(host) || len(host) > 40 {
		host = "replica"
	}
	return host + "-" + rand.Text()[:8]
}

// tlsConfig is for Redis.
func tlsConfig(on bool) *tls.Config {
	if !on {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12}
}
