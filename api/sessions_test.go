package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestCreateWritesTheDocument(t *testing.T) {
	h := newHouse(t)
	got := h.create(`{"projectId":"p1","keepAlive":true,"timeout":90,"region":"eu-central-1","userMetadata":{"k":"<v>","n":9007199254740993},
		"browserSettings":{"viewport":{"width":1288,"height":711},"userAgent":"Agent/1","locale":"de-DE","timezone":"Europe/Berlin","blockAds":false,"recordSession":true}}`)
	id, _ := got["id"].(string)
	if !regexp.MustCompile(`^ses_[0-9A-Za-z]{22}$`).MatchString(id) {
		t.Errorf("id %q", id)
	}
	doc, err := h.store.Document(t.Context(), id)
	must(t, err)
	if doc.TTL > 90*time.Second || doc.TTL < 80*time.Second {
		t.Errorf("TTL %v, want 90 s", doc.TTL)
	}
	var fields map[string]json.RawMessage
	must(t, json.Unmarshal(doc.Text, &fields))
	for name, want := range map[string]string{
		"sessionId": `"` + id + `"`, "userId": `"alice"`, "status": `"pending"`, "timeout": "90000", "keepAlive": "true", "origin": `"api"`,
		"projectId": `"p1"`, "region": `"eu-central-1"`, "userMetadata": `{"k":"<v>","n":9007199254740993}`,
		"browserSettings": `{"viewport":{"width":1288,"height":711},"userAgent":"Agent/1","locale":"de-DE","timezoneId":"Europe/Berlin"}`,
	} {
		if string(fields[name]) != want {
			t.Errorf("document %s = %s, want %s", name, fields[name], want)
		}
	}
	if !regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$`).Match(fields["createdAt"]) {
		t.Errorf("createdAt %s", fields["createdAt"])
	}
	for name, want := range map[string]any{
		"status": "PENDING", "projectId": "p1", "keepAlive": true, "proxyBytes": 0.0, "region": "eu-central-1", "userId": "alice",
		"seleniumRemoteUrl": "", "signingKey": "", "phase": "pending",
	} {
		if got[name] != want {
			t.Errorf("answer %s = %v, want %v", name, got[name], want)
		}
	}
	if _, has := got["endedAt"]; has {
		t.Error("a live session has endedAt")
	}
	created, err1 := time.Parse(time.RFC3339, got["createdAt"].(string))
	expires, err2 := time.Parse(time.RFC3339, got["expiresAt"].(string))
	if err1 != nil || err2 != nil || expires.Sub(created) != 90*time.Second {
		t.Errorf("createdAt %v, expiresAt %v", got["createdAt"], got["expiresAt"])
	}
	claims, err := h.tokens.Verify(got["token"].(string))
	if err != nil || claims.SessionID != id || claims.UserID != "alice" || claims.Expires.Sub(expires).Abs() > time.Second {
		t.Errorf("the token says %+v, %v", claims, err)
	}
	want := strings.Replace(h.http.URL, "http:", "ws:", 1) + "/sessions/" + id + "/ws?token=" + got["token"].(string)
	if got["connectUrl"] != want {
		t.Errorf("connectUrl %v, want %s", got["connectUrl"], want)
	}
}

func TestCreateWithoutABodyUsesTheDefaults(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.DefaultTimeout = 10 * time.Minute })
	for _, body := range []string{"", " \n", "{}", `{"timeout":null,"browserSettings":null}`} {
		doc, err := h.store.Document(t.Context(), h.create(body)["id"].(string))
		must(t, err)
		if doc.TTL < 599*time.Second || doc.Spec.Length() != 10*time.Minute || doc.Spec.KeepAlive || doc.Spec.BrowserSettings != nil {
			t.Errorf("body %q: %s, TTL %v", body, doc.Text, doc.TTL)
		}
	}
}

func TestCreateAnswersOnceTheBrowserIsReady(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.CreateWait = 20 * time.Second })
	h.lead(true)
	got := h.create("")
	if got["status"] != "RUNNING" || got["containerId"] != "cnt_lead" || got["connectUrl"] == nil {
		t.Errorf("got %v", got)
	}
	metrics := string(h.call("GET", "/metrics", "").body)
	if !strings.Contains(metrics, `wallcrawler_session_create_seconds_count{source="cold"} 1`) {
		t.Error("the cold start is not counted")
	}
	for _, line := range []string{`wallcrawler_sessions{phase="ready"} 1`, `wallcrawler_containers{phase="ready"} 1`,
		`wallcrawler_slots{state="used"} 1`, `wallcrawler_slots{state="free"} 999`, `wallcrawler_queue_depth 0`,
		`wallcrawler_api_requests_total{code="2xx",route="/v1/sessions"} 1`} {
		h.until(line, func() bool { return strings.Contains(string(h.call("GET", "/metrics", "").body), line) })
	}
}

func TestCreateThatEndsBeforeItIsReadySaysSo(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.CreateWait = 20 * time.Second })
	ended := make(chan struct{})
	var ids = make(chan string, 1)
	cancel := h.documents(func(id string) {
		select {
		case ids <- id:
		default:
		}
	})
	defer cancel()
	go func() {
		defer close(ended)
		id := <-ids
		if _, err := h.admit(id); err != nil {
			t.Error(err)
			return
		}
		s, err := h.store.End(context.Background(), h.leader(), state.End{Session: id, Reason: state.Failed, Message: "no browser", Confirmed: true})
		if err != nil {
			t.Error(err)
		}
		h.mirror.ApplySession(s)
	}()
	got := h.create("")
	<-ended
	if got["status"] != "ERROR" || got["endReason"] != "failed" || got["endMessage"] != "no browser" || got["connectUrl"] != nil || got["token"] != nil {
		t.Errorf("got %v", got)
	}
}

func TestStatusesOfTheBrowserbaseShape(t *testing.T) {
	want := map[state.Reason]string{
		state.Released: "COMPLETED", state.Disconnected: "COMPLETED",
		state.DeadlinePassed: "TIMED_OUT", state.Idle: "TIMED_OUT", state.NotConnected: "TIMED_OUT",
		state.Failed: "ERROR", state.BrowserCrashed: "ERROR", state.ContainerLost: "ERROR", state.StoppedExternally: "ERROR",
		state.Revoked: "ERROR", state.Shutdown: "ERROR",
	}
	h := newHouse(t)
	for _, reason := range state.Reasons() {
		id := h.create("")["id"].(string)
		_, err := h.admit(id)
		must(t, err)
		h.end(id, reason)
		got := h.alice("GET", "/v1/sessions/"+id, "").fields(t)
		if got["status"] != want[reason] || got["endReason"] != string(reason) || got["endedAt"] == nil || got["connectUrl"] != nil {
			t.Errorf("%s: %v", reason, got)
		}
	}
}

func TestGetTellsOfClients(t *testing.T) {
	h := newHouse(t)
	id := h.create("")["id"].(string)
	if got := h.alice("GET", "/v1/sessions/"+id, "").fields(t); got["clients"] != nil {
		t.Errorf("without clients: %v", got["clients"])
	}
	h.relay.seen = map[string]bool{id: true}
	want := []any{
		map[string]any{"replica": "replica-1", "openedAt": "2026-01-02T03:04:05.000Z", "lastActivity": "2026-01-02T03:04:06.000Z",
			"bytesToBrowser": 1.0, "messagesToBrowser": 2.0, "bytesToClient": 3.0, "messagesToClient": 4.0},
		map[string]any{"replica": "replica-1", "openedAt": "2026-01-02T03:04:05.000Z", "lastActivity": "2026-01-02T03:04:05.000Z", "closedAt": "2026-01-02T03:05:05.000Z",
			"bytesToBrowser": 0.0, "messagesToBrowser": 0.0, "bytesToClient": 0.0, "messagesToClient": 0.0,
			"closedBy": "client", "closeCode": 4001.0, "closeReason": "done"},
	}
	if diff := cmp.Diff(want, h.alice("GET", "/v1/sessions/"+id, "").fields(t)["clients"]); diff != "" {
		t.Error(diff)
	}
}

func TestGetFindsSessionsAtEveryStage(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_lead", 10)
	id := h.create(`{"userMetadata":{"a":"b"}}`)["id"].(string)
	first := h.alice("GET", "/v1/sessions/"+id, "").fields(t)
	if first["status"] != "PENDING" || first["connectUrl"] == nil || !cmp.Equal(first["userMetadata"], map[string]any{"a": "b"}) {
		t.Errorf("a document only: %v", first)
	}
	h.serve(id, false)
	second := h.alice("GET", "/v1/sessions/"+id, "").fields(t)
	if second["status"] != "RUNNING" || second["connectUrl"] == nil || second["createdAt"] != first["createdAt"] {
		t.Errorf("ready: %v", second)
	}
	// A replica whose mirror does not hold it any more asks the store.
	far := newHouse(t, func(c *api.Config) { c.Store = h.store })
	third := far.alice("GET", "/v1/sessions/"+id, "").fields(t)
	if third["status"] != "RUNNING" {
		t.Errorf("from the store: %v", third)
	}
}

func TestReleaseAsksForTheEnd(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_lead", 10)
	for name, send := range map[string]func(id string) reply{
		"POST": func(id string) reply {
			return h.alice("POST", "/v1/sessions/"+id, `{"status":"REQUEST_RELEASE","projectId":"p"}`)
		},
		"DELETE": func(id string) reply { return h.alice("DELETE", "/v1/sessions/"+id, "") },
	} {
		for _, admitted := range []bool{false, true} {
			id := h.create("")["id"].(string)
			if admitted {
				h.serve(id, false)
			}
			answer := send(id)
			if got := answer.fields(t); answer.status != http.StatusOK || got["id"] != id || got["connectUrl"] != nil {
				t.Errorf("%s: %d %v", name, answer.status, got)
			}
			doc, err := h.store.Document(t.Context(), id)
			must(t, err)
			var fields map[string]any
			must(t, json.Unmarshal(doc.Text, &fields))
			if fields["status"] != "terminated" || fields["terminatedAt"] == nil || doc.TTL > 300*time.Second || doc.TTL < 290*time.Second {
				t.Errorf("%s: document %s, TTL %v", name, doc.Text, doc.TTL)
			}
			before := string(doc.Text)
			if again := send(id); again.status != http.StatusOK {
				t.Errorf("%s again: %d %s", name, again.status, again.body)
			}
			doc, _ = h.store.Document(t.Context(), id)
			if string(doc.Text) != before {
				t.Errorf("%s again changed the document", name)
			}
			if admitted {
				h.end(id, state.Released)
			}
			if last := send(id); last.status != http.StatusOK || last.fields(t)["status"] != "COMPLETED" {
				t.Errorf("%s of an ended one: %d %s", name, last.status, last.body)
			}
		}
	}
}

func TestReleaseOfASessionWhoseDocumentIsLost(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_lead", 10)
	id := h.create("")["id"].(string)
	h.serve(id, false)
	h.store.DeleteDocument(id)
	if answer := h.alice("DELETE", "/v1/sessions/"+id, ""); answer.status != http.StatusOK {
		t.Fatalf("%d %s", answer.status, answer.body)
	}
	doc, err := h.store.Document(t.Context(), id)
	must(t, err)
	if !doc.Spec.Final() || doc.Spec.UserID != "alice" {
		t.Errorf("no wish was left: %s", doc.Text)
	}
}

func TestListShowsTheUsersOwnSessions(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_lead", 10)
	var ids []string
	for i := range 3 {
		id := h.create(fmt.Sprintf(`{"userMetadata":{"n":"%d","flag":true}}`, i))["id"].(string)
		h.serve(id, false)
		ids = append(ids, id)
	}
	h.end(ids[0], state.Released)
	other := h.call("POST", "/v1/sessions", "", "x-api-key", bobKey).fields(t)["id"].(string)
	h.serve(other, false)

	list := func(query string) []string {
		answer := h.alice("GET", "/v1/sessions"+query, "")
		if answer.status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, answer.status, answer.body)
		}
		var sessions []map[string]any
		answer.get(t, &sessions)
		found := []string{}
		for _, s := range sessions {
			if s["connectUrl"] != nil || s["token"] != nil {
				t.Errorf("the list holds a token: %v", s)
			}
			found = append(found, s["id"].(string))
		}
		return found
	}
	has := func(found []string, want ...string) bool {
		if len(found) != len(want) {
			return false
		}
		for _, id := range want {
			if !strings.Contains(strings.Join(found, " "), id) {
				return false
			}
		}
		return true
	}
	for query, want := range map[string][]string{
		"": ids, "?status=RUNNING": ids[1:], "?status=COMPLETED": ids[:1], "?status=PENDING": {},
		"?q=" + url.QueryEscape("user_metadata['n']:'2'"): ids[2:], "?q=" + url.QueryEscape("user_metadata['flag']:'true'"): ids,
		"?q=" + url.QueryEscape("user_metadata['none']:''"):                  {},
		"?status=RUNNING&q=" + url.QueryEscape(" user_metadata['n'] : '0' "): {},
	} {
		if found := list(query); !has(found, want...) {
			t.Errorf("%q: %v, want %v", query, found, want)
		}
	}
	for _, query := range []string{"?status=running", "?q=n:2", "?q=" + url.QueryEscape("user_metadata['a']['b']:'c'")} {
		wantError(t, h.alice("GET", "/v1/sessions"+query, ""), http.StatusBadRequest, "invalid_request")
	}
}

func TestSomebodyElsesSessionIsAsUnknownAsNone(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_lead", 10)
	id := h.create("")["id"].(string)
	pending := h.create("")["id"].(string)
	h.serve(id, false)
	texts := map[string]bool{}
	for _, path := range []string{"/v1/sessions/" + id, "/v1/sessions/" + pending, "/v1/sessions/ses_none", "/v1/sessions/a%20b", "/v1/sessions/" + strings.Repeat("a", 200)} {
		for _, method := range []string{"GET", "DELETE", "POST"} {
			answer := h.call(method, path, `{"status":"REQUEST_RELEASE"}`, "x-api-key", bobKey)
			fields := wantError(t, answer, http.StatusNotFound, "not_found")
			texts[fmt.Sprint(fields["message"], fields["hint"])] = true
		}
	}
	if len(texts) != 1 {
		t.Errorf("the answers differ: %v", texts)
	}
	doc, _ := h.store.Document(t.Context(), id)
	if doc.Spec.Final() {
		t.Error("bob ended alice's session")
	}
}

func TestStoreGoneIs503(t *testing.T) {
	h := newHouse(t)
	h.container("cnt_lead", 10)
	id := h.create("")["id"].(string)
	h.serve(id, false)
	h.store.FailWith(errors.New("connection refused by 10.1.2.3:6379"))
	for _, call := range [][3]string{
		{"POST", "/v1/sessions", ""}, {"GET", "/v1/sessions/ses_other", ""}, {"DELETE", "/v1/sessions/" + id, ""},
	} {
		answer := h.alice(call[0], call[1], call[2])
		fields := wantError(t, answer, http.StatusServiceUnavailable, "unavailable")
		if answer.header.Get("Retry-After") != "2" || answer.header.Get("X-Should-Retry") != "true" || fields["retryAfter"] != 2.0 {
			t.Errorf("%v: headers %v", call, answer.header)
		}
		if strings.Contains(string(answer.body), "10.1.2.3") {
			t.Errorf("the answer shows the inside: %s", answer.body)
		}
	}
	// What the mirror knows is still answered.
	if answer := h.alice("GET", "/v1/sessions/"+id, ""); answer.status != http.StatusOK {
		t.Errorf("a mirrored session: %d %s", answer.status, answer.body)
	}
}

func TestDrainingRefusesNewWork(t *testing.T) {
	h := newHouse(t)
	id := h.create("")["id"].(string)
	h.server.SetDraining()
	wantError(t, h.alice("POST", "/v1/sessions", ""), http.StatusServiceUnavailable, "draining")
	wantError(t, h.call("POST", "/internal/register", `{"containerId":"cnt_1"}`, "X-Container-Token", h.containers.Token("cnt_1")),
		http.StatusServiceUnavailable, "draining")
	if answer := h.alice("GET", "/v1/sessions/"+id, ""); answer.status != http.StatusOK {
		t.Errorf("reading while draining: %d", answer.status)
	}
}

func TestFieldsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	for body, want := range map[string]string{
		// unknown or not offered: by name
		`{"nope":1}`: "unsupported_field nope", `{"extensionId":"x"}`: "unsupported_field extensionId", `{"Timeout":60}`: "unsupported_field Timeout",
		`{"proxies":true}`: "unsupported_field proxies", `{"proxies":[{"type":"browserbase"}]}`: "unsupported_field proxies[0].type",
		`{"proxies":[{"type":"external","server":"http://a:1"},{"type":"external","server":"http://b:1"}]}`: "unsupported_field proxies",
		`{"proxies":[{"type":"external","server":"http://a:1","username":"u"}]}`:                            "unsupported_field proxies[0].username",
		`{"proxies":[{"type":"external","server":"http://a:1","geolocation":{}}]}`:                          "unsupported_field proxies[0].geolocation",
		`{"proxySettings":{"caCertificates":["x"]}}`:                                                        "unsupported_field proxySettings",
		`{"browserSettings":{"context":{"id":"c"}}}`:                                                        "unsupported_field browserSettings.context",
		`{"browserSettings":{"extensionId":"e"}}`:                                                           "unsupported_field browserSettings.extensionId",
		`{"browserSettings":{"blockAds":true}}`:                                                             "unsupported_field browserSettings.blockAds",
		`{"browserSettings":{"advancedStealth":true}}`:                                                      "unsupported_field browserSettings.advancedStealth",
		`{"browserSettings":{"os":"mac"}}`:                                                                  "unsupported_field browserSettings.os",
		`{"browserSettings":{"allowedDomains":["a.example"]}}`:                                              "unsupported_field browserSettings.allowedDomains",
		`{"browserSettings":{"ignoreCertificateErrors":1}}`:                                                 "invalid_request browserSettings.ignoreCertificateErrors",
		`{"browserSettings":{"storageState":{"cookies":[]}}}`:                                               "unsupported_field browserSettings.storageState",
		`{"browserSettings":{"proxy":{"server":"http://a:1","username":"b"}}}`:                              "unsupported_field browserSettings.proxy.username",
		`{"browserSettings":{"viewport":{"width":1,"height":1,"scale":2}}}`:                                 "unsupported_field browserSettings.viewport.scale",
		`{"browserSettings":{"solveCaptchas":"yes"}}`:                                                       "unsupported_field browserSettings.solveCaptchas",
		// of another type or range: by path, with the unit
		`{"timeout":"60"}`: "invalid_request seconds", `{"timeout":0}`: "invalid_request seconds", `{"timeout":21601}`: "invalid_request 21601",
		`{"timeout":3600000}`: "invalid_request seconds", `{"timeout":1.5}`: "invalid_request 1.5", `{"timeout":-1}`: "invalid_request timeout",
		`{"timeout":1e400}`: "invalid_request timeout", `{"timeout":[]}`: "invalid_request timeout", `{"timeout":true}`: "invalid_request timeout",
		`{"keepAlive":"yes"}`: "invalid_request keepAlive", `{"keepAlive":1}`: "invalid_request keepAlive", `{"region":"mars"}`: "invalid_request region",
		`{"region":1}`: "invalid_request region", `{"projectId":1}`: "invalid_request projectId", `{"userMetadata":[]}`: "invalid_request userMetadata",
		`{"userMetadata":"x"}`: "invalid_request userMetadata", `{"userMetadata":{"a":1,"a":2}}`: "invalid_request twice",
		`{"userMetadata":{"a":"` + strings.Repeat("x", 17<<10) + `"}}`: "invalid_request userMetadata", `{"browserSettings":[]}`: "invalid_request browserSettings",
		`{"browserSettings":{"viewport":{"width":0,"height":1}}}`:                                                     "invalid_request browserSettings.viewport.width",
		`{"browserSettings":{"viewport":{"width":8193,"height":1}}}`:                                                  "invalid_request pixels",
		`{"browserSettings":{"viewport":{"width":1.5,"height":1}}}`:                                                   "invalid_request browserSettings.viewport.width",
		`{"browserSettings":{"viewport":{"width":"1","height":1}}}`:                                                   "invalid_request browserSettings.viewport.width",
		`{"browserSettings":{"viewport":{"width":1}}}`:                                                                "invalid_request browserSettings.viewport",
		`{"browserSettings":{"viewport":{"width":1e99,"height":1}}}`:                                                  "invalid_request browserSettings.viewport.width",
		`{"browserSettings":{"userAgent":"a\nb"}}`:                                                                    "invalid_request browserSettings.userAgent",
		`{"browserSettings":{"userAgent":"` + strings.Repeat("x", 1025) + `"}}`:                                       "invalid_request browserSettings.userAgent",
		`{"browserSettings":{"locale":"--lang=de"}}`:                                                                  "invalid_request browserSettings.locale",
		`{"browserSettings":{"locale":7}}`:                                                                            "invalid_request browserSettings.locale",
		`{"browserSettings":{"timezoneId":"../etc/passwd"}}`:                                                          "invalid_request browserSettings.timezoneId",
		`{"browserSettings":{"timezoneId":"UTC","timezone":"Asia/Tokyo"}}`:                                            "invalid_request differ",
		`{"browserSettings":{"proxy":{}}}`:                                                                            "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"a:1"}}}`:                                                              "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"http://u:p@a:1"}}}`:                                                   "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"file:///etc"}}}`:                                                      "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"http://a b"}}}`:                                                       "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"http://a:99999"}}}`:                                                   "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"http://a:1/x"}}}`:                                                     "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"http://a --no-sandbox"}}}`:                                            "invalid_request browserSettings.proxy.server",
		`{"browserSettings":{"proxy":{"server":"http://a:1"}},"proxies":[{"type":"external","server":"http://b:1"}]}`: "invalid_request two different",
		// not JSON: by place
		`{"timeout":60`: "invalid_request line 1", "{\n\"timeout\": x}": "invalid_request line 2, column 12", `{} {}`: "invalid_request line 1", `[]`: "invalid_request list",
		`"x"`: "invalid_request string", `null`: "invalid_request null", `{"timeout":60,"timeout":61}`: "invalid_request twice", "{\"a\xff\":1}": "invalid_request UTF-8",
		`{'timeout':60}`: "invalid_request line 1", strings.Repeat("[", 20000): "invalid_request JSON", "\x00": "invalid_request line 1",
	} {
		code, mention, _ := strings.Cut(want, " ")
		answer := h.alice("POST", "/v1/sessions", body)
		fields := wantError(t, answer, http.StatusBadRequest, code)
		if said := fmt.Sprint(fields["message"], fields["hint"]); !strings.Contains(said, mention) {
			t.Errorf("%.80s: says %q, nothing of %q", body, said, mention)
		}
		if hint, _ := fields["hint"].(string); code == "unsupported_field" && hint == "" {
			t.Errorf("%.80s: no hint", body)
		}
	}
	if ids, err := h.store.DocumentIDs(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("a refused request left documents: %v, %v", ids, err)
	}
}

