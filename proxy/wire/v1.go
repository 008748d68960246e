package wire

import "encoding/json"

// ProtocolV1 is the version of containers that name none when they register: the original's.
// It has no numbers, no acknowledgements and no reports; see the V1 types.
const ProtocolV1 = 1

// LinkPathV1 is the path of the link's upgrade on a v1 container.
const LinkPathV1 = "/internal/ws"

// The types of messages that only v1 knows. It shares CREATE_SESSION, DESTROY_SESSION,
// SESSION_READY and SESSION_ERROR with its successor.
const (
	// To the container. The last three come from clients, flat.
	ClientMessage   = "CLIENT_MESSAGE"
	StartScreencast = "START_SCREENCAST"
	StopScreencast  = "STOP_SCREENCAST"
	SendInput       = "SEND_INPUT"

	// From the container.
	SessionTimeout    = "SESSION_TIMEOUT" // it has ended a session that was sent no CLIENT_MESSAGE for long
	CDPResponse       = "CDP_RESPONSE"
	HealthUpdate      = "HEALTH_UPDATE"
	ScreencastStarted = "SCREENCAST_STARTED"
	ScreencastFrame   = "SCREENCAST_FRAME"
	ScreencastStopped = "SCREENCAST_STOPPED"
	ScreencastError   = "SCREENCAST_ERROR"

	// To a v1 client: its session has a browser.
	ClientReady = "session_ready"
)

// OrderV1 is a message to a v1 container that is no client's.
type OrderV1 struct {
	Type      string          `json:"type"`
	SessionID string          `json:"sessionId"`
	UserID    string          `json:"userId,omitempty"`  // CREATE_SESSION
	Options   json.RawMessage `json:"options,omitempty"` // CREATE_SESSION: an object
}

// NoticeV1 is a message to a v1 client, or a v1 container's about a session.
type NoticeV1 struct {
	Type      string `json:"type"`
	SessionID string `json:"sessionId,omitempty"`
	Error     string `json:"error,omitempty"` // SESSION_ERROR

	CPUUsage    float64 `json:"cpuUsage,omitempty"`    // HEALTH_UPDATE: seconds of CPU since its start
	MemoryUsage float64 `json:"memoryUsage,omitempty"` // HEALTH_UPDATE: 0–1
}

// HealthV1 is a v1 container's answer to GET /health.
type HealthV1 struct {
	Status      string `json:"status"`
	Sessions    int    `json:"sessions"`
	MaxSessions int    `json:"maxSessions"`
	ContainerID string `json:"containerId"`
}
