package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// caller is a program of a user that calls the API.
type caller struct{ url, key string }

// session is what the API says of one.
type session struct {
	ID, Status, Phase, ConnectURL, Token, EndReason, EndMessage, ContainerID, UserID string
	ExpiresAt                                                                        time.Time
	KeepAlive                                                                        bool
	Attached                                                                         int
}

// problem is the body of every refusal.
type problem struct {
	Code, Message, Hint, Reason, RequestID string
	RetryAfter                             int
}

// answer is an HTTP response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request. body is sent as it is if it is a string, else as JSON; header holds
// names and values in turn.
func call(t *testing.T, method, url string, body any, header ...string) answer {
	t.Helper()
	a, err := try(t, method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// try is call for a service that may not answer.
func try(t *testing.T, method, url string, body any, header ...string) (answer, error) {
	t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader: // of unknown length: sent in chunks
		reader = b
	case string:
		reader = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer to %s %s: %w", method, req.URL.Path, err)
	}
	return answer{resp.StatusCode, resp.Header, text}, nil
}

// do calls with the user's key.
func (c caller) do(t *testing.T, method, path string, body any) answer {
	t.Helper()
	return call(t, method, c.url+path, body, "X-BB-API-Key", c.key, "Content-Type", "application/json")
}

// want fails the test unless the answer is 200, and reads it.
func (c caller) want(t *testing.T, method, path string, body, into any) {
	t.Helper()
	a := c.do(t, method, path, body)
	if a.status != http.StatusOK {
		t.Fatalf("%s %s: status %d: %s", method, path, a.status, a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
	}
}

func (c caller) create(t *testing.T, body map[string]any) session {
	t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	var s session
	c.want(t, http.MethodPost, "/v1/sessions", body, &s)
	if s.ID == "" || s.ConnectURL == "" || s.Token == "" || s.ExpiresAt.IsZero() {
		t.Fatalf("a session was created without %+v", s)
	}
	return s
}

func (c caller) get(t *testing.T, id string) session {
	t.Helper()
	var s session
	c.want(t, http.MethodGet, "/v1/sessions/"+id, nil, &s)
	return s
}

func (c caller) release(t *testing.T, id string) {
	t.Helper()
	var s session
	c.want(t, http.MethodPost, "/v1/sessions/"+id, map[string]any{"status": "REQUEST_RELEASE"}, &s)
}

// awaitEnd waits until the session has ended and fails the test if it was for another reason.
func (c caller) awaitEnd(t *testing.T, within time.Duration, id, reason string) session {
	t.Helper()
	var last session
	eventually(t, within, "session "+id+" ends", func() error {
		if last = c.get(t, id); last.Phase != "ended" {
			return &unexpected{"phase", last.Phase}
		}
		return nil
	})
	if last.EndReason != reason {
		t.Fatalf("session %s has ended for %q (%s), not for %q", id, last.EndReason, last.EndMessage, reason)
	}
	return last
}

// unexpected is what was there instead.
type unexpected struct{ what, value string }

// Error implements error.
func (u *unexpected) Error() string { return "its " + u.what + " is " + u.value }

// refused fails the test unless the answer is a refusal as people can use it.
func refused(t *testing.T, a answer, status int, code string) problem {
	t.Helper()
	var p problem
	if a.status != status {
		t.Errorf("status is %d, want %d: %s", a.status, status, a.body)
	}
	if kind := a.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		t.Errorf("the answer is %q, not JSON: %.200s", kind, a.body)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("the answer is not JSON: %v: %.200s", err, a.body)
	}
	if p.Code != code {
		t.Errorf("code is %q, want %q: %s", p.Code, code, a.body)
	}
	if p.Message == "" || p.Hint == "" || p.RequestID == "" {
		t.Errorf("message, hint and requestId must be there: %s", a.body)
	}
	return p
}
