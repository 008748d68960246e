package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

func registration(edit ...any) string {
	fields := map[string]any{"containerId": `"cnt_1"`, "ip": `"10.0.3.17"`, "port": 8080, "taskArn": `"local"`,
		"protocol": 2, "bootId": `"boot_1"`, "maxSessions": 4, "version": `"1.0"`}
	for i := 0; i < len(edit); i += 2 {
		fields[edit[i].(string)] = edit[i+1]
	}
	var parts []string
	for name, value := range fields {
		parts = append(parts, fmt.Sprintf("%q:%v", name, value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestRegister(t *testing.T) {
	h := newHouse(t)
	send := func(body string) reply {
		return h.call("POST", "/internal/register", body, "X-Container-Token", h.containers.Token("cnt_1"))
	}
	answer := send(registration("later", `{"field":1}`))
	fields := answer.fields(t)
	if answer.status != 200 || fields["status"] != "registered" || fields["linkSecret"] != h.containers.LinkSecret("cnt_1", "boot_1") || fields["ownerSeq"] != 1.0 {
		t.Fatalf("%d %v", answer.status, fields)
	}
	c, err := h.store.Container(t.Context(), "cnt_1")
	must(t, err)
	want := state.Claim{IP: "10.0.3.17", Port: 8080, TaskARN: "local", Version: "1.0"}
	if c.Owner != replica || c.Launch != "cnt_1" || c.BootID != "boot_1" || c.Protocol != 2 || c.MaxSessions != 4 || c.Claimed != want || c.Addr != "" {
		t.Errorf("record %+v", c)
	}
	if seen, ok := h.mirror.Container("cnt_1"); !ok || seen.OwnerSeq != 1 {
		t.Error("the mirror does not have it at once")
	}
	if again := send(registration()).fields(t); again["ownerSeq"] != 2.0 || again["linkSecret"] != fields["linkSecret"] {
		t.Errorf("again: %v", again)
	}
	if next := send(registration("bootId", `"boot_2"`)).fields(t); next["linkSecret"] == fields["linkSecret"] {
		t.Error("another life has the same secret")
	}

	_, err = h.store.MarkGone(t.Context(), h.leader(), "cnt_1", "boot_2")
	must(t, err)
	gone := wantError(t, send(registration()), http.StatusGone, "session_ended")
	if gone["hint"] != "exit" {
		t.Errorf("a gone container is told %v", gone)
	}
}

func TestRegisterV1(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.DefaultMaxSessions, c.Dialect = 7, state.DialectV1 })
	send := func(body string) reply {
		return h.call("POST", "/internal/register", body, "X-Container-Token", h.containers.Token("cnt_1"))
	}
	boots := map[string]bool{}
	for _, body := range []string{
		`{"containerId":"cnt_1","ip":"localhost","port":8080,"taskArn":"local"}`,
		`{"containerId":"cnt_1","ip":"localhost","port":8080,"taskArn":"local","protocol":0,"bootId":"a/b","maxSessions":-1}`,
		`{"containerId":"cnt_1","ip":"localhost","port":8080,"taskArn":"local","protocol":1}`,
	} {
		answer := send(body)
		if got := strings.TrimSpace(string(answer.body)); answer.status != 200 || got != `{"status":"registered"}` {
			t.Fatalf("%d %s", answer.status, got)
		}
		c, err := h.store.Container(t.Context(), "cnt_1")
		must(t, err)
		want := state.Claim{IP: "localhost", Port: 8080, TaskARN: "local"}
		if c.Protocol != 1 || c.MaxSessions != 7 || c.Claimed != want || c.Owner != replica || !state.ValidID(c.BootID) || boots[c.BootID] {
			t.Errorf("record %+v", c)
		}
		boots[c.BootID] = true
	}
	wantError(t, send(registration()), 409, "other_protocol")
	wantError(t, h.call("POST", "/internal/register", registration("protocol", 1), "X-Container-Token", "bad"), 401, "unauthorized")
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	token := h.containers.Token("cnt_1")
	for _, c := range []struct {
		name, body, token string
		status            int
		code              string
	}{
		{"no token", registration(), "", 401, "unauthorized"},
		{"a bad token", registration(), token + "A", 401, "unauthorized"},
		{"another container's token", registration(), h.containers.Token("cnt_2"), 401, "unauthorized"},
		{"its token for another container", registration("containerId", `"cnt_2"`), token, 401, "unauthorized"},
		{"an API key", registration(), aliceKey, 401, "unauthorized"},
		{"a bad token and a bad rest", registration("protocol", 1, "bootId", `""`), "x", 401, "unauthorized"},
		{"protocol 3", registration("protocol", 3), token, 400, "invalid_request"},
		{"no boot", registration("bootId", `""`), token, 400, "invalid_request"},
		{"a strange boot", registration("bootId", `"a/b"`), token, 400, "invalid_request"},
		{"no slots", registration("maxSessions", 0), token, 400, "invalid_request"},
		{"too many slots", registration("maxSessions", 1001), token, 400, "invalid_request"},
		{"a text for a number", registration("maxSessions", `"4"`), token, 400, "invalid_request"},
		{"a fraction", registration("port", 1.5), token, 400, "invalid_request"},
		{"a strange port", registration("port", 70000), token, 400, "invalid_request"},
		{"a strange id", registration("containerId", `"../x"`), token, 400, "invalid_request"},
		{"a long claim", registration("ip", `"`+strings.Repeat("1", 300)+`"`), token, 400, "invalid_request"},
		{"a list", "[]", token, 400, "invalid_request"},
		{"nothing", "", token, 400, "invalid_request"},
		{"half", registration()[:20], token, 400, "invalid_request"},
		{"too much", registration("version", `"`+strings.Repeat("x", 17<<10)+`"`), token, 413, "too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.token != "" {
				headers = []string{"X-Container-Token", c.token}
			}
			wantError(t, h.call("POST", "/internal/register", c.body, headers...), c.status, c.code)
		})
	}
	if index, err := h.store.Index(t.Context()); err != nil || len(index.Containers) != 0 {
		t.Errorf("a refused registration left a record: %v %v", index.Containers, err)
	}
	h.store.FailWith(errors.New("gone"))
	answer := h.call("POST", "/internal/register", registration(), "X-Container-Token", token)
	wantError(t, answer, 503, "unavailable")
	wantError(t, h.call("POST", "/internal/register", registration(), "X-Container-Token", "bad"), 401, "unauthorized")
}

