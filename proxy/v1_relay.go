package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// Peers lets clients through to other replicas.
type Peers interface {
	// Tunnel has the replica that is named serve the request, an upgrade for a v1 session whose
	// container's link it has. It returns once the client is joined, or later. An error, of
	// whatever kind, says that nothing was written to w. A client that vanished without a close
	// frame must look the same to the other replica: its grace is the longer one.
	Tunnel(w http.ResponseWriter, r *http.Request, owner string, access Access) error
}

// How long is waited for a link that is not there, at first and at most.
const (
	v1RetryFirst = 20 * time.Millisecond
	v1RetryMost  = time.Second
)

// speaksV1 tells whether a session is for a v1 container. If nobody can know yet, since the
// pool is empty and may become either, it waits for the session's container like any client.
func (r *Relay) speaksV1(ctx context.Context, access Access) (bool, error) {
	id := access.SessionID
	if r.cfg.Links == nil {
		return false, nil
	}
	s, known := r.cfg.Mirror.Session(id)
	if known && s.Container != "" {
		if c, ok := r.cfg.Mirror.Container(s.Container); ok {
			return c.Protocol == wire.ProtocolV1, nil
		}
	}
	protocol := r.poolProtocol()
	if protocol == wire.Protocol {
		return false, nil
	}
	if !known {
		var err error
		if s, err = r.lookUp(ctx, id); err != nil {
			return false, err
		}
	}
	if s != nil {
		if err := refuseOver(s); err != nil {
			return false, err
		}
	}
	if s != nil && s.Container != "" {
		c, err := r.cfg.Store.Container(ctx, s.Container)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return false, err
		}
		if err == nil {
			return c.Protocol == wire.ProtocolV1, nil
		}
	}
	if protocol == wire.ProtocolV1 {
		return true, nil
	}
	return r.awaitDialect(ctx, access, s)
}

// awaitDialect holds a request until its session is bound or the pool's dialect is known.
func (r *Relay) awaitDialect(ctx context.Context, access Access, s *state.Session) (bool, error) {
	id := access.SessionID
	if r.isDraining() {
		return false, refuseDraining()
	}
	ctx, cancel := r.untilDrain(ctx)
	defer cancel()
	hold, done := r.hold(ctx, access)
	defer done()
	latest, err := r.cfg.Mirror.Await(hold, id, func(s *state.Session) bool {
		return s != nil && s.Phase != state.Pending
	})
	switch {
	case r.isDraining():
		return false, refuseDraining()
	case err != nil && latest == nil:
		return false, r.refuseWaiting(s, id)
	case err != nil:
		return false, r.refuseWaiting(latest, id)
	}
	c, ok := r.cfg.Mirror.Container(latest.Container)
	return ok && c.Protocol == wire.ProtocolV1, nil
}

// poolProtocol is what the pool speaks; zero: not known.
func (r *Relay) poolProtocol() int {
	if r.cfg.PoolProtocol != nil {
		if protocol := r.cfg.PoolProtocol(); protocol != 0 {
			return protocol
		}
	}
	for _, c := range r.cfg.Mirror.Containers() {
		if c.Phase != state.Gone {
			return max(c.Protocol, wire.ProtocolV1)
		}
	}
	return 0
}

// serveV1 answers a request for a session of a v1 container.
func (r *Relay) serveV1(w http.ResponseWriter, req *http.Request, access Access, rest string) error {
	if rest != "/ws" && rest != "/ws/" {
		return &state.Refusal{
			Err:     state.ErrNotFound,
			Message: fmt.Sprintf("session %s runs in a v1 container, which has no DevTools endpoint", access.SessionID),
			Hint:    "open a WebSocket to " + wire.SessionsPath + access.SessionID + "/ws and send commands as {id, method, params}",
		}
	}
	if err := tunnel.CheckUpgrade(req); err != nil {
		return &state.Refusal{
			Err:     state.ErrInvalid,
			Message: "this is a WebSocket endpoint: " + err.Error(),
			Hint:    "open a WebSocket and send commands as {id, method, params}",
		}
	}
	if r.isDraining() {
		return refuseDraining()
	}
	s, known := r.cfg.Mirror.Session(access.SessionID)
	if !known {
		var err error
		if s, err = r.lookUp(req.Context(), access.SessionID); err != nil {
			return err
		}
	}
	if s != nil {
		if err := refuseOver(s); err != nil {
			return err
		}
		if owner := r.ownerElsewhere(s); owner != "" {
			return r.tunnelV1(w, req, owner, access)
		}
	}
	return r.joinV1(w, req, access)
}

