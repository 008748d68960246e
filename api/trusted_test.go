package api_test

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

const sharedToken = "shared-token-0123456789abcdef"

func withSharedToken(networks ...string) func(*api.Config) {
	return func(cfg *api.Config) {
		shared, err := auth.NewSharedToken(sharedToken)
		if err != nil {
			panic(err)
		}
		cfg.SharedToken = shared
		for _, network := range networks {
			cfg.ContainerNetworks = append(cfg.ContainerNetworks, netip.MustParsePrefix(network))
		}
	}
}

func shareBody(id, ip, port string) string {
	return `{"containerId":"` + id + `","ip":"` + ip + `","port":` + port + `,"taskArn":"local","protocol":2,"bootId":"b","maxSessions":2}`
}

func TestSharedTokenLetsContainersInThatWeDidNotLaunch(t *testing.T) {
	h := newHouse(t, withSharedToken("127.0.0.0/8"))
	if a := h.call("POST", "/internal/register", shareBody("cnt_own", "127.0.0.7", "8080"), "X-Container-Token", sharedToken); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	c, err := h.store.Container(context.Background(), "cnt_own")
	must(t, err)
	if c.Launch != "" || c.Claimed.IP != "127.0.0.7" || c.Claimed.Port != 8080 || c.Phase != state.PendingVerification {
		t.Errorf("recorded as %+v", c)
	}
	// It may come again, in another life.
	if a := h.call("POST", "/internal/register", shareBody("cnt_own", "localhost", "8081"), "X-Container-Token", sharedToken); a.status != http.StatusOK {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	if strings.Contains(h.logs.String(), sharedToken) {
		t.Error("the log quotes the token")
	}
}

func TestSharedTokenIsRefused(t *testing.T) {
	launched := func(h *house) {
		if _, err := h.store.CreateLaunch(context.Background(), h.leader(), state.Launch{ID: "cnt_1", Input: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	const forwarded = "10.9.9.9"
	for name, c := range map[string]struct {
		networks  []string
		token     string
		id, ip    string
		port      string
		forwarded string
		prepare   func(h *house)
		status    int
	}{
		"good":                                 {networks: []string{"127.0.0.0/8"}, status: 200},
		"another token":                        {networks: []string{"127.0.0.0/8"}, token: "shared-token-0123456789abcdeX", status: 401},
		"for a container of a launch":          {networks: []string{"127.0.0.0/8"}, prepare: launched, status: 401},
		"for a container that we launched":     {networks: []string{"127.0.0.0/8"}, prepare: func(h *house) { h.container("cnt_1", 1) }, status: 401},
		"an address outside":                   {networks: []string{"10.0.0.0/8"}, ip: "192.168.0.1", forwarded: forwarded, status: 403},
		"the metadata endpoint":                {networks: []string{"127.0.0.0/8"}, ip: "169.254.170.2", status: 403},
		"a name":                               {networks: []string{"127.0.0.0/8"}, ip: "db.internal", status: 403},
		"no port":                              {networks: []string{"127.0.0.0/8"}, port: "0", status: 403},
		"another address than it comes from":   {networks: []string{"10.0.0.0/8"}, ip: "10.0.0.1", status: 403},
		"an address inside, passed on":         {networks: []string{"10.0.0.0/8"}, ip: "10.0.0.1", forwarded: forwarded, status: 200},
		"forwarding pretended from inside":     {networks: []string{"10.0.0.0/8", "127.0.0.0/8"}, ip: "10.0.0.1", forwarded: forwarded, status: 403},
		"loopback from loopback":               {networks: []string{"127.0.0.0/8"}, ip: "127.0.0.99", status: 200},
		"mapped into IPv6":                     {networks: []string{"127.0.0.0/8"}, ip: "::ffff:127.0.0.1", status: 200},
		"localhost where loopback is not ours": {networks: []string{"10.0.0.0/8"}, ip: "localhost", status: 403},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, withSharedToken(c.networks...))
			if c.prepare != nil {
				c.prepare(h)
			}
			headers := []string{"X-Container-Token", or(c.token, sharedToken)}
			if c.forwarded != "" {
				headers = append(headers, "X-Forwarded-For", c.forwarded)
			}
			a := h.call("POST", "/internal/register", shareBody(or(c.id, "cnt_1"), or(c.ip, "127.0.0.1"), or(c.port, "8080")), headers...)
			if a.status != c.status {
				t.Errorf("%d %s, want %d", a.status, a.body, c.status)
			}
		})
	}
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func TestWithoutASharedTokenNoneIsGood(t *testing.T) {
	h := newHouse(t)
	for _, token := range []string{sharedToken, "", "x"} {
		a := h.call("POST", "/internal/register", shareBody("cnt_own", "127.0.0.1", "8080"), "X-Container-Token", token)
		wantError(t, a, http.StatusUnauthorized, "unauthorized")
	}
}

func TestSharedTokenNeedsNetworks(t *testing.T) {
	h := newHouse(t)
	cfg := api.Config{Store: h.store, Mirror: h.mirror, Tokens: h.tokens, Keys: noKeys{}, ContainerKeys: h.containers, Relay: h.relay, Replica: "r"}
	withSharedToken()(&cfg)
	if _, err := api.New(cfg); err == nil {
		t.Error("taken")
	}
}
