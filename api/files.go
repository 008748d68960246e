package api

import (
	"net"
	"net/http"
	"sync/atomic"
)

// fileGuard closes connections that would take the last open files: those are kept for the
// store, the containers' links and a few health checks. It is a server's ConnState.
type fileGuard struct {
	max  int        // open files that clients may take; zero: any number
	busy func() int // clients joined to a browser: each takes two
	shed func()

	open atomic.Int64 // connections that are the HTTP server's
}

func (g *fileGuard) see(conn net.Conn, now http.ConnState) {
	switch now {
	case http.StateNew:
		if open := int(g.open.Add(1)); g.max > 0 && open+2*g.busy() > g.max {
			g.shed()
			_ = conn.Close()
		}
	case http.StateHijacked, http.StateClosed:
		g.open.Add(-1)
	case http.StateActive, http.StateIdle:
	}
}
