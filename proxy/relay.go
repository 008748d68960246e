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
}

// Access is a request that the caller has authenticated.
type Access struct {
	SessionID string
	Token     string   // put into the URLs of discovery, for clients that cannot send headers
	PublicURL *url.URL // what those URLs begin with: http or https
	UserID    string
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

	mu      sync.Mutex                           // guards the following
	live    map[*tunnel.Tunnel]tunnel.CloseFrame // what each client is told when the drain is past its limit
	joining int                                  // clients between their upgrade and their tunnel
	guests  map[*v1Client]struct{}
	past    [2]tunnel.Flow // what ended tunnels have moved: to the browser, to the client
	drain   bool           // no new clients
	cut     bool           // the drain is past its limit
	empty   chan struct{}  // closed when no client is left; nil: nobody waits
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
		live:    map[*tunnel.Tunnel]tunnel.CloseFrame{},
		guests:  map[*v1Client]struct{}{},
	}
	r.scratch.New = func() any { return new([]byte) }
	r.life, r.endLife = context.WithCancel(context.Background())
	register(cfg.Registerer, newLiveCollector(r))
	return r
}

// Serve answers a request for a session: rest is the path after /sessions/{id}, with its
// slash. For a WebSocket it returns when the connection has ended. An error, always a
// *state.Refusal, says that nothing was written yet.
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
	r.metrics.refused.WithLabelValues(refusalReason(refusal)).Inc()
	return refusal
}

func (r *Relay) serve(w http.ResponseWriter, req *http.Request, access Access, rest string) error {
	if v1, err := r.speaksV1(req.Context(), access.SessionID); err != nil {
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
	var backend tunnel.Peer
	err = r.reach(req.Context(), access.SessionID, func(ctx context.Context, s *state.Session, c *state.Container) error {
		return r.withSecrets(s, c, func(header http.Header) (err error) {
			backend, err = tunnel.Dial(ctx, r.cfg.Dial, c.Addr, path, header)
			return err
		})
	})
	if err != nil {
		return err
	}
	return r.join(w, req, access.SessionID, backend)
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

// join answers the client's upgrade and moves bytes until either end is gone.
func (r *Relay) join(w http.ResponseWriter, req *http.Request, session string, backend tunnel.Peer) error {
	return r.joinAs(w, req, session, backend, tunnel.Config{
		ClientGone:  tunnel.CloseFrame{Code: 1001, Reason: "client gone"},
		BackendGone: tunnel.CloseFrame{Code: state.ContainerLost.CloseCode(), Reason: string(state.ContainerLost)},
	}, tunnel.CloseFrame{Code: drainCode, Reason: drainReason})
}

// joinAs is join with what either end is told when the other vanishes, and what the client is
// told when this replica stops.
func (r *Relay) joinAs(
	w http.ResponseWriter, req *http.Request, session string, backend tunnel.Peer, cfg tunnel.Config, farewell tunnel.CloseFrame,
) error {
	if !r.reserve() {
		_ = backend.Conn.Close()
		return refuseDraining()
	}
	client, err := tunnel.Accept(w, req, nil)
	if err != nil {
		r.leave(nil)
		_ = backend.Conn.Close()
		r.log.Debug("client gone before its upgrade", "session", session, "error", err)
		return nil
	}
	t := tunnel.New(client, backend, cfg)
	r.track(t, farewell)
	defer r.leave(t)
	begun := time.Now()
	result := t.Run()
	by := closedByDrain
	switch result.First {
	case tunnel.Client:
		by = closedByClient
	case tunnel.Backend:
		by = closedByBackend
	case tunnel.Neither:
	}
	r.metrics.closed.WithLabelValues(by).Inc()
	r.log.Info("client disconnected", "session", session, "by", by, "after", time.Since(begun).String(),
		"toBrowser", result.ToBackend.Bytes, "toClient", result.ToClient.Bytes, "error", errorText(result.Err))
	return nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// reserve counts a client that is about to be joined, unless the drain has begun.
func (r *Relay) reserve() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drain {
		return false
	}
	r.joining++
	return true
}

// track turns a reservation into a tunnel. One whose drain is past its limit by now is told.
func (r *Relay) track(t *tunnel.Tunnel, farewell tunnel.CloseFrame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joining--
	r.live[t] = farewell
	if r.cut {
		t.Close(farewell.Code, farewell.Reason)
	}
}

// leave takes a tunnel out of the count, or, with nil, a reservation.
func (r *Relay) leave(t *tunnel.Tunnel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t == nil {
		r.joining--
	} else {
		stats := t.Stats()
		delete(r.live, t)
		r.past[0] = sum(r.past[0], stats.ToBackend)
		r.past[1] = sum(r.past[1], stats.ToClient)
	}
	r.emptied()
}

// emptied tells those who wait that no client is left, if so. r.mu is held.
func (r *Relay) emptied() {
	if len(r.live)+len(r.guests)+r.joining == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

func sum(a, b tunnel.Flow) tunnel.Flow {
	return tunnel.Flow{Bytes: a.Bytes + b.Bytes, Messages: a.Messages + b.Messages}
}

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
	for t := range r.live {
		stats := t.Stats()
		toBrowser, toClient = sum(toBrowser, stats.ToBackend), sum(toClient, stats.ToClient)
	}
	return len(r.live) + len(r.guests), toBrowser, toClient
}
