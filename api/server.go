// Package api is the HTTP face of the service: containers register here, programs create
// and end sessions, clients knock to be let through to their browsers, load balancers and
// Prometheus look in.
//
// It decides who somebody is and what the answer looks like. It binds nothing, dials nobody
// and moves no bytes of a browser: that is for the controller and, behind Relay, the proxy.
package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// Store is what the API needs of the store.
type Store interface {
	Document(ctx context.Context, id string) (state.Document, error)
	CreateDocument(ctx context.Context, id string, text []byte, ttl time.Duration) error
	EditDocument(ctx context.Context, id string, ttl time.Duration, edit func(text []byte) ([]byte, error)) error
	Session(ctx context.Context, id string) (*state.Session, error)
	Register(ctx context.Context, r state.Registration) (*state.Container, error)
	Launch(ctx context.Context, id string) (*state.Launch, error)
	Container(ctx context.Context, id string) (*state.Container, error)
	Ping(ctx context.Context) error
	Tail(ctx context.Context, n int) ([]state.Event, error)
	EventsAfter(ctx context.Context, id string, n int) ([]state.Event, error)
}

// Mirror is what the API needs of the replica's copy of the control records.
type Mirror interface {
	Session(id string) (*state.Session, bool)
	Sessions() []*state.Session
	Container(id string) (*state.Container, bool)
	Containers() []*state.Container
	Await(ctx context.Context, id string, done func(*state.Session) bool) (*state.Session, error)
	ApplyContainer(c *state.Container)
	Age() time.Duration
	Trouble() string
	Now() time.Time
}

// Tokens mints and verifies session tokens.
type Tokens interface {
	auth.Verifier
	Mint(sessionID, userID string, expires time.Time) (string, error)
}

// Keys knows the API keys.
type Keys interface {
	User(key auth.Secret) (user string, known bool)
}

// ContainerKeys checks the tokens of containers and makes their link secrets.
type ContainerKeys interface {
	Verify(container, token string) error
	LinkSecret(container, bootID string) string
}

// Relay lets an authenticated client through to its browser.
type Relay interface {
	// ServeSession answers a request for a session. rest is the path below /sessions/{id}/,
	// without that slash, as it came: ws, json/version, json/version/, devtools/browser/….
	// An error means that nothing was answered yet; once the connection is taken over, or
	// anything is written, it returns nil. r holds no credential any more.
	ServeSession(w http.ResponseWriter, r *http.Request, a SessionAccess, rest string) error
	// Count is the number of clients joined to a browser now.
	Count() int
	// Connections tells of a session's clients at this replica, the latest first.
	Connections(session string) []state.Connection
}

// SessionAccess is who asks for which session, proven by a token.
type SessionAccess struct {
	SessionID string
	UserID    string
	Token     auth.Secret // as it came: discovery answers must hold it
	Base      *url.URL    // http(s) URL that this service has in the client's eyes, without a final slash
	// Watch derives a context that also ends when the client is gone, for who is about to wait;
	// its cancel must be called. nil: the request's context is one.
	Watch func(context.Context) (context.Context, context.CancelFunc)
	// Gone tells whether the client has left by now; nil: the request's context tells.
	Gone      func() bool
	Tunnelled bool // another replica has passed the client on; Token and Base are not known
}

// Config is what New wires together. Store, Mirror, Tokens, Keys, ContainerKeys and Relay
// must be set.
type Config struct {
	Store         Store
	Mirror        Mirror
	Tokens        Tokens
	Keys          Keys
	ContainerKeys ContainerKeys
	Relay         Relay
	// Tickets lets clients in that another replica passes on; nil: none.
	Tickets Tickets
	// Dialect says which containers the pool takes; empty: all.
	Dialect state.Dialect

	// Operators are the users who may know what befalls everybody's sessions.
	Operators []string

	Replica   string   // id of this process
	Version   string   // of this binary
	PublicURL *url.URL // what connect URLs begin with; nil: the host that the request names

	// DefaultMaxSessions is the number of slots of containers that do not say: v1's. Zero: 20.
	DefaultMaxSessions int

	// SharedToken and ContainerNetworks let containers in that we did not launch: by that
	// token, from an address in those networks. A nil SharedToken lets none in.
	SharedToken       SharedToken
	ContainerNetworks []netip.Prefix

	DefaultTimeout time.Duration // length of a session that names none; zero: an hour
	CreateWait     time.Duration // how long a creation waits for its browser; zero: a second
	MaxBody        int64         // bytes of a request's body; zero: 1 MiB
	BodyTimeout    time.Duration // how long a request's body may take to arrive; zero: 10 s
	MaxFiles       int           // open files that connections may take, those of joined clients included; zero: any number

	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: no metrics are registered

	// Created is told of each session that a request has created and waited for since began;
	// nil: nobody is.
	Created  func(session string, began time.Time, header http.Header)
	Gatherer prometheus.Gatherer // nil: /metrics is not offered

	// The operator's views, made elsewhere; nil: not offered.
	Tasks func(ctx context.Context) (any, error)
	// Plan is told for which users' sessions it may name them; nil: for all.
	Plan func(ctx context.Context, mayKnow func(user string) bool) (any, error)
}

