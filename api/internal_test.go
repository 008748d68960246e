package api_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestOnlyTheReplicaThatIsAskedForIsPresent(t *testing.T) {
	h := newHouse(t)
	h.server.SetDraining() // a replica that stops still holds its links
	if answer := h.call("GET", "/internal/replicas/"+replica, ""); answer.status != 204 || len(answer.body) != 0 {
		t.Errorf("it answers %d %s", answer.status, answer.body)
	}
	wantError(t, h.call("GET", "/internal/replicas/replica-2", ""), 404, "not_found")
}

func TestClientsOfOtherReplicasAreTakenInByTicket(t *testing.T) {
	tickets, err := auth.NewReplicaKeys(nil, "container-secret-0123456789abcde")
	must(t, err)
	foreign, err := auth.NewReplicaKeys(nil, "another-secret-0123456789abcdefg")
	must(t, err)
	h := newHouse(t, func(c *api.Config) { c.Tickets = tickets })
	ticketFor := func(k *auth.ReplicaKeys, replica, session string) string {
		t.Helper()
		ticket, err := k.Ticket(replica, session, "alice")
		must(t, err)
		return ticket
	}
	good := ticketFor(tickets, replica, "ses_1")
	answer := h.call("GET", "/internal/sessions/ses_1/ws", "", "Authorization", "Bearer "+good)
	if answer.status != 200 {
		t.Fatalf("refused: %d %s", answer.status, answer.body)
	}
	asked := h.relay.calls()
	if len(asked) != 1 {
		t.Fatalf("the relay was asked %d times", len(asked))
	}
	if a := asked[0]; a.access.SessionID != "ses_1" || a.access.UserID != "alice" || !a.access.Tunnelled || a.rest != "ws" ||
		a.header.Get("Authorization") != "" {
		t.Errorf("the relay was asked %+v", a)
	}
	h.relay.answer(&state.Refusal{Err: state.ErrEnded, Message: "it is over", Reason: state.Idle}, nil)
	wantError(t, h.call("GET", "/internal/sessions/ses_1/ws", "", "Authorization", "Bearer "+good), 410, "session_ended")

	session, err := h.tokens.Mint("ses_1", "alice", h.mirror.Now().Add(1e12))
	must(t, err)
	for name, headers := range map[string][]string{
		"no ticket":                            nil,
		"two tickets":                          {"Authorization", "Bearer " + good, "Authorization", "Bearer " + good},
		"another session's":                    {"Authorization", "Bearer " + ticketFor(tickets, replica, "ses_2")},
		"another replica's":                    {"Authorization", "Bearer " + ticketFor(tickets, "replica-2", "ses_1")},
		"another deployment's":                 {"Authorization", "Bearer " + ticketFor(foreign, replica, "ses_1")},
		"the client's own token":               {"Authorization", "Bearer " + session},
		"a container's token":                  {"Authorization", "Bearer " + h.containers.Token("ses_1")},
		"a ticket in the header of containers": {"X-Container-Token", good},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(h.relay.calls())
			wantError(t, h.call("GET", "/internal/sessions/ses_1/ws", "", headers...), 401, "unauthorized")
			if len(h.relay.calls()) != before {
				t.Error("the relay was asked")
			}
		})
	}
	wantError(t, h.call("GET", "/internal/sessions/ses_1/ws?token="+good, ""), 401, "unauthorized")
	if strings.Contains(h.logs.String(), good) {
		t.Error("a ticket is in the log")
	}
}

func TestTunnelsAreNotServedWithoutTickets(t *testing.T) {
	h := newHouse(t)
	wantError(t, h.call("GET", "/internal/sessions/ses_1/ws", "", "Authorization", "Bearer x"), 404, "no_such_route")
}

func TestContainersOfAnotherDialectAre409(t *testing.T) {
	h := newHouse(t, func(c *api.Config) { c.Dialect = state.DialectV1 })
	token := h.containers.Token("cnt_1")
	fields := wantError(t, h.call("POST", "/internal/register", registration(), "X-Container-Token", token), 409, "other_protocol")
	if hint, _ := fields["hint"].(string); !strings.Contains(hint, "POOL_PROTOCOL") {
		t.Errorf("the hint is %q", hint)
	}
	d, err := h.store.PoolDialect(t.Context())
	must(t, err)
	if d.Refused != 1 {
		t.Errorf("the pool's notes are %+v", d)
	}
}

// TestContainersFindNothingButRegistrationAtTheirPort: browsers are beside them, and pages in those.
func TestContainersFindNothingButRegistrationAtTheirPort(t *testing.T) {
	tickets, err := auth.NewReplicaKeys(nil, "container-secret-0123456789abcde")
	must(t, err)
	h := newHouse(t, func(c *api.Config) { c.Tickets = tickets })
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- h.server.ServeRegistration(ctx, ln) }()
	defer func() { cancel(); must(t, <-served) }()
	front, door := h.http.URL, "http://"+ln.Addr().String()
	call := func(url, method, path string, headers ...string) reply {
		h.http.URL = url
		return h.call(method, path, registration(), headers...)
	}
	defer func() { h.http.URL = front }()

	for _, path := range []string{
		"GET /", "GET /health", "GET /started", "GET /ready", "GET /metrics", "GET /internal/replicas/" + replica, "GET /internal/sessions/ses_1/ws",
		"POST /v1/sessions", "GET /v1/sessions", "GET /v1/containers", "GET /v1/tasks", "GET /v1/events", "GET /v1/plan", "GET /v1/projects",
		"GET /sessions/ses_1/ws", "GET /json/version",
	} {
		method, path, _ := strings.Cut(path, " ")
		if answer := call(front, method, path, "X-BB-API-Key", aliceKey); answer.status == 405 || strings.Contains(string(answer.body), "no_such_route") {
			t.Errorf("%s %s is nowhere: %d %s", method, path, answer.status, answer.body)
		}
		wantError(t, call(door, method, path, "X-BB-API-Key", aliceKey), 404, "no_such_route")
	}
	wantError(t, call(door, "POST", "/internal/register", "X-Container-Token", "bad"), 401, "unauthorized")
	if answer := call(door, "POST", "/internal/register", "X-Container-Token", h.containers.Token("cnt_1")); answer.status != 200 {
		t.Errorf("a container cannot register: %d %s", answer.status, answer.body)
	}
}