func TestFieldsThatAreAccepted(t *testing.T) {
	h := newHouse(t)
	for body, settings := range map[string]string{
		`{"proxies":false}`: "", `{"proxies":[]}`: "", `{"proxies":[{"type":"none"}]}`: "", `{"extensionId":null,"proxySettings":{}}`: "",
		`{"proxies":[{"type":"external","server":"http://proxy.example:3128"}]}`:                                         `{"proxy":{"server":"http://proxy.example:3128"}}`,
		`{"browserSettings":{"proxy":{"server":"socks5://[::1]:1080/"}}}`:                                                `{"proxy":{"server":"socks5://[::1]:1080"}}`,
		`{"browserSettings":{"proxy":{"server":"http://a:1","bypass":"b,*.c"},"ignoreCertificateErrors":true}}`:          `{"proxy":{"server":"http://a:1","bypass":"b,*.c"},"ignoreCertificateErrors":true}`,
		`{"browserSettings":{"ignoreCertificateErrors":false,"storageState":{},"permissions":[],"extraHTTPHeaders":{}}}`: "",
		`{"browserSettings":{"timezone":"UTC","timezoneId":"UTC","locale":"zh-Hant-TW"}}`:                                `{"locale":"zh-Hant-TW","timezoneId":"UTC"}`,
		`{"browserSettings":{"timezoneId":"America/Argentina/Buenos_Aires"}}`:                                            `{"timezoneId":"America/Argentina/Buenos_Aires"}`,
		`{"browserSettings":{"userAgent":"Zoë/1.0 (X11; Linux) \"quoted\""}}`:                                            `{"userAgent":"Zoë/1.0 (X11; Linux) \"quoted\""}`,
		`{"browserSettings":{"viewport":{"width":8192,"height":1}}}`:                                                     `{"viewport":{"width":8192,"height":1}}`,
		`{"browserSettings":{"blockAds":false,"solveCaptchas":true,"recordSession":true,"logSession":false,"advancedStealth":false,"os":"linux","allowedDomains":[ ],"verified":false,"context":null,"fingerprint":{ }}}`: "",
		`{"timeout":1}`: "", `{"timeout":21600}`: "", `{"timeout":6e1}`: "", `{"region":"us-west-2"}`: "",
	} {
		answer := h.alice("POST", "/v1/sessions", body)
		if answer.status != http.StatusOK {
			t.Errorf("%s: %d %s", body, answer.status, answer.body)
			continue
		}
		doc, err := h.store.Document(t.Context(), answer.fields(t)["id"].(string))
		must(t, err)
		if string(doc.Spec.BrowserSettings) != settings {
			t.Errorf("%s: browserSettings %s, want %s", body, doc.Spec.BrowserSettings, settings)
		}
	}
}

func TestReleaseBodiesThatAreRefused(t *testing.T) {
	h := newHouse(t)
	id := h.create("")["id"].(string)
	for body, code := range map[string]string{
		"": "invalid_request", "{}": "invalid_request", `{"status":"RUNNING"}`: "invalid_request", `{"status":1}`: "invalid_request",
		`{"status":"REQUEST_RELEASE","keepAlive":true}`: "unsupported_field", `[]`: "invalid_request", `{`: "invalid_request",
	} {
		wantError(t, h.alice("POST", "/v1/sessions/"+id, body), http.StatusBadRequest, code)
	}
}
