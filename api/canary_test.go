package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// TestNoCredentialShows sends good and bad credentials through every route, in every place
// and into every failure, and looks for them in logs, errors and metrics.
func TestNoCredentialShows(t *testing.T) {
	const key = "canary-api-key-0123456789"
	keys, err := auth.NewKeys(auth.Key{Key: key, Name: "carol"})
	must(t, err)
	h := newHouse(t, func(c *api.Config) { c.Keys, c.MaxBody = keys, 512 })
	id := h.call("POST", "/v1/sessions", "", "x-api-key", key).fields(t)["id"].(string)
	token := h.token(id, "carol")
	container := h.containers.Token("cnt_1")
	canaries := []string{key, token, container, "canary-bad-credential", h.containers.LinkSecret("cnt_1", "boot_1")}

	relays := map[string]func(w http.ResponseWriter, r *http.Request, a api.SessionAccess, rest string) error{
		"relay answers": nil,
		"relay refuses": func(_ http.ResponseWriter, r *http.Request, a api.SessionAccess, _ string) error {
			return &state.Refusal{Err: state.ErrNotReady, Message: fmt.Sprint("refused ", r.URL, r.Header, a, a.Token.Reveal()), Hint: a.Token.Reveal()}
		},
		"relay fails": func(_ http.ResponseWriter, r *http.Request, a api.SessionAccess, _ string) error {
			return fmt.Errorf("dialling with %s: %v %+v", a.Token.Reveal(), r.URL, a)
		},
		"relay panics": func(_ http.ResponseWriter, r *http.Request, a api.SessionAccess, _ string) error {
			panic(fmt.Sprintf("%#v %v %v %+v", a, a.Token.Reveal(), r, r.Context()))
		},
		"relay is cut": func(w http.ResponseWriter, _ *http.Request, a api.SessionAccess, _ string) error {
			w.WriteHeader(http.StatusBadGateway)
			return errors.New("late: " + a.Token.Reveal())
		},
	}
	paths := []string{"/", "/health", "/ready", "/metrics", "/internal/register", "/v1/sessions", "/v1/sessions/" + id, "/v1/sessions/ses_none",
		"/v1/containers", "/v1/tasks", "/v1/plan", "/v1/contexts", "/sessions/" + id + "/ws", "/sessions/" + id + "/json/version/",
		"/sessions/ses_other/ws", "/sessions/" + id, "/json/version", "/json/version/", "/nope"}
	bodies := []string{"", "{", `{"status":"X"}`, registration(), strings.Repeat("x", 1<<10)}
	checked := 0
	for name, relay := range relays {
		h.relay.answer(nil, relay)
		first := relay == nil
		for _, failing := range []bool{false, true} {
			if failing && !first {
				continue // the relay is asked before the store
			}
			if failing {
				h.store.FailWith(errors.New("store down"))
			}
			for _, method := range []string{"GET", "POST", "PUT", "HEAD"} {
				for i, path := range paths {
					if !first && !strings.Contains(path, "/ws") && !strings.Contains(path, "json/version") {
						continue // the relay is not asked
					}
					for _, canary := range canaries[:4] {
						headers := []string{"Authorization", "Bearer " + canary, "X-Api-Key", canary, "X-BB-API-Key", canary,
							"X-Container-Token", canary, "Referer", "http://x/?token=" + canary, "X-Request-Id", canary}
						switch i % 3 {
						case 1:
							headers = []string{"Authorization", "Basic " + canary}
						case 2:
							headers = []string{"X-Api-Key", canary, "X-Container-Token", canary}
						}
						body := bodies[(i+len(method))%len(bodies)]
						if method == "GET" || method == "HEAD" {
							body = ""
						}
						for _, query := range []string{"", "?token=" + canary, "?a=b;token=" + canary + "&%zz=" + canary, "?TOKEN=" + canary + "&token=" + canary} {
							answer := h.call(method, path+query, body, headers...)
							checked++
							if answer.status < 400 && path != "/metrics" {
								continue // a created session's own answer holds its token, as it must
							}
							for _, c := range canaries {
								if strings.Contains(string(answer.body)+fmt.Sprint(answer.header), c) {
									t.Fatalf("%s, %s %s: the answer shows a credential: %s %v", name, method, path, answer.body, answer.header)
								}
							}
						}
					}
				}
			}
			h.store.FailWith(nil)
		}
	}
	// Good ones on their own, so that the later stages are reached too.
	h.relay.answer(nil, nil)
	h.call("GET", "/sessions/"+id+"/ws?token="+token, "")
	h.call("GET", "/json/version", "", "Authorization", "Bearer "+token)
	if answer := h.call("POST", "/internal/register", registration(), "X-Container-Token", container); answer.status != 200 {
		t.Fatalf("registering: %d %s", answer.status, answer.body)
	}
	h.call("DELETE", "/v1/sessions/"+id, "", "x-api-key", key)
	if got := len(h.relay.calls()); got < 20 {
		t.Errorf("only %d requests reached the relay: the canaries were not tried there", got)
	}
	all := h.logs.String() + string(h.call("GET", "/metrics", "").body)
	for _, c := range canaries {
		if at := strings.Index(all, c); at >= 0 {
			t.Errorf("logs or metrics show a credential: …%s…", all[max(0, at-200):min(len(all), at+200)])
		}
	}
	if !strings.Contains(all, "request panicked") || !strings.Contains(all, "dialling with [redacted]") {
		t.Error("the failures were not logged: nothing was proven")
	}
	if checked < 1000 {
		t.Errorf("only %d requests", checked)
	}
}

type noKeys struct{}

func (noKeys) User(auth.Secret) (string, bool) { return "", false }
