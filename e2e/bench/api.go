//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// caller calls the API with a key.
type caller struct {
	url, key string
	client   *http.Client
}

func newCaller(url, key string) caller {
	return caller{url, key, &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
}

type session struct{ ID, ConnectURL, Phase string }

type container struct {
	ID, Phase, Addr string
	Used            int
}

// do sends a request and reads the answer into into.
func (c caller) do(ctx context.Context, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, reader)
	if err != nil {
		return err
	}
	if c.key != "" {
		req.Header.Set("X-BB-API-Key", c.key)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if s, ok := into.(*string); ok {
		*s = string(text)
		return nil
	}
	return json.Unmarshal(text, into)
}

func (c caller) create(ctx context.Context) (session, error) {
	var s session
	err := c.do(ctx, http.MethodPost, "/v1/sessions", struct{}{}, &s)
	return s, err
}

func (c caller) release(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, "/v1/sessions/"+id, map[string]string{"status": "REQUEST_RELEASE"}, &session{})
}

// ended is nil when the session has ended.
func (c caller) ended(ctx context.Context, id string) error {
	var s session
	if err := c.do(ctx, http.MethodGet, "/v1/sessions/"+id, nil, &s); err != nil {
		return err
	}
	if s.Phase != "ended" {
		return errNotYet
	}
	return nil
}

// refilled is nil when nothing is held and as many browsers are warm as should be. How many are
// warm is asked of the container itself: the service notes it only every few seconds.
func (c caller) refilled(ctx context.Context, warm int) error {
	var all []container
	if err := c.do(ctx, http.MethodGet, "/v1/containers", nil, &all); err != nil {
		return err
	}
	ready := false
	for _, x := range all {
		if x.Phase != "ready" {
			continue
		}
		var health struct{ Sessions, Warm int }
		if err := (caller{url: "http://" + x.Addr, client: c.client}).do(ctx, http.MethodGet, "/health", nil, &health); err != nil {
			return err
		}
		if x.Used > 0 || health.Sessions > 0 || health.Warm < warm {
			return fmt.Errorf("%w: it has %d slots used, %d sessions, %d warm", errNotYet, x.Used, health.Sessions, health.Warm)
		}
		ready = true
	}
	if !ready {
		return errNotYet
	}
	return nil
}

// starts are how many sessions the service has started so far, by where the browser came from,
// according to its metrics.
func (c caller) starts(ctx context.Context) (warm, cold int, err error) {
	var text string
	if err := c.do(ctx, http.MethodGet, "/metrics", nil, &text); err != nil {
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
