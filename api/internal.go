package api

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/state"
)

// Tickets checks the credentials with which replicas pass clients on to one another.
type Tickets interface {
	// Check tells for which user a ticket opens the session at this replica. The only error
	// is state.ErrUnauthorized.
	Check(ticket, replica, session string) (user string, err error)
}

// presence tells other replicas whether this process is the one that they ask for: its
// address may have been another's before.
func (s *Server) presence(c echo.Context) error {
	if c.Param("id") != s.replica {
		return &state.Refusal{Err: state.ErrNotFound, Message: "this is another replica"}
	}
	return c.NoContent(http.StatusNoContent)
}

// serveTunnel takes in a client that another replica passes on, because this one holds the
// link of its container. The other has checked the client's token; its own ticket, which
// names this replica, the session and the time, stands for that.
func (s *Server) serveTunnel(c echo.Context) error {
	tickets := credentialsOf(c.Request()).Bearer
	if len(tickets) != 1 {
		return &state.Refusal{Err: state.ErrUnauthorized, Message: "there is no ticket in the request"}
	}
	id := c.Param("id")
	user, err := s.tickets.Check(tickets[0].Reveal(), s.replica, id)
	if err != nil {
		return &state.Refusal{Err: state.ErrUnauthorized, Message: "the ticket is not good for this session at this replica",
			Hint: "check that the replicas' clocks agree and that all have the same CONTAINER_SECRET"}
	}
	c.Set(keyUser, user)
	return s.hand(c, SessionAccess{SessionID: id, UserID: user, Tunnelled: true}, "ws")
}
