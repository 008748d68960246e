package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRefusals(t *testing.T) {
	s := startService(t, serviceOptions{})
	running, other, ended := s.alice.create(t, nil), s.alice.create(t, nil), s.alice.create(t, nil)
	dialCDP(t, ended.ConnectURL).alive(t)
	s.alice.release(t, ended.ID)
	s.alice.awaitEnd(t, 10*time.Second, ended.ID, "released")
	stranger := s.mint(t, "ses_stranger")

	const sessions = "/v1/sessions"
	huge := `{"userMetadata":{"a":"` + strings.Repeat("x", 2<<20) + `"}}`
	key := []string{"X-BB-API-Key", s.alice.key, "Content-Type", "application/json"}
	for _, c := range []struct {
		name         string
		method, path string
		body         any
		header       []string
		status       int
		code         string
		says         string // in the message
	}{
		{"malformed JSON names its place", http.MethodPost, sessions, `{"timeout": 60,,}`, key, 400, "invalid_request", "line 1, column 16"},
		{"a body that is no object", http.MethodPost, sessions, `[1]`, key, 400, "invalid_request", "an object"},
		{"a text that is not UTF-8", http.MethodPost, sessions, "{\"region\":\"\xff\"}", key, 400, "invalid_request", "UTF-8"},
		{"a wrong type names its field", http.MethodPost, sessions, `{"timeout":"soon"}`, key, 400, "invalid_request", "timeout"},
		{"a wrong type deep down names its path", http.MethodPost, sessions, `{"browserSettings":{"viewport":{"width":"wide","height":1}}}`, key, 400, "invalid_request", "browserSettings.viewport.width"},
		{"a timeout out of range", http.MethodPost, sessions, `{"timeout":3600000}`, key, 400, "invalid_request", "timeout"},
		{"an unsupported setting is refused by name", http.MethodPost, sessions, `{"browserSettings":{"solveEverything":true}}`, key, 400, "unsupported_field", "browserSettings.solveEverything"},
		{"a huge body", http.MethodPost, sessions, huge, key, 413, "too_large", "bytes"},
		{"a huge body of unknown length", http.MethodPost, sessions, io.MultiReader(strings.NewReader(huge)), key, 413, "too_large", "bytes"},
		{"a huge registration", http.MethodPost, "/internal/register", huge, []string{"X-Container-Token", "bad"}, 413, "too_large", "bytes"},
		{"a malformed release", http.MethodPost, sessions + "/" + running.ID, `{"status":7}`, key, 400, "invalid_request", "status"},
		{"another status than the release", http.MethodPost, sessions + "/" + running.ID, `{"status":"RUNNING"}`, key, 400, "invalid_request", "REQUEST_RELEASE"},
		{"reading an unknown session", http.MethodGet, sessions + "/ses_unknown", nil, key, 404, "not_found", "no such session"},
		{"releasing an unknown session", http.MethodPost, sessions + "/ses_unknown", `{"status":"REQUEST_RELEASE"}`, key, 404, "not_found", "no such session"},
		{"deleting an unknown session", http.MethodDelete, sessions + "/ses_unknown", nil, key, 404, "not_found", "no such session"},
		{"an id that is none", http.MethodGet, sessions + "/..%2f..%2fx", nil, key, 404, "not_found", ""},
		{"somebody else's session is as unknown as none", http.MethodGet, sessions + "/" + running.ID, nil, []string{"x-api-key", s.bob.key}, 404, "not_found", "no such session"},
		{"no API key", http.MethodPost, sessions, `{}`, nil, 401, "unauthorized", "no API key"},
		{"a wrong API key", http.MethodPost, sessions, `{}`, []string{"X-BB-API-Key", "wrong"}, 401, "unauthorized", "not known"},
		{"a wrong method", http.MethodPut, sessions, `{}`, key, 405, "method_not_allowed", ""},
		{"a wrong method on a session", http.MethodPatch, sessions + "/" + running.ID, `{}`, key, 405, "method_not_allowed", ""},
		{"an unknown path", http.MethodGet, "/v2/sessions", nil, key, 404, "no_such_route", ""},

		{"discovery without a token", http.MethodGet, "/sessions/" + running.ID + "/json/version", nil, nil, 401, "unauthorized", "token"},
		{"discovery at the root without a token", http.MethodGet, "/json/version", nil, nil, 401, "unauthorized", "token"},
		{"discovery with a token for another session", http.MethodGet, "/sessions/" + running.ID + "/json/version/?token=" + other.Token, nil, nil, 403, "forbidden", ""},
		{"discovery of an ended session", http.MethodGet, "/sessions/" + ended.ID + "/json/version?token=" + ended.Token, nil, nil, 410, "session_ended", "released"},
		{"discovery of a session that is unknown", http.MethodGet, "/sessions/ses_stranger/json/version?token=" + stranger, nil, nil, 404, "not_found", "ses_stranger"},
		{"a request without an upgrade to the socket", http.MethodGet, "/sessions/" + running.ID + "/ws?token=" + running.Token, nil, nil, 400, "invalid_request", "WebSocket"},
		{"a wrong method on the socket", http.MethodPost, "/sessions/" + running.ID + "/ws?token=" + running.Token, nil, nil, 400, "invalid_request", ""},
		{"an endpoint that sessions do not have", http.MethodGet, "/sessions/" + running.ID + "/json/close/x?token=" + running.Token, nil, nil, 404, "not_found", ""},

		{"a container without a token", http.MethodPost, "/internal/register", `{"containerId":"cnt_x"}`, nil, 401, "unauthorized", "no container token"},
		{"a container with a bad token", http.MethodPost, "/internal/register", `{"containerId":"cnt_x","ip":"127.0.0.1","port":80,"protocol":2,"bootId":"b","maxSessions":1}`, []string{"X-Container-Token", "bad"}, 401, "unauthorized", "containerId"},
		{"a container with a session's token", http.MethodPost, "/internal/register", `{"containerId":"cnt_x"}`, []string{"X-Container-Token", running.Token}, 401, "unauthorized", ""},
		{"a registration that is not JSON", http.MethodPost, "/internal/register", `{`, []string{"X-Container-Token", "bad"}, 400, "invalid_request", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := refused(t, call(t, c.method, s.url+c.path, c.body, c.header...), c.status, c.code)
			if !strings.Contains(p.Message, c.says) {
				t.Errorf("the message %q does not say %q", p.Message, c.says)
			}
		})
	}

	for _, c := range []struct {
		name   string
		url    string
		header []string
		status int
		code   string
		reason string
	}{
		{"connecting without a token", s.socket(running.ID, ""), nil, 401, "unauthorized", ""},
		{"connecting with a token that is none", s.socket(running.ID, "garbage"), nil, 401, "unauthorized", ""},
		{"connecting with a broken signature", s.socket(running.ID, flipLast(running.Token)), nil, 401, "unauthorized", ""},
		{"connecting with the API key for a token", s.socket(running.ID, s.alice.key), nil, 401, "unauthorized", ""},
		{"connecting with two tokens", s.socket(running.ID, running.Token), []string{"Authorization", "Bearer " + running.Token}, 400, "invalid_request", ""},
		{"connecting with a token for another session", s.socket(running.ID, other.Token), nil, 403, "forbidden", ""},
		{"connecting with a token for another session in the header", s.socket(running.ID, ""), []string{"Authorization", "Bearer " + other.Token}, 403, "forbidden", ""},
		{"connecting to a session that is unknown", s.socket("ses_stranger", stranger), nil, 404, "not_found", ""},
		{"connecting to a session that has ended", s.socket(ended.ID, ended.Token), nil, 410, "session_ended", "released"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, a, err := tryCDP(t, c.url, c.header...)
			if err == nil {
				t.Fatal("it was let in")
			}
			if p := refused(t, a, c.status, c.code); p.Reason != c.reason {
				t.Errorf("reason is %q, want %q", p.Reason, c.reason)
			}
		})
	}

	t.Run("what was refused has disturbed nobody", func(t *testing.T) {
		dialCDP(t, running.ConnectURL).alive(t)
		dialCDP(t, other.ConnectURL).alive(t)
	})
}

// socket is the URL of a session's socket.
func (s *service) socket(id, token string) string {
	u := "ws" + strings.TrimPrefix(s.url, "http") + "/sessions/" + id + "/ws"
	if token != "" {
		u += "?token=" + token
	}
	return u
}

// mint makes a token for a session that need not exist.
func (s *service) mint(t *testing.T, id string) string {
	t.Helper()
	stdout, stderr, code := output(t, program{name: "wallcrawler token --mint", path: suite.binary, args: []string{"token", "--mint", "--user", "u", id},
		env: []string{"HOME=" + s.env["HOME"], "JWT_SECRET=" + s.env["JWT_SECRET"]}}, 20*time.Second)
	if code != 0 {
		t.Fatalf("minting a token: status %d: %s", code, stderr)
	}
	return strings.TrimSpace(stdout)
}

// flipLast spoils a signature: not in its very last letter, some bits of which carry nothing.
func flipLast(token string) string {
	i := len(token) - 5
	letter := "A"
	if token[i] == 'A' {
		letter = "B"
	}
	return token[:i] + letter + token[i+1:]
}