// Limits of one replica.
const (
	maxCreateWait = 50 * time.Second // SDKs give up after 60 s and would create another
	maxViewAge    = 10 * time.Second // an older view of the store makes a replica unready
	storeTimeout  = 2 * time.Second  // of one request's dealings with the store
	shutdownGrace = 5 * time.Second  // for requests under way when the server stops

	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeader         = 16 << 10 // bytes
)

// Server answers HTTP. Its fields are set once in New.
type Server struct {
	store         Store
	mirror        Mirror
	tokens        Tokens
	keys          Keys
	containerKeys ContainerKeys
	relay         Relay

	tickets   Tickets
	dialect   state.Dialect
	operators map[string]bool

	replica, version  string
	publicURL         *url.URL
	sharedToken       SharedToken
	containerNetworks []netip.Prefix

	defaultMaxSessions int

	defaultTimeout time.Duration
	createWait     time.Duration
	maxBody        int64
	bodyTimeout    time.Duration
	tasks          func(ctx context.Context) (any, error)
	plan           func(ctx context.Context, mayKnow func(user string) bool) (any, error)
	created        func(session string, began time.Time, header http.Header)

	log      *slog.Logger
	metrics  *metrics
	handler  http.Handler
	door     http.Handler // of containers: they register, and nothing else is there
	started  time.Time
	page     dashboard
	draining atomic.Bool
	files    fileGuard
}

// New wires a server. It opens nothing and starts no goroutine.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Mirror == nil || cfg.Tokens == nil || cfg.Keys == nil || cfg.ContainerKeys == nil || cfg.Relay == nil {
		return nil, errors.New("api: Store, Mirror, Tokens, Keys, ContainerKeys and Relay must be set")
	}
	if cfg.SharedToken != nil && len(cfg.ContainerNetworks) == 0 {
		return nil, errors.New("api: SharedToken needs ContainerNetworks: nothing else tells where its containers may be")
	}
	if cfg.Replica == "" {
		return nil, errors.New("api: Replica must be set: registrations name it as the owner of their links")
	}
	s := &Server{
		store: cfg.Store, mirror: cfg.Mirror, tokens: cfg.Tokens, keys: cfg.Keys, containerKeys: cfg.ContainerKeys, relay: cfg.Relay,
		tickets: cfg.Tickets, dialect: cfg.Dialect,
		replica: cfg.Replica, version: cfg.Version, tasks: cfg.Tasks, plan: cfg.Plan, created: cfg.Created,
		defaultTimeout: cfg.DefaultTimeout, createWait: cfg.CreateWait, maxBody: cfg.MaxBody, bodyTimeout: cfg.BodyTimeout,
		log: cfg.Log, started: time.Now(), page: newDashboard(),
		sharedToken: cfg.SharedToken, containerNetworks: cfg.ContainerNetworks,
	}
	s.operators = make(map[string]bool, len(cfg.Operators))
	for _, user := range cfg.Operators {
		s.operators[user] = true
	}
	if s.defaultTimeout == 0 {
		s.defaultTimeout = state.DefaultTimeout
	}
	if s.defaultTimeout < minTimeout || s.defaultTimeout > maxTimeout {
		return nil, fmt.Errorf("api: DefaultTimeout is %v: it must be from %v to %v", s.defaultTimeout, minTimeout, maxTimeout)
	}
	s.defaultMaxSessions = cfg.DefaultMaxSessions
	if s.defaultMaxSessions == 0 {
		s.defaultMaxSessions = 20
	}
	if s.defaultMaxSessions < 1 || s.defaultMaxSessions > maxSlots {
		return nil, fmt.Errorf("api: DefaultMaxSessions is %d: it must be from 1 to %d", s.defaultMaxSessions, maxSlots)
	}
	if s.createWait == 0 {
		s.createWait = time.Second
	}
	if s.createWait < 0 || s.createWait > maxCreateWait {
		return nil, fmt.Errorf("api: CreateWait is %v: it must be at most %v", s.createWait, maxCreateWait)
	}
	if s.maxBody == 0 {
		s.maxBody = 1 << 20
	}
	if s.bodyTimeout == 0 {
		s.bodyTimeout = 10 * time.Second
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if u := cfg.PublicURL; u != nil {
		if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, errors.New("api: PublicURL must be http(s)://host[:port][/path] and nothing more")
		}
		base := *u
		base.Path, base.RawPath = strings.TrimRight(u.Path, "/"), ""
		s.publicURL = &base
	}
	m, err := newMetrics(cfg.Registerer, newFleetCollector(cfg.Mirror))
	if err != nil {
		return nil, fmt.Errorf("registering the API's metrics: %w", err)
	}
	s.metrics = m
	s.files.max, s.files.busy, s.files.shed = cfg.MaxFiles, cfg.Relay.Count, m.shed.Inc
	s.handler = takeCredentials(s.routes(cfg.Gatherer))
	s.door = takeCredentials(s.registrationRoutes())
	return s, nil
}

