package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// DefaultHold is how long a request waits for its session to become ready: shorter than the
// 30 s after which clients and load balancers give up.
const DefaultHold = 25 * time.Second

const dialTimeout = 5 * time.Second

// RelayStore is what a Relay reads of the store when the mirror does not know.
type RelayStore interface {
	Session(ctx context.Context, id string) (*state.Session, error)
	Container(ctx context.Context, id string) (*state.Container, error)
	Document(ctx context.Context, id string) (state.Document, error)
}

// RelayMirror is what a Relay needs of the mirror.
type RelayMirror interface {
	Session(id string) (*state.Session, bool)
	Sessions() []*state.Session
	Container(id string) (*state.Container, bool)
	Containers() []*state.Container
	ApplySession(s *state.Session)
	Await(ctx context.Context, id string, done func(*state.Session) bool) (*state.Session, error)
}

// RelayConfig is what a Relay is made of.
type RelayConfig struct {
	Mirror RelayMirror
	Store  RelayStore
	// Secret gives the secret of links and session requests to one life of a container.
	Secret func(container, bootID string) string
	// PreviousSecrets gives those that it may still hold after the keys were changed; nil: none.
	PreviousSecrets func(container, bootID string) []string

	Dial tunnel.DialFunc // nil: net.Dialer
	Hold time.Duration   // zero: DefaultHold

	MaxClients        int                 // joined or about to be; zero: no limit
	MaxClientsPerUser int                 // zero: no limit
	Keep              tunnel.KeeperConfig // when clients are pinged, and when they are given up

	// Links carries the clients of v1 containers; nil: there are none.
	Links *Links
	// Peers lets v1 clients through to the replica that has their container's link; nil: they
	// are asked to try again.
	Peers Peers
	// PoolProtocol tells the protocol that containers of this pool speak; nil or zero: the
	// containers that are there tell.
	PoolProtocol func() int

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics

	// Ended is told of each client's connection that has ended; nil: nobody is.
	Ended func(session string, c state.Connection)
}

// Access is a request that the caller has authenticated.
type Access struct {
	SessionID string
	Token     string   // put into the URLs of discovery, for clients that cannot send headers
	PublicURL *url.URL // what those URLs begin with: http or https
	UserID    string
	// Watch derives a context that also ends when the client is gone, for waits; its cancel must
	// be called. nil: the request's context is one.
	Watch func(context.Context) (context.Context, context.CancelFunc)
	// Gone tells whether the client has left by now; nil: the request's context tells.
	Gone func() bool
	// Tunnelled says that another replica has passed the client on, taking this one for the
	// owner of its container's link. It is served here or refused, never passed on again.
	Tunnelled bool

	relay *Relay // that asks; set by Serve
}

// Relay joins clients to browsers.
type Relay struct {
	// set once in NewRelay
	cfg     RelayConfig
	log     *slog.Logger
	metrics *relayMetrics
	fetch   *http.Transport
	life    context.Context //nolint:containedctx // ends when the drain begins
	endLife context.CancelFunc
	scratch sync.Pool // *[]byte, for v1 clients' messages
	writers sync.Pool // for their sockets
	keeper  *tunnel.Keeper

	mu      sync.Mutex // guards the following
	live    map[*visit]struct{}
	joining int            // clients that have asked for an upgrade and are not joined yet
	users   map[string]int // clients of each, if there is a limit
	guests  map[*v1Client]struct{}
	visits  []pastVisit // a ring of those that have ended

	nextVisit int // in visits, counted on

	heardAt map[string]time.Time // by container: when something of it was last seen to have reached a client

	past  [2]tunnel.Flow // what ended tunnels have moved: to the browser, to the client
	drain bool           // no new clients
	cut   bool           // the drain is past its limit
	empty chan struct{}  // closed when no client is left; nil: nobody waits
}

// NewRelay returns a Relay.
func NewRelay(cfg RelayConfig) *Relay {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	defaultTo(&cfg.Hold, DefaultHold)
	r := &Relay{
		cfg:     cfg,
		log:     cfg.Log,
		metrics: newRelayMetrics(cfg.Registerer),
		fetch:   newTransport(cfg.Dial),
		live:    map[*visit]struct{}{},
		heardAt: map[string]time.Time{},
		users:   map[string]int{},
		keeper:  tunnel.NewKeeper(cfg.Keep),
		guests:  map[*v1Client]struct{}{},
	}
	r.scratch.New = func() any { return new([]byte) }
	r.life, r.endLife = context.WithCancel(context.Background())
	register(cfg.Registerer, newLiveCollector(r))
	return r
}

// Serve answers a request for a session: rest is the path after /sessions/{id}, with its
// slash. For a WebSocket of a v2 container it returns once the client is joined, for one of a
// v1 container when the connection has ended. An error, always a *state.Refusal, says that
// nothing was written yet.
func (r *Relay) Serve(w http.ResponseWriter, req *http.Request, access Access, rest string) error {
	access.relay = r
	err := r.serve(w, req, access, rest)
	if err == nil {
		return nil
	}
	var refusal *state.Refusal
	if !errors.As(err, &refusal) {
		if req.Context().Err() == nil {
			r.log.Warn("session not reached", "session", access.SessionID, "error", err)
		}
		refusal = &state.Refusal{
			Err:        state.ErrUnavailable,
			Message:    fmt.Sprintf("session %s cannot be reached at the moment", access.SessionID),
			Hint:       "try again shortly",
			RetryAfter: 2 * time.Second,
		}
	}
	if !errors.Is(refusal, context.Canceled) { // who has gone was refused nothing
		r.metrics.refused.WithLabelValues(refusalReason(refusal)).Inc()
	}
	return refusal
}

