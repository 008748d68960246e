//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// refilled is nil when nothing is held and as many browsers are warm as should be. How many are
// warm is asked of the container itself: the service notes it only every few seconds.
func refilled(ctx context.Context, c stage.Caller, warm int) error {
	var all []stage.Container
	if err := c.Do(ctx, http.MethodGet, "/v1/containers", nil, &all); err != nil {
		return err
	}
	ready := false
	for _, x := range all {
		if x.Phase != "ready" {
			continue
		}
		var health struct{ Sessions, Warm int }
		if err := (stage.Caller{URL: "http://" + x.Addr, Client: c.Client}).Do(ctx, http.MethodGet, "/health", nil, &health); err != nil {
			return err
		}
		if x.Used > 0 || health.Sessions > 0 || health.Warm < warm {
			return fmt.Errorf("%w: it has %d slots used, %d sessions, %d warm", stage.ErrNotYet, x.Used, health.Sessions, health.Warm)
		}
		ready = true
	}
	if !ready {
		return stage.ErrNotYet
	}
	return nil
}

// starts are how many sessions the service has started so far, by where the browser came from,
// according to its metrics.
func starts(ctx context.Context, c stage.Caller) (warm, cold int, err error) {
	var text string
	if err := c.Do(ctx, http.MethodGet, "/metrics", nil, &text); err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, "wallcrawler_session_start_seconds_count{") {
			continue
		}
		var n float64
		if _, err := fmt.Sscan(value, &n); err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", name, err)
		}
		if strings.Contains(name, `"warm"`) {
			warm += int(n)
		} else if strings.Contains(name, `"cold"`) {
			cold += int(n)
		}
	}
	return warm, cold, nil
}

// connect upgrades and waits until the browser has answered a command.
func connect(ctx context.Context, url string) (*websocket.Conn, error) {
	conn, resp, err := (&websocket.Dialer{HandshakeTimeout: 30 * time.Second}).DialContext(ctx, url, nil) //nolint:bodyclose // the body is in memory
	if err != nil {
		if resp != nil {
			text, _ := io.ReadAll(resp.Body) // what there is of it
			err = fmt.Errorf("%w: %s: %s", err, resp.Status, text)
		}
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"method":"Browser.getVersion"}`)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_, answer, err := conn.ReadMessage()
	if err == nil && !bytes.Contains(answer, []byte(`"product"`)) {
		err = fmt.Errorf("the browser answered: %.200s", answer)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// leave closes as a client does that is done.
func leave(conn *websocket.Conn) {
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	_ = conn.Close()
}
