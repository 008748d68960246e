package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// SharedToken checks the one token of all containers that we did not launch.
type SharedToken interface {
	Verify(token auth.Secret) error
}

// admitShared decides on a registration whose token is not its launch's. The shared token
// proves only that the container belongs to the fleet, so it may not speak for a container
// that we launched; and its address, which nobody else tells, must be in a network of
// containers and, where it reaches us directly, be the one that it comes from.
func (s *Server) admitShared(ctx context.Context, req *http.Request, id string, claim state.Claim, token auth.Secret) error {
	refused := &state.Refusal{Err: state.ErrUnauthorized, Message: "the container token is not good for this containerId",
		Hint: "send CONTAINER_TOKEN and CONTAINER_ID as the task was given them"}
	if s.sharedToken == nil || s.sharedToken.Verify(token) != nil {
		return refused
	}
	if err := s.refuseUnknown(id); err != nil {
		return err
	}
	launched, err := s.launched(ctx, id)
	if err != nil {
		return err
	}
	if launched {
		return refused
	}
	addr, err := claim.Within(s.containerNetworks)
	if err != nil {
		return &state.Refusal{Err: state.ErrForbidden, Message: "the container cannot be taken: " + err.Error(),
			Hint: "register with an address that CONTAINER_CIDRS holds, and its port"}
	}
	if from, direct := s.peer(req); direct && from != addr.Addr() && (!from.IsLoopback() || !addr.Addr().IsLoopback()) {
		return &state.Refusal{Err: state.ErrForbidden, Message: fmt.Sprintf("the container says that it is at %s, but comes from %s", addr.Addr(), from),
			Hint: "register from the address that the service is to dial"}
	}
	return nil
}

// refuseUnknown puts off a container of which nobody can tell, while the store has lost data,
// whether we have launched it: that would be its launch's to prove.
func (s *Server) refuseUnknown(id string) error {
	trouble := s.mirror.Trouble()
	if trouble == "" {
		return nil
	}
	if c, known := s.mirror.Container(id); known && c.Launch == "" {
		return nil
	}
	return &state.Refusal{Err: state.ErrUnavailable, Message: "no container that is not known is taken: the " + trouble,
		Hint: "register again in a few seconds", RetryAfter: 5 * time.Second}
}

// launched tells whether a container is, or was, one of a launch of ours.
func (s *Server) launched(ctx context.Context, id string) (bool, error) {
	if _, err := s.store.Launch(ctx, id); !errors.Is(err, state.ErrNotFound) {
		return err == nil, err
	}
	c, err := s.store.Container(ctx, id)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return err == nil && c.Launch != "", err
}

// peer is the address at the other end of the connection, and whether the container itself is
// there: something that passes requests on says so, and is not in a network of containers.
func (s *Server) peer(req *http.Request) (addr netip.Addr, direct bool) {
	from, err := netip.ParseAddrPort(req.RemoteAddr)
	if err != nil {
		return netip.Addr{}, true
	}
	addr = from.Addr().Unmap().WithZone("")
	for _, network := range s.containerNetworks {
		if network.Contains(addr) {
			return addr, true
		}
	}
	return addr, req.Header.Get("X-Forwarded-For") == ""
}
