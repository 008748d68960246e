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

// sessionRequest is the body of a creation.
type sessionRequest struct {
	Timeout         int             `json:"timeout,omitempty"` // seconds
	KeepAlive       bool            `json:"keepAlive,omitempty"`
	BrowserSettings json.RawMessage `json:"browserSettings,omitempty"`
	UserMetadata    json.RawMessage `json:"userMetadata,omitempty"`
}

// session is what the service says of one.
type session struct {
	ID         string    `json:"id"`
	Status     string    `json:"status"`
	UserID     string    `json:"userId"`
	ConnectURL string    `json:"connectUrl"`
	Token      string    `json:"token"`
	CreatedAt  time.Time `json:"createdAt"`
	ExpiresAt  time.Time `json:"expiresAt"`
	KeepAlive  bool      `json:"keepAlive"`
	EndReason  string    `json:"endReason"`
	EndMessage string    `json:"endMessage"`
	Clients    []client  `json:"clients"`
}

// client is what the service says of one connection to a session's browser.
type client struct {
	Replica           string    `json:"replica"`
	OpenedAt          time.Time `json:"openedAt"`
	ClosedAt          time.Time `json:"closedAt"`
	LastActivity      time.Time `json:"lastActivity"`
	BytesToBrowser    uint64    `json:"bytesToBrowser"`
	BytesToClient     uint64    `json:"bytesToClient"`
	MessagesToBrowser uint64    `json:"messagesToBrowser"`
	MessagesToClient  uint64    `json:"messagesToClient"`
	ClosedBy          string    `json:"closedBy"`
	CloseCode         int       `json:"closeCode"`
	CloseReason       string    `json:"closeReason"`
}

// text tells of the connection in a line.
func (c client) text() string {
	line := fmt.Sprintf("%s, active %s; %d messages (%d bytes) to the browser, %d (%d) back", c.OpenedAt.Local().Format(time.DateTime),
		c.LastActivity.Local().Format(time.TimeOnly), c.MessagesToBrowser, c.BytesToBrowser, c.MessagesToClient, c.BytesToClient)
	if c.Replica != "" {
		line = "through " + c.Replica + ": " + line
	}
	if c.ClosedBy == "" {
		return line + "; open"
	}
	line += fmt.Sprintf("; closed %s by %s", c.ClosedAt.Local().Format(time.TimeOnly), c.ClosedBy)
	if c.CloseCode != 0 {
		line += fmt.Sprintf(" (%d %s)", c.CloseCode, strconv.Quote(c.CloseReason))
	}
	return line
}

func (c apiClient) create(ctx context.Context, r sessionRequest) (session, error) {
	var s session
	err := c.do(ctx, http.MethodPost, "/v1/sessions", r, &s)
	return s, err
}

func sessionPath(id string) string { return "/v1/sessions/" + url.PathEscape(id) }

func newSession() *cobra.Command {
	cmd := &cobra.Command{Use: "session", Short: "Create, list, show and end sessions"}
	cmd.AddCommand(newSessionCreate(), newSessionList(), newSessionGet(), newSessionEnd())
	return cmd
}

func newSessionCreate() *cobra.Command {
	var t target
	var timeout time.Duration
	var keepAlive bool
	var settings, metadata string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a session and print its connect URL",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.client()
			if err != nil {
				return err
			}
			r := sessionRequest{KeepAlive: keepAlive, Timeout: int(timeout.Seconds())}
			if r.BrowserSettings, err = rawObject("--settings", settings); err != nil {
				return err
			}
			if r.UserMetadata, err = rawObject("--metadata", metadata); err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.do(cmd.Context(), http.MethodPost, "/v1/sessions", r, &raw); err != nil {
				return err
			}
			return printSession(cmd.OutOrStdout(), raw, t.json)
		},
	}
	t.flags(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long it may last (default: the service's)")
	cmd.Flags().BoolVar(&keepAlive, "keep-alive", false, "keep it when the last client leaves")
	cmd.Flags().StringVar(&settings, "settings", "", `browserSettings, e.g. '{"viewport":{"width":800,"height":600}}'`)
	cmd.Flags().StringVar(&metadata, "metadata", "", "userMetadata, a JSON object")
	return cmd
}

// rawObject checks that a flag holds a JSON object.
func rawObject(flag, text string) (json.RawMessage, error) {
	if text == "" {
		return nil, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return nil, fmt.Errorf("%s is not a JSON object: %w", flag, err)
	}
	return json.RawMessage(text), nil
}

func printSession(w io.Writer, raw json.RawMessage, asJSON bool) error {
	if asJSON {
		return printJSON(w, raw)
	}
	var s session
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	rows := [][]string{{"id", s.ID}, {"status", s.Status}}
	if s.EndReason != "" {
		rows = append(rows, []string{"ended", s.EndReason}, []string{"why", s.EndMessage})
	}
	rows = append(rows, []string{"expires", s.ExpiresAt.Local().Format(time.DateTime)})
	if s.ConnectURL != "" {
		rows = append(rows, []string{"connect", s.ConnectURL})
	}
	for _, c := range s.Clients {
		rows = append(rows, []string{"client", c.text()})
	}
	printTable(w, rows)
	return nil
}

func newSessionList() *cobra.Command {
	var t target
	var status string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List your sessions, live ones and those that ended within minutes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if status != "" {
				query.Set("status", status)
			}
			return t.printList(cmd, "/v1/sessions?"+query.Encode(), func(raw json.RawMessage) ([][]string, error) {
				var all []session
				if err := json.Unmarshal(raw, &all); err != nil {
					return nil, err
				}
				rows := [][]string{{"ID", "STATUS", "AGE", "EXPIRES", "ENDED"}}
				for _, s := range all {
					rows = append(rows, []string{s.ID, s.Status, age(s.CreatedAt), s.ExpiresAt.Local().Format(time.TimeOnly), s.EndReason})
				}
				return rows, nil
			})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&status, "status", "", "PENDING, RUNNING, COMPLETED, TIMED_OUT or ERROR")
	return cmd
}

// printList asks for a list and prints it as a table or as JSON.
func (t *target) printList(cmd *cobra.Command, path string, rows func(json.RawMessage) ([][]string, error)) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.do(cmd.Context(), http.MethodGet, path, nil, &raw); err != nil {
		return err
	}
	if t.json {
		return printJSON(cmd.OutOrStdout(), raw)
	}
	table, err := rows(raw)
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	printTable(cmd.OutOrStdout(), table)
	return nil
}

func age(t time.Time) string { return time.Since(t).Round(time.Second).String() }

func newSessionGet() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Show a session",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.oneSession(cmd, http.MethodGet, args[0])
		},
	}
	t.flags(cmd)
	return cmd
}

func newSessionEnd() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "end ID...",
		Short: "End sessions",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, id := range args {
				errs = append(errs, t.oneSession(cmd, http.MethodDelete, id))
			}
			return errors.Join(errs...)
		},
	}
	t.flags(cmd)
	return cmd
}

func (t *target) oneSession(cmd *cobra.Command, method, id string) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.do(cmd.Context(), method, sessionPath(id), nil, &raw); err != nil {
		return err
	}
	return printSession(cmd.OutOrStdout(), raw, t.json)
}
