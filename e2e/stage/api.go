//go:build linux

package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Caller calls the API with a key.
type Caller struct {
	URL, Key string
	Client   *http.Client
}

// NewCaller returns a Caller.
func NewCaller(url, key string) Caller {
	return Caller{url, key, &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
}

// Session is what the API says of one.
type Session struct{ ID, ConnectURL, Phase string }

// Container is what operators see of one.
type Container struct {
	ID, Phase, Addr string
	Used            int
}

// Do sends a request and reads the answer into into.
func (c Caller) Do(ctx context.Context, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, reader)
	if err != nil {
		return err
	}
	if c.Key != "" {
		req.Header.Set("X-BB-API-Key", c.Key)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Client.Do(req)
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

// Create creates a session.
func (c Caller) Create(ctx context.Context) (Session, error) {
	var s Session
	err := c.Do(ctx, http.MethodPost, "/v1/sessions", struct{}{}, &s)
	return s, err
}

// Release ends one.
func (c Caller) Release(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, "/v1/sessions/"+id, map[string]string{"status": "REQUEST_RELEASE"}, &Session{})
}

// Ended is nil when the session has ended.
func (c Caller) Ended(ctx context.Context, id string) error {
	var s Session
	if err := c.Do(ctx, http.MethodGet, "/v1/sessions/"+id, nil, &s); err != nil {
		return err
	}
	if s.Phase != "ended" {
		return ErrNotYet
	}
	return nil
}
