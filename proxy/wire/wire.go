// Package wire holds the messages of the link, the control socket between a replica and a
// container, and the body of registration. docs/container-protocol.md is its prose.
//
// It knows nothing of sockets, stores or browsers.
package wire

import "encoding/json"

// Protocol is the version that this package's messages speak.
const Protocol = 2

// Paths on the container's listener and on the service's.
const (
	RegisterPath = "/internal/register" // service
	LinkPath     = "/internal/link"     // container: the link's upgrade
	SessionsPath = "/sessions/"         // container: {id}/devtools/…, {id}/json/…
	HealthPath   = "/health"            // container
)

// Headers of a link's upgrade and of every request to a container's sessions.
const (
	TokenHeader    = "X-Container-Token" // registration: the container's token
	OwnerSeqHeader = "X-Owner-Seq"       // link: the owner's sequence; the container obeys the highest
	ReplicaHeader  = "X-Replica"         // link: the owner's name
	BindRevHeader  = "X-Bind-Rev"        // session requests: the binding that is meant
)

// Registration is the body of POST /internal/register. A v1 container sends the first four
// fields only.
type Registration struct {
	ContainerID string `json:"containerId"`
	IP          string `json:"ip"`
	Port        int    `json:"port"`
	TaskARN     string `json:"taskArn"`

	Protocol    int    `json:"protocol,omitempty"`
	BootID      string `json:"bootId,omitempty"`
	MaxSessions int    `json:"maxSessions,omitempty"`
	Version     string `json:"version,omitempty"`
}

// Registered is the answer to a registration.
type Registered struct {
	Status string `json:"status"` // "registered"
	// LinkSecret authorises links and session requests to this life of the container
	// (Authorization: Bearer). Empty for v1.
	LinkSecret string `json:"linkSecret,omitempty"`
	OwnerSeq   int64  `json:"ownerSeq,omitempty"`
}

// The types of messages.
const (
	// To the container.
	CreateSession  = "CREATE_SESSION"
	DestroySession = "DESTROY_SESSION"
	UpdateSession  = "UPDATE_SESSION"
	Drain          = "DRAIN"
	Undrain        = "UNDRAIN"

	// From the container.
	SessionReady = "SESSION_READY"
	SessionError = "SESSION_ERROR"
	SessionEnded = "SESSION_ENDED"
	ReportState  = "REPORT"
)

// Order is a message to the container.
type Order struct {
	Type string `json:"type"`
	// N numbers the orders of one link from 1. A report's Ack names the last one obeyed.
	N uint64 `json:"n"`

	SessionID string `json:"sessionId,omitempty"`
	BindRev   int64  `json:"bindRev,omitempty"`

	// CREATE_SESSION
	UserID  string          `json:"userId,omitempty"`
	Options json.RawMessage `json:"options,omitempty"` // the document's browserSettings
	Limits  *Limits         `json:"limits,omitempty"`  // also UPDATE_SESSION

	// DESTROY_SESSION: what its clients are told
	Reason    string `json:"reason,omitempty"`
	CloseCode int    `json:"closeCode,omitempty"`

	// DRAIN, UNDRAIN
	DrainSeq int64 `json:"drainSeq,omitempty"`
}

// Limits bound a session's life. All times are in milliseconds; zero means no such limit.
type Limits struct {
	KeepAlive       bool  `json:"keepAlive,omitempty"`
	Remaining       int64 `json:"remaining"`                 // until its deadline, from receipt
	FirstConnect    int64 `json:"firstConnect,omitempty"`    // from ready to the first client
	DisconnectGrace int64 `json:"disconnectGrace,omitempty"` // after a clean close
	LostGrace       int64 `json:"lostGrace,omitempty"`       // after a relay vanished
	Idle            int64 `json:"idle,omitempty"`            // without a byte, attached or not
}

// Notice is a message from the container.
type Notice struct {
	Type string `json:"type"`

	SessionID string `json:"sessionId,omitempty"`
	BindRev   int64  `json:"bindRev,omitempty"`

	// SESSION_READY
	Cold    bool  `json:"cold,omitempty"`    // the browser was started for this session
	StartMS int64 `json:"startMs,omitempty"` // from the order to ready

	// SESSION_ERROR: why it cannot be served. The container holds nothing of it. Final says
	// that no other container could serve it either: its wishes are at fault.
	Error string `json:"error,omitempty"`
	Final bool   `json:"final,omitempty"`

	// SESSION_ENDED: the container holds nothing of it any more. Answers every
	// DESTROY_SESSION, also for an unknown session.
	Reason  string `json:"reason,omitempty"` // a state.Reason
	Message string `json:"message,omitempty"`

	// REPORT
	Report *Report `json:"report,omitempty"`
}

// Report is the full state of a container, never a difference. It is sent when the link
// opens, every 5 s, and at once when an attachment, the drain or admission changes.
type Report struct {
	BootID   string          `json:"bootId"`
	Ack      uint64          `json:"ack"`      // the last order of this link obeyed
	DrainAck int64           `json:"drainAck"` // the last drain order acknowledged with zero sessions
	Draining bool            `json:"draining"` // admission is closed, by order or because it was told to stop
	CPU      float64         `json:"cpu"`      // 0–1
	Memory   float64         `json:"memory"`   // 0–1
	Warm     int             `json:"warm"`
	Sessions []SessionReport `json:"sessions"`
}

// SessionReport is one session in a report. Times are in milliseconds before the report.
type SessionReport struct {
	SessionID string `json:"sessionId"`
	BindRev   int64  `json:"bindRev"`
	Phase     string `json:"phase"` // starting, ready, ending
	Cold      bool   `json:"cold,omitempty"`
	Attached  int    `json:"attached"`
	Connected bool   `json:"connected"` // somebody has been, ever
	Idle      int64  `json:"idle"`      // since bytes last moved
	GraceLeft int64  `json:"graceLeft"` // until it ends for want of a client; -1: not running
}

// The phases in a SessionReport.
const (
	Starting = "starting"
	Serving  = "ready"
	Ending   = "ending"
)