// ownerElsewhere names the replica that has the link of the session's container; empty: this
// one has, or nobody yet.
func (r *Relay) ownerElsewhere(s *state.Session) string {
	c, ok := r.cfg.Mirror.Container(s.Container)
	if s.Container == "" || !ok || c.Owner == r.cfg.Links.cfg.Replica {
		return ""
	}
	return c.Owner
}

// tunnelV1 has another replica serve the request.
func (r *Relay) tunnelV1(w http.ResponseWriter, req *http.Request, owner string, access Access) error {
	notThere := &state.Refusal{
		Err:        state.ErrNotReady,
		Message:    fmt.Sprintf("session %s is served by another replica, which cannot be reached", access.SessionID),
		Hint:       "connect again",
		RetryAfter: time.Second,
	}
	if r.cfg.Peers == nil || access.Tunnelled {
		return notThere
	}
	err := r.cfg.Peers.Tunnel(w, req, owner, access)
	if err == nil {
		return nil
	}
	if refusal := (*state.Refusal)(nil); errors.As(err, &refusal) {
		return err
	}
	r.log.Warn("client not let through", "session", access.SessionID, "owner", owner, "error", err)
	return notThere
}

// joinV1 answers the upgrade and carries the client's messages until its end, from the moment
// on that its session has a browser.
func (r *Relay) joinV1(w http.ResponseWriter, req *http.Request, access Access) error {
	if err := r.reserve(access.UserID); err != nil {
		return err
	}
	up := websocket.Upgrader{
		ReadBufferSize: 1024, WriteBufferSize: 4096, WriteBufferPool: &r.writers,
		CheckOrigin: func(*http.Request) bool { return true }, // a token was shown
		Error:       func(http.ResponseWriter, *http.Request, int, error) {},
	}
	conn, err := up.Upgrade(w, req, nil)
	if err != nil {
		r.leave(access.UserID)
		if _, ok := errors.AsType[websocket.HandshakeError](err); ok {
			return &state.Refusal{Err: state.ErrInvalid, Message: "this is a WebSocket endpoint: " + err.Error()}
		}
		r.log.Debug("client gone before its upgrade", "session", access.SessionID, "error", err)
		return nil
	}
	c := newV1Client(conn, &r.scratch)
	r.host(c)
	seat := v1Seat{
		client: c, session: strings.Clone(access.SessionID), user: strings.Clone(access.UserID),
		placed: make(chan *v1Session, 1), cancel: func() {},
	}
	// A ready session takes the client at once; else somebody waits with it.
	if s := r.placeNow(access.SessionID, c); s != nil {
		c.settle(s)
		seat.placed <- s
	} else {
		var ctx context.Context
		ctx, seat.cancel = context.WithCancel(context.WithoutCancel(req.Context()))
		go func() { seat.placed <- r.placeV1(ctx, req, access, c) }()
	}
	// The request ends here, and with it all that the server keeps for one: quiet clients are
	// many. A drain waits for r.guests.
	go r.carryV1(seat)
	return nil
}

// v1Seat is a client that was let in, with what is needed until its end.
type v1Seat struct {
	client        *v1Client
	session, user string
	placed        chan *v1Session // gives, once, where the client is attached; nil: not here
	cancel        func()          // ends the search for a place
}

// carryV1 carries what the client says until its end.
func (r *Relay) carryV1(seat v1Seat) {
	c := seat.client
	clean, err := r.readV1(c)
	if clean && c.remote.Load() != nil {
		// The goodbye is the other replica's to answer.
		timer := time.NewTimer(clientFarewell)
		select {
		case s := <-seat.placed:
			seat.placed <- s
		case <-timer.C:
		}
		timer.Stop()
	}
	c.close()
	seat.cancel()
	if s := <-seat.placed; s != nil {
		s.detach(c, r.cfg.Links.graceAfter(clean && !c.wasEnded()))
	}
	r.unhost(c, seat.user, clean)
	if r.cfg.Ended != nil {
		by := closedByClient
		if c.wasEnded() {
			by = closedByBackend // or for its sake
		}
		r.cfg.Ended(seat.session, state.Connection{Opened: c.opened, Closed: time.Now(), ClosedBy: by})
	}
	r.log.Info("client disconnected", "session", seat.session, "clean", clean,
		"took", time.Since(c.opened), "error", errorText(err))
}

