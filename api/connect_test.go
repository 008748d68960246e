package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/state"
)

func (h *house) token(id, user string) string {
	h.t.Helper()
	token, err := h.tokens.Mint(id, user, time.Now().Add(time.Hour))
	must(h.t, err)
	return token
}

func TestConnectHandsOverToTheRelay(t *testing.T) {
	h := newHouse(t)
	token := h.token("ses_1", "alice")
	for _, c := range []struct{ path, rest string }{
		{"/sessions/ses_1/ws", "ws"}, {"/sessions/ses_1/json/version", "json/version"}, {"/sessions/ses_1/json/version/", "json/version/"},
		{"/sessions/ses_1/devtools/browser/0a-b", "devtools/browser/0a-b"}, {"/sessions/ses_1/", ""},
		{"/json/version", "json/version"}, {"/json/version/", "json/version"},
	} {
		for _, way := range []string{"header", "query"} {
			before := len(h.relay.calls())
			var answer reply
			if way == "header" {
				answer = h.call("GET", c.path+"?a=1", "", "Authorization", "bearer "+token, "X-Api-Key", aliceKey, "Accept", "x")
			} else {
				answer = h.call("GET", c.path+"?a=1&token="+token+"&b=2", "", "Referer", "http://x/?token="+token)
			}
			if answer.status != http.StatusOK {
				t.Errorf("%s by %s: %d %s", c.path, way, answer.status, answer.body)
				continue
			}
			got := h.relay.calls()[before]
			if got.rest != c.rest || got.access.SessionID != "ses_1" || got.access.UserID != "alice" || got.access.Token.Reveal() != token ||
				got.access.Base.String() != h.http.URL {
				t.Errorf("%s by %s: %+v", c.path, way, got)
			}
			if strings.Contains(got.url+fmt.Sprint(got.header), token) || strings.Contains(fmt.Sprint(got.header), aliceKey) {
				t.Errorf("%s by %s: the relay sees the token: %s %v", c.path, way, got.url, got.header)
			}
			if !strings.Contains(got.url, "a=1") || (way == "query" && !strings.Contains(got.url, "b=2")) {
				t.Errorf("the rest of the query is lost: %s", got.url)
			}
		}
	}
}

func TestBaseIsWhatTheClientSees(t *testing.T) {
	public, err := url.Parse("https://browsers.example/base/")
	must(t, err)
	for _, c := range []struct {
		public  *url.URL
		headers []string
		base    string
		connect string
	}{
		{public, nil, "https://browsers.example/base", "wss://browsers.example/base/sessions/"},
		{nil, []string{"Host", "one.example:8080"}, "http://one.example:8080", "ws://one.example:8080/sessions/"},
		{nil, []string{"Host", "one.example", "X-Forwarded-Proto", "https"}, "https://one.example", "wss://one.example/sessions/"},
	} {
		h := newHouse(t, func(cfg *api.Config) { cfg.PublicURL = c.public })
		h.call("GET", "/sessions/ses_1/ws", "", append([]string{"Authorization", "Bearer " + h.token("ses_1", "alice")}, c.headers...)...)
		if got := h.relay.calls()[0].access.Base.String(); got != c.base {
			t.Errorf("base %s, want %s", got, c.base)
		}
		got := h.call("POST", "/v1/sessions", "", append([]string{"X-Api-Key", aliceKey}, c.headers...)...).fields(t)
		if !strings.HasPrefix(got["connectUrl"].(string), c.connect) {
			t.Errorf("connectUrl %v, want %s…", got["connectUrl"], c.connect)
		}
	}
	h := newHouse(t)
	for _, host := range []string{"a b", "a/b", "a?b", "user@host", `"x"`, "[::1", "a:b:c"} {
		conn := h.dial()
		fmt.Fprintf(conn, "POST /v1/sessions HTTP/1.1\r\nHost: %s\r\nX-Api-Key: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", host, aliceKey)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		answer.Body.Close()
		conn.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("Host %q: %d", host, answer.StatusCode)
		}
	}
}

