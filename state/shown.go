package state

import (
	"context"
	"time"
)

// HealthShown is how long a container's health stays for others to read.
const HealthShown = time.Minute

// TimeFormat is how times stand in what others read: ISO 8601 in UTC, to the millisecond.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// FormatTime writes a time as others read it.
func FormatTime(t time.Time) string { return t.UTC().Format(TimeFormat) }

// Shown is what others may read of our half. Nothing of ours is ever decided from it.
type Shown interface {
	// AnnotateDocument is EditDocument for what nobody waits for: the TTL stays, and no hint
	// is left.
	AnnotateDocument(ctx context.Context, id string, edit func(text []byte) ([]byte, error)) error
	// ShowHealth writes container:{id}:health, for HealthShown.
	ShowHealth(ctx context.Context, h ContainerHealth) error
	// ShowPool writes pool:state.
	ShowPool(ctx context.Context, p PoolState) error
}

// ContainerHealth is the value of container:{id}:health.
type ContainerHealth struct {
	Status      string  `json:"status"` // healthy, or draining
	ContainerID string  `json:"containerId"`
	Sessions    int     `json:"sessions"`
	MaxSessions int     `json:"maxSessions"`
	CPU         float64 `json:"cpu"`    // 0–1
	Memory      float64 `json:"memory"` // 0–1
	Uptime      int64   `json:"uptime"` // seconds since it registered
}

// The statuses in a ContainerHealth.
const (
	HealthHealthy  = "healthy"
	HealthDraining = "draining"
)

// PoolState is the value of pool:state. The first three fields are what others know.
type PoolState struct {
	TotalContainers int   `json:"totalContainers"` // registered and not gone
	TotalSessions   int   `json:"totalSessions"`   // that hold a slot
	Timestamp       int64 `json:"timestamp"`       // ms

	ReadyContainers    int  `json:"readyContainers"`
	DrainingContainers int  `json:"drainingContainers"`
	PendingSessions    int  `json:"pendingSessions"` // that wait for a slot
	FreeSlots          int  `json:"freeSlots"`
	Min                int  `json:"min"` // in force, as are the following
	Max                int  `json:"max"`
	Warm               int  `json:"warm"`
	Paused             bool `json:"paused"`
}
