package state

import (
	"context"
	"time"
)

// EventsKept is about how many events a store keeps; older ones are dropped.
const EventsKept = 10000

// Event is something that happened which a person may want to know of: something was
// refused, ignored or set aside. It carries no secret and no part of a session's payload.
type Event struct {
	At      time.Time   // the store's clock; set by Note
	Kind    Kind        // of the object
	Object  string      // its id; empty for the one pool
	Reason  EventReason // one word
	Message string      // for a person
}

// EventReason says in one word what happened: a closed set.
type EventReason string

// The reasons of events.
const (
	EventRefused     EventReason = "refused"     // bad input was not obeyed; what was good before stays
	EventObeyed      EventReason = "obeyed"      // an operator's wish is in force
	EventIgnored     EventReason = "ignored"     // an edit came too late to matter
	EventQuarantined EventReason = "quarantined" // a record makes no sense and is left alone
)

// maxEventText bounds what one event may say.
const maxEventText = 500

// Clipped is the event with its texts cut to what a store keeps.
func (e Event) Clipped() Event {
	e.Object, e.Message = clipText(e.Object), clipText(e.Message)
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
}