func TestEverySessionsTokenOpensThatSessionOnly(t *testing.T) {
	h := newHouse(t)
	const n = 12
	texts := map[string]bool{}
	for i := range n {
		token := h.token(fmt.Sprintf("ses_%d", i), "alice")
		for j := range n {
			answer := h.call("GET", fmt.Sprintf("/sessions/ses_%d/ws?token=%s", j, token), "")
			if i == j {
				if answer.status != http.StatusOK {
					t.Errorf("its own session: %d", answer.status)
				}
				continue
			}
			texts[fmt.Sprint(wantError(t, answer, http.StatusForbidden, "forbidden")["message"])] = true
		}
	}
	if got := len(h.relay.calls()); got != n {
		t.Errorf("%d requests reached the relay, want %d", got, n)
	}
	if len(texts) != 1 {
		t.Errorf("the refusals differ: %v", texts)
	}
}

func TestConnectsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	good := h.token("ses_1", "alice")
	old, err := h.tokens.Mint("ses_1", "alice", time.Now().Add(-time.Hour))
	must(t, err)
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		code       string
	}{
		{"no token", "/sessions/ses_1/ws", nil, 401, "unauthorized"},
		{"an empty token", "/sessions/ses_1/ws?token=", nil, 401, "unauthorized"},
		{"an empty bearer", "/sessions/ses_1/ws", []string{"Authorization", "Bearer "}, 401, "unauthorized"},
		{"another scheme", "/sessions/ses_1/ws", []string{"Authorization", "Basic " + good}, 401, "unauthorized"},
		{"a token without scheme", "/sessions/ses_1/ws", []string{"Authorization", good}, 401, "unauthorized"},
		{"an API key", "/sessions/ses_1/ws", []string{"X-Api-Key", aliceKey}, 401, "unauthorized"},
		{"an API key as bearer", "/sessions/ses_1/ws", []string{"Authorization", "Bearer " + aliceKey}, 401, "unauthorized"},
		{"an old token", "/sessions/ses_1/ws?token=" + old, nil, 401, "unauthorized"},
		{"a changed token", "/sessions/ses_1/ws?token=" + good + "A", nil, 401, "unauthorized"},
		{"an unreadable token", "/sessions/ses_1/ws?token=%zz" + good, nil, 401, "unauthorized"},
		{"both places", "/sessions/ses_1/ws?token=" + good, []string{"Authorization", "Bearer " + good}, 400, "invalid_request"},
		{"twice in the query", "/sessions/ses_1/ws?token=" + good + "&token=" + good, nil, 400, "invalid_request"},
		{"twice, once disguised", "/sessions/ses_1/ws?token=" + good + "&%74oken=" + good, nil, 400, "invalid_request"},
		{"two headers", "/sessions/ses_1/ws", []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, 400, "invalid_request"},
		{"an unknown session", "/sessions/ses_none/ws?token=" + good, nil, 403, "forbidden"},
		{"a climbing path", "/sessions/ses_1/json/../ws?token=" + good, nil, 404, "no_such_route"},
		{"an escaped path", "/sessions/ses_1/devtools%2Fbrowser/x?token=" + good, nil, 404, "no_such_route"},
		{"an escaped id", "/sessions/ses_1%2Fws/ws?token=" + good, nil, 403, "forbidden"},
		{"a doubled slash", "/sessions/ses_1//ws?token=" + good, nil, 404, "no_such_route"},
		{"a strange path", "/sessions/ses_1/ws%0a?token=" + good, nil, 404, "no_such_route"},
		{"no path", "/sessions/ses_1?token=" + good, nil, 404, "no_such_route"},
		{"a root without token", "/json/version", nil, 401, "unauthorized"},
	} {
		answer := h.call("GET", c.path, "", c.headers...)
		t.Run(c.name, func(t *testing.T) { wantError(t, answer, c.status, c.code) })
	}
	if calls := h.relay.calls(); len(calls) != 0 {
		t.Errorf("refused requests reached the relay: %+v", calls)
	}
}