// readV1 reads a client to its end. A fault of ours in that costs this client only.
func (r *Relay) readV1(c *v1Client) (clean bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			clean, err = false, fmt.Errorf("reading the client panicked: %v", p)
			r.log.Error("reading a client panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	return c.read(r.cfg.Links.envMetrics)
}

// graceAfter is how long a session waits for a client to come back.
func (ls *Links) graceAfter(clean bool) time.Duration {
	if clean {
		return ls.cfg.DisconnectGrace
	}
	return ls.cfg.LostGrace
}

// host turns a reservation into a client. One that comes when the drain is past its limit is
// told.
func (r *Relay) host(c *v1Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joining--
	r.guests[c] = struct{}{}
	if r.cut {
		c.end(closeAway, reasonShutdown, false)
	}
}

func (r *Relay) unhost(c *v1Client, user string, clean bool) {
	by := closedByBackend
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.cut:
		by = closedByDrain
	case clean && !c.wasEnded():
		by = closedByClient
	}
	r.metrics.closed.WithLabelValues(by).Inc()
	delete(r.guests, c)
	r.unseatLocked(user)
	r.emptied()
}

// placeNow attaches the client if its session is ready here.
func (r *Relay) placeNow(id string, c *v1Client) *v1Session {
	s, ok := r.cfg.Mirror.Session(id)
	if !ok || s.Phase != state.Ready {
		return nil
	}
	e := r.cfg.Links.envelopesOf(s.Container)
	if e == nil {
		return nil
	}
	there := e.session([]byte(id))
	if there == nil || there.bindRev != s.BindRev || !there.attach(c) {
		return nil
	}
	return there
}

// placeV1 waits until the session is ready and attaches the client to it, here or at the
// replica that has its container's link. It returns where the client is attached here, and
// nil if it is not: then it has been told why, or is gone.
func (r *Relay) placeV1(ctx context.Context, req *http.Request, access Access, c *v1Client) *v1Session {
	pause := v1RetryFirst
	for ctx.Err() == nil && !c.ended() {
		s, err := r.awaitV1(ctx, access.SessionID, c)
		if err != nil {
			return nil
		}
		if s.Phase != state.Ready {
			r.dismiss(c, s)
			return nil
		}
		if there := r.placeNow(access.SessionID, c); there != nil {
			c.settle(there)
			return there
		}
		if owner := r.ownerElsewhere(s); owner != "" && r.cfg.Peers != nil && !access.Tunnelled {
			if r.moveV1(ctx, req, owner, access, c) {
				return nil
			}
		}
		if e := r.cfg.Links.envelopesOf(s.Container); e != nil {
			r.cfg.Links.poke(s.Container)
		}
		sleep(ctx, pause)
		pause = min(2*pause, v1RetryMost)
	}
	return nil
}

// awaitV1 waits until the session is neither pending nor bound, and keeps the client's
// connection in use meanwhile. With an error the client is gone or has been told why.
func (r *Relay) awaitV1(ctx context.Context, id string, c *v1Client) (*state.Session, error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, clientPing)
		s, err := r.cfg.Mirror.Await(bounded, id, func(s *state.Session) bool {
			return s != nil && s.Phase != state.Pending && s.Phase != state.Bound
		})
		cancel()
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		c.ping()
		if s != nil {
			continue
		}
		// The leader has not seen it for that long: its document may be gone, or no document.
		if _, err := r.lookUp(ctx, id); err != nil && errors.As(err, new(*state.Refusal)) {
			c.send(errorNotice(id, "there is no such session"), false)
			c.end(closeBroken, reasonLost, false)
			return nil, err
		}
	}
}

// dismiss tells a client that its session is over.
func (r *Relay) dismiss(c *v1Client, s *state.Session) {
	if s.Reason == state.Failed {
		why := s.Message
		if why == "" {
			why = "no browser could be had"
		}
		c.send(errorNotice(s.ID, why), false)
	}
	code, text := closingV1(s.Reason)
	c.end(code, text, false)
}
