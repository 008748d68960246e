package state

import (
	"encoding/json"
	"slices"
	"time"
)

// Phase is where a session stands.
//
//	          bind            ready             end             confirmed
//	pending ───────▶ bound ─────────▶ ready ─────────▶ ending ──────────▶ ended
//	   ▲               │                │                                   ▲
//	   └───────────────┘                └───────────────────────────────────┘
//	    refused, failed, lost            browser crashed, container lost
//	    or late, before the first ready
//
// pending and bound may also end at once.
type Phase string

// The phases, in order.
const (
	Pending Phase = "pending" // wished for, no container yet
	Bound   Phase = "bound"   // holds a slot of a container, browser not ready
	Ready   Phase = "ready"   // has a browser
	Ending  Phase = "ending"  // told to stop; the slot is still held
	Ended   Phase = "ended"   // over; never reborn
)

// Phases lists every phase, for metrics and switches.
func Phases() []Phase { return []Phase{Pending, Bound, Ready, Ending, Ended} }

// Reason says why a session ended: one word, the same in the store, in JSON, in the close
// frame and in metrics.
type Reason string

// The closed set of reasons.
const (
	Released          Reason = "released"           // the requester ended it
	DeadlinePassed    Reason = "deadline"           // its time was up
	Idle              Reason = "idle"               // nothing moved for too long
	NotConnected      Reason = "not_connected"      // nobody came within the first-connect limit
	Disconnected      Reason = "disconnected"       // the last client left and did not come back
	Failed            Reason = "failed"             // no browser could be had
	BrowserCrashed    Reason = "browser_crashed"    // the browser exited by itself
	ContainerLost     Reason = "container_lost"     // its container went away
	StoppedExternally Reason = "stopped_externally" // somebody else stopped its task
	Revoked           Reason = "revoked"            // an operator took it away
	Shutdown          Reason = "shutdown"           // the whole service is stopping
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{Released, DeadlinePassed, Idle, NotConnected, Disconnected, Failed,
		BrowserCrashed, ContainerLost, StoppedExternally, Revoked, Shutdown}
}

// CloseCode is the WebSocket close code that tells a client of this end.
func (r Reason) CloseCode() int {
	switch r {
	case Revoked:
		return 1008
	case Failed, BrowserCrashed, ContainerLost, StoppedExternally:
		return 1011
	case Shutdown:
		return 1012
	default:
		return 1000
	}
}

// Origin says who wished for a session.
type Origin string

// The origins.
const (
	OriginAPI     Origin = "api"     // our own API: the first-connect limit applies
	OriginForeign Origin = "foreign" // a document written by somebody else
)

// Session is the status of one session: ours, kept apart from the requester's document so
// that a rewrite of that cannot erase it. Values handed out by a store or a Mirror are
// shared and must not be changed.
type Session struct {
	ID     string
	Spec   json.RawMessage // the document's text at admission, amended since
	Origin Origin
	UserID string

	Phase   Phase
	Reason  Reason // set from ending on
	Message string // detail for a person: what failed, what was missing

	Container string   // set from bound on
	BootID    string   // the life of that container which holds it
	BindRev   int64    // the revision of the binding; orders claims to one session
	Attempts  int      // bindings tried so far
	Excluded  []string // containers that failed it before
	Refused   string   // why the container it is bound to cannot serve it; empty unless it said so
	Cold      bool     // its browser was started for it, not taken warm

	KeepAlive      bool
	Attached       int // client sockets now, as last reported
	FirstConnectAt time.Time
	LastActivity   time.Time
	GraceUntil     time.Time     // the last client left; it ends then
	Waited         time.Duration // time pending under a held lease
	Deadline       time.Time

	SeenAt, BoundAt, ReadyAt, EndedAt time.Time

	Rev int64
}

// Live tells whether the session still wants or has a browser.
func (s *Session) Live() bool { return s.Phase == Pending || s.Phase == Bound || s.Phase == Ready }

// HoldsSlot tells whether the session counts against its container.
func (s *Session) HoldsSlot() bool {
	return s.Phase == Bound || s.Phase == Ready || s.Phase == Ending
}

// BoundTo tells whether the session is bound to that life of that container.
func (s *Session) BoundTo(container, bootID string) bool {
	return s.HoldsSlot() && s.Container == container && s.BootID == bootID
}

// Excludes tells whether the session must not be bound to that container again.
func (s *Session) Excludes(container string) bool { return slices.Contains(s.Excluded, container) }

// maxID bounds the ids that we accept from outside.
const maxID = 128

// ValidID tells whether id may name a session or a container: 1 to 128 of A–Z a–z 0–9 _ -.
// Nothing else ever becomes part of a key, a path or a metric.
func ValidID(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
