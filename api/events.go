package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

// Limits of one answer.
const (
	defaultEvents = 100
	maxEvents     = 1000
)

// eventsRead is the header of an answer that names the last event which was looked at for it,
// whether or not the asking user may know of it: given as after, it spares the next question all those.
const eventsRead = "Events-Read"

// eventJSON is an event as operators see it.
type eventJSON struct {
	ID      string            `json:"id"` // give it as after to read on
	At      string            `json:"at"`
	Kind    state.Kind        `json:"kind"`
	Object  string            `json:"object,omitempty"`
	Reason  state.EventReason `json:"reason"`
	Message string            `json:"message"`
}

// listEvents answers with the latest events, the oldest of them first; with ?after=ID with
// those that came after that one; with ?object=ID with those of that object alone. What befell
// sessions is told to their own users, as sessions are listed, and to operators.
func (s *Server) listEvents(c echo.Context) error {
	limit := defaultEvents
	if text := c.QueryParam("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxEvents {
			return &state.Refusal{Err: state.ErrInvalid, Message: "limit is not a number from 1 to " + strconv.Itoa(maxEvents),
				Hint: "leave it out for " + strconv.Itoa(defaultEvents)}
		}
		limit = n
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), storeTimeout)
	defer cancel()
	events, read, err := s.events(ctx, c.QueryParam("after"), limit, s.eventFilter(userOf(c), c.QueryParam("object")))
	if err != nil {
		return err
	}
	out := make([]eventJSON, 0, len(events))
	for _, e := range events {
		out = append(out, eventJSON{ID: e.ID, At: stamp(e.At), Kind: e.Kind, Object: e.Object, Reason: e.Reason, Message: e.Message})
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	if read != "" {
		c.Response().Header().Set(eventsRead, read)
	}
	return c.JSON(http.StatusOK, out)
}

// eventFilter tells which events are meant; nil: all.
func (s *Server) eventFilter(user, object string) func(state.Event) bool {
	all := s.operators[user]
	if all && object == "" {
		return nil
	}
	return func(e state.Event) bool {
		return (object == "" || e.Object == object) && (all || e.VisibleTo(user))
	}
}

// events gives those that are meant, and the id of the last event after which none of them
// was left out; empty: there is none.
func (s *Server) events(ctx context.Context, after string, limit int, meant func(state.Event) bool) (found []state.Event, read string, err error) {
	n := limit
	if meant != nil {
		n = state.EventsKept // of which those that are meant may be few
	}
	var events []state.Event
	if after == "" {
		events, err = s.store.Tail(ctx, n)
	} else {
		events, err = s.store.EventsAfter(ctx, after, n)
	}
	if err != nil || len(events) == 0 {
		return nil, "", err
	}
	read = events[len(events)-1].ID
	if meant == nil {
		return events, read, nil
	}
	found = slices.DeleteFunc(events, func(e state.Event) bool { return !meant(e) })
	switch {
	case len(found) <= limit:
		return found, read, nil
	case after == "":
		return found[len(found)-limit:], read, nil // the latest
	}
	return found[:limit], found[limit-1].ID, nil // the next
}