func TestRefusalsOfTheRelayReachTheClient(t *testing.T) {
	h := newHouse(t)
	token := h.token("ses_1", "alice")
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{&state.Refusal{Err: state.ErrEnded, Message: "the session has ended", Reason: state.BrowserCrashed}, 410, "session_ended"},
		{&state.Refusal{Err: state.ErrNotReady, Message: "waiting", Hint: "place 3", RetryAfter: 3 * time.Second}, 503, "not_ready"},
		{fmt.Errorf("resolving: %w", state.ErrNotFound), 404, "not_found"},
		{state.ErrDraining, 503, "draining"}, {state.ErrFull, 503, "no_capacity"}, {state.ErrInvalid, 400, "invalid_request"},
		{errors.New("dial 10.0.0.9:4444: refused"), 500, "internal"},
	} {
		h.relay.answer(c.err, nil)
		answer := h.call("GET", "/sessions/ses_1/ws?token="+token, "")
		fields := wantError(t, answer, c.status, c.code)
		if strings.Contains(string(answer.body), "10.0.0.9") {
			t.Errorf("the answer shows the inside: %s", answer.body)
		}
		if c.code == "session_ended" && fields["reason"] != "browser_crashed" {
			t.Errorf("no reason: %s", answer.body)
		}
		if c.code == "not_ready" && (answer.header.Get("Retry-After") != "3" || fields["hint"] != "place 3") {
			t.Errorf("got %v %s", answer.header, answer.body)
		}
	}
	if got := strings.Count(h.logs.String(), "10.0.0.9"); got != 1 {
		t.Errorf("the unknown error is logged %d times, want once", got)
	}
}

func (h *house) dial() net.Conn {
	h.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.http.URL, "http://"))
	must(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close() })
	must(h.t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn
}

func TestTakenOverConnectionsAreLeftAlone(t *testing.T) {
	h := newHouse(t)
	h.relay.answer(nil, func(w http.ResponseWriter, _ *http.Request, _ api.SessionAccess, _ string) error {
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprint(buffered, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		fmt.Fprint(buffered, "echo "+line)
		_ = buffered.Flush()
		return errors.New("broken off late") // against its contract
	})
	conn := h.dial()
	defer conn.Close()
	fmt.Fprintf(conn, "GET /sessions/ses_1/ws?token=%s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n", h.token("ses_1", "alice"))
	all, err := io.ReadAll(conn)
	must(t, err)
	if want := "HTTP/1.1 101 Switching Protocols\r\n\r\necho hello\n"; string(all) != want {
		t.Errorf("got %q, want %q", all, want)
	}
	h.until("it is logged as upgraded", func() bool { return strings.Contains(h.logs.String(), `"status":101`) })
	if !strings.Contains(h.logs.String(), "broken off late") {
		t.Error("the late error is lost")
	}
}

func TestRefusedUpgradesCloseTheConnection(t *testing.T) {
	h := newHouse(t)
	before := h.alice("GET", "/v1/sessions", "")
	if before.status != 200 {
		t.Fatal("the list does not work")
	}
	conn := h.dial()
	defer conn.Close()
	// The bytes after the refused upgrade look like a request; they must not be taken for one.
	fmt.Fprintf(conn, "GET /sessions/ses_1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+
		"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: 0\r\n\r\n", aliceKey)
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	must(t, err)
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusUnauthorized || !answer.Close {
		t.Errorf("status %d, close %v", answer.StatusCode, answer.Close)
	}
	if rest, _ := io.ReadAll(reader); len(rest) != 0 {
		t.Errorf("a second answer came: %q", rest)
	}
	if ids, _ := h.store.DocumentIDs(t.Context()); len(ids) != 0 {
		t.Errorf("the smuggled request was served: %v", ids)
	}
}

func TestServeStopsWithItsContextAndLeavesRelaysAlone(t *testing.T) {
	h := newHouse(t)
	release := make(chan struct{})
	joined := make(chan struct{})
	over := make(chan error, 1)
	h.relay.answer(nil, func(w http.ResponseWriter, r *http.Request, _ api.SessionAccess, _ string) error {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		close(joined)
		<-release
		over <- r.Context().Err()
		fmt.Fprint(buffered, "still here")
		return buffered.Flush()
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET /sessions/ses_1/ws?token=%s HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", h.token("ses_1", "alice"))
	<-joined
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if other, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		other.Close()
		t.Error("it still accepts")
	}
	close(release)
	if err := <-over; err != nil {
		t.Errorf("the relay's context ended: %v", err)
	}
	if all, _ := io.ReadAll(conn); string(all) != "still here" {
		t.Errorf("the relayed connection got %q", all)
	}
}
