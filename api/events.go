package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

// Limits of one answer.
const (
	defaultEvents = 100
	maxEvents     = 1000
)

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
// those that came after that one; with ?object=ID with those of that object alone.
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
	events, err := s.events(ctx, c.QueryParam("after"), c.QueryParam("object"), limit)
	if err != nil {
		return err
	}
	out := make([]eventJSON, 0, len(events))
	for _, e := range events {
		out = append(out, eventJSON{ID: e.ID, At: stamp(e.At), Kind: e.Kind, Object: e.Object, Reason: e.Reason, Message: e.Message})
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, out)
}

func (s *Server) events(ctx context.Context, after, object string, limit int) ([]state.Event, error) {
	if after == "" && object == "" {
		return s.store.Tail(ctx, limit)
	}
	var events []state.Event
	var err error
	if after == "" {
		events, err = s.store.Tail(ctx, state.EventsKept)
	} else {
		n := state.EventsKept // of which the object's are few
		if object == "" {
			n = limit
		}
		events, err = s.store.EventsAfter(ctx, after, n)
	}
	if err != nil {
		return nil, err
	}
	var found []state.Event
	for _, e := range events {
		if object == "" || e.Object == object {
			found = append(found, e)
		}
	}
	switch {
	case len(found) <= limit:
		return found, nil
	case after == "":
		return found[len(found)-limit:], nil // the latest
	}
	return found[:limit], nil // the next
}
