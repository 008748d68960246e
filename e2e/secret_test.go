package e2e

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a secret is sent to, in every way there is, must not show it again: neither in what
// the processes print, nor to Prometheus, nor in answers to those who do not know it.
func TestSecretsShowNowhere(t *testing.T) {
	s := startService(t, serviceOptions{})
	created, ended := s.alice.create(t, nil), s.alice.create(t, nil)
	s.secrets["a session's token"], s.secrets["an ended session's token"] = created.Token, ended.Token
	s.secrets["a container's token"] = s.containerToken(t, s.containerOf(t, created.ID))
	client := dialCDP(t, created.ConnectURL)
	client.alive(t)
	s.alice.release(t, ended.ID)
	s.alice.awaitEnd(t, 10*time.Second, ended.ID, "released")

	paths := []string{
		"/", "/health", "/ready", "/metrics", "/json/version", "/json/version/", "/v1/sessions", "/v1/sessions/" + created.ID,
		"/v1/sessions/ses_x", "/v1/containers", "/v1/tasks", "/v1/plan", "/v1/projects", "/internal/register", "/nowhere",
		"/sessions/" + created.ID + "/ws", "/sessions/" + created.ID + "/json/list", "/sessions/" + ended.ID + "/ws", "/sessions/ses_x/ws",
	}
	answers := &buffer{}
	for name, secret := range s.secrets {
		for _, path := range paths {
			for _, c := range []struct {
				method, url string
				header      []string
			}{
				{http.MethodGet, s.url + path + "?token=" + secret, nil},
				{http.MethodGet, s.url + path + "?%zz&x=1;token=" + secret, nil},
				{http.MethodGet, s.url + path, []string{"Authorization", "Bearer " + secret}},
				{http.MethodPost, s.url + path, []string{"Authorization", "Basic " + secret, "Referer", "http://x/?token=" + secret}},
				{http.MethodPost, s.url + path, []string{"X-Container-Token", secret, "X-Request-Id", secret}},
				{http.MethodGet, s.url + path, []string{"x-api-key", secret, "Upgrade", "websocket", "Connection", "Upgrade"}},
				{http.MethodPut, s.url + path, []string{"X-BB-API-Key", secret}},
			} {
				a := call(t, c.method, c.url, "{", c.header...)
				// The answers to those who may know a token hold it: they are its delivery.
				if a.status != http.StatusOK {
					_, _ = answers.Write(a.body)
				}
			}
		}
		if answers.contains(secret) {
			t.Errorf("%s shows in a refusal", name)
		}
	}
	for _, path := range []string{"/metrics", "/health", "/ready"} {
		s.wantNone(t, "GET "+path, string(call(t, http.MethodGet, s.url+path, nil).body))
	}
	for _, path := range []string{"/v1/containers", "/v1/tasks", "/v1/plan", "/v1/sessions"} {
		s.wantNone(t, "GET "+path, string(s.alice.do(t, http.MethodGet, path, nil).body))
	}

	config, stderr, code := output(t, program{name: "wallcrawler config", path: suite.binary, args: []string{"config"}, env: environ(s.env)}, 20*time.Second)
	if code != 0 || !strings.Contains(config, "[hidden]") {
		t.Errorf("config has ended with status %d: %s%s", code, config, stderr)
	}
	s.wantNone(t, "wallcrawler config", config+stderr)
	client.alive(t)
}

// containerToken reads what a container was given.
func (s *service) containerToken(t *testing.T, c container) string {
	t.Helper()
	pid, ok := s.cloud.Pid(c.TaskARN)
	if !ok {
		t.Fatalf("no process is known of %s", c.TaskARN)
	}
	env := readFile(t, filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if token, found := strings.CutPrefix(string(entry), "CONTAINER_TOKEN="); found && token != "" {
			return token
		}
	}
	t.Fatal("the agent was given no token")
	return ""
}

// wantNone fails the test if the text holds a secret of the service.
func (s *service) wantNone(t *testing.T, where, text string) {
	t.Helper()
	for name, secret := range s.secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows in %s", name, where)
		}
	}
}

// environ makes an environment of a map.
func environ(env map[string]string) []string {
	out := []string{"LANG=" + os.Getenv("LANG")}
	for name, value := range env {
		out = append(out, name+"="+value)
	}
	return out
}