func (r *Relay) serve(w http.ResponseWriter, req *http.Request, access Access, rest string) error {
	if v1, err := r.speaksV1(req.Context(), access); err != nil {
		return err
	} else if v1 {
		return r.serveV1(w, req, access, rest)
	}
	switch trimmed := strings.TrimSuffix(rest, "/"); trimmed {
	case "/json/version", "/json/list", "/json":
		return r.serveDiscovery(w, req, access, trimmed)
	}
	path, err := backendPath(access.SessionID, rest)
	if err != nil {
		return err
	}
	if err := tunnel.CheckUpgrade(req); err != nil {
		return &state.Refusal{
			Err:     state.ErrInvalid,
			Message: "this is a WebSocket endpoint: " + err.Error(),
			Hint:    "connect with a CDP client, or ask " + wire.SessionsPath + access.SessionID + "/json/version",
		}
	}
	if err := r.reserve(access.UserID); err != nil {
		return err
	}
	var backend tunnel.Peer
	var container string
	err = r.reach(req.Context(), access, func(ctx context.Context, s *state.Session, c *state.Container) error {
		ctx = tunnel.Until(ctx, time.Now().Add(dialTimeout))
		return r.withSecrets(s, c, func(header http.Header) (err error) {
			backend, err = tunnel.Dial(ctx, r.cfg.Dial, c.Addr, path, header)
			container = c.ID
			return err
		})
	})
	if err != nil {
		r.leave(access.UserID)
		return err
	}
	if access.Gone != nil && access.Gone() {
		// It has left while its browser was reached. That is told by the end alone: a close frame
		// would count as a visit that is over.
		r.leave(access.UserID)
		_ = backend.Conn.Close()
		return &state.Refusal{Err: context.Canceled, Message: "the client has gone", Hint: "stay for the answer"}
	}
	r.join(w, req, access, container, backend, tunnel.Config{
		ClientGone:  tunnel.CloseFrame{Code: 1001, Reason: "client gone"},
		BackendGone: tunnel.CloseFrame{Code: state.ContainerLost.CloseCode(), Reason: string(state.ContainerLost)},
	}, tunnel.CloseFrame{Code: drainCode, Reason: drainReason})
	return nil
}

// backendPath is the container's path for a client's.
func backendPath(session, rest string) (string, error) {
	base := wire.SessionsPath + session + "/devtools/"
	switch {
	case !state.ValidID(session):
	case rest == "/ws", rest == "/ws/", rest == "/devtools/browser", strings.HasPrefix(rest, "/devtools/browser/"):
		// A session has one browser; what its id was when the client asked does not matter.
		return base + "browser", nil
	case strings.HasPrefix(rest, "/devtools/page/"):
		if target := strings.TrimPrefix(rest, "/devtools/page/"); state.ValidID(target) {
			return base + "page/" + target, nil
		}
	}
	return "", &state.Refusal{
		Err:     state.ErrNotFound,
		Message: fmt.Sprintf("session %s has no such endpoint", session),
		Hint:    "use /ws, /devtools/browser/…, /devtools/page/…, /json/version or /json/list",
	}
}

// credentials are what a container asks of requests to its sessions.
func credentials(s *state.Session, secret string) http.Header {
	return http.Header{
		"Authorization":    {"Bearer " + secret},
		wire.BindRevHeader: {fmt.Sprint(s.BindRev)},
	}
}

// join answers the upgrade of a client that has a reservation, and has bytes move until either
// end is gone; it does not wait for that, so that nothing of the request is kept meanwhile.
// container is the one whose browser it is; empty if another replica stands between.
// cfg says what either end is told when the other vanishes, farewell what the client is told
// when this replica stops.
func (r *Relay) join(
	w http.ResponseWriter, req *http.Request, access Access, container string, backend tunnel.Peer, cfg tunnel.Config,
	farewell tunnel.CloseFrame,
) {
	client, err := tunnel.Accept(w, req, nil)
	if err != nil {
		r.leave(access.UserID)
		_ = backend.Conn.Close()
		r.log.Debug("client gone before its upgrade", "session", access.SessionID, "error", err)
		return
	}
	cfg.Keeper, cfg.PlainClient = r.keeper, !tunnel.KnowsControl(req)
	v := &visit{session: access.SessionID, user: access.UserID, container: container, farewell: farewell, tunnel: tunnel.New(client, backend, cfg)}
	r.track(v)
	v.tunnel.Start(func(result tunnel.Result) { r.ended(v, result) })
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// emptied tells those who wait that no client is left, if so. r.mu is held.
func (r *Relay) emptied() {
	if r.countLocked() == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

func sum(a, b tunnel.Flow) tunnel.Flow {
	return tunnel.Flow{Bytes: a.Bytes + b.Bytes, Messages: a.Messages + b.Messages}
}

// countLocked counts clients, joined or about to be.
func (r *Relay) countLocked() int { return len(r.live) + len(r.guests) + r.joining }

// Count is the number of clients joined to a browser now.
func (r *Relay) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.live) + len(r.guests)
}

// totals counts connections now, and all that was ever moved.
func (r *Relay) totals() (n int, toBrowser, toClient tunnel.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	toBrowser, toClient = r.past[0], r.past[1]
	for v := range r.live {
		stats := v.tunnel.Stats()
		toBrowser, toClient = sum(toBrowser, stats.ToBackend), sum(toClient, stats.ToClient)
	}
	return len(r.live) + len(r.guests), toBrowser, toClient
}