func TestApiKeysInEveryPlace(t *testing.T) {
	h := newHouse(t)
	for _, headers := range [][]string{
		{"X-BB-API-Key", aliceKey}, {"x-api-key", aliceKey}, {"Authorization", "Bearer " + aliceKey}, {"X-BB-API-Key", aliceKey, "x-api-key", aliceKey},
	} {
		if answer := h.call("GET", "/v1/sessions", "", headers...); answer.status != 200 || string(answer.body) != "[]\n" {
			t.Errorf("%v: %d %s", headers[0], answer.status, answer.body)
		}
	}
	for _, c := range []struct {
		headers []string
		status  int
		code    string
	}{
		{nil, 401, "unauthorized"}, {[]string{"x-api-key", ""}, 401, "unauthorized"}, {[]string{"x-api-key", aliceKey + "x"}, 401, "unauthorized"},
		{[]string{"Authorization", "Basic " + aliceKey}, 401, "unauthorized"}, {[]string{"x-api-key", aliceKey, "X-BB-API-Key", bobKey}, 400, "invalid_request"},
	} {
		for _, path := range []string{"/v1/sessions", "/v1/sessions/x", "/v1/containers", "/v1/tasks", "/v1/plan", "/v1/contexts", "/v1/sessions/x/debug"} {
			answer := h.call("GET", path, "", c.headers...)
			wantError(t, answer, c.status, c.code)
			if c.status == 401 && answer.header.Get("WWW-Authenticate") != "Bearer" {
				t.Error("401 without WWW-Authenticate")
			}
		}
	}
	wantError(t, h.call("GET", "/v1/sessions?token="+aliceKey, ""), 401, "unauthorized")
	id := h.call("POST", "/v1/sessions", "", "x-api-key", bareKey).fields(t)
	if user, _ := id["userId"].(string); !strings.HasPrefix(user, "key_") || len(user) != 16 {
		t.Errorf("a key without a name stands for %q", user)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_1", 2)
	health := h.call("GET", "/health", "")
	if f := health.fields(t); health.status != 200 || f["status"] != "healthy" || f["containers"] != 1.0 || f["clients"] != 7.0 || f["uptime"].(float64) <= 0 {
		t.Errorf("health: %d %s", health.status, health.body)
	}
	if ready := h.call("GET", "/ready", ""); ready.status != 200 {
		t.Errorf("ready: %d %s", ready.status, ready.body)
	}
	h.store.FailWith(errors.New("gone"))
	if ready := h.call("GET", "/ready", ""); ready.status != 503 || ready.fields(t)["store"] != "unreachable" {
		t.Errorf("without store: %d %s", ready.status, ready.body)
	}
	if health := h.call("GET", "/health", ""); health.status != 200 {
		t.Errorf("without store the process is not alive: %d", health.status)
	}
	h.store.FailWith(nil)
	if ready := h.call("HEAD", "/ready", ""); ready.status != 200 {
		t.Errorf("with the store again: %d", ready.status)
	}
	h.server.SetDraining()
	if ready := h.call("GET", "/ready", ""); ready.status != 503 || ready.fields(t)["draining"] != true {
		t.Errorf("draining: %d %s", ready.status, ready.body)
	}
	if health := h.call("HEAD", "/health", ""); health.status != 200 {
		t.Errorf("draining, health: %d", health.status)
	}

	stale := newHouse(t, func(c *api.Config) { c.Mirror = oldMirror{c.Mirror} })
	if ready := stale.call("GET", "/ready", ""); ready.status != 503 || !strings.Contains(string(ready.body), "too old") {
		t.Errorf("an old view: %d %s", ready.status, ready.body)
	}
}

type oldMirror struct{ api.Mirror }

func (oldMirror) Age() time.Duration { return 11 * time.Second }

func TestOperatorViews(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_1", 2)
	var list []map[string]any
	h.alice("GET", "/v1/containers", "").get(t, &list)
	if len(list) != 1 || list[0]["id"] != "cnt_1" || list[0]["phase"] != "ready" || list[0]["free"] != 2.0 || list[0]["warm"] != 1.0 {
		t.Errorf("containers: %v", list)
	}
	if got := h.alice("GET", "/v1/tasks", ""); !strings.Contains(string(got.body), "task-1") {
		t.Errorf("tasks: %s", got.body)
	}
	if got := h.alice("GET", "/v1/plan", ""); !strings.Contains(string(got.body), "actions") {
		t.Errorf("plan: %s", got.body)
	}
	for _, e := range []state.Event{
		{Kind: state.KindContainer, Object: "cnt_1", Reason: state.EventDraining, Message: "first"},
		{Kind: state.KindSession, Object: "ses_1", Reason: state.EventEnded, Message: "second", User: "alice"},
		{Kind: state.KindContainer, Object: "cnt_1", Reason: state.EventGone, Message: "third"},
	} {
		if err := h.store.Note(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	says := func(query string) (said []string, after string) {
		var events []struct{ ID, Message, Object, Reason, At string }
		h.alice("GET", "/v1/events"+query, "").get(t, &events)
		for _, e := range events {
			said, after = append(said, e.Message), e.ID
		}
		return said, after
	}
	two, _ := says("?limit=2")
	ofOne, last := says("?object=cnt_1")
	first, _ := says("?object=cnt_1&limit=1")
	none, _ := says("?after=" + last)
	all, _ := says("?after=0")
	rest, _ := says("?after=0&limit=1")
	got := fmt.Sprint(two, ofOne, first, none, all, rest)
	if want := "[second third] [first third] [third] [] [first second third] [first]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	wantError(t, h.alice("GET", "/v1/events?limit=many", ""), 400, "invalid_request")
	for _, id := range []string{"%2B", "18446744073709551616", "99999999999999999999-1", "1-18446744073709551616"} {
		fields := wantError(t, h.alice("GET", "/v1/events?after="+id, ""), 400, "invalid_request")
		if message, _ := fields["message"].(string); !strings.Contains(message, "no event's id") {
			t.Errorf("after=%s: %v", id, fields)
		}
	}
	if got := h.call("GET", "/v1/events", ""); got.status != 401 {
		t.Errorf("without a key: %d", got.status)
	}
	bare := newHouse(t, func(c *api.Config) {
		c.Tasks = nil
		c.Plan = func(context.Context, func(string) bool) (any, error) { return nil, state.ErrUnavailable }
		c.Gatherer = nil
	})
	answer := bare.alice("GET", "/v1/tasks", "")
	wantError(t, answer, 501, "not_implemented")
	if answer.header.Get("X-Should-Retry") != "false" {
		t.Error("SDKs will retry 501")
	}
	wantError(t, bare.alice("GET", "/v1/plan", ""), 503, "unavailable")
	wantError(t, bare.call("GET", "/metrics", ""), 404, "no_such_route")
}

// Events of sessions are their users' own, as the sessions are; those of the fleet are for all.
func TestEventsOfSessionsAreForTheirUsersAndOperators(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.Operators = []string{"olga"} }, func(c *api.Config) {
		keys, err := auth.NewKeys(auth.Key{Key: aliceKey, Name: "alice"}, auth.Key{Key: bobKey, Name: "bob"}, auth.Key{Key: bareKey, Name: "olga"})
		must(t, err)
		c.Keys = keys
	})
	for _, e := range []state.Event{
		{Kind: state.KindSession, Object: "ses_a", Message: "1", User: "alice"},
		{Kind: state.KindSession, Object: "ses_b", Message: "2", User: "bob"},
		{Kind: state.KindContainer, Object: "cnt_1", Message: "3"},
		{Kind: state.KindDocument, Object: "ses_x", Message: "4"}, // nobody knows whose
		{Kind: state.KindDocument, Object: "ses_a", Message: "5", User: "alice"},
		{Kind: state.KindPool, Message: "6"},
	} {
		must(t, h.store.Note(t.Context(), e))
	}
	for query, want := range map[string][3]string{ // alice, bob, olga
		"":                       {"1 3 5 6", "2 3 6", "1 2 3 4 5 6"},
		"?limit=2":               {"5 6", "3 6", "5 6"},
		"?after=0&limit=2":       {"1 3", "2 3", "1 2"},
		"?after=2":               {"3 5 6", "3 6", "3 4 5 6"},
		"?object=ses_a":          {"1 5", "", "1 5"},
		"?object=ses_b":          {"", "2", "2"},
		"?object=ses_x":          {"", "", "4"},
		"?object=cnt_1":          {"3", "3", "3"},
		"?object=ses_b&after=0":  {"", "2", "2"},
		"?object=ses_a&limit=1":  {"5", "", "5"},
		"?object=ses_b&limit=10": {"", "2", "2"},
	} {
		for i, key := range []string{aliceKey, bobKey, bareKey} {
			var events []struct{ Message string }
			h.call("GET", "/v1/events"+query, "", "X-BB-API-Key", key).get(t, &events)
			var said []string
			for _, e := range events {
				said = append(said, e.Message)
			}
			if got := strings.Join(said, " "); got != want[i] {
				t.Errorf("%s as number %d: got %q, want %q", query, i, got, want[i])
			}
		}
	}
}

// Who follows events is spared those that are not for him: the next question begins after the
// last that was looked at, and never beyond one that did not fit.
func TestAnAnswerOfEventsTellsHowFarItHasRead(t *testing.T) {
	h := newHouse(t)
	for i := range 6 {
		user := "bob"
		if i%3 == 0 {
			user = "alice" // 0 and 3
		}
		must(t, h.store.Note(t.Context(), state.Event{Kind: state.KindSession, Object: "ses_1", Message: strconv.Itoa(i), User: user}))
	}
	all, err := h.store.Tail(t.Context(), 10)
	must(t, err)
	for query, want := range map[string]int{
		"": 5, "?limit=1": 5, "?after=0": 5, "?after=0&limit=1": 0, "?limit=1&after=" + all[0].ID: 5, "?after=" + all[3].ID: 5,
	} {
		if got := h.call("GET", "/v1/events"+query, "", "X-BB-API-Key", aliceKey).header.Get("Events-Read"); got != all[want].ID {
			t.Errorf("%q has read up to %q, want event %d, %q", query, got, want, all[want].ID)
		}
	}
	if got := h.call("GET", "/v1/events?after="+all[5].ID, "", "X-BB-API-Key", aliceKey).header.Get("Events-Read"); got != "" {
		t.Errorf("without anything to read: %q", got)
	}
}

// The plan names sessions to their own users, and to operators.
func TestThePlanIsToldWhomItMayNameSessionsOf(t *testing.T) {
	h := newHouse(t, func(c *api.Config) {
		c.Operators = []string{"bob"}
		c.Plan = func(_ context.Context, mayKnow func(string) bool) (any, error) {
			if mayKnow == nil {
				return "all", nil
			}
			return fmt.Sprint(mayKnow("alice"), mayKnow("bob"), mayKnow("")), nil
		}
	})
	for key, want := range map[string]string{aliceKey: "true false false", bobKey: "all"} {
		var got string
		h.call("GET", "/v1/plan", "", "X-BB-API-Key", key).get(t, &got)
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

func TestPathsAndMethodsThatAreNotThere(t *testing.T) {
	h := newHouse(t)
	for _, c := range [][3]string{
		{"GET", "/nope", "404 no_such_route"}, {"GET", "/v1", "404 no_such_route"}, {"GET", "/v1/sessions/", "404 no_such_route"},
		{"PUT", "/v1/sessions", "405 method_not_allowed"}, {"GET", "/internal/register", "405 method_not_allowed"},
		{"POST", "/health", "405 method_not_allowed"}, {"DELETE", "/v1/sessions", "405 method_not_allowed"}, {"BREW", "/v1/sessions", "405 method_not_allowed"},
		{"POST", "/json/version", "405 method_not_allowed"}, {"GET", "/v1/sessions/ses_1/debug", "501 not_implemented"}, {"POST", "/v1/extensions", "501 not_implemented"},
	} {
		status, code, _ := strings.Cut(c[2], " ")
		answer := h.alice(c[0], c[1], "")
		if fmt.Sprint(answer.status) != status {
			t.Errorf("%s %s: %d, want %s", c[0], c[1], answer.status, status)
			continue
		}
		wantError(t, answer, answer.status, code)
		if answer.status == 405 && answer.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c[0], c[1])
		}
	}
	if !strings.Contains(string(h.call("GET", "/metrics", "").body), `route="none"`) {
		t.Error("unknown paths are not counted as none")
	}
	if strings.Contains(string(h.call("GET", "/metrics", "").body), "nope") {
		t.Error("a path of the client's became a label")
	}
}

func TestLargeBodiesAre413(t *testing.T) {
	h := newHouse(t)
	body := `{"userMetadata":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`
	answer := h.alice("POST", "/v1/sessions", body)
	wantError(t, answer, 413, "too_large")
	if answer.header.Get("X-Should-Retry") != "false" {
		t.Error("SDKs may send it again")
	}
	// Without a length, it is cut off while reading.
	request, err := http.NewRequestWithContext(t.Context(), "POST", h.http.URL+"/v1/sessions", struct{ *strings.Reader }{strings.NewReader(body)})
	must(t, err)
	request.ContentLength = -1
	request.Header.Set("X-Api-Key", aliceKey)
	chunked, err := h.http.Client().Do(request)
	must(t, err)
	chunked.Body.Close()
	if chunked.StatusCode != 413 {
		t.Errorf("chunked: %d", chunked.StatusCode)
	}
}

func TestBodiesThatDoNotArriveAre408(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.BodyTimeout = 20 * time.Millisecond })
	for _, c := range []struct {
		line, key string
		status    int
	}{
		{"POST /v1/sessions", aliceKey, 408}, {"POST /v1/sessions", "wrong", 401}, {"GET /health", "", 200}, {"POST /nope", "", 404},
		{"POST /internal/register", "", 401},
	} {
		for _, length := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
			conn := h.dial()
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\n%s\r\n\r\n", c.line, c.key, length)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			_, _ = io.Copy(io.Discard, answer.Body)
			if answer.StatusCode != c.status {
				t.Errorf("%s, %s: status %d, want %d", c.line, length, answer.StatusCode, c.status)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s, %s: the connection stays open: %v", c.line, length, err)
			}
			conn.Close()
		}
	}
	// The limit is the body's alone: what takes longer afterwards goes on.
	slow := newHouse(t, func(c *api.Config) { c.BodyTimeout, c.CreateWait = 20*time.Millisecond, 100*time.Millisecond })
	if got := slow.alice("POST", "/v1/sessions", "{}"); got.status != http.StatusOK {
		t.Errorf("a slow creation: %d %s", got.status, got.body)
	}
}

