package api

import (
	"encoding/json"
	"net/url"
	"time"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// timeForm is how times leave: RFC 3339 in milliseconds, UTC.
const timeForm = "2006-01-02T15:04:05.000Z"

// The statuses of the Browserbase shape.
const (
	statusPending   = "PENDING"
	statusRunning   = "RUNNING"
	statusCompleted = "COMPLETED"
	statusTimedOut  = "TIMED_OUT"
	statusError     = "ERROR"
)

func statuses() []string {
	return []string{statusPending, statusRunning, statusCompleted, statusTimedOut, statusError}
}

// sessionJSON is a session in the Browserbase shape, with fields of ours after it.
type sessionJSON struct {
	ID           string          `json:"id"`
	Status       string          `json:"status"`
	ProjectID    string          `json:"projectId"`
	CreatedAt    string          `json:"createdAt"`
	UpdatedAt    string          `json:"updatedAt"`
	StartedAt    string          `json:"startedAt"`
	ExpiresAt    string          `json:"expiresAt"`
	EndedAt      string          `json:"endedAt,omitempty"`
	KeepAlive    bool            `json:"keepAlive"`
	ProxyBytes   int64           `json:"proxyBytes"`
	Region       string          `json:"region,omitempty"`
	UserMetadata json.RawMessage `json:"userMetadata,omitempty"`

	// Ours.
	UserID       string       `json:"userId"`
	Phase        state.Phase  `json:"phase"`
	EndReason    state.Reason `json:"endReason,omitempty"`
	EndMessage   string       `json:"endMessage,omitempty"`
	ContainerID  string       `json:"containerId,omitempty"`
	Attached     int          `json:"attached"`
	LastActivity string       `json:"lastActivity,omitempty"`
	Clients      []clientJSON `json:"clients,omitempty"` // of one session only, and only those of this replica

	*connection // only while there is, or may soon be, something to connect to
}

// connection is how a client gets in.
type connection struct {
	ConnectURL        string `json:"connectUrl"`
	Token             string `json:"token"`
	SeleniumRemoteURL string `json:"seleniumRemoteUrl"` // the shape wants it; there is no Selenium here
	SigningKey        string `json:"signingKey"`        // the shape wants it; nothing is signed with it
}

// documentJSON is a session document as the API writes it.
type documentJSON struct {
	SessionID       string          `json:"sessionId"`
	UserID          string          `json:"userId"`
	Status          string          `json:"status"`
	CreatedAt       string          `json:"createdAt"`
	Timeout         int64           `json:"timeout"` // milliseconds
	KeepAlive       bool            `json:"keepAlive"`
	Origin          state.Origin    `json:"origin"`
	ProjectID       string          `json:"projectId,omitempty"`
	Region          string          `json:"region,omitempty"`
	BrowserSettings *settings       `json:"browserSettings,omitempty"`
	UserMetadata    json.RawMessage `json:"userMetadata,omitempty"`
}

// view is all that is known of one session: its spec, and its status once it was admitted.
type view struct {
	id     string
	user   string
	spec   state.Spec
	region string
	status *state.Session // nil before admission
	asked  bool           // its document asks for the end
}

// viewOf makes a view of an admitted session. A spec that cannot be read leaves its fields empty.
func viewOf(s *state.Session) view {
	v := view{id: s.ID, user: s.UserID, status: s}
	v.readSpec(s.Spec)
	return v
}

// viewOfDocument makes a view of a document that was not admitted, or not yet.
func viewOfDocument(d state.Document) view {
	v := view{id: d.ID, user: d.Spec.UserID, asked: d.Spec.Final()}
	v.readSpec(d.Text)
	return v
}

func (v *view) readSpec(text []byte) {
	if spec, err := state.ParseSpec(v.id, text); err == nil {
		v.spec = spec
	}
	var more struct {
		Region string `json:"region"`
	}
	if json.Unmarshal(text, &more) == nil {
		v.region = more.Region
	}
}

// live tells whether connecting makes sense.
func (v *view) live() bool { return !v.asked && (v.status == nil || v.status.Live()) }

// state names the status of the Browserbase shape.
func (v *view) state() string {
	if v.status == nil {
		if v.asked {
			return statusCompleted
		}
		return statusPending
	}
	switch v.status.Phase {
	case state.Pending, state.Bound:
		return statusPending
	case state.Ready, state.Ending:
		return statusRunning
	case state.Ended:
		switch v.status.Reason {
		case state.Released, state.Disconnected:
			return statusCompleted
		case state.DeadlinePassed, state.Idle, state.NotConnected:
			return statusTimedOut
		case state.Failed, state.BrowserCrashed, state.ContainerLost, state.StoppedExternally, state.Revoked, state.Shutdown:
		}
	}
	return statusError
}

// created is when the session was wished for.
func (v *view) created() time.Time {
	if at, err := time.Parse(time.RFC3339, v.spec.CreatedAt); err == nil {
		return at
	}
	if v.status != nil {
		return v.status.SeenAt
	}
	return time.Time{}
}

// expires is when its time is up.
func (v *view) expires() time.Time {
	if v.status != nil && !v.status.Deadline.IsZero() {
		return v.status.Deadline
	}
	return v.created().Add(v.spec.Length())
}

// json gives the session without its connection.
func (v *view) json() *sessionJSON {
	out := &sessionJSON{
		ID: v.id, Status: v.state(), ProjectID: v.spec.ProjectID, KeepAlive: v.spec.KeepAlive, Region: v.region,
		UserMetadata: v.spec.UserMetadata, UserID: v.user, Phase: state.Pending,
		CreatedAt: stamp(v.created()), StartedAt: stamp(v.created()), ExpiresAt: stamp(v.expires()),
	}
	updated := v.created()
	if s := v.status; s != nil {
		out.Phase, out.KeepAlive, out.EndReason, out.EndMessage = s.Phase, s.KeepAlive, s.Reason, s.Message
		out.ContainerID, out.Attached = s.Container, s.Attached
		if !s.ReadyAt.IsZero() {
			out.StartedAt = stamp(s.ReadyAt)
		}
		out.EndedAt, out.LastActivity = stamp(s.EndedAt), stamp(s.LastActivity)
		for _, at := range []time.Time{s.SeenAt, s.BoundAt, s.ReadyAt, s.LastActivity, s.EndedAt} {
			if at.After(updated) {
				updated = at
			}
		}
	} else if v.asked {
		out.Phase, out.EndReason = state.Ended, state.Released
	}
	out.UpdatedAt = stamp(updated)
	return out
}

// connected gives the session with its connection, if it is live.
func (s *Server) connected(v view, base *url.URL) (*sessionJSON, error) {
	out := v.json()
	if !v.live() {
		return out, nil
	}
	token, err := s.tokens.Mint(v.id, v.user, v.expires())
	if err != nil {
		return nil, err
	}
	out.connection = &connection{ConnectURL: connectURL(base, v.id, auth.Secret(token)), Token: token}
	return out, nil
}

func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(timeForm)
}
