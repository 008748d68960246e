package state

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EventsKept is about how many events a store keeps; older ones are dropped.
const EventsKept = 10000

// Event is something that happened which a person may want to know of: a decision, or that
// something was refused, ignored or held back. It carries no secret and no part of a session's payload.
type Event struct {
	ID      string      // in the order of events; set by the store
	At      time.Time   // the store's clock; set by Note
	Kind    Kind        // of the object
	Object  string      // its id; empty for the one pool
	Reason  EventReason // one word
	Message string      // for a person
	User    string      // whose session or document the object is; empty: nobody's, or unknown
}

// VisibleTo tells whether a user may know of the event: what befalls the fleet is everybody's,
// what befalls a session is its own user's.
func (e Event) VisibleTo(user string) bool {
	switch e.Kind {
	case KindSession, KindDocument:
		return e.User != "" && e.User == user
	default:
		return true
	}
}

// EventNumbers takes an event's id apart, which is one number, or two with a dash between. Later
// events have higher ones. ErrInvalid if it is no event's.
func EventNumbers(id string) (major, minor uint64, err error) {
	first, second, two := strings.Cut(id, "-")
	major, err = strconv.ParseUint(first, 10, 64)
	if err == nil && two {
		minor, err = strconv.ParseUint(second, 10, 64)
	}
	if err != nil {
		return 0, 0, &Refusal{Err: ErrInvalid, Message: fmt.Sprintf("%q is no event's id", clipID(id)),
			Hint: "give the id of an event that was read, or 0 for the oldest"}
	}
	return major, minor, nil
}

// clipID bounds what is quoted of an id.
func clipID(id string) string {
	const most = 40
	if len(id) > most {
		return id[:most] + "…"
	}
	return id
}

// EventReason says in one word what happened: a closed set.
type EventReason string

// The reasons of events.
const (
	EventRefused     EventReason = "refused"     // bad input was not obeyed; what was good before stays
	EventObeyed      EventReason = "obeyed"      // an operator's wish is in force
	EventIgnored     EventReason = "ignored"     // an edit came too late to matter
	EventQuarantined EventReason = "quarantined" // a record makes no sense and is left alone

	EventLeading      EventReason = "leading"       // a replica has begun to lead
	EventHeld         EventReason = "held"          // something that would be done is held back
	EventResumed      EventReason = "resumed"       // it is held back no more
	EventWhole        EventReason = "whole"         // the store lacks nothing any more
	EventLaunched     EventReason = "launched"      // a container is to be started
	EventRegistered   EventReason = "registered"    // it has come
	EventLaunchFailed EventReason = "launch_failed" // it has not
	EventDraining     EventReason = "draining"      // a container gets no new sessions
	EventUndrained    EventReason = "undrained"     // it gets some again
	EventStopping     EventReason = "stopping"      // a container is empty and will be stopped
	EventHung         EventReason = "hung"          // a container answers nobody: its sessions are lost, it will be stopped
	EventStopped      EventReason = "stopped"       // a task was told to stop
	EventGone         EventReason = "gone"          // a container is no more
	EventUnbound      EventReason = "unbound"       // a session was taken back from its container
	EventEnded        EventReason = "ended"         // a session ended, and not by its requester's wish
	EventRestored     EventReason = "restored"      // a lost document was written again
)

// EventReasons lists every reason.
func EventReasons() []EventReason {
	return []EventReason{EventRefused, EventObeyed, EventIgnored, EventQuarantined, EventLeading, EventHeld, EventResumed,
		EventWhole, EventLaunched, EventRegistered, EventLaunchFailed, EventDraining, EventUndrained, EventStopping,
		EventHung, EventStopped, EventGone, EventUnbound, EventEnded, EventRestored}
}

// maxEventText bounds what one event may say.
const maxEventText = 500

// Clipped is the event with its texts cut to what a store keeps.
func (e Event) Clipped() Event {
	e.Object, e.Message, e.User = clipText(e.Object), clipText(e.Message), clipText(e.User)
	return e
}

func clipText(text string) string {
	if len(text) <= maxEventText {
		return text
	}
	return text[:maxEventText]
}

// Events keeps the latest events, for people.
type Events interface {
	// Note records an event at the store's time. The oldest make room.
	Note(ctx context.Context, e Event) error
	// Tail gives the latest n events, the oldest of them first.
	Tail(ctx context.Context, n int) ([]Event, error)
	// EventsAfter gives the first n events after the one of that id, the oldest of them first.
	// ErrInvalid if it is no event's.
	EventsAfter(ctx context.Context, id string, n int) ([]Event, error)
}

// State tells whether an event of this reason tells of something that lasts, which the next
// leader finds again, and not of something that was done.
func (r EventReason) State() bool {
	switch r {
	case EventRefused, EventIgnored, EventQuarantined, EventHeld:
		return true
	default:
		return false
	}
}