func TestRequestIDs(t *testing.T) {
	h := newHouse(t)
	for id, kept := range map[string]bool{
		"abc-1.2_X": true, "": false, strings.Repeat("a", 65): false, "a b": false, "a\tb": false, "ä": false, "{}": false, aliceKey: false,
	} {
		got := h.call("GET", "/v1/sessions", "", "X-Request-Id", id, "X-Api-Key", aliceKey).header.Get("X-Request-Id")
		if (got == id) != kept || got == "" {
			t.Errorf("X-Request-Id %q: answered %q", id, got)
		}
	}
}

func TestPanicsEndOneRequestOnly(t *testing.T) {
	h := newHouse(t)
	token := h.token("ses_1", "alice")
	h.relay.answer(nil, func(http.ResponseWriter, *http.Request, api.SessionAccess, string) error { panic("torn: " + token) })
	answer := h.call("GET", "/sessions/ses_1/ws?token="+token, "")
	wantError(t, answer, 500, "internal")
	logs := h.logs.String()
	if !strings.Contains(logs, "request panicked") || !strings.Contains(logs, "torn: [redacted]") || strings.Contains(logs, token) {
		t.Errorf("the log of the panic: %s", logs)
	}
	if answer := h.alice("GET", "/v1/sessions", ""); answer.status != 200 {
		t.Error("the next request suffers")
	}
}

