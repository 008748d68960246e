package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	registerPath    = "/internal/register"
	maxRegistration = 16 << 10 // bytes of body
	linkProtocol    = 2        // the version of the link that our own agents speak
	linkProtocolV1  = 1        // the original's: it names none, and no life and no slots either
	maxSlots        = 1000
	maxClaim        = 256 // bytes of each text that a registration claims
)

// registrationJSON is the body of POST /internal/register. Fields that are not known are
// passed over: an agent may be newer than we are.
type registrationJSON struct {
	ContainerID string `json:"containerId"`
	IP          string `json:"ip"`
	Port        int    `json:"port"`
	TaskARN     string `json:"taskArn"`
	Protocol    int    `json:"protocol"`
	BootID      string `json:"bootId"`
	MaxSessions int    `json:"maxSessions"`
	Version     string `json:"version"`
}

// registeredJSON is the answer to a registration.
type registeredJSON struct {
	Status     string `json:"status"`
	LinkSecret string `json:"linkSecret,omitempty"`
	OwnerSeq   int64  `json:"ownerSeq,omitempty"`
}

// register records a container with this replica as the owner of its link. The token is
// checked before anything costs anything; what the container says of its address is kept to
// be compared, never dialled.
func (s *Server) register(c echo.Context) error {
	answer, err := s.registration(c)
	s.metrics.register.WithLabelValues(registerResult(err)).Inc()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

func (s *Server) registration(c echo.Context) (*registeredJSON, error) {
	tokens := credentialsOf(c.Request()).Container
	if len(tokens) != 1 || tokens[0] == "" {
		return nil, &state.Refusal{Err: state.ErrUnauthorized, Message: "there is no container token in the request",
			Hint: "send CONTAINER_TOKEN, as the task was given it, as X-Container-Token"}
	}
	// A store that has lost data is no reason: its rebuild waits for just these containers, and
	// nothing is bound to any of them before it is over.
	if err := s.refuseDraining(); err != nil {
		return nil, err
	}
	body, err := s.readBody(c, maxRegistration)
	if err != nil {
		return nil, err
	}
	var r registrationJSON
	if err := decodeInto(body, &r); err != nil {
		return nil, err
	}
	if !state.ValidID(r.ContainerID) {
		return nil, invalid("containerId must be 1 to 128 letters, digits, _ or -", "send CONTAINER_ID as the task was given it")
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), storeTimeout)
	defer cancel()
	launch := r.ContainerID
	claim := state.Claim{IP: r.IP, Port: r.Port, TaskARN: r.TaskARN, Version: r.Version}
	if s.containerKeys.Verify(r.ContainerID, tokens[0].Reveal()) != nil {
		if err := s.admitShared(ctx, c.Request(), r.ContainerID, claim, tokens[0]); err != nil {
			return nil, err
		}
		launch = ""
	}
	if r.Protocol == 0 || r.Protocol == linkProtocolV1 {
		s.completeV1(&r)
	}
	if err := r.check(); err != nil {
		return nil, err
	}

	record, err := s.store.Register(ctx, state.Registration{
		ID: r.ContainerID, Launch: launch, BootID: r.BootID, Protocol: r.Protocol, MaxSessions: r.MaxSessions,
		Claimed: claim, Owner: s.replica,
		Dialect: s.dialect,
	})
	if errors.Is(err, state.ErrDialect) {
		s.log.Warn("container refused: the pool speaks another version of the link", "container", r.ContainerID,
			"protocol", r.Protocol, "request", requestID(c))
		return nil, &state.Refusal{Err: state.ErrDialect,
			Message: fmt.Sprintf("this pool takes no containers that speak version %d of the link", r.Protocol),
			Hint:    "exit; POOL_PROTOCOL says which version the pool takes, auto being that of its first container"}
	}
	if errors.Is(err, state.ErrConflict) {
		return nil, &state.Refusal{Err: state.ErrEnded, Message: "the container is stopping or gone", Hint: "exit"}
	}
	if err != nil {
		return nil, fmt.Errorf("registering container %s: %w", r.ContainerID, err)
	}
	s.mirror.ApplyContainer(record)
	s.log.Info("container registered", "container", record.ID, "bootId", record.BootID, "maxSessions", record.MaxSessions,
		"protocol", record.Protocol, "ownerSeq", record.OwnerSeq, "request", requestID(c))
	if record.Protocol == linkProtocolV1 {
		return &registeredJSON{Status: "registered"}, nil // it knows nothing of secrets
	}
	return &registeredJSON{
		Status: "registered", LinkSecret: s.containerKeys.LinkSecret(record.ID, record.BootID), OwnerSeq: record.OwnerSeq,
	}, nil
}

// completeV1 adds what a v1 container does not say. It registers once in its life, so that each
// registration is a life of its own.
func (s *Server) completeV1(r *registrationJSON) {
	r.Protocol, r.BootID, r.MaxSessions = linkProtocolV1, "v1_"+rand.Text(), s.defaultMaxSessions
}

func (r *registrationJSON) check() error {
	switch {
	case r.Protocol != linkProtocol && r.Protocol != linkProtocolV1:
		return invalid(fmt.Sprintf("protocol %d of the link is not known here", r.Protocol), "run an agent that speaks protocol 2")
	case !state.ValidID(r.BootID):
		return invalid("bootId must be 1 to 128 letters, digits, _ or -", "draw one at each start of the agent")
	case r.MaxSessions < 1 || r.MaxSessions > maxSlots:
		return invalid(fmt.Sprintf("maxSessions is %d: it must be from 1 to %d", r.MaxSessions, maxSlots), "")
	case r.Port < 0 || r.Port > 65535:
		return invalid(fmt.Sprintf("port is %d: it must be from 0 to 65535", r.Port), "")
	}
	for name, text := range map[string]string{"ip": r.IP, "taskArn": r.TaskARN, "version": r.Version} {
		if len(text) > maxClaim {
			return invalid(fmt.Sprintf("%s has %d bytes: at most %d are taken", name, len(text), maxClaim), "")
		}
	}
	return nil
}

// registerResult is a closed set, for the metric.
func registerResult(err error) string {
	switch {
	case err == nil:
		return "registered"
	case errors.Is(err, state.ErrUnauthorized), errors.Is(err, state.ErrForbidden):
		return "unauthorized"
	case errors.Is(err, state.ErrEnded):
		return "gone"
	case errors.Is(err, state.ErrDialect):
		return "other_protocol"
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, state.ErrDraining), errors.Is(err, context.DeadlineExceeded):
		return "unavailable"
	case errors.Is(err, state.ErrInvalid), errors.As(err, new(*http.MaxBytesError)):
		return "invalid"
	default:
		return "error"
	}
}

func invalid(message, hint string) error {
	return &state.Refusal{Err: state.ErrInvalid, Message: message, Hint: hint}
}

// decodeInto reads one JSON object into a struct.
func decodeInto(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		want := map[reflect.Kind]string{reflect.String: "a string", reflect.Int: "a whole number"}[wrong.Type.Kind()]
		return invalid(fmt.Sprintf("%s must be %s", nonEmpty(wrong.Field, "the body"), nonEmpty(want, "an object")), "")
	}
	if err != nil {
		return malformed(body, err)
	}
	return nil
}
