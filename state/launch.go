package state

import (
	"encoding/json"
	"time"
)

// Launch is the intent to start one task, stored before the call is made. Its id is the
// call's clientToken and the container's id, so that a repeated call is the same call.
type Launch struct {
	ID        string          `json:"id"`
	Input     json.RawMessage `json:"input"` // the whole input of the call, but for the container's token
	Port      int             `json:"port"`  // where the container will listen
	CreatedAt time.Time       `json:"createdAt"`
	TaskARN   string          `json:"taskArn,omitempty"`
	Outcome   Outcome         `json:"outcome,omitempty"`
	Message   string          `json:"message,omitempty"` // of a failure
	Tries     int             `json:"tries,omitempty"`

	Target     string    `json:"target,omitempty"` // what is started where: launches of one target tell of its next
	Cause      Cause     `json:"cause,omitempty"`  // of a failure
	AnsweredAt time.Time `json:"answeredAt,omitzero"`
	SettledAt  time.Time `json:"settledAt,omitzero"` // when its container registered, or that was given up

	Rev int64 `json:"-"`
}

// Cause is why a launch failed, in one word: it decides when to try again.
type Cause string

// The causes.
const (
	NoCapacity Cause = "no_capacity" // ECS had no room; another time it may
	Rejected   Cause = "rejected"    // ECS would not start it for another reason
	Died       Cause = "died"        // the task ended before its container registered
	Late       Cause = "late"        // the task ran, or was to; its container did not register in time
	Unanswered Cause = "unanswered"  // no call of it was ever answered
	Unverified Cause = "unverified"  // its container could not be verified or reached
)

// Causes lists every cause.
func Causes() []Cause { return []Cause{NoCapacity, Rejected, Died, Late, Unanswered, Unverified} }

// Outcome is how a launch went.
type Outcome string

// The outcomes. The zero value means that the call is still to be made or repeated.
const (
	Started    Outcome = "started"    // ECS gave a task
	Registered Outcome = "registered" // its container has registered
	Refused    Outcome = "refused"    // ECS answered with a failure: no task, try anew with another launch
	Expired    Outcome = "expired"    // its container did not register in time
)

// LaunchKept is how long a launch is remembered at least, from its creation. A younger one that
// the store lacks was lost: a task may run, or be started, for it.
const LaunchKept = 10 * time.Minute

// Open tells whether a container may still come of the launch.
func (l *Launch) Open() bool { return l.Outcome == "" || l.Outcome == Started }

// Task is an ECS task of this deployment, as ECS reports it.
type Task struct {
	ARN           string
	ContainerID   string // from its CONTAINER_ID override
	LastStatus    string // PROVISIONING … RUNNING … STOPPED
	DesiredStatus string
	StopCode      string // with STOPPED
	StoppedReason string // with STOPPED; free text
	Addr          string // private IPv4 address; empty until it has one
	Definition    string // task definition ARN
	CreatedAt     time.Time
	StartedAt     time.Time
	StoppedAt     time.Time
}

// Stopped tells whether the task is over.
func (t *Task) Stopped() bool { return t.LastStatus == "STOPPED" }

// StopCodeUser is the stop code of a StopTask call.
const StopCodeUser = "UserInitiated"

// Pool is a fleet of alike containers: how many, how large, how sessions are placed on them.
type Pool struct {
	Min         int  // containers kept even when idle
	Max         int  // containers at most
	WarmSlots   int  // free slots kept beyond demand
	MaxSessions int  // slots of each container
	Paused      bool // launch nothing

	Spread    bool // place on the emptiest container instead of the fullest
	Dedicated bool // a container serves one user only and is retired after its last session
}
