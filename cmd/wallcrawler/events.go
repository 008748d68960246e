package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// followEvery is how often the service is asked for more events.
const followEvery = time.Second

// eventView is an event as the API tells it.
type eventView struct {
	ID, Kind, Object, Reason, Message string
	At                                time.Time
}

func newEvents() *cobra.Command {
	var (
		t      target
		follow bool
		object string
		limit  int
	)
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what was decided, and why",
		Long: `Print what was decided, and why: containers started, drained and stopped; sessions that ended and not by
their requesters' wish; what is held back, and until when; what was refused. About 10,000 events are kept.
With --json each event is one line.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.client()
			if err != nil {
				return err
			}
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if object != "" {
				query.Set("object", object)
			}
			return printEvents(cmd.Context(), cmd.OutOrStdout(), c, query, follow, t.json)
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	cmd.Flags().StringVar(&object, "object", "", "only those of one session, container, launch or task (ARN)")
	cmd.Flags().IntVarP(&limit, "limit", "n", 100, "how many of the latest")
	return cmd
}

// printEvents prints the latest events and, to follow, those that come, until ctx ends.
func printEvents(ctx context.Context, w io.Writer, c apiClient, query url.Values, follow, lines bool) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	said := ""
	for {
		var raw []json.RawMessage
		header, err := c.ask(ctx, http.MethodGet, "/v1/events?"+query.Encode(), nil, &raw)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (!follow || query.Get("after") == ""):
			return err
		case err != nil && err.Error() != said:
			said = err.Error() // the service may come back: whoever follows waits for it
			if !lines {
				fmt.Fprintln(w, "waiting:", err)
			}
		}
		for _, one := range raw {
			id, err := printEvent(w, one, lines)
			if err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
			query.Set("after", id)
			said = ""
		}
		if !follow {
			return nil
		}
		if read := header.Get("Events-Read"); read != "" {
			query.Set("after", read) // beyond what is not for this key
		}
		if query.Get("after") == "" {
			query.Set("after", "0") // nothing has ever happened
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func printEvent(w io.Writer, raw json.RawMessage, line bool) (id string, err error) {
	var e eventView
	if err := json.Unmarshal(raw, &e); err != nil {
		return "", err
	}
	if e.ID == "" {
		return "", errors.New("an event without an id")
	}
	if line {
		_, err = fmt.Fprintln(w, string(raw))
		return e.ID, err
	}
	object := e.Kind
	if e.Object != "" {
		object += " " + e.Object
	}
	_, err = fmt.Fprintf(w, "%s  %-13s  %s: %s\n", e.At.Local().Format("2006-01-02 15:04:05"), e.Reason, object, e.Message)
	return e.ID, err
}