// newEcho is a router without routes, which observes requests and answers errors as we do.
func (s *Server) newEcho() *echo.Echo {
	e := echo.New()
	e.HideBanner = true
	e.Logger.SetOutput(io.Discard)
	e.HTTPErrorHandler = s.fail
	e.Use(s.observe)
	return e
}

// registrationRoutes are all that containers need of us.
func (s *Server) registrationRoutes() http.Handler {
	e := s.newEcho()
	e.POST(registerPath, s.register)
	return e
}

func (s *Server) routes(gatherer prometheus.Gatherer) http.Handler {
	e := s.newEcho()
	e.GET("/", s.showDashboard)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		e.Add(method, "/health", s.health)
		e.Add(method, "/started", s.health) // 503 before there is a server: the store was not reached yet
		e.Add(method, "/ready", s.ready)
	}
	if gatherer != nil {
		e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})))
	}

	e.POST(registerPath, s.register)
	e.GET("/internal/replicas/:id", s.presence)
	if s.tickets != nil {
		e.GET("/internal/sessions/:id/ws", s.serveTunnel)
	}

	e.POST("/v1/sessions", s.createSession, s.authenticated)
	e.GET("/v1/sessions", s.listSessions, s.authenticated)
	e.GET("/v1/sessions/:id", s.getSession, s.authenticated)
	e.POST("/v1/sessions/:id", s.updateSession, s.authenticated)
	e.DELETE("/v1/sessions/:id", s.deleteSession, s.authenticated)
	e.GET("/v1/containers", s.listContainers, s.authenticated)
	e.GET("/v1/tasks", s.show("tasks", s.tasks), s.authenticated)
	e.GET("/v1/events", s.listEvents, s.authenticated)
	e.GET("/v1/plan", s.showPlan, s.authenticated)
	for _, r := range notImplemented() {
		e.Add(r[0], r[1], s.refuseRoute, s.authenticated)
	}

	e.Any("/sessions/:id/*", s.connect)
	// Puppeteer's browserURL drops the path and asks at the root.
	e.GET("/json/version", s.discover)
	e.GET("/json/version/", s.discover)
	return e
}

// notImplemented lists what the SDKs may ask for and we do not offer: a clear word is better
// than a path that does not exist, which looks like a wrong base URL.
func notImplemented() [][2]string {
	return [][2]string{
		{http.MethodGet, "/v1/sessions/:id/debug"}, {http.MethodGet, "/v1/sessions/:id/logs"},
		{http.MethodGet, "/v1/sessions/:id/recording"}, {http.MethodGet, "/v1/sessions/:id/recording/downloads"},
		{http.MethodPost, "/v1/sessions/:id/recording/downloads"}, {http.MethodGet, "/v1/sessions/:id/replays"},
		{http.MethodGet, "/v1/sessions/:id/downloads"}, {http.MethodPost, "/v1/sessions/:id/uploads"},
		{http.MethodPost, "/v1/contexts"}, {http.MethodGet, "/v1/contexts"}, {http.MethodGet, "/v1/contexts/:id"},
		{http.MethodPut, "/v1/contexts/:id"}, {http.MethodDelete, "/v1/contexts/:id"},
		{http.MethodPost, "/v1/extensions"}, {http.MethodGet, "/v1/extensions/:id"}, {http.MethodDelete, "/v1/extensions/:id"},
		{http.MethodGet, "/v1/projects"}, {http.MethodGet, "/v1/projects/:id"}, {http.MethodGet, "/v1/projects/:id/usage"},
	}
}

