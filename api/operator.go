package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

// pingTimeout bounds the probe of the store: readiness must be told quickly.
const pingTimeout = time.Second

// healthJSON tells that the process is alive, in the words that load balancers were given.
type healthJSON struct {
	Status     string  `json:"status"`
	Containers int     `json:"containers"` // that are not gone
	Clients    int     `json:"clients"`    // joined to a browser by this replica
	Uptime     float64 `json:"uptime"`     // seconds
	Version    string  `json:"version,omitempty"`
}

// health answers 200 for as long as the process lives: restarting it would cut live relays,
// which need neither the store nor anything else.
func (s *Server) health(c echo.Context) error {
	out := healthJSON{Status: "healthy", Clients: s.relay.Count(), Uptime: time.Since(s.started).Round(time.Millisecond).Seconds(), Version: s.version}
	for _, container := range s.mirror.Containers() {
		if container.Phase != state.Gone {
			out.Containers++
		}
	}
	return c.JSON(http.StatusOK, out)
}

// readyJSON tells whether the replica should get new work, and if not, why.
type readyJSON struct {
	Status   string  `json:"status"`
	Draining bool    `json:"draining"`
	Store    string  `json:"store"`             // ok or unreachable
	ViewAge  float64 `json:"viewAge"`           // seconds since the store was last read
	Problem  string  `json:"problem,omitempty"` // the first thing that is wrong
	Replica  string  `json:"replica,omitempty"`
}

func (s *Server) ready(c echo.Context) error {
	out := readyJSON{Status: "ready", Draining: s.draining.Load(), Store: "ok", Replica: s.replica}
	age := s.mirror.Age()
	out.ViewAge = min(age, 24*time.Hour).Round(time.Millisecond).Seconds()
	ctx, cancel := context.WithTimeout(c.Request().Context(), pingTimeout)
	defer cancel()
	if s.store.Ping(ctx) != nil {
		out.Store = "unreachable"
	}
	switch {
	case out.Draining:
		out.Problem = "this replica is shutting down"
	case out.Store != "ok":
		out.Problem = "the store cannot be reached"
	case s.mirror.Trouble() != "":
		out.Problem = "the " + s.mirror.Trouble() + ": what lives goes on, and new sessions are taken once it is whole"
	case age > maxViewAge:
		out.Problem = "the view of the store is too old"
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	if out.Problem == "" {
		return c.JSON(http.StatusOK, out)
	}
	out.Status = "not_ready"
	return c.JSON(http.StatusServiceUnavailable, out)
}

// containerJSON is a container as operators see it.
type containerJSON struct {
	ID           string               `json:"id"`
	Phase        state.ContainerPhase `json:"phase"`
	TaskARN      string               `json:"taskArn,omitempty"`
	Addr         string               `json:"addr,omitempty"`
	Protocol     int                  `json:"protocol"`
	BootID       string               `json:"bootId,omitempty"`
	Version      string               `json:"version,omitempty"`
	MaxSessions  int                  `json:"maxSessions"`
	Used         int                  `json:"used"`
	Free         int                  `json:"free"`
	Warm         int                  `json:"warm"`
	CPU          float64              `json:"cpu"`
	Memory       float64              `json:"memory"`
	Owner        string               `json:"owner,omitempty"`
	DrainSeq     int64                `json:"drainSeq,omitempty"`
	DrainAck     int64                `json:"drainAck,omitempty"`
	RegisteredAt string               `json:"registeredAt,omitempty"`
	SeenAt       string               `json:"seenAt,omitempty"`
}

func (s *Server) listContainers(c echo.Context) error {
	out := []containerJSON{}
	for _, k := range s.mirror.Containers() {
		out = append(out, containerJSON{
			ID: k.ID, Phase: k.Phase, TaskARN: k.TaskARN, Addr: k.Addr, Protocol: k.Protocol, BootID: k.BootID, Version: k.Claimed.Version,
			MaxSessions: k.MaxSessions, Used: k.Used(), Free: k.Free(), Warm: k.Health.Warm, CPU: k.Health.CPU, Memory: k.Health.Memory,
			Owner: k.Owner, DrainSeq: k.DrainSeq, DrainAck: k.DrainAck, RegisteredAt: stamp(k.RegisteredAt), SeenAt: stamp(k.SeenAt),
		})
	}
	return c.JSON(http.StatusOK, out)
}

// show answers with a view that is made elsewhere, if it is offered.
func (s *Server) show(what string, view func(ctx context.Context) (any, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		if view == nil {
			return s.refuseRoute(c)
		}
		v, err := view(c.Request().Context())
		if err != nil {
			return fmt.Errorf("making the view of %s: %w", what, err)
		}
		return c.JSON(http.StatusOK, v)
	}
}

// showPlan answers with the plan. As with events, other users' sessions are named to operators
// only.
func (s *Server) showPlan(c echo.Context) error {
	if s.plan == nil {
		return s.refuseRoute(c)
	}
	var mayKnow func(user string) bool
	if me := userOf(c); !s.operators[me] {
		mayKnow = func(user string) bool { return user != "" && user == me }
	}
	v, err := s.plan(c.Request().Context(), mayKnow)
	if err != nil {
		return fmt.Errorf("making the view of the plan: %w", err)
	}
	return c.JSON(http.StatusOK, v)
}
