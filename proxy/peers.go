package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
)

// PeerSessionsPath begins the path at which a replica serves the clients that others pass on:
// PeerSessionsPath{id}/ws.
const PeerSessionsPath = "/internal/sessions/"

// What a client of the original dialect is told when a replica between it and its container
// stops or vanishes: its page is there, it may connect again.
const (
	peerGoneCode   = 1001
	peerGoneReason = "Proxy shutting down"
)

// TunnelsConfig is what Tunnels are made of.
type TunnelsConfig struct {
	// Addr tells where another replica is.
	Addr func(ctx context.Context, replica string) (addr string, known bool)
	// Ticket gives the credential with which that replica takes a client in.
	Ticket     func(replica string, access Access) (string, error)
	Dial       tunnel.DialFunc       // nil: net.Dialer
	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Tunnels passes clients on to the replica that holds the link of their session's container:
// one that speaks the original dialect has a single link, and all its clients share that.
type Tunnels struct {
	cfg    TunnelsConfig // set once in NewTunnels
	opened *prometheus.CounterVec
}

// How an attempt to pass a client on ends.
const (
	tunnelOpened  = "opened"
	tunnelRefused = "refused" // by the owner, in words meant for the client
	tunnelFailed  = "failed"
)

// NewTunnels returns Tunnels.
func NewTunnels(cfg TunnelsConfig) *Tunnels {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tunnels{
		cfg: cfg,
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_peer_tunnels_total",
			Help: "Clients passed on to the replica that holds their container's link, by result.",
		}, []string{"result"}),
	}
	for _, result := range []string{tunnelOpened, tunnelRefused, tunnelFailed} {
		t.opened.WithLabelValues(result)
	}
	register(cfg.Registerer, t.opened)
	return t
}

// Tunnel passes a client's upgrade, which tunnel.CheckUpgrade has found good, on to owner and
// has bytes move until either end is gone. What the owner says instead of 101 is passed through.
// An error says that nothing was written yet. access must come from a Relay's Serve, which
// counts and drains the client.
func (t *Tunnels) Tunnel(w http.ResponseWriter, r *http.Request, owner string, access Access) error {
	if access.Tunnelled {
		// Two replicas that each take the other for the owner must not play ball.
		t.opened.WithLabelValues(tunnelFailed).Inc()
		return refuseMoving(access.SessionID)
	}
	ctx, cancel := access.relay.untilDrain(r.Context())
	defer cancel()
	dialling, done := context.WithTimeout(ctx, dialTimeout)
	backend, err := t.dial(dialling, owner, access)
	done()
	var refused *tunnel.HandshakeError
	switch {
	case err == nil:
	case errors.As(err, &refused) && meantForClients(refused.Status):
		t.opened.WithLabelValues(tunnelRefused).Inc()
		passRefusal(w, refused)
		return nil
	case access.relay.isDraining():
		return refuseDraining()
	case ctx.Err() != nil:
		return ctx.Err() // the client is gone: nobody reads the answer
	default:
		t.opened.WithLabelValues(tunnelFailed).Inc()
		t.cfg.Log.Warn("client not passed on", "session", access.SessionID, "owner", owner, "error", err)
		return refuseMoving(access.SessionID)
	}
	if err := access.relay.reserve(access.UserID); err != nil {
		_ = backend.Conn.Close()
		return err
	}
	t.opened.WithLabelValues(tunnelOpened).Inc()
	gone := tunnel.CloseFrame{Code: peerGoneCode, Reason: peerGoneReason}
	access.relay.join(w, r, access, "", backend, tunnel.Config{
		// No frame at all: the owner must see that the client was lost, and did not leave.
		ClientGone:  tunnel.CloseFrame{},
		BackendGone: gone,
	}, gone)
	return nil
}

func (t *Tunnels) dial(ctx context.Context, owner string, access Access) (tunnel.Peer, error) {
	if !state.ValidID(access.SessionID) {
		return tunnel.Peer{}, errors.New("not a session's id")
	}
	addr, known := t.cfg.Addr(ctx, owner)
	if !known {
		return tunnel.Peer{}, fmt.Errorf("replica %s has announced no address", owner)
	}
	ticket, err := t.cfg.Ticket(owner, access)
	if err != nil {
		return tunnel.Peer{}, fmt.Errorf("making a ticket for replica %s: %w", owner, err)
	}
	return tunnel.Dial(ctx, t.cfg.Dial, addr, PeerSessionsPath+access.SessionID+"/ws",
		http.Header{"Authorization": {"Bearer " + ticket}})
}

// meantForClients tells whether a replica's refusal is about the session, and not about us.
func meantForClients(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusGone,
		http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	}
	return false
}

// passRefusal gives the client the owner's answer as it is.
func passRefusal(w http.ResponseWriter, refused *tunnel.HandshakeError) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("Connection", "close") // bytes that the client has sent early are no next request
	if refused.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(refused.RetryAfter.Seconds())))
	}
	w.WriteHeader(refused.Status)
	_, _ = w.Write(refused.Body) // a client that is gone needs no answer
}

// refuseMoving is the refusal of a session whose container is between two owners.
func refuseMoving(id string) error {
	return &state.Refusal{
		Err:        state.ErrNotReady,
		Message:    fmt.Sprintf("the replica that serves session %s cannot be reached", id),
		Hint:       "connect again: another replica takes its container over",
		RetryAfter: 2 * time.Second,
	}
}