func (s *Server) refuseRoute(c echo.Context) error {
	return &state.Refusal{Err: errNotImplemented, Message: c.Request().Method + " " + c.Path() + " is not offered here",
		Hint: "sessions are created, listed, read and released under /v1/sessions"}
}

// Handler is the whole API, for servers other than Serve's.
func (s *Server) Handler() http.Handler { return s.handler }

// SetDraining makes the replica refuse new work and say that it is not ready. There is no
// way back.
func (s *Server) SetDraining() { s.draining.Store(true) }

// refuseNewWork answers creations that would come to nothing: the replica is stopping, or
// nothing is bound because the store has lost data.
func (s *Server) refuseNewWork() error {
	if err := s.refuseDraining(); err != nil {
		return err
	}
	if trouble := s.mirror.Trouble(); trouble != "" {
		return &state.Refusal{Err: state.ErrUnavailable, Message: "no session is started: the " + trouble,
			Hint: "live sessions go on; try again in a few seconds", RetryAfter: 10 * time.Second}
	}
	return nil
}

// refuseDraining answers what this replica would not see the end of.
func (s *Server) refuseDraining() error {
	if !s.draining.Load() {
		return nil
	}
	return &state.Refusal{Err: state.ErrDraining, Message: "this replica is shutting down", Hint: "send the request again; another replica takes it"}
}

// Serve answers on ln until ctx ends, then stops accepting, gives the requests under way a
// few seconds, and returns nil. It closes ln. It may be called for several listeners. Connections that the relay has taken over go
// on: they are the relay's to end.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.handler)
}

// ServeRegistration does the same on a listener for containers: they can register there, and
// everything else that the API offers is not there. Serve takes registrations, too.
func (s *Server) ServeRegistration(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.door)
}

func (s *Server) serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	var protocols http.Protocols
	// HTTP/2 would bring a second way to upgrade; nobody needs it behind a load balancer.
	protocols.SetHTTP1(true)
	// Requests must not end with ctx: some of them are relays.
	base := context.WithoutCancel(ctx)
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         &protocols,
		ConnState:         s.files.see,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	if isPlain(ln) {
		return s.serveFront(ctx, newFront(ln, base, handler, s), server)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.shutdown(ctx, server)
	_ = <-served // it was shut down
	return nil
}

// isPlain tells whether connections of a listener are TCP's own. On others, TLS above all, the
// front would save little: net/http alone serves them.
func isPlain(ln net.Listener) bool {
	_, ok := ln.(*net.TCPListener)
	return ok
}

// serveFront is Serve with a front before the server.
func (s *Server) serveFront(ctx context.Context, f *front, server *http.Server) error {
	accepted, served := make(chan error, 1), make(chan error, 1)
	go func() { accepted <- f.run() }()
	go func() { served <- server.Serve(f) }()
	var failed error
	select {
	case failed = <-accepted:
		failed = fmt.Errorf("accepting on %s: %w", f.Addr(), failed)
		_ = server.Close()
	case failed = <-served:
		failed = fmt.Errorf("serving HTTP on %s: %w", f.Addr(), failed)
	case <-ctx.Done():
	}
	_ = f.listener.Close()
	if failed != nil {
		_ = f.Close()
		return failed
	}
	_ = <-accepted // its listener was closed
	// Who was accepted is served: what they ask for may be the server's.
	f.settle(shutdownGrace)
	s.shutdown(ctx, server)
	_ = <-served // it was shut down
	return nil
}

// shutdown gives a server's requests under way a few seconds.
func (s *Server) shutdown(ctx context.Context, server *http.Server) {
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		s.log.Warn("requests cut off", "timeout", shutdownGrace)
		_ = server.Close()
	}
}