func TestSecurityHeaders(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/", "/health", "/v1/sessions", "/nope"} {
		answer := h.alice("GET", path, "")
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := answer.header.Get(name); got != want {
				t.Errorf("%s: %s = %q", path, name, got)
			}
		}
		policy := answer.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	good := api.Config{Store: h.store, Mirror: h.mirror, Tokens: h.tokens, Keys: noKeys{}, ContainerKeys: h.containers, Relay: h.relay, Replica: "r"}
	if _, err := api.New(good); err != nil {
		t.Fatalf("the least configuration: %v", err)
	}
	registry := prometheus.NewRegistry()
	for name, edit := range map[string]func(*api.Config){
		"no store": func(c *api.Config) { c.Store = nil }, "no relay": func(c *api.Config) { c.Relay = nil }, "no replica": func(c *api.Config) { c.Replica = "" },
		"a long wait": func(c *api.Config) { c.CreateWait = time.Minute }, "a negative wait": func(c *api.Config) { c.CreateWait = -1 },
		"a long session":            func(c *api.Config) { c.DefaultTimeout = 7 * time.Hour },
		"a ws public URL":           func(c *api.Config) { c.PublicURL = &url.URL{Scheme: "ws", Host: "a"} },
		"a public URL with a query": func(c *api.Config) { c.PublicURL = &url.URL{Scheme: "http", Host: "a", RawQuery: "b"} },
		"metrics registered twice": func(c *api.Config) {
			c.Registerer = registry
			if _, err := api.New(*c); err != nil {
				t.Error(err)
			}
		},
	} {
		cfg := good
		edit(&cfg)
		if _, err := api.New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
