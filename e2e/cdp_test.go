package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// cdp is a client that speaks the protocol by hand, to see close codes.
type cdp struct {
	conn   *websocket.Conn
	closed chan struct{} // closed when the connection has ended
	err    error         // set before closed is

	mu      sync.Mutex // guards the fields below
	last    int
	waiting map[int]chan cdpAnswer
}

type cdpAnswer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// dialCDP connects, or fails the test.
func dialCDP(t *testing.T, url string) *cdp {
	t.Helper()
	c, a, err := tryCDP(t, url)
	if err != nil {
		t.Fatalf("connecting: %v: %s", err, a.body)
	}
	return c
}

// tryCDP connects, or gives the answer that refused it.
func tryCDP(t *testing.T, url string, header ...string) (*cdp, answer, error) {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, url, h)
	var a answer
	if resp != nil {
		a = answer{status: resp.StatusCode, header: resp.Header}
		if err != nil {
			a.body, _ = io.ReadAll(resp.Body) // gorilla keeps the beginning only
		}
	}
	if err != nil {
		return nil, a, err
	}
	c := &cdp{conn: conn, closed: make(chan struct{}), waiting: map[int]chan cdpAnswer{}}
	go c.read()
	t.Cleanup(func() {
		_ = conn.Close()
		<-c.closed
	})
	return c, a, nil
}

func (c *cdp) read() {
	defer close(c.closed)
	for {
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			c.err = err
			return
		}
		var a cdpAnswer
		if json.Unmarshal(text, &a) != nil || a.ID == 0 {
			continue // an event
		}
		c.mu.Lock()
		if waiting := c.waiting[a.ID]; waiting != nil {
			waiting <- a
			delete(c.waiting, a.ID)
		}
		c.mu.Unlock()
	}
}

// call sends a command and reads its result into out, which may be nil. session is empty for
// the browser itself.
func (c *cdp) call(session, method string, params, out any) error {
	arrived := make(chan cdpAnswer, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = arrived
	command := map[string]any{"id": id, "method": method}
	if params != nil {
		command["params"] = params
	}
	if session != "" {
		command["sessionId"] = session
	}
	err := c.conn.WriteJSON(command)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("sending %s: %w", method, err)
	}
	select {
	case a := <-arrived:
		if a.Error != nil {
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(a.Result, out)
	case <-c.closed:
		return fmt.Errorf("%s: %w", method, c.err)
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s: no answer", method)
	}
}

func (c *cdp) must(t *testing.T, method string, params, out any) {
	t.Helper()
	if err := c.call("", method, params, out); err != nil {
		t.Fatal(err)
	}
}

// alive fails the test unless the browser answers.
func (c *cdp) alive(t *testing.T) {
	t.Helper()
	var version struct{ Product string }
	c.must(t, "Browser.getVersion", nil, &version)
	if version.Product == "" {
		t.Fatal("the browser has no version")
	}
}

// browserPid is the browser's process.
func (c *cdp) browserPid(t *testing.T) int {
	t.Helper()
	var info struct {
		ProcessInfo []struct {
			Type string
			ID   int
		}
	}
	c.must(t, "SystemInfo.getProcessInfo", nil, &info)
	for _, p := range info.ProcessInfo {
		if p.Type == "browser" && p.ID > 0 {
			return p.ID
		}
	}
	t.Fatalf("the browser does not tell its process: %+v", info)
	return 0
}

// pages lists the browser's pages.
func (c *cdp) pages(t *testing.T) []string {
	t.Helper()
	var targets struct {
		TargetInfos []struct{ Type, URL string }
	}
	c.must(t, "Target.getTargets", nil, &targets)
	var urls []string
	for _, info := range targets.TargetInfos {
		if info.Type == "page" {
			urls = append(urls, info.URL)
		}
	}
	return urls
}

// leave says good-bye, as clients do.
func (c *cdp) leave(t *testing.T) {
	t.Helper()
	_ = c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	select {
	case <-c.closed:
	case <-time.After(5 * time.Second):
		t.Error("a close is not answered")
	}
	_ = c.conn.Close()
}

// wantClose waits for the connection to be closed with that code and that text in the reason.
func (c *cdp) wantClose(t *testing.T, within time.Duration, code int, text string) {
	t.Helper()
	select {
	case <-c.closed:
	case <-time.After(within):
		t.Fatalf("the connection is not closed within %s", within)
	}
	frame, ok := errors.AsType[*websocket.CloseError](c.err)
	if !ok {
		t.Fatalf("the connection ended without a close frame: %v", c.err)
	}
	if frame.Code != code || frame.Text != text {
		t.Errorf("closed with %d %q, want %d %q", frame.Code, frame.Text, code, text)
	}
}
