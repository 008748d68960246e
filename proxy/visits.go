package proxy

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
)

// visit is a client joined to a browser.
type visit struct {
	// set once in join
	session   string
	user      string
	container string // whose bytes the client gets; empty: another replica's
	tunnel    *tunnel.Tunnel
	farewell  tunnel.CloseFrame // what the client is told when the drain is past its limit

	lost atomic.Pointer[state.Reason] // it was closed because its session was lost

	heard uint64 // bytes to the client when that was last looked at; guarded by the relay's mu
}

// maxPastVisits is how many ended connections are remembered, for people who ask why.
const maxPastVisits = 4096

// pastVisit is a connection that has ended.
type pastVisit struct {
	session    string
	connection state.Connection
}

// Run looks after the clients until ctx ends, which must outlast Drain. Without it clients are
// served, but neither pinged nor closed when they stall, and a reset may go unnoticed.
func (r *Relay) Run(ctx context.Context) error { return r.keeper.Run(ctx) }

// reserve counts a client that is about to be joined, unless there are too many already or
// the drain has begun. Whoever reserves tracks or leaves.
func (r *Relay) reserve(user string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.drain:
		return refuseDraining()
	case r.cfg.MaxClients > 0 && r.countLocked() >= r.cfg.MaxClients:
		return refuseFull("this replica serves as many clients as it can", "connect again: another replica may have room")
	case r.cfg.MaxClientsPerUser > 0 && user != "" && r.users[user] >= r.cfg.MaxClientsPerUser:
		return refuseFull("this user has as many clients connected as one may have", "close one of them first")
	}
	r.joining++
	if r.cfg.MaxClientsPerUser > 0 {
		r.users[user]++
	}
	return nil
}

func refuseFull(message, hint string) error {
	return &state.Refusal{Err: state.ErrFull, Message: message, Hint: hint, RetryAfter: 5 * time.Second}
}

// unseatLocked frees a user's place.
func (r *Relay) unseatLocked(user string) {
	if r.cfg.MaxClientsPerUser <= 0 {
		return
	}
	if r.users[user]--; r.users[user] <= 0 {
		delete(r.users, user)
	}
}

// track turns a reservation into a visit. One whose drain is past its limit by now is told.
func (r *Relay) track(v *visit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joining--
	r.live[v] = struct{}{}
	if r.cut {
		v.tunnel.Close(v.farewell.Code, v.farewell.Reason)
	}
}

// leave gives a reservation back.
func (r *Relay) leave(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joining--
	r.unseatLocked(user)
	r.emptied()
}

// ended takes note of how a visit has ended.
func (r *Relay) ended(v *visit, result tunnel.Result) {
	c := connectionOf(result.Stats)
	c.Closed = time.Now()
	c.ClosedBy, c.Code, c.Reason = v.cause(result)
	r.metrics.closed.WithLabelValues(c.ClosedBy).Inc()
	r.metrics.codes.WithLabelValues(codeClass(c.Code)).Inc()
	r.metrics.lasted.Observe(c.Closed.Sub(c.Opened).Seconds())
	r.log.Info("client disconnected", "session", v.session, "by", c.ClosedBy, "code", c.Code,
		"took", c.Closed.Sub(c.Opened), "toBrowser", c.BytesToBrowser, "toClient", c.BytesToClient, "error", errorText(result.Err))
	if r.cfg.Ended != nil {
		r.cfg.Ended(v.session, c)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, v)
	r.listenLocked(v, result.ToClient.Bytes, c.Closed)
	r.past[0] = sum(r.past[0], result.ToBackend)
	r.past[1] = sum(r.past[1], result.ToClient)
	if len(r.visits) < maxPastVisits {
		r.visits = append(r.visits, pastVisit{})
	}
	r.visits[r.nextVisit%maxPastVisits] = pastVisit{v.session, c}
	r.nextVisit++
	r.unseatLocked(v.user)
	r.emptied()
}

// cause tells who ended a connection, and with which close frame.
func (v *visit) cause(result tunnel.Result) (by string, code int, reason string) {
	frame := result.FromClient
	switch result.First {
	case tunnel.Client:
		by = closedByClient
	case tunnel.Backend:
		by, frame = closedByBackend, result.FromBackend
	case tunnel.Neither:
		if result.Stalled {
			return closedByStall, stalledCode, ""
		}
		if result.Err != nil {
			return closedByFault, 0, ""
		}
		if lost := v.lost.Load(); lost != nil {
			return closedByBackend, lost.CloseCode(), string(*lost)
		}
		return closedByDrain, drainCode, ""
	}
	if frame == nil {
		return by, 0, ""
	}
	return by, frame.Code, frame.Reason
}

func connectionOf(s tunnel.Stats) state.Connection {
	return state.Connection{
		Opened: s.Opened, LastActivity: s.LastActivity,
		BytesToBrowser: s.ToBackend.Bytes, MessagesToBrowser: s.ToBackend.Messages,
		BytesToClient: s.ToClient.Bytes, MessagesToClient: s.ToClient.Messages,
	}
}

// Connections tells of a session's clients at this replica, the latest first: those that are
// there, and the last of those that were. Clients of v1 containers are not among them.
func (r *Relay) Connections(session string) []state.Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []state.Connection
	for v := range r.live {
		if v.session == session {
			all = append(all, connectionOf(v.tunnel.Stats()))
		}
	}
	for _, p := range r.visits {
		if p.session == session {
			all = append(all, p.connection)
		}
	}
	slices.SortFunc(all, func(a, b state.Connection) int { return b.Opened.Compare(a.Opened) })
	return all[:min(len(all), maxShown)]
}

// maxShown is how many connections of one session are told.
const maxShown = 20

// codeClass is a close code as a metric's label: a closed set.
func codeClass(code int) string {
	switch {
	case code == 0:
		return "none"
	case slices.Contains(knownCodes(), code):
		return codeText(code)
	case code >= 4000 && code < 5000:
		return "4xxx"
	default:
		return "other"
	}
}
